"""How well a radius tells the level of each operation.

The radius shall fall as the level rises: level 0 outermost. All measures of order are negative when it does, so lower
is better. Nothing here draws random numbers; what was sampled is measured by its caller and named so.

The rank correlation (`hierarchy`) cannot see the deep levels: two thirds of the operations have level 0, and a radius
that tells levels 0 and 1 from the rest, with the others inverted, still has -0.8297 of at best -0.8321. So the mean
over pairs of levels (`balanced_d`) stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import UserError

Array = NDArray[Any]


# --- the measures ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RadialMetrics:
    """How the radius orders the levels.

    Attributes:
        hierarchy: Spearman's rank correlation of level and radius, ties at their mean rank.
        hierarchy_over_ceiling: its share of what is possible without a tie in the radius; 1 is perfect, above 1 means
            ties.
        kendall_tau_b: Kendall's rank correlation, corrected for ties.
        somers_d: over all pairs of different level, the share in the wrong order less that in the right one; ties in
            the level put no bound on it, -1 is perfect.
        balanced_d: the same for each pair of levels, then the mean over the pairs: each level counts alike.
        worst_adjacent_d: the same for the worst pair of neighbouring levels.
        monotone_means: how many of the steps from level to level lower the mean radius; 9 of 9.
        richness_ball: mean over levels of the variance of the radius inside the level, in squares of the radius.
        richness_hyp: the same of the distance from the origin, in squares of it. Units differ, compare neither.
        distinct_radii: how many different radii there are. Fewer than operations means ties, and ties alone can bring
            the rank correlation below its ceiling.
    """

    hierarchy: float
    hierarchy_over_ceiling: float
    kendall_tau_b: float
    somers_d: float
    balanced_d: float
    worst_adjacent_d: float
    monotone_means: int
    richness_ball: float
    richness_hyp: float
    distinct_radii: int

    def as_dict(self) -> dict[str, float]:
        """Return the measures by name, as numbers that can be recorded."""
        return {name: float(value) for name, value in asdict(self).items()}


BETTER: Mapping[str, Literal["higher", "lower"]] = {
    "hierarchy": "lower",
    "balanced_d": "lower",
    "worst_adjacent_d": "lower",
    "coverage": "higher",
    "loss": "lower",
}
"""The measures that have a good direction. Richness has none: it falls while levels are sorted, and shall then stay."""


def radial_metrics(level_N: Array, radius_N: Array, curvature: float) -> RadialMetrics:
    """Return how radii order levels.

    Args:
        level_N: whole numbers from 0; at least two different ones.
        radius_N: Euclidean norms of points of the ball, below 1/sqrt(curvature).
        curvature: c of the ball.

    Raises:
        UserError: shapes do not fit, there is one level alone, or a radius is not finite or outside the ball.
    """
    level_N, radius_N = _checked(level_N, radius_N)
    share_N = math.sqrt(curvature) * radius_N.astype(np.float64)
    if not (np.isfinite(share_N).all() and share_N.min() >= 0 and share_N.max() <= 1):
        raise UserError(
            f"radial_metrics: expected radii in [0, {1 / math.sqrt(curvature):g}], as the curvature is {curvature:g}, "
            f"got {radius_N.min()} to {radius_N.max()}"
        )
    beyond_N = 2 / math.sqrt(curvature) * np.arctanh(np.minimum(share_N, 1 - np.finfo(np.float64).eps))
    hierarchy = spearman(level_N, radius_N)
    counts_L = np.bincount(level_N)
    present = np.flatnonzero(counts_L)
    d_LL = separation(level_N, radius_N)
    above, below = np.triu_indices(len(present), 1)
    d_P = d_LL[above, below]
    pairs_P = (counts_L[present][above] * counts_L[present][below]).astype(np.float64)
    means_L = np.array([radius_N[level_N == level].mean(dtype=np.float64) for level in present])
    signed, comparable = float((pairs_P * d_P).sum()), float(pairs_P.sum())
    _, ties = np.unique(radius_N, return_counts=True)
    untied = len(radius_N) * (len(radius_N) - 1) / 2 - float((ties * (ties - 1) / 2).sum())
    return RadialMetrics(
        hierarchy=hierarchy,
        hierarchy_over_ceiling=-hierarchy / spearman_ceiling(counts_L),
        kendall_tau_b=signed / math.sqrt(comparable * untied) if untied else math.nan,
        somers_d=signed / comparable,
        balanced_d=float(d_P.mean()),
        worst_adjacent_d=float(np.diagonal(d_LL, 1).max()),
        monotone_means=int((np.diff(means_L) < 0).sum()),
        richness_ball=richness(level_N, radius_N),
        richness_hyp=richness(level_N, beyond_N),
        distinct_radii=len(ties),
    )


def spearman(one_N: Array, other_N: Array) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; NaN where one of both is constant."""
    return _correlation(midranks(one_N), midranks(other_N))


def midranks(values_N: Array) -> Array:
    """Return ranks from 1, equal values with the mean of their ranks."""
    order_N = np.argsort(values_N, kind="stable")
    first_N, last_N = _ties(values_N[order_N])
    ranks_N = np.empty(len(values_N))
    ranks_N[order_N] = (first_N + last_N + 1) / 2
    return ranks_N


def separation(level_N: Array, radius_N: Array) -> Array:
    """Return for each pair of levels that occur how far they are in order: -1 right, 0 mixed, 1 inverted; (L, L).

    Entry (a, b) is the probability that a point of level a lies further in than one of level b, less that of the
    opposite. It is Somers' d of the two levels, and twice the area under the curve less one.
    """
    order_N = np.argsort(radius_N, kind="stable")
    first_N, last_N = _ties(radius_N[order_N])
    present, place_N = np.unique(level_N[order_N], return_inverse=True)
    is_level_NL = np.eye(len(present))[place_N]
    before_NL = np.vstack(
        [np.zeros(len(present)), is_level_NL.cumsum(0)]
    )  # row i: points of each level among the first i
    further_in_NL = before_NL[first_N] + before_NL[last_N]  # twice, ties as one half
    counts_L = is_level_NL.sum(0)
    beats_LL = is_level_NL.T @ further_in_NL / 2 / (counts_L[:, None] * counts_L)
    d_LL: Array = 1 - 2 * beats_LL
    return d_LL


def richness(level_N: Array, radius_N: Array) -> float:
    """Return the mean over levels of the population variance of the radius inside the level; one point alone has 0.

    Levels that do not occur up to the deepest count as 0.
    """
    return float(np.mean(np.square(deviation_within(level_N, radius_N))))


def deviation_within(level_N: Array, radius_N: Array) -> Array:
    """Return the standard deviation of the radius inside each level from 0 to the deepest, divided by n; (L,)."""
    counts_L = np.maximum(np.bincount(level_N), 1)
    radius_N = radius_N.astype(np.float64)
    means_L = np.bincount(level_N, radius_N) / counts_L
    deviation: Array = np.sqrt(np.bincount(level_N, (radius_N - means_L[level_N]) ** 2) / counts_L)
    return deviation


# --- what is possible -----------------------------------------------------------------------------


def spearman_ceiling(counts: Sequence[int] | Array) -> float:
    """Return the largest Spearman correlation of groups of these sizes with a quantity that has no ties.

    For the ten levels it is 0.8320503. A quantity with ties of its own can come nearer to 1, up to 1 where it is
    constant inside each group.
    """
    n, sizes = _sizes(counts)
    return math.sqrt(1 - float((sizes**3 - sizes).sum()) / (n**3 - n))


def kendall_ceiling(counts: Sequence[int] | Array, variant: str = "b") -> float:
    """Return the largest Kendall correlation of groups of these sizes with a quantity that has no ties.

    For the ten levels it is 0.7071247 for tau-b ("b"), which corrects for ties, and 0.5000254 for tau-a ("a").
    """
    n, sizes = _sizes(counts)
    share = 1 - float((sizes * (sizes - 1)).sum()) / (n * (n - 1))
    if variant not in ("a", "b"):
        raise UserError(f"kendall_ceiling: variant={variant!r}; expected 'a' or 'b'")
    return share if variant == "a" else math.sqrt(share)


def somers_ceiling(counts: Sequence[int] | Array) -> float:
    """Return the largest Somers' d of groups of these sizes with a quantity that has no ties: 1, whatever the sizes.

    Only pairs of different groups count, and all of them can be in order.
    """
    _sizes(counts)
    return 1.0


# --- what little knowledge is worth ---------------------------------------------------------------


def hierarchy_of_groups(level_N: Array, outwards_N: Array) -> float:
    """Return the expected `hierarchy` of a radius that orders groups and is random inside each of them.

    Args:
        level_N: the levels.
        outwards_N: the group of each point; the larger, the further out.
    """
    level_N, outwards_N = _checked(level_N, outwards_N)
    level_rank_N, rank_N = midranks(level_N), midranks(outwards_N)
    n = len(level_N)
    covariance = float(np.mean((level_rank_N - (n + 1) / 2) * (rank_N - (n + 1) / 2)))
    return covariance / float(level_rank_N.std()) / math.sqrt((n * n - 1) / 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule that reads one digit: operations with `value` at `digit` lie further in than all others."""

    digit: int
    value: int
    hierarchy: float

    def __str__(self) -> str:
        return f"digit {self.digit} is {self.value}: {self.hierarchy:.4f}"


def best_one_digit_rule(level_N: Array, values_ND: Array) -> Rule:
    """Return the rule that reads one digit and has the lowest hierarchy: what a result must beat to say anything.

    For all operations it is "the first digit is -1" with -0.8012.
    """
    rules = [
        Rule(digit=digit, value=int(value), hierarchy=hierarchy_of_groups(level_N, values_ND[:, digit] != value))
        for digit in range(values_ND.shape[1])
        for value in np.unique(values_ND[:, digit])
    ]
    return min(rules, key=lambda rule: rule.hierarchy)


def _correlation(one_N: Array, other_N: Array) -> float:
    one_N, other_N = one_N - one_N.mean(), other_N - other_N.mean()
    size = math.sqrt(float(one_N @ one_N) * float(other_N @ other_N))
    return float(one_N @ other_N) / size if size else math.nan


def _ties(sorted_N: Array) -> tuple[Array, Array]:
    """Return for each place of a sorted array where the run of equal values around it begins, and where it ended."""
    starts = np.flatnonzero(np.r_[True, sorted_N[1:] != sorted_N[:-1]])
    lengths = np.diff(np.r_[starts, len(sorted_N)])
    first_N = np.repeat(starts, lengths)
    return first_N, first_N + np.repeat(lengths, lengths)


def _checked(level_N: Array, other_N: Array) -> tuple[Array, Array]:
    level_N, other_N = np.asarray(level_N), np.asarray(other_N)
    if level_N.ndim != 1 or level_N.shape != other_N.shape:
        raise UserError(f"expected two arrays of shape (N,), got {level_N.shape} and {other_N.shape}")
    if len(np.unique(level_N)) < 2:
        raise UserError(f"expected at least two different levels among {len(level_N)} points; nothing can be ordered")
    return level_N, other_N


def _sizes(counts: Sequence[int] | Array) -> tuple[float, Array]:
    sizes = np.asarray(counts, np.float64)
    if sizes.ndim != 1 or (sizes < 0).any() or (sizes > 0).sum() < 2:
        raise UserError(f"expected the sizes of at least two groups, got {list(counts)}")
    return float(sizes.sum()), sizes
