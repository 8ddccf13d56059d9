"""An action has been used as often as it may, and the fault came again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, now
from trimtab.records import Finding, Note, Severity, Unknown
from trimtab.trace import Trace

KIND = "response-budget-spent"
"""Kind of the Note that says that an action's budget is spent."""


@dataclass(frozen=True, kw_only=True)
class ResponseBudgetSpent(Detector):
    """An action has been used as often as it may, and the fault came again.

    What it sees.
    The note that Trimtab writes when a finding would be answered once more than the action's `at_most` allows.

    Why it matters.
    The answer does not cure the cause. Repeating it would hide a broken run behind hours of rollbacks, so the
    training is stopped instead.

    Evidence it shows.
    The action, the code it answered, how often.

    False alarms.
    None: it reports what Trimtab did.

    What to try.
    Look at the finding that was answered, not at the answer. Raise `at_most` only where the fault is known to be rare
    and harmless.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("responses_spent", "loss", "trimtab_seconds")
    per_stream: bool = False

    def detect(self, trace: Trace) -> Sequence[Finding] | Unknown | None:
        if trace.row is None:
            return self.unknown(trace, "nothing was measured yet")
        spent: dict[str, Note] = {}
        for note in trace.notes:
            if note.kind == KIND:
                spent.setdefault(str(note.facts.get("code", "")), note)
        if not spent and now(trace, "responses_spent"):
            return self.unknown(trace, "a spent budget was counted but not noted")
        return [self._finding(trace, code, note) for code, note in spent.items()] or None

    def _finding(self, trace: Trace, code: str, note: Note) -> Finding:
        action, most = str(note.facts.get("action", "the action")), note.facts.get("at_most", 0.0)
        times = float(most) if isinstance(most, (int, float)) else 0.0
        return self.finding(
            trace,
            severity=Severity.ERROR,
            subject=code,
            summary=(
                f"{action} answered {code or 'a finding'} {times:.0f} times, as often as it may, "
                f"and it came again at step {note.step}"
            ),
            measured=times + 1,
            threshold=times,
            evidence={"action": action, "code": code, "at_most": times},
            since_step=note.step,
        )
