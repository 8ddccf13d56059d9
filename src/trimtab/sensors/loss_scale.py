"""The factor by which a GradScaler multiplies the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class LossScale(Base):
    """`loss_scale`: the factor by which the loss of this update was multiplied; absent without a GradScaler.

    The row of an update that the scaler left out says `update_skipped`, and has no other sign. The number is a tensor
    that the scaler holds: no wait for the device.
    """

    name: str = "loss_scale"
    tier: Tier = "often"

    def read(self, live: Live) -> Reading:
        """Return the scale that the gradients still carry, or that of the scaler which has divided them by it."""
        if not isinstance(live.scale, float) or live.scale != 1.0:
            return {"loss_scale": live.scale}
        scale = getattr(live.memory.pop(self.name, None), "_scale", None)
        return {"loss_scale": scale.detach().reshape(()).clone()} if isinstance(scale, torch.Tensor) else {}
