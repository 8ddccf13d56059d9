"""The factor by which a GradScaler multiplies the loss."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class LossScale(Base):
    """`loss_scale`: the factor of loss scaling in the gradients of this update, where they still carry it.

    Absent without a GradScaler, and where the loop has called `unscale_` before (to clip, for instance). The row of an
    update that the scaler left out says `update_skipped`, and has no other sign. The number was read with the
    gradients: no further wait.
    """

    name: str = "loss_scale"
    tier: Tier = "often"

    def read(self, live: Live) -> Reading:
        """Return the scale while it is not 1."""
        unscaled = isinstance(live.scale, float) and live.scale == 1.0
        return {} if unscaled else {"loss_scale": live.scale}
