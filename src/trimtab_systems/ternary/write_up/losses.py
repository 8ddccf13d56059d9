"""What the write-up trains its radii with, and the form that repairs it.

Radii are in units of the ball, see `WriteUpModel.reach`. Letters: B rows of a batch, L levels of valuation, D digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from trimtab_systems.ternary.data import DIGITS, LEVELS

GAP = 0.8 / (LEVELS - 1)
"""Between the radii that two neighbouring levels are to have."""
TARGETS = 0.9 - GAP * torch.arange(LEVELS)
"""The radius that each level is to have: 0.9 for valuation 0, 0.1 for valuation 9."""
BAND = 0.35
"""Half the width of the band around a target in which a radius costs nothing, as a share of the gap."""
STEP = 0.01
"""A level's mean is to lie at least so far below that of the level before."""
SPREAD = 0.5
"""A level is to keep at least this share of the variance that it had before the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of the write-up's loss; the defaults are those of its "baseline"."""

    hierarchy: float = 5.0
    richness: float = 2.0
    separation: float = 3.0


def level_mean_loss(
    reach_B: torch.Tensor, level_BL: torch.Tensor, variance_L: torch.Tensor, weights: Weights
) -> torch.Tensor:
    """Return the write-up's "rich hierarchy" loss: the means of the levels are judged, never a single radius.

    The sum of three terms: the squared distance of each level's mean from its target; the variance that a level lost
    beyond half of what it had; the amount by which the mean of a level lies above that of the level before. A batch in
    which the levels overlap entirely can have a loss of zero: that is what it gets wrong.

    Args:
        reach_B: radii.
        level_BL: 1.0 at the valuation of each row.
        variance_L: of the radii within each level before the training; a level that had none is not asked for any.
        weights: of the three terms.
    """
    rows_L = level_BL.sum(0)
    there_L = (rows_L > 0).float()
    levels = there_L.sum()
    mean_L = (reach_B @ level_BL) / rows_L.clamp_min(1)
    off_L = (mean_L - TARGETS) * there_L
    strayed_B = reach_B - level_BL @ mean_L
    now_L = (strayed_B.square() @ level_BL) / (rows_L - 1).clamp_min(1)
    asked = (rows_L > 1) & (variance_L > 0)
    lost = F.relu(SPREAD - now_L[asked] / variance_L[asked]).square().sum()
    both_L = there_L[1:] * there_L[:-1]
    wrong_L = F.relu(mean_L[1:] - mean_L[:-1] + STEP) * both_L
    return (
        weights.hierarchy * off_L.square().sum() / levels
        + weights.richness * lost / levels
        + weights.separation * wrong_L.sum()
    )


def band_loss(reach_B: torch.Tensor, level_BL: torch.Tensor) -> torch.Tensor:
    """Return how far single radii lie outside the band of their level, in squared gaps.

    The mean over the rows of a level, then over the levels that are present, so that the rare ones count alike.
    """
    rows_L = level_BL.sum(0)
    outside_B = F.relu((reach_B - level_BL @ TARGETS).abs() - BAND * GAP) / GAP
    return ((outside_B.square() @ level_BL) / rows_L.clamp_min(1)).sum() / (rows_L > 0).sum()


def variances(reach_B: torch.Tensor, level_BL: torch.Tensor) -> torch.Tensor:
    """Return the variance of the radii within each level, (L,); 0 where there are fewer than two."""
    rows_L = level_BL.sum(0)
    mean_L = (reach_B @ level_BL) / rows_L.clamp_min(1)
    strayed_B = reach_B - level_BL @ mean_L
    return (strayed_B.square() @ level_BL) / (rows_L - 1).clamp_min(1)


def reconstruction_loss(logits_BDV: torch.Tensor, digits_BD: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of an operation in nats, all nine digits together; a blind guess has 9 ln 3 = 9.888."""
    return DIGITS * F.cross_entropy(logits_BDV.flatten(0, 1), digits_BD.flatten())


def divergence(mean_BZ: torch.Tensor, deviation_BZ: torch.Tensor) -> torch.Tensor:
    """Return the mean divergence of the codes from a standard normal prior, in nats per operation."""
    each_BZ = 0.5 * (mean_BZ.square() + deviation_BZ.square() - 1) - deviation_BZ.log()
    return each_BZ.sum(-1).mean()
