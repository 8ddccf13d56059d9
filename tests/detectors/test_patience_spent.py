"""A declared patience: what counts as better, in which unit is waited, and what a spent one says."""

from __future__ import annotations

import math

import pytest

from tests.detectors.kit import events, opened, reasons, row, the
from trimtab.detectors import PatienceSpent
from trimtab.errors import UserError
from trimtab.patience import Patience
from trimtab.records import Finding, Severity

ACCURACY = "validation/accuracy"


def rule(**changes):
    given = {"metric": ACCURACY, "better": "higher", "patience": 3, **changes}
    return PatienceSpent(patience=Patience(**given))


def run(*values, every=5):
    """A training with these values of the accuracy, one after every fifth update."""
    rows = []
    for count, value in enumerate(values):
        rows += [row(step, {"loss": 1.0}) for step in range(every * count, every * (count + 1))]
        rows.append(row(every * (count + 1) - 1, {ACCURACY: value}))
    return rows


def fired_at(detector, history):
    return [finding.step for finding in opened(detector, history)]


def test_it_says_what_the_best_was_and_how_long_ago():
    finding = the(opened(rule(min_delta=0.01), run(0.5, 0.6, 0.605, 0.55, 0.6)))
    assert (finding.subject, finding.severity, finding.step, finding.since_step) == (ACCURACY, Severity.WARNING, 24, 9)
    assert (finding.measured, finding.threshold) == (3.0, 3.0)
    assert finding.evidence["best"] == 0.6
    assert finding.summary == (
        "validation/accuracy was best at step 9 (0.6) and not better by more than 0.01 in the 3 evaluations and 15 "
        "updates since; the patience was 3 evaluations"
    )


@pytest.mark.parametrize(
    ("changes", "values", "steps"),
    [
        ({}, (0.5, 0.5, 0.5, 0.5), [19]),
        ({}, (0.5, 0.5, 0.5, 0.51, 0.5, 0.5), []),
        ({}, (0.5, 0.6, 0.7, 0.8, 0.9), []),
        ({"min_delta": 0.2}, (0.5, 0.6, 0.7, 0.8, 0.9), []),
        ({"min_delta": 0.2}, (0.5, 0.6, 0.69, 0.6), [19]),
        ({"better": "lower"}, (0.5, 0.6, 0.7, 0.8), [19]),
        ({"better": "lower"}, (0.5, 0.4, 0.3, 0.2), []),
        ({"patience": 10, "unit": "updates"}, (0.5, 0.5, 0.5), [14]),
        ({"patience": 11, "unit": "updates"}, (0.5, 0.5, 0.5), []),
        ({"patience": 2, "unit": "epochs", "updates_per_epoch": 5}, (0.5, 0.5, 0.5), [14]),
        ({}, (math.nan, 0.5, math.nan, math.inf, 0.4), [24]),
        ({}, (math.nan, math.nan, math.nan), [14]),
    ],
)
def test_it_waits_as_long_as_was_declared(changes, values, steps):
    assert fired_at(rule(**changes), run(*values)) == steps


def test_it_is_said_once_resolves_when_the_metric_gains_and_may_be_said_again():
    happened = events(rule(patience=2), run(0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9))
    assert [event.event for event in happened if isinstance(event, Finding)] == ["opened", "resolved", "opened"]


def test_without_a_patience_or_the_metric_nothing_is_judged():
    assert reasons(PatienceSpent(), [row(0, {"trimtab_seconds": 0.1})]) == ["no patience was declared"]
    judged = PatienceSpent(patience=Patience(metric="f1", better="higher", patience=1))
    assert judged.reads == ("f1",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"better": "up"}, "better='up'; expected 'higher' or 'lower'"),
        ({"unit": "steps"}, "unit='steps'; expected one of"),
        ({"patience": 0}, "patience=0; expected 1 or more evaluations"),
        ({"min_delta": -0.1}, "min_delta=-0.1; expected 0 or more"),
        ({"min_delta": math.nan}, "min_delta=nan"),
        ({"unit": "epochs"}, "needs updates_per_epoch"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_what_to_do(changes, says):
    with pytest.raises(UserError, match=says):
        rule(**changes)


def test_a_patience_says_itself():
    assert str(rule().patience) == "validation/accuracy higher within 3 evaluations"
