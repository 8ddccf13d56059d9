"""What the training minimises: digits that come back, a code near its prior, and radii inside the band of their level.

Letters in names: B rows, D digits, V values of a digit, L levels, Z latent dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from trimtab.stabilizers import free_bits
from trimtab_systems.ternary.data import COUNT, LEVELS
from trimtab_systems.ternary.hyperbolic import log_volume, normal_log_density
from trimtab_systems.ternary.model import Code

NEEDED_NATS = math.log(COUNT)
"""9 ln 3 = 9.888 nats: what a code must carry to tell all operations apart. Less divergence means that it collapsed."""

RadialTerm = Literal["band", "point", "mean", "none"]


@dataclass(frozen=True, slots=True)
class Bands:
    """Where the radii of each level shall lie, as shares of the ball's radius.

    Attributes:
        middle: (L,), centre of the band of each level, falling.
        half: (L,), how far a radius may be from it unpunished.
        gap: unit in which being outside is measured.
    """

    middle: torch.Tensor
    half: torch.Tensor
    gap: float


def even_bands(outer: float, inner: float, half: float) -> Bands:
    """Return bands of equal width from `outer` for level 0 to `inner` for level 9.

    `half` is half a band's width as a share of the distance between two middles: below 0.5 bands do not touch.
    """
    gap = (outer - inner) / (LEVELS - 1)
    return Bands(outer - gap * torch.arange(LEVELS), torch.full((LEVELS,), half * gap), gap)


WIDE_EDGES = (0.95, 0.55, 0.40, 0.33, 0.27, 0.22, 0.17, 0.13, 0.09, 0.05, 0.01)
"""Level 0, two thirds of all operations, gets 0.55 to 0.95, so that the radius can say more than the level."""
WIDE_MARGIN = 0.008
"""Left empty at each edge, so that levels do not touch."""


def wide_bands(gap: float) -> Bands:
    """Return bands with room for the levels that have most operations."""
    edges = torch.tensor(WIDE_EDGES)
    return Bands((edges[:-1] + edges[1:]) / 2, (edges[:-1] - edges[1:]) / 2 - WIDE_MARGIN, gap)


def reconstruction_loss(logits_BVD: torch.Tensor, digits_BD: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of an operation, the sum over its digits, in nats; chance is 9 ln 3."""
    return F.cross_entropy(logits_BVD, digits_BD) * digits_BD.shape[1]


def reconstructed(logits_BVD: torch.Tensor, digits_BD: torch.Tensor) -> torch.Tensor:
    """Return which rows have all their digits as the most likely ones, (B,); their share is the coverage.

    It is asked of codes of given operations. Never count distinct strings among samples of the prior instead: a
    decoder that was not trained at all reaches 99.97 % of all operations with 195,000 of those.
    """
    return (logits_BVD.max(1).indices == digits_BD).all(-1)  # argmax says the same and takes 15 times as long


def divergence(code: Code, prior: float) -> torch.Tensor:
    """Return the divergence of each entry of the code from its prior, in nats, (B, Z).

    Both are normal distributions in the tangent space at the origin, the prior around 0 with the deviation `prior`.
    exp_0 moves both alike, so it is the divergence of their images in the ball as well.
    """
    spread_BZ = (2 * code.log_sigma).exp()
    return (spread_BZ + code.mean.square()) / (2 * prior * prior) - code.log_sigma + (math.log(prior) - 0.5)


def divergence_of_sample(
    code: Code, noise_BZ: torch.Tensor, sample_BZ: torch.Tensor, prior: float, curvature: float
) -> torch.Tensor:
    """Return an estimate of the divergence of a wrapped posterior from the wrapped prior, in nats, (B, 1).

    There is no closed form; it is log q - log p at one draw, right on average.

    Args:
        code: the posteriors.
        noise_BZ: what the draw was made of.
        sample_BZ: tangent vector of the draw.
        prior: deviation of the prior around the origin.
        curvature: c of the ball.
    """
    away_BZ = code.log_sigma.exp() * noise_BZ
    q_B = normal_log_density(away_BZ, code.log_sigma) - log_volume(away_BZ, curvature)
    log_prior = torch.tensor(math.log(prior))
    p_B = normal_log_density(sample_BZ, log_prior.expand(sample_BZ.shape[-1])) - log_volume(sample_BZ, curvature)
    return (q_B - p_B)[:, None]


def divergence_loss(kl_BZ: torch.Tensor, free: float) -> torch.Tensor:
    """Return the mean divergence of a code beyond `free` nats in total."""
    return free_bits(kl_BZ, free, per="total")


def radius_losses(
    share_B: torch.Tensor, level_BL: torch.Tensor, bands: Bands, kind: RadialTerm, part: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how far radii are from where their levels shall lie, in squared gaps, and how much spread is missing.

    The first, a mean over the levels that are present, each of which counts alike:

    - "band": each row's distance from its band, 0 inside it;
    - "point": each row's distance from the middle of its band; it leaves no spread inside a level;
    - "mean": the distance of each level's mean radius from the middle. Rows may lie anywhere as long as the mean is
      right, so the order of rows falls while this term does too: the objective does not match the metric;
    - "none": 0.

    The second is a floor, 0 where there is enough: relu(1 - deviation / (part x half width)) squared for each level
    with two rows or more, then the mean.

    Both are made of the same three sums over the rows of each level.

    Args:
        share_B: radii as shares of the ball's.
        level_BL: one-hot levels.
        bands: where levels shall lie.
        kind: see above.
        part: deviation asked for, as a share of half the band's width; a uniform distribution over the band has 0.58.
    """
    middle_B, half_B = (level_BL @ torch.stack([bands.middle, bands.half], 1)).unbind(1)
    off_B = share_B - middle_B  # small, so that the variance below keeps its digits
    outside_B = (off_B.abs() - half_B).relu()
    rows_L = level_BL.sum(0)
    sums_3L = torch.stack([off_B, off_B.square(), outside_B.square()]) @ level_BL
    mean_L, square_L, outside_L = (sums_3L / rows_L.clamp_min(1)).unbind()
    if kind == "none":
        radial = mean_L.sum() * 0
    else:
        by_level = {"band": outside_L, "point": square_L, "mean": mean_L.square()}[kind]
        radial = by_level.sum() / ((rows_L > 0).sum() * bands.gap**2)
    deviation_L = ((square_L - mean_L.square()).relu() + _FLOOR).sqrt()
    missing_L = (1 - deviation_L / (part * bands.half)).relu().square()
    several_L = (rows_L > 1).float()
    return radial, missing_L @ several_L / several_L.sum().clamp_min(1)


_FLOOR = 1e-10
"""Added to variances, whose root has no gradient at 0; a deviation of 1e-5 is far below any that is asked for."""


def ramp(done: float, begin: float, length: float) -> float:
    """Return 0 before `begin`, 1 after `begin + length`, a straight line between; all are shares of the training."""
    if done < begin:
        return 0.0
    return 1.0 if done >= begin + length else (done - begin) / length
