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
        values = [root.value if root.value.dim() == 0 else root.value.mean() for root in live.roots]
        loss = values[0] if len(values) == 1 else torch.stack([value.float() for value in values]).mean()
        return {"loss": loss, "backward_calls": float(len(values))}
