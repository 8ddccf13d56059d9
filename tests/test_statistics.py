"""Statistics of a few runs: checked by hand, against other sums, against theory, and by simulation."""

import json
import math
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab import statistics
from trimtab.errors import UserError
from trimtab.statistics import (
    bca_interval,
    clopper_pearson,
    correlation,
    coverage_note,
    deviation,
    exchange,
    holm,
    iqm,
    mean,
    probability_of_improvement,
    seeds_needed,
    sign_flip,
    smallest_detectable,
    split_collapsed,
    t_interval,
    t_probability,
    welch_interval,
    wilson,
)

NAN, INF = math.nan, math.inf
numbers = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=2, max_size=9)
few = settings(max_examples=40, deadline=None)


# --- one sample -----------------------------------------------------------------------------------


def test_nothing_is_made_of_too_few_values():
    assert math.isnan(mean([]))
    assert math.isnan(iqm([]))
    assert math.isnan(deviation([1.0]))
    for interval in (t_interval([1.0]), bca_interval([1.0]), welch_interval([1.0], [1.0, 2.0])):
        assert not interval.known
        assert interval.n == 1
        assert interval.holds(1e9)


def test_values_that_are_all_equal_give_an_interval_without_width_and_say_so():
    assert t_interval([2.0] * 4).holds(2.0)
    assert not t_interval([2.0] * 4).holds(2.1)
    interval = bca_interval([2.0] * 4)
    assert (interval.low, interval.high, interval.method) == (2.0, 2.0, "all values equal")


def test_the_deviation_has_one_less_in_the_denominator():
    assert deviation([1.0, 2.0, 3.0, 4.0]) == pytest.approx(np.std([1, 2, 3, 4], ddof=1))


@few
@given(numbers)
def test_students_interval_is_that_of_scipy(values):
    interval = t_interval(values)
    if deviation(values) > 0:
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-8)


def test_welchs_interval_agrees_with_its_test():
    a, b = [1.0, 2.0, 4.0, 3.0], [0.0, 0.5, 6.0]
    interval, p = welch_interval(a, b), scipy.stats.ttest_ind(a, b, equal_var=False).pvalue
    touching = welch_interval(a, b, level=1 - p)
    assert interval.holds(0.0) == (p > 0.05)
    assert min(abs(touching.low), abs(touching.high)) == pytest.approx(0.0, abs=1e-9)


def test_the_probability_of_students_t_is_that_of_scipy():
    a, b = np.array([0.71, 0.74, 0.69, 0.8]), np.array([0.6, 0.7, 0.66, 0.71])
    error = deviation(a - b) / 2
    assert t_probability(float(np.mean(a - b)), error, 3) == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    for unknown in ((0.1, 0.0, 3), (0.1, 1e-17, 3), (0.1, 0.1, 0), (NAN, 0.1, 3)):
        assert math.isnan(t_probability(*unknown))


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert iqm([100.0, 1.0, 2.0, -50.0]) == 1.5
    assert iqm([3.0, 1.0, 2.0]) == 2.0


@few
@given(numbers, st.randoms())
def test_the_order_of_the_values_changes_nothing(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    for of in (mean, deviation, iqm, t_interval, sign_flip):
        assert of(values) == of(shuffled)


@pytest.mark.parametrize("statistic", ["mean", "iqm", "median"])
def test_the_bootstrap_gives_the_same_in_any_order_and_holds_its_statistic(statistic):
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    interval = bca_interval(values, statistic)
    assert interval == bca_interval(values[::-1], statistic)
    assert min(values) <= interval.low < interval.high <= max(values)
    assert "bootstrap" in interval.method
    other = bca_interval(values, statistic, generator=np.random.default_rng(7))
    assert other.low == pytest.approx(interval.low, abs=0.5)


@pytest.mark.parametrize("n", [2, 5, 12])
@pytest.mark.parametrize("statistic", ["mean", "iqm", "median"])
def test_the_bootstrap_is_that_of_scipy(n, statistic):
    of = {"mean": np.mean, "median": np.median, "iqm": lambda x, axis=-1: iqm_of_rows(x, axis)}[statistic]
    values = np.sort(np.random.default_rng(n).lognormal(size=n))
    theirs = scipy.stats.bootstrap((values,), of, n_resamples=statistics.RESAMPLES, vectorized=True, rng=0)
    ours = bca_interval(values.tolist(), statistic)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)


def iqm_of_rows(values, axis):
    return np.apply_along_axis(lambda row: iqm(row.tolist()), axis, values)


def test_a_bootstrap_whose_acceleration_is_unknown_says_that_it_is_a_percentile():
    interval = bca_interval([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0], "median")
    assert interval.known
    assert interval.method == "percentile bootstrap"


# --- tests ----------------------------------------------------------------------------------------


def by_counting(differences):
    """Every pattern of signs, one by one: the slow twin of `sign_flip`."""
    observed = abs(sum(differences))
    patterns = product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    return sum(total >= observed - 1e-9 for total in sums) / len(sums)


@few
@given(numbers)
def test_flipping_signs_gives_what_counting_gives(differences):
    test = sign_flip(differences)
    assert test.exact
    assert test.p == pytest.approx(by_counting(differences))


@pytest.mark.parametrize(("n", "smallest"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_so_many_pairs_cannot_give_less(n, smallest):
    test = sign_flip([1.0 + 0.1 * i for i in range(n)])
    assert test.p == test.smallest == smallest


def test_pairs_that_are_equal_say_nothing():
    assert sign_flip([0.0] * 6) == statistics.Test(1.0, 1.0, True, 6)
    assert sign_flip([0.0, 0.0, 1.0, 2.0]).smallest == 0.5
    assert math.isnan(sign_flip([]).p)


def test_many_pairs_are_sampled_and_never_give_zero():
    clear, none = np.arange(1.0, 31.0), np.resize([1.0, -1.0], 30)
    test = sign_flip(clear)
    assert (test.exact, test.n) == (False, 30)
    assert 0.0 < test.p < 0.001
    assert sign_flip(none).p == pytest.approx(1.0)
    assert sign_flip(clear, np.random.default_rng(5)).p < 0.001


def test_sampled_and_exact_agree(monkeypatch):
    differences = np.random.default_rng(3).normal(0.4, 1.0, size=12)
    exact = sign_flip(differences).p
    monkeypatch.setattr(statistics, "EXACT_PAIRS", 4)
    assert sign_flip(differences).p == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 4), (5, 4)])
def test_sharing_out_anew_gives_what_counting_gives(sizes, monkeypatch):
    values = np.random.default_rng(1).normal(size=sum(sizes))
    a, b = values[: sizes[0]], values[sizes[0] :]
    total, every = values.sum(), list(combinations(values, sizes[0]))
    apart = [abs(sum(part) / sizes[0] - (total - sum(part)) / sizes[1]) for part in every]
    expected = np.mean([one >= abs(a.mean() - b.mean()) - 1e-9 for one in apart])
    assert exchange(a, b).p == pytest.approx(expected)
    monkeypatch.setattr(statistics, "EXACT_SPLITS", 1)
    assert exchange(a, b).p == pytest.approx(expected, abs=0.02)


def test_holm_steps_down_and_leaves_out_what_was_not_tested():
    corrected = holm([0.01, 0.04, 0.03, NAN])
    assert corrected[:3] == pytest.approx((0.03, 0.06, 0.06))
    assert math.isnan(corrected[3])
    assert holm([0.01], among=10) == pytest.approx((0.1,))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_the_probability_of_improvement_counts_pairs_and_halves_ties():
    share, interval = probability_of_improvement([2.0, 3.0, 1.0], [1.0, 0.0, 1.0], "higher")
    assert share == pytest.approx((9 - 2 * 0.5) / 9)
    assert interval.low <= share <= interval.high <= 1.0
    assert probability_of_improvement([2.0], [1.0], "lower")[0] == 0.0
    assert probability_of_improvement([0.0, 1.0, 3.0], [5.0, 6.0, 9.0], "lower")[1].low == 1.0


# --- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (8, 10), (1, 30)])
def test_intervals_of_shares_are_those_of_scipy(successes, n):
    test = scipy.stats.binomtest(successes, n)
    for interval, method in ((wilson(successes, n), "wilson"), (clopper_pearson(successes, n), "exact")):
        expected = test.proportion_ci(method=method)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_tried_is_nothing_known():
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    with pytest.raises(UserError, match="6 successes of 5"):
        wilson(6, 5)


# --- collapse -------------------------------------------------------------------------------------

GOOD = [0.90, 0.91, 0.89, 0.92, 0.90, 0.91, 0.90, 0.89]


@pytest.mark.parametrize(
    ("values", "options", "collapsed"),
    [
        ([*GOOD, 0.1, 0.2], {}, 2),
        ([*GOOD, 0.1, NAN], {}, 2),
        ([*GOOD, 0.1, 0.2], {"band": (0.0, 0.95)}, 0),
        ([*GOOD, 0.1, 0.2], {"band": (0.905, 1.0)}, 7),
        (GOOD, {}, 0),
        ([*GOOD, 0.7], {}, 0),  # a little worse is no collapse
        ([*GOOD, 0.7], {"start": 0.5}, 1),  # ... unless it is half of what was gained
        ([0.9, 0.91, 0.1], {}, 0),  # too few to say
        ([0.9] * 6 + [0.1] * 6, {}, 0),  # what half of the runs do is no collapse
        ([*(-value for value in GOOD), -0.1], {"better": "lower"}, 1),
        ([], {}, 0),
    ],
)
def test_runs_that_collapsed_are_told_only_where_it_is_plain(values, options, collapsed):
    split = split_collapsed(values, **{"better": "higher", **options})
    assert split.collapsed == collapsed
    assert split.share == wilson(len(values) - collapsed, len(values))


@pytest.mark.parametrize("draw", ["normal", "uniform", "standard_t"])
@pytest.mark.parametrize("n", [6, 10, 20])
def test_samples_of_one_distribution_are_rarely_split(draw, n):
    generator = np.random.default_rng(n)
    made = [
        10 + (generator.standard_t(3, n) if draw == "standard_t" else getattr(generator, draw)(size=n))
        for _ in range(400)
    ]
    assert sum(split_collapsed(list(values), "higher", start=10.0).collapsed > 0 for values in made) <= 0.02 * 400


# --- correlation ----------------------------------------------------------------------------------


def test_correlations_are_those_of_scipy():
    generator = np.random.default_rng(0)
    x = generator.normal(size=12)
    y = np.round(x + generator.normal(size=12), 1)
    pearson, spearman = correlation(x, y), correlation(x, y, "spearman")
    theirs = scipy.stats.pearsonr(x, y)
    assert pearson.r == pytest.approx(theirs.statistic)
    assert (pearson.interval.low, pearson.interval.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert spearman.r == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert spearman.interval.high - spearman.interval.low > 0.0
    assert pearson.n == 12


def test_a_correlation_that_cannot_be_told_is_none():
    assert math.isnan(correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).r)
    assert correlation([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]).interval.known is False
    assert correlation([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]).interval.low == 1.0
    with pytest.raises(UserError, match="give pairs"):
        correlation([1.0], [1.0, 2.0])


# --- power ----------------------------------------------------------------------------------------


def test_the_published_sweep_had_no_power():
    # ternary.md 3.3: a standard deviation of .038 asks for about 116 seeds to see .014, and for 34 to see .026.
    assert seeds_needed(0.014, 0.038) == pytest.approx(116, abs=2)
    assert seeds_needed(0.026, 0.038) == pytest.approx(34, abs=2)
    assert smallest_detectable(0.038, 1) == INF


@pytest.mark.parametrize("paired", [False, True])
def test_the_detectable_difference_is_found_four_times_in_five(paired):
    generator, n, sd = np.random.default_rng(0), 8, 2.0
    shift = smallest_detectable(sd, n, paired=paired)
    a, b = generator.normal(shift, sd, (4000, n)), generator.normal(0.0, sd, (4000, n))
    test = scipy.stats.ttest_1samp(a, 0.0, axis=1) if paired else scipy.stats.ttest_ind(a, b, axis=1)
    assert np.mean(test.pvalue < 0.05) == pytest.approx(0.8, abs=0.025)


def test_the_seeds_needed_are_the_fewest_that_do():
    for difference in (0.5, 1.0, 3.0):
        n = seeds_needed(difference, 1.0, paired=True)
        assert smallest_detectable(1.0, n, paired=True) <= difference < smallest_detectable(1.0, n - 1, paired=True)
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-9, 1.0) is None
    assert seeds_needed(0.1, NAN) is None
    assert math.isnan(smallest_detectable(NAN, 5))
    with pytest.raises(UserError, match="power"):
        smallest_detectable(1.0, 5, power=0.01)


# --- what may be given ----------------------------------------------------------------------------


@pytest.mark.parametrize("of", [sign_flip, bca_interval, iqm, lambda values: correlation(values, values)])
def test_nan_is_refused_and_its_place_named(of):
    with pytest.raises(UserError, match="value 1 of 3 is NaN"):
        of([1.0, NAN, 2.0])


def test_a_level_is_a_share():
    with pytest.raises(UserError, match="level=95"):
        t_interval([1.0, 2.0], level=95)


# --- how far to trust it --------------------------------------------------------------------------


def test_intervals_cover_as_the_note_says():
    generator = np.random.default_rng(1)
    for n, samples in ((5, 400), (10, 400)):
        made = generator.normal(size=(samples, n)).tolist()
        t, bca = statistics.COVERAGE["normal"][n]
        # Four standard errors of a share near 0.9 from 400 samples are 0.06.
        assert np.mean([t_interval(values).holds(0.0) for values in made]) == pytest.approx(t, abs=0.06)
        assert np.mean([bca_interval(values).holds(0.0) for values in made]) == pytest.approx(bca, abs=0.06)


def test_sign_flips_and_intervals_together_rarely_claim_what_is_not_there():
    made = np.random.default_rng(2).normal(size=(800, 8)).tolist()
    claims = [sign_flip(values).p < 0.05 and not t_interval(values).holds(0.0) for values in made]
    assert np.mean(claims) <= 0.05 + 0.02


def test_the_note_says_the_measured_coverage_of_the_nearest_n():
    assert "0.83" in coverage_note(5)
    assert "n = 5" in coverage_note(5)
    assert "at n = 10" in coverage_note(9)
    assert "no interval" in coverage_note(1)


def test_the_table_is_what_was_measured():
    stored = json.loads((Path(__file__).parents[1] / "benchmarks/results/interval_coverage.json").read_text())
    measured = {
        name: {int(n): (shares["t"], shares["bca"]) for n, shares in sizes.items()}
        for name, sizes in stored["detail"]["coverage"].items()
    }
    assert measured == statistics.COVERAGE
