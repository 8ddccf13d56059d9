"""What the probes share: time is measured, random numbers are put back, a Result is made of what was found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.probes._copies import Clock, apart
from trimtab.probes._probe import Result, Subject, Verdict
from trimtab.records import Evidence, Finding, Severity


@dataclass(frozen=True, kw_only=True)
class Base(ABC):
    """A probe: its claim, its budget, and the numbers that it compares with as fields."""

    claim: str = ""
    codes: tuple[str, ...] = ()
    """The codes of the findings that it may give."""
    budget: float = 10.0
    """CPU seconds, making the copies not counted."""

    def run(self, subject: Subject) -> Result:
        """Test the claim on copies; random numbers, threads and gradient mode are as before afterwards."""
        clock = Clock(self.budget)
        with apart():
            result = self._test(subject, clock)
        return replace(result, seconds=clock.whole)

    @abstractmethod
    def _test(self, subject: Subject, clock: Clock) -> Result:
        """Return what the copies showed."""

    def finding(
        self, code: str, severity: Severity, summary: str, measured: float, evidence: Evidence, subject: str = ""
    ) -> Finding:
        """Return a finding about the training before its first update; all of them fail above 0."""
        assert code in self.codes, f"{self.claim} does not name the code {code!r}"
        return Finding(
            code=code, subject=subject, severity=severity, step=0, since_step=0, summary=summary, measured=measured,
            threshold=0.0, evidence=evidence,
        )  # fmt: skip

    def judged(self, summary: str, findings: Sequence[Finding], **more: Any) -> Result:
        """Return that the claim fails where a finding is a warning or worse, and that it holds otherwise.

        Args:
            summary: what to say where it holds; else the findings say it.
            findings: what was found, in the order of their weight.
            more: further fields of the Result.
        """
        grave = [one for one in findings if one.severity >= Severity.WARNING]
        words = "; ".join(one.summary for one in grave) if grave else summary
        verdict: Verdict = "fails" if grave else "holds"
        return Result(claim=self.claim, verdict=verdict, summary=words, findings=tuple(findings), **more)

    def unknown(self, reason: str, **more: Any) -> Result:
        """Return that nothing can be said, and why."""
        return Result(claim=self.claim, verdict="unknown", reason=reason, **more)


def listed(names: Sequence[str], most: int = 3) -> str:
    """Write a few names out and count the rest: 'a, b, c and 12 more'."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
