"""Stop a training that no longer gets better, with the weights of its best step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trimtab.actions._action import Action
from trimtab.errors import UserError
from trimtab.live import Live
from trimtab.records import Finding, Outcome


@dataclass(frozen=True, kw_only=True)
class EarlyStop(Action):
    """Put the weights of the best step back, then stop the training: the step raises TrainingStopped.

    It answers `patience-spent`, and `Guard(early_stop=Patience(...))` sets up both: the best moment of that metric is
    kept in memory as it is recorded. Weights, buffers, optimizer and schedule go back to it; the position in the data
    and the random numbers stay. `restore_best=False` keeps the last weights and stops.

    It stops also where no best moment is known, and says that the weights are the last ones.
    """

    name: ClassVar[str] = "early-stop"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "weights"
    goes_back: ClassVar[bool] = True
    at_most: int | None = 1
    restore_best: bool = True

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Go back to the best moment and ask the Guard to stop."""
        text = self._restored(live) if self.restore_best else "the weights are those of the last update"
        return self.outcome(finding, "done", f"{finding.summary}; {text}", stops=True)

    @staticmethod
    def _restored(live: Live | None) -> str:
        """Put the best moment back; say what the weights are now."""
        levers = live.levers if live is not None else None
        best = levers.snapshots.best if levers is not None and levers.snapshots is not None else None
        if levers is None or best is None or best.captured is None:
            return "no best moment was kept, so the weights are those of the last update"
        try:
            restored = levers.state.restore(best.captured, data=False)
        except UserError as error:
            return f"the best moment does not fit, so the weights are those of the last update: {error}"
        parts = {*levers.state.models, *levers.state.optimizers}
        left = [name for name in restored.left if name in parts]
        text = f"the weights are those of step {_step(best.steps)}, where {best.metric} was {best.value:g}"
        return text + (f"; left as they were: {', '.join(left)}" if left else "")


def _step(steps: Mapping[str, int]) -> Any:
    """Return the step of the only stream, or of each."""
    return next(iter(steps.values())) if len(steps) == 1 else ", ".join(f"{k} {v}" for k, v in steps.items())
