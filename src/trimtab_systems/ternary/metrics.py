"""How well a radius tells the level of each operation.

The radius shall fall as the level rises: level 0 outermost. All measures of order are negative when it does, so lower
is better. Nothing here draws random numbers; what was sampled is measured by its caller and named so.

Sums are written without `@`: numpy hands that to a library with threads of its own, which for arrays of this size burn
more than twice the processor's time.

The rank correlation (`hierarchy`) cannot see the deep levels: two thirds of the operations have level 0, and a radius
that tells levels 0 and 1 from the rest, with the others inverted, still has -0.8297 of at best -0.8321. So the mean
over pairs of levels (`balanced_d`) stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

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
    order = _order(radius_N)
    counts_L = np.bincount(level_N)
    present = np.flatnonzero(counts_L)
    hierarchy, d_LL = _rank_correlation(level_N, order), _separation(level_N, order)
    above, below = np.triu_indices(len(present), 1)
    d_P = d_LL[above, below]
    pairs_P = (counts_L[present][above] * counts_L[present][below]).astype(np.float64)
    means_L = np.bincount(level_N, radius_N)[present] / counts_L[present]
    signed, comparable = float((pairs_P * d_P).sum()), float(pairs_P.sum())
    ties = np.diff(np.r_[order.starts, len(radius_N)])
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


def radial_metrics_or_nan(level_N: Array, radius_N: Array, curvature: float) -> dict[str, float]:
    """Return `radial_metrics` by name, all NaN where a radius is not finite: an evaluation of a model that is lost."""
    if np.isfinite(radius_N).all():
        return radial_metrics(level_N, radius_N, curvature).as_dict()
    return dict.fromkeys((field.name for field in fields(RadialMetrics)), math.nan)


def hierarchy_and_separation(level_N: Array, radius_N: Array) -> tuple[float, Array]:
    """Return Spearman's rank correlation and the `separation` of all pairs of levels; both from one sort."""
    order = _order(radius_N)
    return _rank_correlation(level_N, order), _separation(level_N, order)


def spearman(level_N: Array, other_N: Array) -> float:
    """Return Spearman's rank correlation of levels, whole numbers from 0, with anything; ties have their mean rank.

    It is NaN where one of both is constant, or a value is NaN, which has no rank.
    """
    if np.isnan(other_N).any():
        return math.nan
    return _rank_correlation(level_N, _order(other_N))


def midranks(values_N: Array) -> Array:
    """Return ranks from 1, equal values with the mean of their ranks."""
    return _midranks(_order(values_N))


def separation(level_N: Array, radius_N: Array) -> Array:
    """Return for each pair of levels that occur how far they are in order: -1 right, 0 mixed, 1 inverted; (L, L).

    Entry (a, b) is the probability that a point of level a lies further in than one of level b, less that of the
    opposite. It is Somers' d of the two levels, and twice the area under the curve less one.
    """
    return _separation(level_N, _order(radius_N))


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


class _Order(NamedTuple):
    """An array, sorted.

    Attributes:
        places: (N,), where each value of the sorted array stood.
        starts: where in it each run of equal values begins.
        first, last: (N,), where the run around each place begins, and where it has ended.
    """

    places: Array
    starts: Array
    first: Array
    last: Array


def _order(values_N: Array) -> _Order:
    places_N = np.argsort(values_N, kind="stable")
    sorted_N = values_N[places_N]
    starts = np.flatnonzero(np.r_[True, sorted_N[1:] != sorted_N[:-1]])
    lengths = np.diff(np.r_[starts, len(sorted_N)])
    first_N = np.repeat(starts, lengths)
    return _Order(places_N, starts, first_N, first_N + np.repeat(lengths, lengths))


def _midranks(order: _Order) -> Array:
    ranks_N = np.empty(len(order.places))
    ranks_N[order.places] = (order.first + order.last + 1) / 2
    return ranks_N


def _rank_correlation(level_N: Array, order: _Order) -> float:
    """Return Spearman's correlation; the ranks of levels follow from how many there are of each."""
    counts_L = np.bincount(level_N)
    middle = (len(level_N) + 1) / 2
    level_rank_L = counts_L.cumsum() - (counts_L - 1) / 2 - middle
    off_N = _midranks(order) - middle
    size = math.sqrt(float((counts_L * level_rank_L**2).sum()) * float(np.square(off_N).sum()))
    return float((level_rank_L * np.bincount(level_N, off_N)).sum()) / size if size else math.nan


def _separation(level_N: Array, order: _Order) -> Array:
    counts_L = np.bincount(level_N)
    present = np.flatnonzero(counts_L)
    counts_L = counts_L[present]
    sorted_level_N = level_N[order.places]
    until_NL = np.zeros((len(level_N) + 1, len(present)), np.int64)  # row i: points of each level among the first i
    np.cumsum(sorted_level_N[:, None] == present, axis=0, out=until_NL[1:])
    small = np.min_scalar_type(int(present[-1]))  # numpy sorts one and two bytes by counting
    by_level_N = np.argsort(sorted_level_N.astype(small), kind="stable")
    further_in_NL = until_NL[order.first[by_level_N]] + until_NL[order.last[by_level_N]]  # twice, ties as one half
    beats_LL = np.add.reduceat(further_in_NL, np.r_[0, counts_L.cumsum()[:-1]], axis=0) / 2
    d_LL: Array = 1 - 2 * beats_LL / (counts_L[:, None] * counts_L)
    return d_LL


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
