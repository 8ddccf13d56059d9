"""Where a token stands: rotation, ALiBi, relative bias, learned vectors; noise and random positions in training.

Letters in names: B rows, H heads, N places, Q queries, K keys, R rotated dimensions of a head, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from trimtab.errors import ConfigError
from trimtab_systems.sci.write_up.config import WriteUpConfig

EVALUATED = 64
"""Places that evaluation lays evenly into `max_length` with randomised positions; the longest target has 49."""


@dataclass(frozen=True, slots=True)
class Where:
    """What self-attention needs to know of the places of its queries and keys.

    Attributes:
        turn_NR: (N, R / 2), complex numbers of length 1 by which the pairs of the new tokens are multiplied; None
            without rotation.
        bias_HQK: (H, Q, K), added to the scores; None where positions are not a bias.
    """

    turn_NR: torch.Tensor | None = None
    bias_HQK: torch.Tensor | None = None


def rotate(x: torch.Tensor, where: Where) -> torch.Tensor:
    """Turn the pairs (0, 1), (2, 3) ... of the first R dimensions by the angles of their places.

    Args:
        x: (..., N, D), queries or keys of a head, D even; dimensions from R on pass.
        where: with a turn for each pair; without any, `x` is returned.
    """
    if where.turn_NR is None:
        return x
    turned = 2 * where.turn_NR.shape[-1]
    pairs = torch.view_as_complex(x[..., :turned].unflatten(-1, (-1, 2)))
    out = torch.view_as_real(pairs * where.turn_NR).flatten(-2)
    return out if turned == x.shape[-1] else torch.cat((out, x[..., turned:]), dim=-1)


def alibi_slopes(heads: int) -> torch.Tensor:
    """Return the slope of each head: 2^(-8h/H) for a power of two.

    For other counts P is the power of two below: its slopes come first, then every other slope of 2P heads.
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2.0 ** (-8 * head / power) for head in range(1, power + 1)]
    between = [2.0 ** (-8 * head / (2 * power)) for head in range(1, 2 * power + 1, 2)]
    return torch.tensor(slopes + between[: heads - power])


def relative_bucket(distance: torch.Tensor, buckets: int, max_distance: int, *, both_sides: bool) -> torch.Tensor:
    """Return the bucket of each distance, key minus query, as T5 has them.

    The lower half of the buckets of a side is for one distance each, the upper half grows with the logarithm up to
    `max_distance`. With `both_sides` the second half of all buckets is for keys after the query; otherwise those
    share bucket 0.
    """
    after = torch.zeros_like(distance)
    if both_sides:
        buckets //= 2
        after = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    grown = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    far = (exact + grown.clamp(min=0).long()).clamp(max=buckets - 1)
    return after + torch.where(distance < exact, distance, far)


class PositionEncoding(nn.Module):
    """The positions of one stack of layers.

    Source: write-up, section 2.1. Positions enter self-attention alone, as a rotation of queries and keys or as a bias
    of the scores; "learned" vectors, the negative control, are added to what the first layer reads.

    Args:
        config: `positions` and the settings below it.
        both_sides: keys may stand after their query, as in an encoder.
    """

    def __init__(self, config: WriteUpConfig, *, both_sides: bool):
        super().__init__()
        self.kind, self.longest, self.both_sides = config.positions, config.max_length, both_sides
        self.noise, self.randomised = config.position_noise, config.randomised_positions
        self.buckets, self.max_distance = config.relative_buckets, config.relative_max_distance
        self.frequency_R: torch.Tensor
        self.slope_H: torch.Tensor
        if self.kind == "rotary":
            turned = min(config.rotary_width, config.width // config.heads)
            exponent_R = torch.arange(0, turned, 2) / turned
            self.register_buffer("frequency_R", config.rotary_base**-exponent_R, persistent=False)
        elif self.kind == "alibi":
            self.register_buffer("slope_H", alibi_slopes(config.heads), persistent=False)
        elif self.kind == "relative_bias":
            self.bias = nn.Embedding(self.buckets, config.heads)
            nn.init.normal_(self.bias.weight, std=0.02)
        else:
            self.place = nn.Embedding(self.longest, config.width)
            nn.init.normal_(self.place.weight, std=0.02)

    def places(self, count: int, *, exact: bool = False, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return the positions of `count` tokens from the first on, (N,), as numbers with fractions.

        Args:
            count: N.
            exact: as in evaluation: nothing is drawn, so that tokens that come one by one stand where they would all
                at once.
            generator: draws the noise and the random positions of training.
        """
        device = next(iter((*self.parameters(), *self.buffers()))).device
        drawn = self.training and not exact
        if self.randomised:
            if drawn:
                self._fits(count)
                chosen_N = torch.randperm(self.longest, generator=generator)[:count].sort().values
                return chosen_N.to(device, torch.float32)
            step = max(self.longest // EVALUATED, 1)
            return torch.arange(0, count * step, step, device=device, dtype=torch.float32)
        places_N = torch.arange(count, device=device, dtype=torch.float32)
        if drawn and self.noise > 0 and self.kind != "learned":
            places_N = places_N + self.noise * torch.randn(count, generator=generator).to(device)
        return places_N

    def embed(self, x_BND: torch.Tensor, places_N: torch.Tensor) -> torch.Tensor:
        """Return what the first layer reads: `x_BND`, for "learned" with the vectors of its places added.

        Raises:
            ConfigError: a place has no vector.
        """
        if self.kind != "learned":
            return x_BND
        index_N = places_N.long()
        self._fits(int(index_N[-1]) + 1)
        embedded_BND: torch.Tensor = x_BND + self.place(index_N)
        return embedded_BND

    def where(self, places_K: torch.Tensor, new: int | None = None) -> Where:
        """Return rotation and bias for the last `new` of the places as queries and for all of them as keys.

        Args:
            places_K: the places of all tokens so far.
            new: how many of them are queries; the others lie in a cache, their keys already rotated. None for all.
        """
        places_Q = places_K if new is None else places_K[len(places_K) - new :]
        if self.kind == "rotary":
            angle_NR = places_Q[:, None] * self.frequency_R
            return Where(turn_NR=torch.polar(torch.ones_like(angle_NR), angle_NR))
        distance_QK = places_K[None, :] - places_Q[:, None]
        if self.kind == "alibi":
            return Where(bias_HQK=-self.slope_H[:, None, None] * distance_QK.abs())
        if self.kind == "relative_bias":
            whole_QK = distance_QK.round().long()
            bucket_QK = relative_bucket(whole_QK, self.buckets, self.max_distance, both_sides=self.both_sides)
            return Where(bias_HQK=self.bias(bucket_QK).permute(2, 0, 1))
        return Where()

    def _fits(self, count: int) -> None:
        if count > self.longest:
            raise ConfigError(
                f"max_length: {count} tokens, but positions={self.kind!r} has {self.longest} places; raise max_length, "
                "or use rotary, alibi or relative_bias without randomised_positions, which know no longest place"
            )
