"""How large activations are, how many units are dead, and how much of a squashing layer is at its ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from trimtab.cadence import Tier
from trimtab.graph import Layer
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base

VALUES = 16_384
"""So many values of a layer are looked at: rows evenly spread over the batch and the places, all units of each."""
FEWEST_ROWS, MOST_ROWS = 64, 512
"""But at least and at most so many rows, so that a unit that is active for one row in ten is not taken for dead."""
JUDGED_ROWS = 8
"""A unit that was not active in fewer rows than this may only not have been needed."""
JUDGED_UNITS = 4
"""A layer of fewer units is a gate or an output."""
LAYERS = 64
"""So many layers are looked at, evenly spread."""
DEAD_BELOW = {"relu": 0.0, "gelu": -4.0, "silu": -10.0, "elu": -7.0, "softplus": -7.0}
"""Where the slope of an activation is below a thousandth, by what it was given (relu: exactly zero)."""
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class ActivationStats(Base):
    """What the layers of the last forward pass gave, for each layer that the graph shows, on a sample of it.

    - `activation_rms`: root mean square of the result of a relu, tanh or sigmoid, of what the other activations and the
      linear layers and convolutions were given;
    - `dead_share`: share of the units (features or channels) of a relu-like layer through which no gradient flows,
      whatever row of the sample is looked at; layers that no weights come after are left out, as are batches of few
      rows;
    - `saturated_share`: share of the values of a tanh beyond 0.99, of a sigmoid outside 0.01..0.99; layers that no
      weights come after are left out: an output may be sure of itself;
    - `activation_half`: 1 for a layer that computes in 16 bits, 0 for others.

    Cost: 0.03 to 0.1 milliseconds for each layer on a CPU, on rows of the "layers" tier.
    """

    name: str = "activation_stats"
    points: tuple[Point, ...] = ("backward",)
    tier: Tier = "layers"
    axes: Mapping[str, str] = field(
        default_factory=lambda: dict.fromkeys(
            ("activation_rms", "dead_share", "saturated_share", "activation_half"), "layers"
        )
    )

    def read(self, live: Live) -> Reading:
        """Return tensors on the device of the model, by layer."""
        kept = [layer for layer in live.layers if layer.kind not in ("softmax", "sdpa")]
        rms: dict[str, float | torch.Tensor] = {}
        dead: dict[str, float | torch.Tensor] = {}
        saturated: dict[str, float | torch.Tensor] = {}
        half: dict[str, float | torch.Tensor] = {}
        for layer in kept[:: -(-len(kept) // LAYERS) or 1]:
            tensor = layer.result if layer.result is not None else layer.given
            if tensor is None or not tensor.is_floating_point() or tensor.dim() == 0:
                continue
            rows_NU = sample(tensor, layer.units)
            half[layer.label] = float(tensor.dtype in HALF)
            rms[layer.label] = rows_NU.float().square().mean().sqrt()
            if not layer.feeds or rows_NU.shape[1] < JUDGED_UNITS:
                continue
            if layer.kind in DEAD_BELOW and rows_NU.shape[0] >= JUDGED_ROWS:
                dead[layer.label] = dead_share(layer, rows_NU)
            elif layer.kind in ("tanh", "sigmoid"):
                saturated[layer.label] = saturated_share(layer, rows_NU)
        found = {"activation_rms": rms, "dead_share": dead, "saturated_share": saturated, "activation_half": half}
        return {name: values for name, values in found.items() if values}


def sample(tensor: torch.Tensor, units: int) -> torch.Tensor:
    """Return rows of the units of a tensor, evenly spread over all its other places, shape (rows, units)."""
    if tensor.dim() == 1:
        tensor = tensor.unsqueeze(1)
    units = units % tensor.dim()
    most = min(max(VALUES // max(tensor.shape[units], 1), FEWEST_ROWS), MOST_ROWS)
    if units == tensor.dim() - 1:
        flat = tensor.flatten(0, -2)
        return flat[:: _odd(flat.shape[0], most)]
    # Channels before places: thin out the places first, for to put the channels last copies what is left.
    examples = tensor[:: max(-(-tensor.shape[0] // most), 1)].flatten(2)
    places = examples[:, :, :: _odd(examples.shape[2], max(most // max(examples.shape[0], 1), 1))]
    return places.movedim(1, -1).flatten(0, 1)


def _odd(size: int, most: int) -> int:
    """Return an odd stride: an even one would look at the same columns of every image."""
    stride = max(-(-size // most), 1)
    return stride if stride % 2 or stride == 1 else stride + 1


def dead_share(layer: Layer, rows_NU: torch.Tensor) -> torch.Tensor:
    """Return the share of units that were below their threshold in every row."""
    return (rows_NU.amax(0) <= DEAD_BELOW[layer.kind]).float().mean()


def saturated_share(layer: Layer, rows_NU: torch.Tensor) -> torch.Tensor:
    """Return the share of values near the ends of a tanh or sigmoid."""
    if layer.kind == "tanh":
        return (rows_NU.abs() > 0.99).float().mean()
    return ((rows_NU - 0.5).abs() > 0.49).float().mean()
