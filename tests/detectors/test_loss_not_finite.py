"""How grave a broken loss is depends on what broke with it."""

from __future__ import annotations

import math

import pytest

from tests.detectors.kit import events, opened, reasons, rows, the
from trimtab.detectors import LoggedLossNotFinite, LossNotFinite
from trimtab.records import Finding, Severity

NAN, INF = math.nan, math.inf
FINE = {"loss": 1.25, "gradient_norm": 0.5}
BROKEN = {"loss": NAN, "gradient_norm": NAN, "nonfinite_weights": 0.0}


@pytest.mark.parametrize(
    ("row", "severity", "words"),
    [
        ({"gradient_norm": 1e12, "nonfinite_weights": 0}, Severity.ERROR, "the gradient norm is 1e12 too"),
        ({"gradient_norm": NAN, "nonfinite_weights": 0}, Severity.ERROR, "the gradient norm is nan too"),
        ({"gradient_norm": INF}, Severity.ERROR, "the gradient norm is inf too"),
        ({"gradient_norm": NAN, "nonfinite_weights": 3}, Severity.FATAL, "3 weight tensors were already not finite"),
        ({"gradient_norm": 0.7, "nonfinite_weights": 3}, Severity.FATAL, "3 weight tensors were already not finite"),
    ],
)
@pytest.mark.parametrize("loss", [NAN, INF, -INF])
def test_it_is_as_grave_as_what_broke_with_it(loss, row, severity, words):
    finding = the(opened(LossNotFinite(), rows([FINE, {"loss": loss, **row}])))
    assert finding.severity == severity
    assert finding.summary.startswith(f"loss {loss} at step 1 after 1.25 at step 0; ")
    assert words in finding.summary


def test_a_nan_in_the_logged_number_alone_is_said_by_another_rule_and_is_a_warning():
    story = rows([FINE] * 5 + [{"loss": NAN, "gradient_norm": 0.5, "nonfinite_weights": 0}] * 50)
    assert opened(LossNotFinite(), story) == []
    finding = the(opened(LoggedLossNotFinite(), story))
    assert (finding.severity, finding.step, finding.since_step) == (Severity.WARNING, 5, 5)
    assert "loss nan at step 5 after 1.25 at step 4; the gradient norm 0.5 is finite" in finding.summary


@pytest.mark.parametrize("row", [BROKEN, BROKEN | {"nonfinite_weights": 3}, {"loss": NAN, "gradient_norm": 1e12}])
def test_the_two_rules_never_say_the_same_twice(row):
    story = rows([FINE] * 5 + [row] * 10)
    assert opened(LoggedLossNotFinite(), story) == []
    assert opened(LossNotFinite(), story) != []


def test_it_grows_worse_when_the_weights_are_lost():
    first, second = opened(LossNotFinite(), rows([FINE, BROKEN, BROKEN | {"nonfinite_weights": 6}]))
    assert (first.severity, first.step) == (Severity.ERROR, 1)
    assert (second.event, second.severity, second.since_step) == ("worsened", Severity.FATAL, 1)


def test_it_shows_the_input_and_the_update_before():
    ratio = {"update_ratio": [0.4, 0.02]}
    finding = the(opened(LossNotFinite(), rows([FINE | ratio, BROKEN | {"input_nonfinite": 0.25}])))
    assert finding.evidence["input_nonfinite"] == 0.25
    assert finding.evidence["update_ratio"] == 0.4
    assert finding.evidence["last_finite"] == 1.25


def test_a_loss_that_is_broken_every_other_step_is_one_finding():
    happened = events(LossNotFinite(), rows([BROKEN, FINE] * 20 + [FINE] * 8))
    assert [event.event for event in happened if isinstance(event, Finding)] == ["opened", "resolved"]


def test_updates_that_a_scaler_skips_are_passed_over_until_no_scale_can_be_to_blame():
    skipped = BROKEN | {"update_skipped": 1}
    assert opened(LossNotFinite(), rows([skipped] * 24 + [FINE] * 5)) == []
    finding = the(opened(LossNotFinite(), rows([skipped] * 40)))
    assert (finding.step, finding.since_step) == (24, 0)


def test_a_gradient_that_is_measured_later_is_waited_for_and_one_that_never_is_is_not():
    thin = {"loss": NAN}
    assert reasons(LossNotFinite(), rows([FINE, thin, BROKEN])) == [
        "the loss is nan; whether the gradient is too is measured at a later step", "",
    ]  # fmt: skip
    finding = the(opened(LossNotFinite(), rows([thin] * 5)))
    assert (finding.step, finding.severity) == (2, Severity.ERROR)
    assert "the gradient was not measured" in finding.summary
