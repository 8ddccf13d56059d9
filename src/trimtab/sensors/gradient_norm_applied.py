"""The gradient as the optimizer sees it: after clipping."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base
from trimtab.sensors.gradient_norm import norms_of


@dataclass(frozen=True, kw_only=True)
class GradientNormApplied(Base):
    """`gradient_norm_applied`: global L2 norm of what reaches the optimizer; `clipped`: 1 when a clipping function ran.

    Without clipping it equals `gradient_norm` and costs nothing; with clipping it is measured a second time.
    """

    name: str = "gradient_norm_applied"
    tier: Tier = "norms"

    def read(self, live: Live) -> Reading:
        """Return the norm on the device."""
        norms = live.gradient_norms if live.gradient_norms is not None and not live.clipped else None
        if norms is None:
            norms = norms_of(live.parameters, live.scale)
        return {"gradient_norm_applied": torch.linalg.vector_norm(norms), "clipped": float(live.clipped)}
