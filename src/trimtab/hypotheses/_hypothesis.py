"""What a hypothesis is: data. A prior, weights of findings for and against, the probe that decides, what to try.

Numbers are decibans, 10 x log10 of a likelihood ratio: +10 means that the finding is seen ten times as often under this
cause as under all the others together, -10 a tenth as often. They add, so a person can redo the sum by hand.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import IntEnum
from typing import Any, Literal

from trimtab.records import Finding, Remedy, Severity

Relation = Literal[">", ">=", "<", "<=", "==", "!=", "is"]

NONFINITE = "not finite"
"""The one value of the relation "is": `Condition("loss", "is", NONFINITE)` holds for NaN and for both infinities."""

_HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

OWN_FIELDS = ("measured", "threshold", "severity", "step", "since_step", "subject", "stream")
"""Names that a condition takes from the finding itself; any other name is looked up in its evidence."""

CONVINCING = 10.0
"""Ten times likelier than not: from here on a cause of an early gate stands before every cause of a later one."""


class Gate(IntEnum):
    """What must be ruled out first; a later question has no meaning while an earlier one is open.

    METRIC: is the number itself right? DATA: are inputs and targets what they should be? INTEGRITY: do the parameters
    really move, is what is frozen meant to be? SETTINGS: what differs from the last good run? BUDGET: was there enough
    training? REST: everything else.
    """

    METRIC = 0
    DATA = 1
    INTEGRITY = 2
    SETTINGS = 3
    BUDGET = 4
    REST = 5

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison that a finding must satisfy: `Condition("input_nonfinite", ">", 0.0)`.

    `name` is one of `OWN_FIELDS` or a key of the finding's evidence; with `of`, it is that number divided by another:
    `Condition("tensors_broken", "<", 1.0, of="tensors")`. A list in the evidence counts as the number of its entries.
    What the finding lacks never satisfies a condition, nor does a text where a number is asked for; NaN satisfies only
    `"is"`, so `"<", math.inf` says "finite".
    """

    name: str
    relation: Relation
    value: float | str
    of: str = ""

    def __post_init__(self) -> None:
        if (self.relation == "is") != (self.value == NONFINITE):
            raise ValueError(f"condition on {self.name!r}: the relation 'is' goes with NONFINITE, and only with it")

    def holds(self, finding: Finding) -> bool:
        """Say whether `finding` satisfies the comparison."""
        found = _value(finding, self.name)
        if isinstance(found, float) and self.of:
            whole = _value(finding, self.of)
            found = found / whole if isinstance(whole, float) and whole != 0.0 else None
        if self.relation == "is":
            return isinstance(found, float) and not math.isfinite(found)
        if type(found) is not (str if isinstance(self.value, str) else float):
            return False
        return found == found and _HOLDS[self.relation](found, self.value)

    def __str__(self) -> str:
        name = f"{self.name} / {self.of}" if self.of else self.name
        value = self.value
        if isinstance(value, float | int):
            value = str(Severity(int(value))) if self.name == "severity" else f"{value:g}".replace("e+0", "e")
        return f"{name} {self.relation} {value}"


def _value(finding: Finding, name: str) -> float | str | None:
    """Return a text or number of a finding, of a vector or list its length; None where it has none of this name."""
    found = getattr(finding, name) if name in OWN_FIELDS else finding.evidence.get(name)
    if isinstance(found, tuple):
        return float(len(found))
    return found if found is None or isinstance(found, str) else float(found)


@dataclass(frozen=True, slots=True)
class Weight:
    """How much a finding says for a cause (positive decibans) or against it (negative).

    Attributes:
        code: the finding's code.
        decibans: what it is worth.
        when: all of these must hold for one finding, as it was opened; empty means that its presence is enough.
        family: findings that say the same thing in other words; of one family only the strongest weight for the cause
            and the strongest against it count. Empty: this weight stands alone.
        absent: turn it round: the weight counts when the rule judged and no finding that satisfies `when` was opened.
        why: one sentence for the table.
    """

    code: str
    decibans: float
    _: KW_ONLY
    when: tuple[Condition, ...] = ()
    family: str = ""
    absent: bool = False
    why: str

    def __str__(self) -> str:
        text = f"no {self.code}" if self.absent else self.code
        return f"{text} with {' and '.join(map(str, self.when))}" if self.when else text

    def applies(self, findings: Sequence[Finding], judged: bool) -> bool:
        """Say whether the weight counts, given the findings of all codes and whether its rule judged."""
        seen = any(f.code == self.code and all(c.holds(f) for c in self.when) for f in findings)
        return judged and not seen if self.absent else seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """One possible cause of what is found wrong with a training.

    Attributes:
        cause: its name in kebab case, the stem of its file.
        summary: one sentence that says what is wrong, for a person who reads only this.
        gate: which question it belongs to; see `Gate`.
        prior: decibans before any finding is looked at, given that something is wrong; -10 means one to ten.
        evidence: what findings say for and against it.
        probe: name of the experiment that would decide, in kebab case a claim: "data-is-learnable".
        remedies: what to try, the first one first.
        settings: patterns (`fnmatch`) of setting keys; one that differs from the last good run supports the cause.
    """

    cause: str
    summary: str
    gate: Gate
    prior: float
    evidence: tuple[Weight, ...]
    probe: str
    remedies: tuple[Remedy, ...]
    settings: tuple[str, ...] = ()

    @property
    def codes(self) -> frozenset[str]:
        """The codes of all findings that it weighs."""
        return frozenset(weight.code for weight in self.evidence)
