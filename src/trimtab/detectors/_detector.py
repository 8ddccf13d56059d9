"""What every detector shares: the fields that the Judge reads, and two helpers that build its answers."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.records import Evidence, Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

RECENT = 64
"""An update that was measured within so many steps still tells how long the steps of this training are."""
NEVER = 1_000_000_000
"""A `release` that is never reached: for facts about a run that later steps cannot undo."""


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """A rule: looks at a Trace, returns a Finding, an Unknown or nothing.

    A subclass is a frozen dataclass whose thresholds are its fields; it overrides the fields below where they differ
    and writes `detect`, which must be pure: the same Trace gives the same answer, and nothing is remembered between
    two calls.

    Attributes:
        code: what its findings are called; the class's name in kebab case unless given, which for the rules of the
            catalogue is also the stem of the file.
        version: raised when the rule judges differently than before.
        reads: the signals whose arrival makes the rule worth asking again; an empty tuple means every row.
        folds: the summaries that it reads, kept from the first row on.
        confirm: so many judgements in a row open a finding.
        release: so many clear judgements in a row resolve it.
        excused_by: kinds of Notes that lower its findings to info while they hold.
        per_stream: False for a rule about the whole run, judged in the stream "main" only.
    """

    code: str = ""
    version: int = 1
    reads: tuple[str, ...] = ()
    folds: tuple[Fold[Any], ...] = ()
    confirm: int = 1
    release: int = 1
    excused_by: tuple[str, ...] = ()
    per_stream: bool = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not cls.__dict__.get("code"):
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    def __post_init__(self) -> None:
        if not self.code:
            object.__setattr__(self, "code", type(self).code)

    @abstractmethod
    def detect(self, trace: Trace) -> Finding | Unknown | Sequence[Finding] | None:
        """Judge the latest row in the light of the past."""

    def finding(
        self,
        trace: Trace,
        *,
        severity: Severity,
        summary: str,
        measured: float,
        threshold: float,
        subject: str = "",
        evidence: Evidence | None = None,
        since_step: int = -1,
    ) -> Finding:
        """Return a Finding about the Trace's current step."""
        return Finding(
            code=self.code,
            subject=subject,
            stream=trace.stream,
            attempt=trace.attempt,
            severity=severity,
            step=trace.step,
            since_step=since_step,
            summary=summary,
            measured=measured,
            threshold=threshold,
            evidence=evidence or {},
            version=self.version,
        )

    def unknown(self, trace: Trace, reason: str) -> Unknown:
        """Return an Unknown about the Trace's current step."""
        return Unknown(code=self.code, reason=reason, stream=trace.stream, attempt=trace.attempt, step=trace.step)


def now(trace: Trace, name: str) -> float | None:
    """Return the value of a scalar signal in the latest row, None when it was not measured there."""
    row = trace.row
    value = row.values.get(name) if row is not None else None
    return None if isinstance(value, tuple) else value


def update_before(trace: Trace) -> float | None:
    """Return the share of its weights that the latest measured update before this step changed, of the largest group.

    None where none was measured, or too long ago to say how long the steps of this training are now.
    """
    steps, rows = trace.window("update_ratio", RECENT)
    for step, ratios in zip(reversed(steps), reversed(rows), strict=True):
        finite = [ratio for ratio in ratios if math.isfinite(ratio)] if isinstance(ratios, tuple) else []
        if step < trace.step and finite:
            return max(finite)
    return None


def number(value: float) -> str:
    """Write a number as a person would: three digits, '2980', '3.1e4' and not '3.1e+04'."""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.3g}"
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    return f"{float(text):.0f}" if exponent == "+03" else f"{mantissa}e{int(exponent)}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Write a few names out and count the rest: 'a, b, c and 12 more'."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
