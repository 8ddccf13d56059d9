"""Where non-finite numbers stand: which gradient tensors, how much of each, and whether the weights hold them too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class FirstNonfinite(Base):
    """`nonfinite_share`: share of non-finite elements of each gradient, in forward order; `nonfinite_weights`: how many
    parameter tensors held a non-finite element before the update.

    Backward runs from the loss to the input, so among the gradients that are not finite the last one in forward order
    came first: it names the module where the trouble began. Read only on rows whose loss or gradient is not finite,
    and only where reading waits for the device (not in the asynchronous mode on an accelerator).
    """

    name: str = "first_nonfinite"
    tier: Tier = "trouble"
    axes: Mapping[str, str] = field(default_factory=lambda: {"nonfinite_share": "parameters"})

    def read(self, live: Live) -> Reading:
        """Return the shares (0..1) and the count of tensors."""
        shares = [_share(parameter.grad) for parameter in live.parameters]
        # A sum that is not finite is a cheap sign; it may overflow, so each suspect is looked at in full.
        sick = [p for p in live.parameters if not torch.isfinite(p.detach().sum()) and _share(p.detach()) > 0]
        return {"nonfinite_share": tuple(shares), "nonfinite_weights": float(len(sick))}


def _share(tensor: torch.Tensor | None) -> float:
    if tensor is None or tensor.numel() == 0:
        return 0.0
    values = tensor.coalesce().values() if tensor.is_sparse else tensor
    return 1.0 - float(torch.isfinite(values).float().mean()) if values.numel() else 0.0
