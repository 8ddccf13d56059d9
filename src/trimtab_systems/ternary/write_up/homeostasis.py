"""The write-up's controller that freezes and frees parts of the model by what the metrics do, epoch after epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

WINDOW = 5
"""Epochs over which a gain is looked for."""
HYSTERESIS = 3
"""A part stays frozen, or free, for at least so many epochs."""
WARMUP = 5
"""In the first epochs nothing is frozen or freed."""
GAIN = 1e-3
"""A hierarchy that got better by less over the window stands still."""
STALLS = 5
"""Encoder A is freed after so many epochs of standing still; encoder B is frozen after so many."""
DROP = 0.01
"""Encoder B is freed when the size of the hierarchy falls by so much."""
QUIET, QUIET_EPOCHS, SPIKE = 0.01, 3, 2.0
"""The controller is frozen after so many epochs with a gradient norm below the first; a leap by the last frees it."""
RELAX, FLOOR, LOSS = 0.005, 0.95, 0.05
"""A cycle of a part that raised Q lowers its threshold by the first, not below the second; one that lost more than the
third raises it again."""


@dataclass(slots=True, kw_only=True)
class Part:
    """How one part of the model stands: frozen or free, since when, and the threshold that its cycles have moved."""

    frozen: bool
    threshold: float = 0.995
    since: int = -HYSTERESIS
    stalled: int = 0
    quality: float = math.nan


@dataclass(slots=True, kw_only=True)
class Homeostasis:
    """Decides after each epoch which of "encoder_a", "encoder_b" and "controller" are frozen.

    Rules, all of them the write-up's. Encoder A: frozen while the coverage is below its threshold; freed at full
    coverage once the hierarchy has stood still for five epochs. Encoder B: frozen after five epochs of standing still,
    freed when the hierarchy loses a hundredth. Controller: frozen after three quiet epochs, freed by a leap of its
    gradient. A cycle of freezing and freeing that raised Q lets a part be bolder, one that cost much makes it careful.
    """

    parts: dict[str, Part] = field(
        default_factory=lambda: {
            "encoder_a": Part(frozen=True),
            "encoder_b": Part(frozen=False),
            "controller": Part(frozen=False),
        }
    )
    epoch: int = 0
    sizes: list[float] = field(default_factory=list)
    """Size of the hierarchy after each of the latest epochs."""
    gradients: list[float] = field(default_factory=list)
    """Gradient norm of the controller in each of the latest epochs."""

    def after(self, *, coverage: float, hierarchy: float, quality: float, gradient: float = 0.0) -> dict[str, bool]:
        """Take in one more epoch and return which parts are frozen now.

        Args:
            coverage: share of operations that are reconstructed.
            hierarchy: rank correlation of valuation and radius.
            quality: the write-up's Q.
            gradient: norm of the gradient of the controller's weights.
        """
        self.sizes = [*self.sizes[-WINDOW:], abs(hierarchy)]
        self.gradients = [*self.gradients[-QUIET_EPOCHS:], gradient]
        self.epoch += 1
        still = len(self.sizes) > WINDOW and max(self.sizes[1:]) - self.sizes[0] < GAIN
        for name, part in self.parts.items():
            part.stalled = part.stalled + 1 if still else 0
            if self.epoch > WARMUP and self.epoch - part.since >= HYSTERESIS and self._turns(name, part, coverage):
                self._turn(part, quality)
        return {name: part.frozen for name, part in self.parts.items()}

    def _turns(self, name: str, part: Part, coverage: float) -> bool:
        match name:
            case "encoder_a":
                freed = coverage >= 1.0 and part.stalled >= STALLS
                return freed if part.frozen else coverage < part.threshold
            case "encoder_b":
                lost = max(self.sizes) - self.sizes[-1] >= DROP
                return lost if part.frozen else part.stalled >= STALLS
            case _:
                before, now = self.gradients[:-1], self.gradients[-1]
                leap = bool(before) and now > SPIKE * max(before) > 0
                quiet = len(self.gradients) >= QUIET_EPOCHS and max(self.gradients[-QUIET_EPOCHS:]) < QUIET
                return leap if part.frozen else quiet

    def _turn(self, part: Part, quality: float) -> None:
        part.frozen, part.since, part.stalled = not part.frozen, self.epoch, 0
        if not part.frozen:
            part.quality = quality
            return
        gained = quality - part.quality
        if gained > 0:
            part.threshold = max(FLOOR, part.threshold - RELAX)
        elif gained < -LOSS:
            part.threshold = min(1.0, part.threshold + RELAX)

    def apply(self, modules: Mapping[str, nn.Module | None]) -> None:
        """Freeze and free the modules of the parts; one that the model does not have is passed over."""
        for name, part in self.parts.items():
            module = modules.get(name)
            if module is not None:
                module.requires_grad_(not part.frozen)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next decision depends on."""
        parts = {
            name: [part.frozen, part.threshold, part.since, part.stalled, part.quality]
            for name, part in self.parts.items()
        }
        return {"parts": parts, "epoch": self.epoch, "sizes": list(self.sizes), "gradients": list(self.gradients)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.parts = {
            name: Part(frozen=frozen, threshold=threshold, since=since, stalled=stalled, quality=quality)
            for name, (frozen, threshold, since, stalled, quality) in state["parts"].items()
        }
        self.epoch, self.sizes, self.gradients = state["epoch"], list(state["sizes"]), list(state["gradients"])
