"""How far an update moves the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class UpdateRatio(Base):
    """`update_ratio`: L2 norm of the change over L2 norm of the weights before it, for each parameter group;
    `update_norms`: L2 norm of the change of each tensor, in forward order (0 means that it did not move at all).

    Cost: a copy of the weights and two multi-tensor norms, on rows of the "norms" tier.
    """

    name: str = "update_ratio"
    points: tuple[Point, ...] = ("after",)
    tier: Tier = "norms"
    axes: Mapping[str, str] = field(default_factory=lambda: {"update_ratio": "groups", "update_norms": "parameters"})
    copies_weights: bool = True

    def read(self, live: Live) -> Reading:
        """Return both vectors on the device."""
        if live.weights_before is None:
            return {}
        after = [parameter.detach() for parameter in live.parameters]
        before = list(live.weights_before)
        weight = torch.stack(tuple(torch._foreach_norm(before)))
        torch._foreach_sub_(before, after)  # the copies are ours, and nobody needs them any more
        moved = torch.stack(tuple(torch._foreach_norm(before)))
        ratios = []
        for group in range(len(live.axes["groups"])):
            members = [index for index, its_group in enumerate(live.group_of) if its_group == group]
            if len(members) == len(live.group_of):
                ratios.append(_ratio(moved, weight))
            elif members:
                ratios.append(_ratio(moved[members], weight[members]))
            else:
                ratios.append(moved.new_zeros(()))
        return {"update_ratio": torch.stack(ratios), "update_norms": moved}


def _ratio(moved: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    tiny = torch.finfo(weight.dtype).tiny
    ratio: torch.Tensor = torch.linalg.vector_norm(moved) / torch.linalg.vector_norm(weight).clamp(min=tiny)
    return ratio
