"""Learning rates that stay at zero."""

from __future__ import annotations

import math

import pytest

from tests.detectors.kit import opened, reasons, row, the
from trimtab.detectors import LearningRateZero
from trimtab.records import Note, Severity

LABELS = {"learning_rate": ("body", "head")}


def rates(*each):
    return [
        row(step, {"learning_rate": rate}, LABELS) if isinstance(rate, tuple) else row(step, {"learning_rate": [rate]})
        for step, rate in enumerate(each)
    ]


def test_after_eight_updates_at_zero_it_says_since_when():
    finding = the(opened(LearningRateZero(), rates(*[0.1] * 20, *[0.0] * 20)))
    assert (finding.step, finding.since_step, finding.severity) == (27, 20, Severity.ERROR)
    assert "it had been positive before" in finding.summary


def test_a_rate_that_never_was_positive_has_sixteen():
    finding = the(opened(LearningRateZero(), rates(*[0.0] * 30)))
    assert (finding.step, finding.since_step) == (15, 0)
    assert "it has never been positive" in finding.summary


@pytest.mark.parametrize(("before", "step"), [(100, 107), (1000, 1019), (5000, 5101)])
def test_the_longer_the_run_the_more_is_forgiven_at_its_end(before, step):
    assert the(opened(LearningRateZero(), rates(*[0.1] * before, *[0.0] * 300))).step == step


@pytest.mark.parametrize("rate", [1e-15, 0.0, -0.0])
def test_what_no_weight_can_feel_is_zero(rate):
    assert the(opened(LearningRateZero(), rates(*[0.1] * 5, *[rate] * 10))).step == 12


def test_a_tiny_rate_is_not_zero():
    assert opened(LearningRateZero(), rates(*[1e-3] * 5, *[1e-10] * 50)) == []


def test_one_group_at_zero_is_a_warning_about_that_group():
    finding = the(opened(LearningRateZero(), rates(*[(0.0, 0.1)] * 30)))
    assert (finding.subject, finding.severity, finding.step) == ("body", Severity.WARNING, 15)
    assert finding.summary.startswith("the learning rate of group 'body' is 0 at step 15")


def test_when_the_other_group_follows_the_whole_run_is_at_rest():
    first, second = opened(LearningRateZero(), rates(*[(0.1, 0.1)] * 10, *[(0.0, 0.1)] * 10, *[(0.0, 0.0)] * 10))
    assert (first.subject, first.step) == ("body", 17)
    assert (second.subject, second.severity, second.step) == ("", Severity.ERROR, 27)


def test_declared_freezing_is_info():
    notes = [Note(kind="freeze", step=0)]
    assert the(opened(LearningRateZero(), rates(*[(0.0, 0.1)] * 30), notes)).severity == Severity.INFO


def test_an_optimizer_without_a_rate_cannot_be_judged_and_one_group_without_is_left_out():
    assert reasons(LearningRateZero(), rates(math.nan, math.nan)) == ["the optimizer has no learning rate"]
    assert opened(LearningRateZero(), rates(*[(math.nan, 0.1)] * 30)) == []
    assert the(opened(LearningRateZero(), rates(*[(math.nan, 0.0)] * 30))).severity == Severity.ERROR


def test_the_steps_at_zero_must_be_in_a_row():
    assert opened(LearningRateZero(), rates(*([0.0] * 7 + [0.1]) * 10)) == []
