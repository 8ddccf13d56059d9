"""The records that Trimtab writes: frozen facts, one dataclass each.

Nothing here imports anything but the standard library, so every layer can use it. A record says what happened;
it never does anything. How records become JSON is the business of `trimtab.run.codec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

Value = float | tuple[float, ...]
"""A measured quantity: a scalar, or a vector whose entries are named by the row's labels."""

Evidence = Mapping[str, float | str | tuple[float, ...] | tuple[str, ...]]
"""Named numbers and words that let a reader check a finding."""


class Severity(IntEnum):
    """How bad a finding is; ordered, so `finding.severity >= Severity.ERROR` reads as it should.

    INFO is a fact worth knowing, WARNING is what a careful reader would look at, ERROR means that this run will not
    give the result, FATAL means that weights are non-finite or lost.
    """

    INFO = 0
    WARNING = 1
    ERROR = 2
    FATAL = 3

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, word: str) -> Severity:
        """Return the severity called `word`; raise ValueError that lists the four words otherwise."""
        try:
            return cls[word.upper()]
        except KeyError:
            words = ", ".join(str(severity) for severity in cls)
            raise ValueError(f"severity {word!r} is unknown; use one of {words}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One measurement row.

    `attempt` counts rollbacks, `step` is the index of the attempted optimizer update of `stream` (one optimizer),
    `update` the count of attempted updates over all streams, `time` is in seconds since the run began. `labels` names
    the entries of each vector in `values`; rows share one mapping until the set of parameters changes.
    """

    attempt: int = 0
    step: int
    update: int
    stream: str = "main"
    time: float
    values: Mapping[str, Value]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something judged wrong about a run, at one moment.

    A detector returns it with `event="judged"`; the Judge gives it an `id`, a `since_step` and an event of its life:
    opened, worsened or resolved. `measured` and `threshold` are in the unit that the summary names. `excused_by` is
    the kind of the Note that lowered it to info, or empty.
    """

    code: str
    subject: str = ""
    stream: str = "main"
    attempt: int = 0
    severity: Severity
    step: int
    since_step: int = -1
    summary: str
    measured: float
    threshold: float
    evidence: Evidence = field(default_factory=dict)
    event: Literal["judged", "opened", "worsened", "resolved"] = "judged"
    id: str = ""
    version: int = 1
    excused_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A detector could not judge: which signal is missing, or why the rule carries no information here.

    The Judge writes one when a detector stops being able to judge or its reason changes, and one with an empty
    `reason` when it can judge again.
    """

    code: str
    reason: str
    stream: str = "main"
    attempt: int = 0
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something announced, by the user or by Trimtab itself: a data change, a frozen backbone, a failed sensor.

    `until` is the last step for which the note holds; None means for the rest of the run. `after_rows` is how many
    signal rows were written before it, so that a replay hears it at the same moment.
    """

    kind: str
    step: int
    after_rows: int = 0
    until: int | None = None
    text: str = ""
    facts: Mapping[str, float | str] = field(default_factory=dict)

    def covers(self, step: int) -> bool:
        """Say whether the note holds at `step`."""
        return self.step <= step and (self.until is None or step <= self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an Action did to a training, or declined to do, and why.

    A rollback carries `to_step`, the step that the training went back to, so that a Trace can follow, and `to_steps`,
    the same for each stream (-1: before its first update); a stream that is not named there begins anew. `after_rows`
    is how many signal rows were written before it.
    """

    action: str
    code: str
    subject: str = ""
    stream: str = "main"
    attempt: int = 0
    step: int
    after_rows: int = 0
    result: Literal["done", "declined", "failed"]
    changes: Literal["nothing", "schedule", "weights"]
    because: str = ""
    to_step: int | None = None
    to_steps: Mapping[str, int] = field(default_factory=dict)
    stops: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One thing to try against a cause.

    `kind` says where it is applied: "config" is a changed setting, "runtime" an Action while the run goes on, "text"
    advice for a person.
    """

    kind: Literal["config", "runtime", "text"]
    text: str
    change: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One summand of a Diagnosis: what was seen and the decibans that it is worth for this cause."""

    what: str
    decibans: float
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One possible cause of what was found.

    `score` is in decibans (10 x log10 of odds) and equals the sum of `terms`, prior included, so that a person can
    redo it by hand. `unknown` lists the codes that could have changed the score but were not judged.
    """

    cause: str
    summary: str
    score: float
    gate: int
    terms: tuple[Term, ...]
    unknown: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    probe: str = ""
    remedies: tuple[Remedy, ...] = ()
