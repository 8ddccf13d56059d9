"""What the base class gives every rule, and how numbers and names are written."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from tests.detectors.kit import row
from trimtab.detectors import Detector
from trimtab.detectors._detector import listed, now, number, update_before
from trimtab.records import Severity
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class LossTooRound(Detector):
    """A rule of somebody else's."""

    version: int = 3

    def detect(self, trace):
        return self.finding(trace, severity=Severity.INFO, summary="round", measured=1.0, threshold=0.0)


def test_a_rule_is_called_as_its_class_unless_it_is_given_a_name():
    assert LossTooRound.code == "loss-too-round"
    assert LossTooRound().code == "loss-too-round"
    assert LossTooRound(code="mine").code == "mine"


def test_two_rules_with_the_same_thresholds_are_equal_and_none_can_be_changed():
    assert LossTooRound() == LossTooRound()
    assert LossTooRound(version=4) != LossTooRound()
    rule: Any = LossTooRound()
    with pytest.raises(FrozenInstanceError):
        rule.confirm = 2


def test_a_rule_without_a_judgement_cannot_be_made():
    class Empty(Detector):
        pass

    kind: Any = Empty
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_a_finding_says_where_it_was_seen():
    trace = Trace("critic", attempt=2)
    trace.append(row(7, {"loss": 1.0}, stream="critic", attempt=2))
    finding = LossTooRound().detect(trace)
    assert (finding.stream, finding.attempt, finding.step, finding.version) == ("critic", 2, 7, 3)
    unknown = LossTooRound().unknown(trace, "no idea")
    assert (unknown.code, unknown.stream, unknown.step) == ("loss-too-round", "critic", 7)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (0.5391, "0.539"), (240.4, "240"), (2984.0, "2980"), (31000.0, "3.1e4"),
        (5.1e15, "5.1e15"), (4e-9, "4e-9"), (-1234.0, "-1230"), (math.nan, "nan"), (-math.inf, "-inf"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_a_person_would(value, text):
    assert number(value) == text


def test_a_few_names_are_written_out_and_the_rest_counted():
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_now_is_the_latest_row_alone():
    trace = Trace()
    assert now(trace, "loss") is None
    trace.append(row(0, {"loss": 1.0, "norms": [1.0]}))
    assert (now(trace, "loss"), now(trace, "norms")) == (1.0, None)
    trace.append(row(1, {"accuracy": 0.5}))
    assert now(trace, "loss") is None


def test_the_update_before_is_the_latest_finite_one_that_is_not_this_step_nor_too_old():
    trace = Trace()
    for step, ratios in [(0, [0.1, 0.3]), (1, [math.nan, math.nan]), (2, [9.0, 9.0])]:
        trace.append(row(step, {"update_ratio": ratios}))
    assert update_before(trace) == 0.3
    trace.append(row(100, {"loss": 1.0}))
    assert update_before(trace) is None
