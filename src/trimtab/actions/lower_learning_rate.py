"""Take smaller steps for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import optim

from trimtab.actions._action import Action
from trimtab.errors import UserError
from trimtab.live import Live
from trimtab.records import Finding, Outcome


@dataclass(frozen=True, kw_only=True)
class LowerLearningRate(Action):
    """Multiply the learning rate by `factor` for `steps` updates, then let it come back over `ramp` updates.

    The rate is lowered just before each update and set to the very same value just after it. So whatever sets the rate
    (a scheduler, `LearningRate`, a loop of your own) goes on undisturbed, and nothing is left behind at the end. On the
    way back the factor grows by the same ratio at each update. Several of these at a time multiply.

    A decay of the weights that the optimizer multiplies with the rate (AdamW) is lowered with it. `groups` are places
    of parameter groups; None means all of the finding's stream. A process that is resumed begins without the change.

    Declined for Rprop, whose steps follow its rate only at the first update, and for a group without a rate.
    """

    name: ClassVar[str] = "lower-learning-rate"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "schedule"
    factor: float = 0.1
    steps: int = 100
    ramp: int = 50
    groups: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.factor < 1.0:
            raise UserError(f"lower-learning-rate: factor={self.factor}; expected more than 0 and less than 1")
        if self.steps < 1 or self.ramp < 0:
            raise UserError(
                f"lower-learning-rate: steps={self.steps}, ramp={self.ramp}; expected 1 or more, and 0 or more"
            )

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Lower the rate from this update on."""
        optimizer = live.optimizer if live is not None else None
        if live is None or optimizer is None or live.levers is None:
            return self.outcome(finding, "declined", "there is no update to act on")
        if isinstance(optimizer, optim.Rprop):
            return self.outcome(finding, "declined", "the steps of Rprop do not follow its learning rate")
        count = len(optimizer.param_groups)
        places = tuple(range(count)) if self.groups is None else self.groups
        for place in places:
            if not 0 <= place < count:
                raise UserError(f"lower-learning-rate: there is no group {place}; stream {live.stream!r} has {count}")
            if not isinstance(optimizer.param_groups[place].get("lr"), (float, int, torch.Tensor)):
                return self.outcome(finding, "declined", f"group {place} has no learning rate that is a number")
        live.levers.around(
            Lowered(stream=live.stream, factor=self.factor, steps=self.steps, ramp=self.ramp, places=places)
        )
        return self.outcome(
            finding, "done",
            f"learning rate x {self.factor:g} for {self.steps} updates, back over {self.ramp} more",
        )  # fmt: skip


class Lowered:
    """The change that stands: a factor on the learning rate of some groups during each update of a stream.

    Args:
        stream: whose updates.
        factor, steps, ramp: as in LowerLearningRate.
        places: which parameter groups.
    """

    def __init__(self, *, stream: str, factor: float, steps: int, ramp: int, places: Sequence[int]):
        self.stream = stream
        self.factor, self.steps, self.ramp = factor, steps, ramp
        self.places = tuple(places)
        self.taken = 0
        self._kept: list[tuple[dict[str, Any], Any, Any]] = []

    @property
    def now(self) -> float:
        """The factor of the update that comes next: `factor`, and after `steps` updates geometrically back to 1."""
        on_the_way = self.taken - self.steps + 1
        if on_the_way <= 0:
            return self.factor
        return math.exp(math.log(self.factor) * max(1.0 - on_the_way / (self.ramp + 1), 0.0))

    @property
    def over(self) -> bool:
        """Whether the rate is what it would be without."""
        return self.taken >= self.steps + self.ramp

    def before(self, optimizer: optim.Optimizer, live: Live) -> None:
        """Lower the rate for the update that is about to be taken."""
        self._put_back()  # of an update that raised, nobody heard the end
        factor = self.now
        for place in self.places:
            group = optimizer.param_groups[place]
            kept = group["lr"]
            if isinstance(kept, torch.Tensor):  # a captured or compiled step refers to this very tensor
                copy = kept.detach().clone()
                kept.data.mul_(factor)
                self._kept.append((group, copy, kept))
            else:
                group["lr"] = kept * factor
                self._kept.append((group, kept, group["lr"]))

    def after(self, optimizer: optim.Optimizer) -> None:
        """Set the rate to what it was before the update."""
        self._put_back()
        self.taken += 1

    def _put_back(self) -> None:
        for group, before, lowered in reversed(self._kept):
            if isinstance(lowered, torch.Tensor):
                lowered.data.copy_(before)
            elif group["lr"] is lowered:  # else somebody has set it since, and theirs holds
                group["lr"] = before
        self._kept = []
