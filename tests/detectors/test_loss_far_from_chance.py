"""The first loss beside that of a guess."""

from __future__ import annotations

import math

import pytest

from tests.detectors.kit import opened, reasons, rows, the
from trimtab.detectors import LossFarFromChance
from trimtab.records import Severity

TEN = math.log(10)


def start(loss, chance=TEN, terms=1.0):
    return rows([{"loss": loss, "chance_level": chance, "loss_terms": terms, "parameter_reached": [1]}] * 3)


@pytest.mark.parametrize(("times", "severity"), [(3.5, Severity.INFO), (12, Severity.WARNING), (1e9, Severity.WARNING)])
def test_the_further_above_the_worse(times, severity):
    finding = the(opened(LossFarFromChance(), start(times * TEN)))
    assert finding.severity == severity
    assert finding.measured == pytest.approx(times)
    assert "where a guess that knows nothing has 2.3" in finding.summary


@pytest.mark.parametrize("times", [0.01, 0.9, 1.2, 2.9])
def test_near_and_below_are_fine(times):
    assert opened(LossFarFromChance(), start(times * TEN)) == []


def test_only_the_first_loss_counts():
    story = rows([{"loss": loss, "chance_level": TEN, "loss_terms": 1} for loss in (2.3, 900, 5000)])
    assert opened(LossFarFromChance(), story) == []


def test_a_sum_is_info_and_judged_by_its_terms():
    finding = the(opened(LossFarFromChance(), start(64 * 2.3, terms=64)))
    assert finding.severity == Severity.INFO
    assert finding.measured == pytest.approx(1.0, abs=0.01)
    assert finding.summary.endswith("for each of the 64 terms of which the loss is the sum")
    assert the(opened(LossFarFromChance(), start(64 * 50.0, terms=64))).severity == Severity.WARNING


def test_a_sum_that_is_divided_by_hand_is_a_mean():
    assert opened(LossFarFromChance(), start(2.3, chance=TEN / 64, terms=64)) == []


@pytest.mark.parametrize(
    ("story", "reason"),
    [
        (rows([{"loss": 2.0, "parameter_reached": [1]}]), "the loss is not recognised, or other terms are added"),
        (rows([{"loss": 2.0}, {"loss": 2.0, "chance_level": TEN}]), "the chance level of the first loss is not known"),
        (start(math.nan), "that loss is not finite"),
        (start(math.inf), "that loss is not finite"),
    ],
)
def test_it_says_why_it_cannot_judge(story, reason):
    assert reason in reasons(LossFarFromChance(), story)[0]
