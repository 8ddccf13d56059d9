"""Which weights a load changed: a short sum over each parameter before and after.

Loads are rare and this is cheap: at most `SAMPLE` elements of each tensor are read, so that of a tensor with more a
change of single elements may be missed. A load that does its work changes nearly all of them.
"""

from __future__ import annotations

import math

import torch
from torch import nn

SAMPLE = 65_536
"""So many elements of a tensor are enough: a load replaces tensors as a whole."""

Checksums = dict[str, tuple[float, ...] | None]


def checksums(module: nn.Module) -> Checksums:
    """Return for each parameter its name, and the sum and the weighted sum of its elements; None where it has none."""
    return {name: _checksum(parameter) for name, parameter in module.named_parameters()}


def changed(before: Checksums, after: Checksums) -> int:
    """Return how many parameters are not what they were."""
    # Texts, for NaN is no other number than NaN here.
    return sum(1 for name, value in after.items() if name not in before or repr(before[name]) != repr(value))


def _checksum(parameter: torch.Tensor) -> tuple[float, ...] | None:
    if parameter.is_meta or parameter.is_sparse or parameter.is_quantized or torch.nn.parameter.is_lazy(parameter):
        return None
    flat = parameter.detach().reshape(-1)
    if flat.numel() > SAMPLE:
        flat = flat[:: math.ceil(flat.numel() / SAMPLE)]
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    dtype = torch.float32 if flat.device.type == "mps" else torch.float64
    values = flat.to(dtype)
    ramp = torch.arange(1, values.numel() + 1, device=values.device, dtype=dtype)
    return tuple(torch.stack([values.sum(), torch.dot(values, ramp), values.abs().sum()]).tolist())
