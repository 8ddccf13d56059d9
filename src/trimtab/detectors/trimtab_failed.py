"""A part of Trimtab itself failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, now
from trimtab.records import Finding, Note, Severity, Unknown
from trimtab.trace import Trace

KIND = "trimtab-failed"
"""Kind of the Note that says a part of Trimtab failed."""


@dataclass(frozen=True, kw_only=True)
class TrimtabFailed(Detector):
    """A part of Trimtab itself failed.

    What it sees.
    The notes that Trimtab writes when one of its sensors, detectors or other parts raised an exception.

    Why it matters.
    The part is left out from then on and the training goes on untouched, so whatever it would have seen is not seen:
    silence is then no sign of health.

    Evidence it shows.
    Which part, the exception, how often and since which step.

    False alarms.
    None known: each stands for an exception that was caught.

    What to try.
    Report it with the text of the exception. A sensor or detector of your own is yours to mend.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("trimtab_failures", "loss", "trimtab_seconds")
    per_stream: bool = False

    def detect(self, trace: Trace) -> Sequence[Finding] | Unknown | None:
        if trace.row is None:
            return self.unknown(trace, "nothing was measured yet")
        failures: dict[str, list[Note]] = {}
        for note in trace.notes:
            if note.kind == KIND:
                failures.setdefault(str(note.facts.get("part", "")), []).append(note)
        if not failures and now(trace, "trimtab_failures"):
            return self.unknown(trace, "failures were counted but not noted")
        return [
            self.finding(
                trace,
                severity=Severity.WARNING,
                subject=part,
                summary=f"{part or 'a part'} failed at step {notes[0].step} and is left out: {notes[0].text}",
                measured=float(len(notes)),
                threshold=0.0,
                evidence={"part": part, "error": notes[0].text, "failures": float(len(notes))},
                since_step=notes[0].step,
            )
            for part, notes in failures.items()
        ] or None
