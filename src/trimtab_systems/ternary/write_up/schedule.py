"""The learning rates of the write-up's sweep, changed after each epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

ScheduleKind = Literal["none", "cosine", "step", "plateau"]

LOWEST = 0.01
""""cosine" ends at this share of the rate."""
EVERY, FACTOR = 15, 0.5
""""step" multiplies the rate by the second after so many epochs each."""
PATIENCE = 5
""""plateau" multiplies it after so many evaluations without a better value."""


class Schedule:
    """Sets the rates of all groups of an optimizer, each a multiple of what it began with.

    Args:
        optimizer: whose rates are set.
        kind: see `ScheduleKind`; "none" leaves them alone.
        epochs: of the whole training; where "cosine" ends.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, kind: ScheduleKind, epochs: int):
        self.optimizer, self.kind, self.epochs = optimizer, kind, epochs
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.best = math.inf
        self.bad = 0
        self.halved = 0

    def evaluated(self, value: float) -> None:
        """Take in a value of the metric, lower is better; only "plateau" listens."""
        if value < self.best:
            self.best, self.bad = value, 0
            return
        self.bad += 1
        if self.bad > PATIENCE:
            self.bad = 0
            self.halved += 1

    def after(self, epochs: int) -> None:
        """Set the rates for what follows after so many epochs."""
        if self.kind == "none":
            return
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(epochs)

    def factor(self, epochs: int) -> float:
        """Return the multiple of the first rate after so many epochs."""
        match self.kind:
            case "cosine":
                return LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * min(epochs / max(self.epochs, 1), 1.0)))
            case "step":
                return float(FACTOR ** (epochs // EVERY))
            case "plateau":
                return float(FACTOR**self.halved)
            case "none":
                return 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return what the next rates depend on."""
        return {"best": self.best, "bad": self.bad, "halved": self.halved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.best, self.bad, self.halved = float(state["best"]), int(state["bad"]), int(state["halved"])
