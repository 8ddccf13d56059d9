"""Statistics of a few runs: intervals, tests and power for samples of 3 to 30 numbers.

Every function takes plain numbers, drops nothing, and refuses NaN: whoever calls decides what a failed run counts as.
scipy is imported where it is needed, since it takes longer than all else here. What draws random numbers takes a
generator; without one it draws from a generator of its own that always starts the same, and sorts its input first, so
that the same numbers in any order give the same result.

How far a nominal 95 % interval of few runs can be trusted is measured by `benchmarks/interval_coverage.py`; the figures
are in COVERAGE, and `coverage_note` says them in words.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import UserError

LEVEL = 0.95
"""Level of every interval unless another is given."""
ALPHA = 0.05
"""Two-sided error that a claim may have."""
POWER = 0.8
"""How often a real difference shall be found; the usual convention."""
RESAMPLES = 5_000
"""Bootstrap samples: the ends of a 95 % interval then move by about 2 % of its width from one generator to the next."""
EXACT_PAIRS = 16
"""Up to so many pairs every pattern of signs is counted (32,768 sums); above, patterns are sampled."""
EXACT_SPLITS = 20_000
"""Up to so many ways to share out two samples every one is counted; above, they are sampled."""
PERMUTATIONS = 20_000
"""Sampled patterns: the standard error of p = 0.05 is then 0.0015."""
ROUNDING = 1e-9
"""Scatter below this part of a difference is that of sums of floats."""
MOST_SEEDS = 1_000_000
"""Nobody trains more; `seeds_needed` gives up there."""

Better = Literal["higher", "lower"]
Array = NDArray[np.float64]

COVERAGE: dict[str, dict[int, tuple[float, float]]] = {
    "normal": {3: (0.9405, 0.712), 5: (0.9425, 0.828), 10: (0.9525, 0.8995), 20: (0.951, 0.9255)},
    "log-normal": {3: (0.841, 0.6215), 5: (0.8265, 0.7335), 10: (0.8475, 0.8395), 20: (0.878, 0.8855)},
    "collapsed": {3: (0.4045, 0.4015), 5: (0.5485, 0.52), 10: (0.809, 0.8), 20: (0.9255, 0.938)},
}
"""data -> n -> the share of nominal 95 % intervals that hold the true mean: (Student-t, BCa)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a quantity lies, as far as n values can say.

    Attributes:
        low, high: its ends; NaN where there are too few values to say anything.
        level: the nominal level; what it really covers at this n is what `coverage_note` is about.
        method: how it was made, in words.
        n: from so many values.
    """

    low: float
    high: float
    level: float
    method: str
    n: int

    @property
    def known(self) -> bool:
        """Whether it has ends."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def holds(self, value: float) -> bool:
        """Say whether `value` lies inside; an interval without ends holds everything."""
        return not self.known or self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Test:
    """A permutation test.

    Attributes:
        p: two-sided; NaN without a value.
        smallest: the smallest p that these many values could have given.
        exact: whether every permutation was counted.
        n: pairs, or values of both samples together.
    """

    p: float
    smallest: float
    exact: bool
    n: int


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation of n pairs with its Fisher interval; NaN where a side does not vary or n is below 4."""

    r: float
    interval: Interval
    kind: Literal["pearson", "spearman"]

    @property
    def n(self) -> int:
        """How many pairs."""
        return self.interval.n


@dataclass(frozen=True, slots=True)
class Split:
    """Which runs of an arm succeeded and which collapsed.

    Attributes:
        succeeded: for each value, in the order given, whether it is a success.
        rule: how that was decided, in words.
        share: Wilson interval of the share of successes.
    """

    succeeded: tuple[bool, ...]
    rule: str
    share: Interval

    @property
    def collapsed(self) -> int:
        """How many did not succeed."""
        return self.succeeded.count(False)


# -- one sample ---------------------------------------------------------------------------------------------------


def mean(values: Sequence[float]) -> float:
    """Return the mean, the same in every order of the values; NaN for none."""
    return math.fsum(values) / len(values) if len(values) else math.nan


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation with n - 1 in the denominator (ddof = 1); NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    if min(values) == max(values):
        return 0.0
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def iqm(values: Sequence[float]) -> float:
    """Return the interquartile mean: that of the values without the lowest and the highest quarter, rounded down."""
    return float(_iqm(np.sort(_array(values)))) if len(values) else math.nan


def _iqm(values: Array, axis: int = -1) -> Array:
    values = np.sort(values, axis=axis)
    cut = values.shape[axis] // 4
    kept = np.take(values, range(cut, values.shape[axis] - cut), axis=axis)
    middle: Array = kept.mean(axis=axis)
    return middle


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return Student's interval of the mean.

    Right for values that scatter normally, already at n = 3, and near enough for most others but collapsed runs. Values
    that are all equal give an interval without width: no scatter was seen, which is not the same as none.
    """
    _check_level(level)
    n, method = len(values), "Student-t"
    if n < 2:
        return Interval(math.nan, math.nan, level, method, n)
    middle, half = mean(values), _t_quantile(n - 1, level) * deviation(values) / math.sqrt(n)
    return Interval(middle - half, middle + half, level, method, n)


def bca_interval(
    values: Sequence[float],
    statistic: Literal["mean", "iqm", "median"] = "mean",
    level: float = LEVEL,
    generator: np.random.Generator | None = None,
) -> Interval:
    """Return the bias-corrected and accelerated bootstrap interval (Efron 1987) of a statistic.

    It follows a skewed sample better than Student's, and at n below 20 it is too narrow: see COVERAGE. Where the
    acceleration cannot be told, because leaving out any one value changes nothing, the percentile interval takes its
    place, and the method says so. Values that are all equal give an interval without width.
    """
    _check_level(level)
    n = len(values)
    if n < 2:
        return Interval(math.nan, math.nan, level, "BCa bootstrap", n)
    data = np.sort(_array(values))
    of = _STATISTICS[statistic]
    if data[0] == data[-1]:
        return Interval(float(data[0]), float(data[0]), level, "all values equal", n)
    left_out = of(np.stack([np.delete(data, index) for index in range(n)]), axis=-1)
    drawn = of(data[_picks(n) if generator is None else _draw(n, generator)], axis=-1)
    tail = (1 - level) / 2
    shares, method = _bca_shares(drawn, float(of(data)), left_out, tail), "BCa"
    if shares is None:
        shares, method = (tail, 1 - tail), "percentile"
    low, high = np.quantile(drawn, shares)
    return Interval(float(low), float(high), level, f"{method} bootstrap", n)


def _bca_shares(drawn: Array, observed: float, left_out: Array, tail: float) -> tuple[float, float] | None:
    """Return which quantiles of the bootstrap values are the ends; None where bias or acceleration cannot be told."""
    below = float(np.mean(drawn < observed) + np.mean(drawn <= observed)) / 2
    pull = left_out.mean() - left_out
    scale = float((pull**2).sum()) ** 1.5
    if not 0.0 < below < 1.0 or np.ptp(left_out) == 0.0 or scale == 0.0:
        return None
    normal = NormalDist()
    bias, acceleration = normal.inv_cdf(below), float((pull**3).sum()) / (6 * scale)
    ends = []
    for share in (tail, 1 - tail):
        shifted = bias + normal.inv_cdf(share)
        if acceleration * shifted >= 1.0:
            return None
        ends.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    return ends[0], ends[1]


def _draw(n: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return generator.integers(0, n, size=(RESAMPLES, n))


@lru_cache(maxsize=8)
def _picks(n: int) -> NDArray[np.int64]:
    """Return which of n values each bootstrap sample takes: the same ones each time, for arms have few sizes."""
    return _draw(n, _own(None))


def _median(values: Array, axis: int = -1) -> Array:
    middle: Array = np.median(values, axis=axis)
    return middle


def _mean(values: Array, axis: int = -1) -> Array:
    middle: Array = np.mean(values, axis=axis)
    return middle


_STATISTICS: dict[str, Callable[..., Array]] = {"mean": _mean, "iqm": _iqm, "median": _median}


# -- two samples --------------------------------------------------------------------------------------------------


def welch_interval(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> Interval:
    """Return Welch's interval of mean(a) - mean(b) for samples that are not paired and may scatter differently."""
    _check_level(level)
    n, m, method = len(a), len(b), "Welch-t"
    if n < 2 or m < 2:
        return Interval(math.nan, math.nan, level, method, min(n, m))
    difference = mean(a) - mean(b)
    one, other = deviation(a) ** 2 / n, deviation(b) ** 2 / m
    if one + other == 0.0:
        return Interval(difference, difference, level, method, min(n, m))
    freedom = (one + other) ** 2 / (one**2 / (n - 1) + other**2 / (m - 1))
    half = _t_quantile(freedom, level) * math.sqrt(one + other)
    return Interval(difference - half, difference + half, level, method, min(n, m))


def t_probability(difference: float, error: float, freedom: float) -> float:
    """Return the two-sided p of Student's t for a difference and its standard error.

    Returns:
        NaN where there is no degree of freedom, or no scatter was seen: then there is nothing to judge by.
    """
    if not (math.isfinite(difference) and math.isfinite(error)) or freedom < 1 or error <= ROUNDING * abs(difference):
        return math.nan
    from scipy.special import stdtr

    return 2.0 * float(stdtr(freedom, -abs(difference) / error))


def sign_flip(differences: Sequence[float], generator: np.random.Generator | None = None) -> Test:
    """Test paired differences against zero by flipping their signs.

    Under "no difference" each sign is as likely as the other; p is the share of patterns whose mean is at least as far
    from zero. It assumes no distribution. n pairs cannot give less than 2 / 2**n: 0.25 at n = 3, 0.031 at n = 6. Pairs
    that are equal say nothing and do not count for that.
    """
    data = np.sort(_array(differences))
    n = len(data)
    if n == 0:
        return Test(math.nan, 1.0, True, 0)
    told = data[data != 0.0]
    smallest = 2.0 / 2.0 ** len(told) if len(told) else 1.0
    if len(told) == 0:
        return Test(1.0, 1.0, True, n)
    at_least = abs(math.fsum(told)) - 1e-9 * float(np.abs(told).sum())  # sums of floats that are equal but for rounding
    if len(told) <= EXACT_PAIRS:
        count = 2 ** (len(told) - 1)  # the first sign stays, for both halves of the patterns give the same
        bits = np.arange(count)[:, None] >> np.arange(len(told) - 1) & 1
        sums = told[0] + np.where(bits == 1, -told[1:], told[1:]).sum(axis=1)
        return Test(float(np.mean(np.abs(sums) >= at_least)), smallest, True, n)
    signs = _own(generator).choice((-1.0, 1.0), size=(PERMUTATIONS, len(told)))
    beyond = int(np.sum(np.abs(signs @ told) >= at_least))
    return Test((1 + beyond) / (1 + PERMUTATIONS), max(smallest, 1 / (1 + PERMUTATIONS)), False, n)


def exchange(a: Sequence[float], b: Sequence[float], generator: np.random.Generator | None = None) -> Test:
    """Test two samples that are not paired by sharing their values out anew; two-sided, on the difference of means."""
    n, m = len(a), len(b)
    if n == 0 or m == 0:
        return Test(math.nan, 1.0, True, n + m)
    data = np.sort(_array([*a, *b]))
    total = math.fsum(data)

    def apart(sums: Array) -> Array:
        return np.abs(sums / n - (total - sums) / m)

    at_least = float(apart(np.asarray(math.fsum(a)))) - 1e-9 * float(np.abs(data).sum())
    ways = math.comb(n + m, n)
    smallest = (2.0 if n == m else 1.0) / ways
    if ways <= EXACT_SPLITS:
        sums = data[np.array(list(itertools.combinations(range(n + m), n)))].sum(axis=1)
        return Test(float(np.mean(apart(sums) >= at_least)), smallest, True, n + m)
    own = _own(generator)
    order = own.permuted(np.tile(data, (PERMUTATIONS, 1)), axis=1)
    beyond = int(np.sum(apart(order[:, :n].sum(axis=1)) >= at_least))
    return Test((1 + beyond) / (1 + PERMUTATIONS), max(smallest, 1 / (1 + PERMUTATIONS)), False, n + m)


def holm(ps: Sequence[float], among: int | None = None) -> tuple[float, ...]:
    """Return the p-values corrected for their number by Holm's step-down rule, in the order given; NaN stays NaN.

    A NaN is a test that was not made, and is not counted as one.

    Args:
        ps: the p-values.
        among: how many comparisons there were to choose from, where these are only some of them; their number if None.
    """
    order = sorted((p, index) for index, p in enumerate(ps) if not math.isnan(p))
    family = len(order) if among is None else max(among, len(order))
    corrected = [math.nan] * len(ps)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (family - rank) * p))
        corrected[index] = highest
    return tuple(corrected)


def probability_of_improvement(
    a: Sequence[float],
    b: Sequence[float],
    better: Better,
    level: float = LEVEL,
    generator: np.random.Generator | None = None,
) -> tuple[float, Interval]:
    """Return how likely a run of `a` beats a run of `b`, ties counted half, and its percentile bootstrap interval.

    Both samples are resampled on their own (Agarwal et al. 2021). Like every bootstrap it is too narrow for few runs.
    """
    _check_level(level)
    n, method = min(len(a), len(b)), "percentile bootstrap of both samples"
    if n == 0:
        return math.nan, Interval(math.nan, math.nan, level, method, 0)
    sign = 1.0 if better == "higher" else -1.0
    wins = np.sign(sign * (np.sort(_array(a))[:, None] - np.sort(_array(b))[None, :])) / 2 + 0.5
    if n < 2:
        return float(wins.mean()), Interval(math.nan, math.nan, level, method, n)
    rows, columns = _counts(len(a), len(b)) if generator is None else _count(len(a), len(b), generator)
    shares = np.einsum("ri,ij,rj->r", rows, wins, columns) / wins.size
    low, high = np.quantile(shares, ((1 - level) / 2, (1 + level) / 2))
    return float(wins.mean()), Interval(float(low), float(high), level, method, n)


def _count(n: int, m: int, generator: np.random.Generator) -> tuple[Array, Array]:
    rows, columns = (generator.multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(float) for size in (n, m))
    return rows, columns


@lru_cache(maxsize=8)
def _counts(n: int, m: int) -> tuple[Array, Array]:
    """Return how often each value of both samples is drawn, for each bootstrap sample; the same ones each time."""
    return _count(n, m, _own(None))


# -- shares -------------------------------------------------------------------------------------------------------


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """Return Wilson's interval of a share; [0, 1] for n = 0."""
    _check_level(level)
    _check_share(successes, n)
    if n == 0:
        return Interval(0.0, 1.0, level, "Wilson", 0)
    z, share = NormalDist().inv_cdf((1 + level) / 2), successes / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt((share * (1 - share) + z * z / (4 * n)) / n)
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if successes == n else min(1.0, (middle + half) / scale)
    return Interval(low, high, level, "Wilson", n)


def clopper_pearson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """Return the exact interval of a share, which covers at least its level at every n; [0, 1] for n = 0."""
    _check_level(level)
    _check_share(successes, n)
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Interval(low, high, level, "Clopper-Pearson", n)


SPLIT_FROM = 6
"""Fewer values are never split: which of them is the odd one cannot be told."""
SPLIT_RANGES = 4.0
"""A gap between runs that succeed and runs that collapse is at least so many times the range of those that succeed: of
samples from one normal, uniform or Student-t (3) distribution fewer than 2 % are split (tests/test_statistics.py)."""
SPLIT_SHARE = 0.25
"""... and this part of what training gains: a run that is only a little worse has not collapsed."""


def split_collapsed(
    values: Sequence[float],
    better: Better,
    *,
    band: tuple[float, float] | None = None,
    start: float = math.nan,
) -> Split:
    """Tell runs that succeeded from runs that collapsed.

    With a declared band a success lies inside, ends included. Without one the rule is made to err towards "none
    collapsed": the values fall into two groups at the widest gap below the median; the gap must be 4 times the range of
    the better group, and a quarter of what the better group gained over the start, or of the size of its median where
    the start is not known. NaN and infinities never succeed.

    Args:
        values: one for each run.
        better: which direction is good.
        band: lowest and highest value of a success.
        start: the metric before training.
    """
    if band is not None:
        low, high = band
        good = tuple(low <= value <= high for value in values)
        return Split(good, f"inside [{low:g}, {high:g}]", wilson(sum(good), len(good)))
    sign = 1.0 if better == "higher" else -1.0
    finite = sorted((sign * value for value in values if math.isfinite(value)), reverse=True)
    edge = _edge(finite, sign * start)
    good = tuple(math.isfinite(value) and sign * value >= edge for value in values)
    rule = (
        "a finite value; no group of runs stands apart"
        if edge == -math.inf
        else f"{'at least' if better == 'higher' else 'at most'} {sign * edge:.4g}: "
        f"the others lie more than {SPLIT_RANGES:g} times the range of these away"
    )
    return Split(good, rule, wilson(sum(good), len(good)))


def _edge(values: Sequence[float], start: float) -> float:
    """Return the lowest value of the better group, of values from the best to the worst; -inf if there is one group."""
    n = len(values)
    if n < SPLIT_FROM:
        return -math.inf
    least = n // 2 + 1  # the better group is the majority: what most runs do is not a collapse
    count = max(range(least, n), key=lambda count: values[count - 1] - values[count], default=n)
    if count == n:
        return -math.inf
    gap, width, middle = values[count - 1] - values[count], values[0] - values[count - 1], values[(count - 1) // 2]
    gained = middle - start if math.isfinite(start) else abs(middle)
    enough = gap >= SPLIT_RANGES * width and gap >= SPLIT_SHARE * abs(gained)
    return values[count - 1] if enough and gap > 0 else -math.inf


# -- correlation --------------------------------------------------------------------------------------------------


def correlation(
    x: Sequence[float], y: Sequence[float], kind: Literal["pearson", "spearman"] = "pearson", level: float = LEVEL
) -> Correlation:
    """Return the correlation of pairs with Fisher's interval; for ranks with the factor of Bonett and Wright (2000)."""
    _check_level(level)
    one, other = _array(x), _array(y)
    n = len(one)
    if n != len(other):
        raise UserError(f"correlation: {n} values against {len(other)}; give pairs")
    if kind == "spearman":
        one, other = _ranks(one), _ranks(other)
    method = "Fisher"
    none = Interval(math.nan, math.nan, level, method, n)
    if n < 2 or not np.any(one != one.mean()) or not np.any(other != other.mean()):
        return Correlation(math.nan, none, kind)
    one, other = one - one.mean(), other - other.mean()
    one, other = one / np.abs(one).max(), other / np.abs(other).max()  # squares of very small numbers are zero
    r = float(one @ other / math.sqrt(float(one @ one) * float(other @ other)))
    r = min(1.0, max(-1.0, r))
    if n < 4:
        return Correlation(r, none, kind)
    if abs(r) == 1.0:
        return Correlation(r, Interval(r, r, level, method, n), kind)
    factor = 1.0 if kind == "pearson" else math.sqrt(1 + r * r / 2)
    half = NormalDist().inv_cdf((1 + level) / 2) * factor / math.sqrt(n - 3)
    return Correlation(
        r, Interval(math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), level, method, n), kind
    )


def _ranks(values: Array) -> Array:
    """Return ranks from 1, ties at their middle."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


# -- power --------------------------------------------------------------------------------------------------------


def smallest_detectable(
    sd: float, n: int, other: int | None = None, *, paired: bool = False, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Return the smallest difference of means that a two-sided t-test finds with the given power.

    From the non-central t distribution, which at few seeds asks for much more than the normal one does.

    Args:
        sd: of single runs, or of the differences where `paired`.
        n: runs of one arm, or pairs.
        other: runs of the other arm; as many where None.
        paired: whether both arms ran on the same seeds.
        alpha, power: the error and the power of the test.

    Returns:
        Infinity where n leaves no degree of freedom: then no difference can be told from chance.
    """
    if not 0.0 < alpha < 1.0 or not alpha < power < 1.0:
        raise UserError(f"power: alpha={alpha}, power={power}; expected 0 < alpha < power < 1")
    if math.isnan(sd):
        return math.nan
    m = n if other is None else other
    freedom = n - 1 if paired else n + m - 2
    if n < 1 or m < 1 or freedom < 1:
        return math.inf
    return sd * _noncentrality(freedom, alpha, power) * math.sqrt(1 / n if paired else 1 / n + 1 / m)


def seeds_needed(
    difference: float, sd: float, *, paired: bool = False, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """Return the fewest seeds an arm at which `difference` is detectable; None if a million would not do."""
    if math.isnan(difference) or math.isnan(sd) or difference == 0.0:
        return None

    def enough(n: int) -> bool:
        return smallest_detectable(sd, n, paired=paired, alpha=alpha, power=power) <= abs(difference)

    high = 2
    while not enough(high):
        high *= 2
        if high > MOST_SEEDS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@lru_cache(maxsize=4096)
def _noncentrality(freedom: float, alpha: float, power: float) -> float:
    """Return the non-centrality at which a t-test has this power, by bisection."""
    from scipy.special import nctdtr, stdtrit

    edge = float(stdtrit(freedom, 1 - alpha / 2))
    low, high = 0.0, 2.0 * edge + 10.0
    for _ in range(60):
        middle = (low + high) / 2
        found = 1.0 - float(nctdtr(freedom, middle, edge))  # the far tail adds less than alpha / 2 times a tiny share
        low, high = (middle, high) if found < power else (low, middle)
    return high


def _t_quantile(freedom: float, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


# -- how far to trust an interval ---------------------------------------------------------------------------------


def coverage_note(n: int) -> str:
    """Return what a nominal 95 % interval of n runs really covers, as measured, in one sentence."""
    if n < 2:
        return f"n = {n}: one run says nothing about the spread, so there is no interval"
    measured = min(COVERAGE["normal"], key=lambda one: (abs(one - n), one))
    t, bca = COVERAGE["normal"][measured]
    collapsed, _ = COVERAGE["collapsed"][measured]
    return (
        f"n = {n}: of nominal 95 % intervals at n = {measured}, Student-t covers {t:.2f} and a BCa bootstrap {bca:.2f} "
        f"of normal data; where 15 % of the runs collapse Student-t covers {collapsed:.2f}"
    )


# -- what is given ------------------------------------------------------------------------------------------------


def _array(values: Sequence[float]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise UserError(f"statistics: got an array of shape {array.shape}; expected a list of numbers")
    if np.isnan(array).any():
        where = int(np.flatnonzero(np.isnan(array))[0])
        raise UserError(f"statistics: value {where} of {len(array)} is NaN; decide first what it counts as")
    return array


def _own(generator: np.random.Generator | None) -> Any:
    return np.random.default_rng(0) if generator is None else generator


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise UserError(f"statistics: level={level}; expected a share such as 0.95")


def _check_share(successes: int, n: int) -> None:
    if not 0 <= successes <= n:
        raise UserError(f"statistics: {successes} successes of {n}; expected between none and all")
