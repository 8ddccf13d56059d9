"""Peaks of runs: what is a fall, and which of three causes it has."""

import math

import pytest

from tests.compare.made_up import arm, losses_of, result
from trimtab.compare import PhaseFacts, summarize
from trimtab.compare.peak import scatter_of

DOWN = [1.0 / (1 + step) for step in range(100)]
UP = [1.0 / (1 + step) for step in range(50)] + [0.02 * step for step in range(50)]
FLAT = [0.5 + 0.01 * (step % 2) for step in range(100)]
COURSE = (0.1, 0.6, 0.8, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Best after 30 of 100 updates, and lost most of it at the end."""


def series(values):
    return tuple((10 * number, value) for number, value in enumerate(values))


def peak(losses, others=None, *, course=COURSE, facts=None, **more):
    run = result("a", 0, course, others={name: series(values) for name, values in (others or {}).items()}, **more)
    options = {"phases": {"": facts}} if facts else {}
    (found,) = summarize([run], losses_of=lambda _: losses, **options).peak.runs
    return found


RISES = [1.0, 0.6, 0.5, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1]
FALLS = [1.0 / (1 + step) for step in range(11)]
GROWS = [step / 10 for step in range(11)]


@pytest.mark.parametrize(
    ("losses", "others", "facts", "cause"),
    [
        (DOWN, {"validation/loss": RISES}, None, "over-fitting"),
        (DOWN, {"train/accuracy": GROWS}, None, "over-fitting"),
        (DOWN, {"train/accuracy": COURSE, "validation/loss": RISES}, None, "objective does not match the metric"),
        (DOWN, {"validation/loss": FALLS}, None, "objective does not match the metric"),
        (DOWN, {}, PhaseFacts(on_training_data=True), "objective does not match the metric"),
        (FLAT, {"training/accuracy": COURSE}, None, "objective does not match the metric"),
        (UP, {"validation/loss": RISES, "train/accuracy": COURSE}, None, "instability"),
        (DOWN, {}, None, "unclear"),
        ((), {"validation/loss": RISES}, None, "unclear"),
        (FLAT, {"validation/loss": RISES}, None, "unclear"),
    ],
)
def test_three_falls_are_told_apart(losses, others, facts, cause):
    found = peak(losses, others, facts=facts)
    assert (found.cause, found.significant) == (cause, True)
    assert found.reason


def test_what_is_missing_for_a_cause_is_named():
    reason = peak(DOWN).reason
    assert "the training loss falls after the peak" in reason
    assert "not recorded: the metric on training data, a loss on other data" in reason


def test_a_run_that_keeps_its_best_did_not_fall():
    found = peak(DOWN, course=(0.1, 0.5, 0.8, 0.9, 0.9, 0.9))
    assert (found.cause, found.degradation, found.best_step) == ("none", 0.0, 30)


def test_a_fall_within_the_scatter_of_evaluations_is_none():
    wobbling = [0.5 + (0.04 if step % 2 else -0.02) for step in range(21)]
    found = peak(DOWN, course=(0.1, *wobbling))
    assert found.degradation == pytest.approx(0.06)
    assert (found.significant, found.cause) == (False, "none")


def test_evaluation_noise_excuses_a_fall():
    course = (0.1, 0.5, 0.90, 0.86)
    assert peak(DOWN, course=course).significant
    assert not peak(DOWN, course=course, evaluations_again=(0.87, 0.91)).significant


def test_lower_is_better_falls_upwards():
    found = peak(DOWN, course=tuple(-value for value in COURSE), better="lower")
    assert (found.best, found.final, found.degradation) == (-0.9, -0.3, pytest.approx(0.6))
    assert found.significant


def test_a_loss_that_is_the_metric_itself_is_held_out():
    found = peak(DOWN, course=tuple(RISES), better="lower", metric="validation/loss")
    assert found.cause == "over-fitting"


def test_an_arm_counts_its_falls_and_their_cause():
    results = [*arm("falls", [0.9, 0.8, 0.85], fall=0.4), *arm("stays", [0.9, 0.8, 0.85])]
    facts = {"": PhaseFacts(on_training_data=True)}
    peaks = summarize(results, losses_of=losses_of, phases=facts).peak
    falls, stays = peaks.arms
    assert (falls.arm, falls.n, falls.fell) == ("falls", 3, 3)
    assert falls.cause == "objective does not match the metric"
    assert falls.degradation == pytest.approx(0.4)
    assert (stays.fell, stays.cause) == (0, "none")
    assert peaks.causes == {"objective does not match the metric": 3}


def test_start_and_best_are_correlated_over_all_runs():
    starts = [0.1, 0.2, 0.3, 0.4, 0.5]
    peaks = summarize(arm("a", [0.5 + start for start in starts], start=starts)).peak
    assert peaks.start_to_best.r == pytest.approx(1.0)
    assert peaks.start_to_best.n == 5


def test_the_scatter_of_a_straight_course_is_none():
    assert scatter_of(series([0.1 * step for step in range(9)])) == pytest.approx(0.0, abs=1e-12)
    assert scatter_of(series([0.0, 1.0])) == 0.0
    assert scatter_of(series([0.0, 1.0, 0.0, 1.0, 0.0, math.nan, 1.0])) > 0.5


def test_nothing_complete_has_no_peak():
    peaks = summarize([result("a", 0, status="pruned")]).peak
    assert (peaks.runs, peaks.arms, peaks.causes) == ((), (), {})
