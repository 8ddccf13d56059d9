"""How far an update moves the weights, and how much of that is weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base
from trimtab.sensors.gradient_norm import norms_of

_COUPLED = (torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta)
"""Optimizers of torch that add the decay to the gradient and have no flag that says otherwise."""


@dataclass(frozen=True, kw_only=True)
class UpdateRatio(Base):
    """How far an update moves the weights.

    - `update_ratio`: L2 norm of the change over L2 norm of the weights before it, for each parameter group;
    - `update_norms`: L2 norm of the change of each tensor, in forward order (0 means that it did not move at all);
    - `weight_norms`: L2 norm of each tensor before the update, in forward order;
    - `decay_share`: for each parameter group the part that weight decay has. Where the optimizer decays the weights
      themselves (AdamW) it is rate x decay x weights over the change; where it adds the decay to the gradient (SGD,
      Adam) it is decay x weights over the gradient. 0 without decay; absent where the optimizer does not tell.

    Cost: a copy of the weights and two multi-tensor norms, on rows of the "norms" tier; with weight decay that is added
    to clipped gradients one more.
    """

    name: str = "update_ratio"
    points: tuple[Point, ...] = ("after",)
    tier: Tier = "norms"
    axes: Mapping[str, str] = field(
        default_factory=lambda: {
            "update_ratio": "groups",
            "update_norms": "parameters",
            "weight_norms": "parameters",
            "decay_share": "groups",
        }
    )
    copies_weights: bool = True

    def read(self, live: Live) -> Reading:
        """Return the vectors on the device; the decay's as numbers while there is none."""
        if live.weights_before is None:
            return {}
        after = [parameter.detach() for parameter in live.parameters]
        before = list(live.weights_before)
        weight = torch.stack(tuple(torch._foreach_norm(before)))
        torch._foreach_sub_(before, after)  # the copies are ours, and nobody needs them any more
        moved = torch.stack(tuple(torch._foreach_norm(before)))
        groups = [_members(live.group_of, group) for group in range(len(live.axes["groups"]))]
        ratios = [_ratio(moved, weight, members) for members in groups]
        reading: dict[str, Any] = {
            "update_ratio": torch.stack(ratios),
            "update_norms": moved,
            "weight_norms": weight,
        }
        shares = _decay(live, groups, ratios, weight)
        if shares is not None:
            reading["decay_share"] = shares
        return reading


def _members(group_of: Sequence[int], group: int) -> list[int] | None:
    """Return the places of a group's tensors, None when they are all there are."""
    members = [index for index, its_group in enumerate(group_of) if its_group == group]
    return None if len(members) == len(group_of) else members


def _norm(norms: torch.Tensor, members: list[int] | None) -> torch.Tensor:
    chosen = norms if members is None else norms[members]
    total: torch.Tensor = torch.linalg.vector_norm(chosen)
    return total


def _ratio(above: torch.Tensor, below: torch.Tensor, members: list[int] | None) -> torch.Tensor:
    if members is not None and not members:
        return above.new_zeros(())
    return _norm(above, members) / _norm(below, members).clamp(min=torch.finfo(below.dtype).tiny)


def _decay(
    live: Live, groups: Sequence[list[int] | None], ratios: Sequence[torch.Tensor], weight: torch.Tensor
) -> torch.Tensor | tuple[float, ...] | None:
    """Return the share of the decay for each group, None where the optimizer does not say how it decays."""
    options = live.optimizer.param_groups if live.optimizer is not None else ()
    strengths = [float(group.get("weight_decay", 0.0)) for group in options]
    if len(strengths) != len(groups) or any(math.isnan(strength) for strength in strengths):
        return None
    if not any(strengths):
        return tuple(strengths)
    shares, gradient = [], None
    for group, strength, rate, members, ratio in zip(
        options, strengths, live.learning_rates, groups, ratios, strict=True
    ):
        if strength == 0.0 or members == []:
            shares.append(weight.new_zeros(()))
            continue
        decoupled = is_decoupled(live.optimizer, group)
        if decoupled is None:
            return None
        if decoupled:
            shares.append(rate * strength / ratio.clamp(min=torch.finfo(ratio.dtype).tiny))
            continue
        if gradient is None:
            known = live.gradient_norms if not live.clipped else None
            gradient = norms_of(live.parameters, live.scale) if known is None else known
        shares.append(strength * _ratio(weight, gradient.to(weight), members))
    return torch.stack(shares)


def is_decoupled(optimizer: Any, group: Mapping[str, Any]) -> bool | None:
    """Say whether the weights themselves decay (True) or the decay is added to the gradient; None if not known."""
    flag = group.get("decoupled_weight_decay")
    if isinstance(flag, bool):
        return flag
    if isinstance(optimizer, torch.optim.AdamW):
        return True
    return False if isinstance(optimizer, (torch.optim.Adam, *_COUPLED)) else None
