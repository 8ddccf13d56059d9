"""Leave one update out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab.actions._action import Action
from trimtab.live import Live
from trimtab.records import Finding, Outcome


@dataclass(frozen=True, kw_only=True)
class SkipStep(Action):
    """Leave out the update that is about to be taken, and each one for which the finding still holds.

    It is an exact no-op: parameters, moments, step counters and weight decay stay bit for bit as they are, also where
    the gradients are NaN. The gradients themselves are there again after the step. A scheduler of the loop goes on, for
    the update was attempted. It happens inside the step, so it works under a GradScaler, fused or not.

    Declined for an update with a closure, and for an optimizer that is not one of torch's own: it is not known whether
    such a one does nothing without gradients. If you know that yours does, name it: `trust=("package.Class",)`.

    It does not mend weights that are already broken; go back for that.
    """

    name: ClassVar[str] = "skip-step"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "weights"
    each_update: ClassVar[bool] = True
    at_most: int | None = 20
    """Enough for scattered bad batches; a fault in the code comes at every update and spends it at once."""
    trust: tuple[str, ...] = ()

    def needed(self, live: Live | None, finding: Finding) -> bool:
        """Say whether the finding is about this update, and nobody leaves it out already."""
        if has_passed(finding):
            return False
        if live is None or live.levers is None:
            return True
        return not (live.skipped or live.levers.is_left_out(live.optimizer))

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Leave this update out, or decline."""
        if live is None or live.levers is None:
            return self.outcome(finding, "declined", "there is no update to leave out")
        why = live.levers.leave_out(live, finding.summary, trust=self.trust)
        if why is not None:
            return self.outcome(finding, "declined", why)
        return self.outcome(finding, "done", f"left out update {live.step} of {live.stream!r}: {finding.summary}")


def has_passed(finding: Finding) -> bool:
    """Say whether a finding tells of something that is over: a leap of the loss that came back."""
    return finding.evidence.get("came_back") == 1.0
