"""The measures agree with scipy, have the ceilings that are known, and see what the rank correlation cannot."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab_systems.ternary.data import operations
from trimtab_systems.ternary.metrics import (
    best_one_digit_rule,
    deviation_within,
    hierarchy_of_groups,
    kendall_ceiling,
    midranks,
    radial_metrics,
    richness,
    separation,
    somers_ceiling,
    spearman,
    spearman_ceiling,
)

LEVEL = operations().level.numpy()
COUNTS = np.bincount(LEVEL)


def radii(order, seed=0, ties=False):
    """Radii that fall in the given order of levels, different inside each unless `ties`."""
    place = np.argsort(order)
    inside = 0.0 if ties else np.random.default_rng(seed).uniform(0, 0.05, len(LEVEL))
    return 0.95 - 0.09 * place[LEVEL] - inside


small = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=3, max_size=40).filter(
    lambda pairs: len({level for level, _ in pairs}) > 1 and len({radius for _, radius in pairs}) > 1
)


@settings(max_examples=40, deadline=None)
@given(small)
def test_rank_measures_agree_with_scipy(pairs):
    level, radius = np.array([a for a, _ in pairs]), np.array([b / 10 for _, b in pairs])
    measured = radial_metrics(level, radius, 1.0)
    assert measured.hierarchy == pytest.approx(scipy.stats.spearmanr(level, radius).statistic, abs=1e-12)
    assert measured.kendall_tau_b == pytest.approx(scipy.stats.kendalltau(level, radius).statistic, abs=1e-12)
    assert measured.somers_d == pytest.approx(scipy.stats.somersd(level, radius).statistic, abs=1e-12)
    assert np.array_equal(midranks(radius), scipy.stats.rankdata(radius))
    assert measured.distinct_radii == len(np.unique(radius))


@settings(max_examples=40, deadline=None)
@given(small)
def test_the_separation_of_two_levels_is_what_counting_all_pairs_gives(pairs):
    level, radius = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    present = np.unique(level)
    slow = [
        [np.mean([np.sign(y - x) for x in radius[level == a] for y in radius[level == b]]) for b in present]
        for a in present
    ]
    assert np.allclose(separation(level, radius), slow)


@settings(max_examples=40, deadline=None)
@given(small)
def test_richness_is_the_mean_variance_inside_levels(pairs):
    level, radius = np.array([a for a, _ in pairs]), np.array([b / 10 for _, b in pairs])
    within = [radius[level == a].var() if (level == a).any() else 0.0 for a in range(level.max() + 1)]
    assert richness(level, radius) == pytest.approx(np.mean(within))
    assert np.allclose(deviation_within(level, radius), np.sqrt(within))


def test_the_ceilings_are_those_of_the_ten_levels():
    assert spearman_ceiling(COUNTS) == pytest.approx(0.8320502954, abs=1e-10)
    assert kendall_ceiling(COUNTS) == pytest.approx(0.7071247, abs=1e-7)
    assert kendall_ceiling(COUNTS, "a") == pytest.approx(0.5000254, abs=1e-7)
    assert somers_ceiling(COUNTS) == 1.0


def test_a_perfect_order_without_ties_is_at_every_ceiling():
    measured = radial_metrics(LEVEL, radii(range(10)), 1.0)
    assert measured.hierarchy == pytest.approx(-0.8320502954, abs=1e-10)
    assert measured.hierarchy_over_ceiling == pytest.approx(1.0, abs=1e-10)
    assert measured.kendall_tau_b == pytest.approx(-0.7071247, abs=1e-7)
    assert (measured.somers_d, measured.balanced_d, measured.worst_adjacent_d) == (-1.0, -1.0, -1.0)
    assert measured.monotone_means == 9
    assert measured.distinct_radii == len(LEVEL)


def test_ties_go_below_the_ceiling_and_the_number_of_radii_says_so():
    measured = radial_metrics(LEVEL, radii(range(10), ties=True), 1.0)
    assert measured.hierarchy == pytest.approx(-1.0)
    assert measured.distinct_radii == 10
    assert measured.richness_ball == pytest.approx(0.0, abs=1e-12)


def test_the_balanced_measure_sees_deep_levels_that_the_rank_correlation_cannot():
    inverted = radial_metrics(LEVEL, radii([0, 1, *range(9, 1, -1)]), 1.0)
    assert inverted.hierarchy == pytest.approx(-0.8297, abs=1e-4)
    assert inverted.balanced_d == pytest.approx((28 - 17) / 45)
    assert inverted.worst_adjacent_d == 1.0
    assert radial_metrics(LEVEL, radii([0, *range(9, 0, -1)]), 1.0).hierarchy == pytest.approx(-0.7704, abs=1e-4)


@pytest.mark.parametrize(("known", "worth"), [(1, -0.8012), (2, -0.8309), (3, -0.83201)])
def test_what_the_first_digits_alone_are_worth(known, worth):
    assert hierarchy_of_groups(LEVEL, -np.minimum(LEVEL, known)) == pytest.approx(worth, abs=6e-5)


def test_groups_are_worth_what_random_orders_inside_them_have_on_average():
    outwards = -np.minimum(LEVEL, 1)
    drawn = [spearman(LEVEL, outwards + np.random.default_rng(k).uniform(0, 0.5, len(LEVEL))) for k in range(5)]
    assert np.mean(drawn) == pytest.approx(hierarchy_of_groups(LEVEL, outwards), abs=2e-3)


def test_the_best_rule_of_one_digit_reads_the_first_one():
    rule = best_one_digit_rule(LEVEL, operations().values.numpy())
    assert (rule.digit, rule.value) == (0, -1)
    assert str(rule) == "digit 0 is -1: -0.8012"


def test_richness_has_a_unit_and_order_has_none():
    radius = radii(range(10))
    one, half = radial_metrics(LEVEL, radius, 1.0), radial_metrics(LEVEL, radius * 2, 0.25)
    assert half.hierarchy == one.hierarchy
    assert half.richness_ball == pytest.approx(4 * one.richness_ball)
    assert half.richness_hyp == pytest.approx(4 * one.richness_hyp)
    assert one.richness_hyp > 10 * one.richness_ball


@pytest.mark.parametrize(
    ("level", "radius", "said"),
    [
        ([0, 1], [0.5, 1.2], r"expected radii in \[0, 1\], as the curvature is 1, got 0.5 to 1.2"),
        ([0, 1], [0.5, math.nan], r"expected radii in \[0, 1\]"),
        ([0, 1, 1], [0.5, 0.1], r"expected two arrays of shape \(N,\), got \(3,\) and \(2,\)"),
        ([1, 1], [0.5, 0.1], "expected at least two different levels among 2 points"),
    ],
)
def test_what_cannot_be_measured_is_refused(level, radius, said):
    with pytest.raises(UserError, match=said):
        radial_metrics(np.array(level), np.array(radius), 1.0)


def test_ceilings_of_one_group_and_unknown_variants_are_refused():
    with pytest.raises(UserError, match="sizes of at least two groups, got \\[5\\]"):
        spearman_ceiling([5])
    with pytest.raises(UserError, match="variant='c'; expected 'a' or 'b'"):
        kendall_ceiling([5, 5], "c")
