"""Pull back what a training has been made harder by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab.actions._action import Action
from trimtab.errors import UserError
from trimtab.live import Live
from trimtab.records import Finding, Outcome


@dataclass(frozen=True, kw_only=True)
class BackOff(Action):
    """Back off every escalation of this training: what grew harder goes some of the way back, and waits.

    An escalation is any part that was handed over (`Guard(state={"escalation": escalation})`) and has the methods
    `pause(because)` and `back_off(because, factor)`, such as `trimtab.stabilizers.StagedEscalation`. It goes on by
    itself when its cooldown is over and its gate says healthy.

    `factor` is what is left of the way from the base, below 1; None leaves that to the escalation. With `pause` nothing
    goes back; the escalation only waits. After a rollback an escalation stands where it stood at the snapshot, so go
    back first: `(RollBack(), BackOff())`.

    Declined where no escalation was handed over.
    """

    name: ClassVar[str] = "back-off"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "schedule"
    factor: float | None = None
    pause: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor is not None and not 0 <= self.factor < 1:
            raise UserError(f"back-off: factor={self.factor}; expected 0 or more and less than 1")
        if self.pause and self.factor is not None:
            raise UserError("back-off: a pause takes nothing back; give pause=True or a factor, not both")

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Back every escalation off, or pause it."""
        parts = live.levers.escalations if live is not None and live.levers is not None else []
        if not parts:
            return self.outcome(
                finding, "declined", "no escalation was handed over; name it in Guard(state={'escalation': ...})"
            )
        because = f"{finding.code}: {finding.summary}"
        for part in parts:
            if self.pause:
                part.pause(because)
            elif self.factor is None:
                part.back_off(because)
            else:
                part.back_off(because, self.factor)
        kinds = ", ".join(type(part).__name__ for part in parts)
        return self.outcome(finding, "done", f"{'paused' if self.pause else 'backed off'}: {kinds}")
