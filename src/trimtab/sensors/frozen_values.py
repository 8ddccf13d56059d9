"""Which parameters are frozen where the loss passes through them, and whether torch's own start is still in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from trimtab import graph
from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base

ELEMENTS = 16_384
"""So many elements of a tensor are looked at, spread evenly over it."""
FEWEST = 256
"""A tensor with fewer elements says too little: the largest of 256 uniform numbers lies within 5 % of their bound, and
so does that of many a trained bias."""
REACH = 12.0
"""The largest of n uniform numbers lies within 12 / n of their bound, but for one tensor in 160,000."""
APART = 1.95
"""Kolmogorov's distance times the root of n: one uniform tensor in 1,000 exceeds it."""
MEAN = 4.0
"""The mean lies within so many standard errors of zero."""


@dataclass(frozen=True, kw_only=True)
class FrozenValues(Base):
    """Parameters with `requires_grad=False` through which the loss passes, as the graph shows them.

    - `frozen_on_path`: 1 for every parameter of every model that is frozen and that an operation of the graph holds;
      frozen layers before the first trained one are in no graph, nor is a bias;
    - `frozen_at_start`: 1 for those of them whose values are, as far as statistics can tell, as torch draws them for a
      new layer: uniform up to one of the usual bounds of its fan, 1 / sqrt(fan in) first of all. Training breaks the
      sharp edge with its first update. Absent when nothing is frozen on the path.

    Read at the looks 1, 2, 3, 5, 9, 17, ... of its tier: what is frozen does not change. Cost: a walk over the graph,
    and a sort of 16,384 numbers for each frozen tensor.
    """

    name: str = "frozen_values"
    points: tuple[Point, ...] = ("backward",)
    tier: Tier = "norms"
    axes: Mapping[str, str] = field(
        default_factory=lambda: {"frozen_on_path": "everything", "frozen_at_start": "everything"}
    )

    def read(self, live: Live) -> Reading:
        """Return the two vectors; the second one from the device."""
        node = live.roots[-1].node if live.roots else None
        if node is None or not live.model_parameters:
            return {}
        looks = live.memory[self.name] = live.memory.get(self.name, 0) + 1
        if (looks - 1) & (looks - 2):
            return {}
        frozen = [parameter for parameter in live.model_parameters if not parameter.requires_grad]
        held = graph.holds(node, frozen) if frozen else set()
        reading: dict[str, torch.Tensor | tuple[float, ...]] = {
            "frozen_on_path": tuple(float(id(parameter) in held) for parameter in live.model_parameters)
        }
        if held:
            none = next(p for p in frozen if id(p) in held).new_zeros((), dtype=torch.float32)
            each = [as_drawn(p).to(none.device) if id(p) in held else none for p in live.model_parameters]
            reading["frozen_at_start"] = torch.stack(each)
        return reading


def as_drawn(parameter: torch.Tensor) -> torch.Tensor:
    """Return 1.0 where a tensor looks as torch draws the weights of a new layer, else 0.0; a 0-D tensor on its device.

    That is: uniform between -b and b, where b is one of the usual bounds of its fan.
    """
    values = parameter.detach().reshape(-1)
    if values.numel() < FEWEST or parameter.dim() < 2 or not values.is_floating_point():
        return values.new_zeros((), dtype=torch.float32)
    coarse = torch.finfo(values.dtype).eps
    values = values[:: math.ceil(values.numel() / ELEMENTS)].float()
    count = values.numel()
    ordered = values.abs().sort().values
    rank = torch.arange(1, count + 1, device=values.device, dtype=torch.float32) / count
    result = values.new_zeros(())
    for bound in _bounds(parameter):
        share = ordered / bound
        edge = (share[-1] <= 1 + 4 * coarse) & (share[-1] >= 1 - REACH / count - 4 * coarse)
        apart = torch.maximum((share - rank).abs().amax(), (share - rank + 1 / count).abs().amax())
        centred = values.mean().abs() <= MEAN * bound / math.sqrt(3 * count)
        result = torch.maximum(result, (edge & (apart <= APART / math.sqrt(count)) & centred).float())
    return result


def _bounds(parameter: torch.Tensor) -> set[float]:
    """Return the bounds that `torch.nn.init` uses: that of Linear and convolutions, Kaiming's for a relu, Xavier's."""
    field_size = parameter[0, 0].numel()
    fan_in, fan_out = parameter.shape[1] * field_size, parameter.shape[0] * field_size
    return {1 / math.sqrt(fan_in), math.sqrt(6 / fan_in), math.sqrt(6 / (fan_in + fan_out))}
