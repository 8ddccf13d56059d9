"""The gradient as the optimizer sees it: after clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base
from trimtab.sensors.gradient_norm import norms_of


@dataclass(frozen=True, kw_only=True)
class GradientNormApplied(Base):
    """`gradient_norm_applied`: global L2 norm of what reaches the optimizer; `clipped`: 1 when a clipping function ran;
    `clip_factor`: the norm after clipping over the norm before, 1 when clipping changed nothing.

    Without clipping it equals `gradient_norm` and costs nothing; with clipping it is measured a second time.
    """

    name: str = "gradient_norm_applied"
    tier: Tier = "norms"

    def read(self, live: Live) -> Reading:
        """Return the norm on the device; the factor is absent where the norm before is not known."""
        before = live.gradient_norms
        if not live.clipped and before is not None:
            return {"gradient_norm_applied": torch.linalg.vector_norm(before), "clipped": 0.0, "clip_factor": 1.0}
        norm = torch.linalg.vector_norm(norms_of(live.parameters, live.scale))
        reading: dict[str, Any] = {"gradient_norm_applied": norm, "clipped": float(live.clipped)}
        if not live.clipped:
            reading["clip_factor"] = 1.0
        elif before is not None:
            tiny = torch.finfo(norm.dtype).tiny
            reading["clip_factor"] = norm.clamp(min=tiny) / torch.linalg.vector_norm(before).to(norm).clamp(min=tiny)
        return reading
