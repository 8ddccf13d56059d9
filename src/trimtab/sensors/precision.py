"""What few bits do to the gradients: how many of them are 16-bit, how many elements have become zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base

SAMPLE = 256
"""At most so many elements of each gradient are looked at, evenly spread; bfloat16 still counts them exactly."""

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Precision(Base):
    """`gradient_zero_share`: share of elements of each gradient that are exactly zero, in forward order, on a sample;
    `half_share`: share of the gradients that are kept in 16 bits (under autocast the copies of 32 bits are seen).

    A tensor without a gradient counts 0. Zeros come from numbers too small for their type, from units that are dead,
    and from rows of an embedding that no input asked for. Cost: one slice and one count a tensor (about 6 microseconds
    each on a CPU), on rows of the "layers" tier.
    """

    name: str = "precision"
    points: tuple[Point, ...] = ("before",)
    tier: Tier = "layers"
    axes: Mapping[str, str] = field(default_factory=lambda: {"gradient_zero_share": "parameters"})

    def read(self, live: Live) -> Reading:
        """Return the vector on the device, the share as a host fact."""
        gradients = [parameter.grad for parameter in live.parameters]
        present = [gradient for gradient in gradients if gradient is not None]
        if not present:
            return {}
        half = sum(gradient.dtype in _HALF for gradient in present) / len(present)
        return {"gradient_zero_share": zero_shares(gradients), "half_share": half}


def zero_shares(gradients: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Return the share of exact zeros in a sample of each gradient, shape (P,); a missing or empty one counts 0."""
    samples = [None if gradient is None else _sample(gradient) for gradient in gradients]
    present = [sample for sample in samples if sample is not None and sample.numel()]
    if not present:
        return torch.zeros(len(gradients))
    zero = torch.zeros((), device=present[0].device)
    others = iter(torch._foreach_norm(present, 0))  # the "norm" of order 0 counts what is not zero
    shares = [
        1.0 - next(others).to(zero) / sample.numel() if sample is not None and sample.numel() else zero
        for sample in samples
    ]
    return torch.stack(shares)


def _sample(gradient: torch.Tensor) -> torch.Tensor:
    values = gradient.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    flat = values.reshape(-1)
    # An odd stride walks through all columns of a matrix whose sizes are powers of two.
    return flat[:: -(-flat.numel() // SAMPLE) | 1] if flat.numel() > SAMPLE else flat
