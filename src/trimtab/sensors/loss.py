"""The training loss of an update."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class Loss(Base):
    """`loss`: mean of the backward roots since the last update, without the loss scale; `backward_calls`: how many.

    A root that is not a scalar counts with its mean. Cost: one detached reference a backward pass.
    """

    name: str = "loss"

    def read(self, live: Live) -> Reading:
        """Return the loss as a tensor on its device, or nothing when no backward pass was seen."""
        if not live.roots:
            return {}
        values = [root.value for root in live.roots]
        if len(values) == 1:
            loss = values[0] if isinstance(values[0], float) or values[0].dim() == 0 else values[0].mean()
            return {"loss": loss, "backward_calls": 1.0}
        numbers = [value for value in values if isinstance(value, float)]
        if len(numbers) == len(values):
            return {"loss": sum(numbers) / len(numbers), "backward_calls": float(len(numbers))}
        means = [torch.as_tensor(value).float().mean() for value in values]
        return {"loss": torch.stack(means).mean(), "backward_calls": float(len(means))}
