"""Stop the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab.actions._action import Action
from trimtab.live import Live
from trimtab.records import Finding, Outcome


@dataclass(frozen=True, kw_only=True)
class Stop(Action):
    """Stop the training before the update: the step raises TrainingStopped with the finding's summary.

    Nothing is changed: the weights stay as the last update left them. In a loop of your own, catch TrainingStopped
    to save what you want to keep. A finding of a recorded metric stops at the next update.
    """

    name: ClassVar[str] = "stop"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "nothing"
    at_most: int | None = 1

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Ask the Guard to stop."""
        return self.outcome(finding, "done", finding.summary, stops=True)
