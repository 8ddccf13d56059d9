"""How much two gradients in a row have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base

SAMPLE = 16_384
"""At most about so many elements of all gradients together are kept from one step to the next."""


@dataclass(frozen=True, kw_only=True)
class GradientNoise(Base):
    """`gradient_cosine`: cosine between the gradients of two updates in a row; `gradient_signal`: what they have in
    common over what is noise, <g1, g2> / (|g1 - g2|^2 / 2).

    Both on a fixed sample, before the update and after clipping. Two draws g1 and g2 of the same true gradient G have
    the mean inner product |G|^2, and half of their squared distance is the noise of one of them: a signal of 1 says
    that a batch holds as much signal as noise. The cosine is 1 without noise, 0 with nothing but noise, and below 0
    where each update overshoots. Cost: one slice a tensor and three inner products, on two steps in a row of the
    "pairs" tier.
    """

    name: str = "gradient_noise"
    tier: Tier = "pairs"

    def read(self, live: Live) -> Reading:
        """Return both on the device on the second step of a pair; on the first one the sample is kept."""
        previous = live.memory.pop(self.name, None)
        taken = sample([parameter.grad for parameter in live.parameters])
        if taken is None:
            return {}
        if not (isinstance(live.scale, float) and live.scale == 1.0):
            taken = taken / live.scale
        live.memory[self.name] = (live.step, taken)
        if previous is None:
            return {}
        step, before = previous
        if step != live.step - 1 or before.shape != taken.shape or before.device != taken.device:
            return {}
        return common(before, taken)


def sample(gradients: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Return about `SAMPLE` elements of all gradients in one vector of their own, spread evenly; None without any."""
    dense = [g.detach() for g in gradients if g is not None and not g.is_sparse and g.numel()]
    dense = [torch.view_as_real(g.resolve_conj()) if g.is_complex() else g for g in dense]
    total = sum(g.numel() for g in dense)
    if not total:
        return None
    # An odd stride walks through all columns of a matrix whose sizes are powers of two.
    stride = 1 if total <= SAMPLE else -(-total // SAMPLE) | 1
    device = dense[0].device
    parts = [g.reshape(-1)[::stride].to(device, torch.float32) for g in dense]
    return torch.cat(parts) if len(parts) > 1 else parts[0].clone()


def common(first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return cosine and signal-to-noise ratio of two gradients; both are 0 where one of them is zero."""
    tiny = torch.finfo(first.dtype).tiny
    inner = torch.dot(first, second)
    lengths = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    noise = 0.5 * (first - second).square().sum()
    return {"gradient_cosine": inner / lengths.clamp(min=tiny), "gradient_signal": inner / noise.clamp(min=tiny)}
