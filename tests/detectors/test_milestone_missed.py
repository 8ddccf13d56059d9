"""Declared milestones, and what a missed one says about why."""

from __future__ import annotations

import math

import pytest

from tests.detectors.kit import events, opened, reasons, row, the
from trimtab.detectors import MilestoneMissed
from trimtab.milestone import Milestone
from trimtab.records import Severity

ACCURACY = "validation/accuracy"


def rule(*texts):
    return MilestoneMissed(milestones=tuple(Milestone.parse(text) for text in texts))


def run(course, steps=60, every=5, metric=ACCURACY, close=True):
    """A training with a metric after every fifth update."""
    rows = []
    for step in range(steps):
        rows.append(row(step, {"loss": 1.0, "gradient_norm": 1.0}))
        if (step + 1) % every == 0:
            rows.append(row(step, {metric: course(step)}))
    return [*rows, row(steps - 1, {"trimtab_seconds": 0.1})] if close else rows


def test_a_missed_milestone_is_an_error_with_its_numbers():
    finding = the(opened(rule(f"{ACCURACY} >= 0.8 by 40"), run(lambda step: 0.5 + step / 1000)))
    assert (finding.subject, finding.severity, finding.step, finding.since_step) == (ACCURACY, Severity.ERROR, 41, 40)
    assert finding.measured == pytest.approx(0.539)
    assert finding.threshold == 0.8
    assert finding.summary == (
        "validation/accuracy was 0.539 at best (step 39), where >= 0.8 was declared for step 40; it was still improving"
    )


def test_one_good_value_in_time_is_enough_and_one_too_late_is_not():
    assert opened(rule(f"{ACCURACY} >= 0.8 by 40"), run(lambda step: 0.9 if step == 14 else 0.1)) == []
    late = the(opened(rule(f"{ACCURACY} >= 0.8 by 40"), run(lambda step: 0.9 if step > 41 else 0.1)))
    assert late.evidence["best"] == 0.1


def test_at_a_step_what_was_had_and_lost_is_missed_and_says_so():
    falls = run(lambda step: 0.9 - step / 100)
    assert opened(rule(f"{ACCURACY} >= 0.8 by 60"), falls) == []
    finding = the(opened(rule(f"{ACCURACY} >= 0.8 at 60"), falls))
    assert finding.measured == pytest.approx(0.31)
    assert finding.summary == (
        "validation/accuracy was 0.31 in the end, 0.86 at best (step 4), where >= 0.8 was declared for step 60; it was "
        "not improving any more"
    )
    assert "progress" not in finding.evidence  # it did not come from below
    assert opened(rule(f"{ACCURACY} >= 0.3 at 60"), falls) == []
    lost = run(lambda step: math.nan if step > 50 else 0.9)
    assert math.isnan(the(opened(rule(f"{ACCURACY} >= 0.8 at 60"), lost)).measured)


def test_by_and_at_are_read_as_they_are_written():
    for text in ("loss <= 0.5 by step 500", "loss <= 0.5 at step 500"):
        assert str(Milestone.parse(text)) == text


def test_lower_is_better_where_the_comparison_says_so():
    assert opened(rule("loss <= 1.0 by 10"), run(lambda step: 0.0)) == []
    assert the(opened(rule("loss < 1.0 by 10"), run(lambda step: 0.0))).measured == 1.0


def test_a_run_that_ends_exactly_then_is_judged_when_it_closes():
    assert opened(rule(f"{ACCURACY} >= 0.8 by 60"), run(lambda step: 0.1, close=False)) == []
    assert the(opened(rule(f"{ACCURACY} >= 0.8 by 60"), run(lambda step: 0.1))).step == 59


def test_before_it_is_due_nobody_knows():
    assert reasons(rule(f"{ACCURACY} >= 0.8 by 500"), run(lambda step: 0.1)) == [
        "validation/accuracy >= 0.8 by step 500 is not due yet"
    ]


def test_a_metric_that_nobody_recorded_is_unknown():
    assert reasons(rule("validation/f1 >= 0.8 by 20"), run(lambda step: 0.1))[-1] == (
        "validation/f1 was not recorded by step 20"
    )


def test_without_a_milestone_nothing_is_judged():
    assert reasons(MilestoneMissed(), run(lambda step: 0.1)) == ["no milestone was declared"]


def test_a_metric_that_is_never_finite_misses_it():
    finding = the(opened(rule(f"{ACCURACY} >= 0.8 by 40"), run(lambda step: math.nan)))
    assert math.isnan(finding.measured)
    assert finding.evidence["improving"] == 0.0


def test_several_milestones_stand_side_by_side():
    staged = rule(f"{ACCURACY} >= 0.3 by 20", f"{ACCURACY} >= 0.8 by 40", "loss <= 0.5 by 30")
    found = opened(staged, run(lambda step: 0.2))
    assert [(finding.subject, finding.step) for finding in found] == [
        (f"{ACCURACY} by step 20", 21), ("loss", 31), (f"{ACCURACY} by step 40", 41),
    ]  # fmt: skip


def test_it_is_said_once_and_stays():
    happened = events(rule("loss <= 0.5 by 10"), run(lambda step: 0.1, steps=300))
    assert [getattr(event, "event", "unknown") for event in happened] == ["unknown", "unknown", "opened"]


@pytest.mark.parametrize(
    ("course", "improving"),
    [
        (lambda step: step / 1000, 1.0),
        (lambda step: 1 - math.exp(-step / 200), 1.0),
        (lambda step: 0.1, 0.0),
        (lambda step: 0.1 + 0.01 * math.sin(7.0 * step), 0.0),
        (lambda step: 0.3 - step / 1000, 0.0),
    ],
    ids=["a line", "a curve", "flat", "noise", "falling"],
)
def test_a_metric_on_its_way_is_told_from_one_at_rest(course, improving):
    finding = the(opened(rule(f"{ACCURACY} >= 0.99 by 150"), run(course, steps=200)))
    assert finding.evidence["improving"] == improving


def test_a_long_course_is_thinned_but_keeps_its_best():
    losses = [row(step, {"loss": 0.5 if step == 777 else 1.0 + 1.0 / (1 + step)}) for step in range(5000)]
    finding = the(opened(rule("loss <= 0.1 by 4000"), losses))
    assert (finding.measured, finding.evidence["best_step"], finding.evidence["values"]) == (0.5, 777.0, 4001.0)
