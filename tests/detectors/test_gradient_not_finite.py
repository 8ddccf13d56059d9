"""Where a broken gradient began."""

from __future__ import annotations

import math

import pytest

from tests.detectors.kit import opened, row, rows, the
from trimtab.detectors import GradientNotFinite
from trimtab.records import Severity

NAN, INF = math.nan, math.inf
NAMES = ("embed", "middle", "head")
LABELS = {"gradient_norms": NAMES, "nonfinite_share": NAMES}


def story(**last):
    return [row(0, {"loss": 1.0, "gradient_norm": 0.5}), row(1, {"loss": 1.0, "gradient_norm": NAN, **last}, LABELS)]


def test_the_last_broken_tensor_in_forward_order_came_first():
    last = {"gradient_norms": [NAN, INF, 0.2], "nonfinite_share": [1, 0.125, 0], "nonfinite_weights": 0}
    finding = the(opened(GradientNotFinite(), story(**last)))
    assert finding.severity == Severity.ERROR
    assert finding.subject == ""
    assert finding.summary == (
        "gradient norm nan at step 1, first in middle (12.50% of its elements), 2 of 3 tensors; the loss is finite"
    )
    assert finding.evidence["first_tensor"] == "middle"
    assert (finding.evidence["tensors_broken"], finding.evidence["tensors"]) == (2.0, 3.0)


def test_a_norm_that_overflows_is_told_from_broken_elements():
    finding = the(opened(GradientNotFinite(), story(gradient_norms=[0.1, INF, 0.2], nonfinite_share=[0, 0, 0])))
    assert "first in middle (its elements are finite, their norm overflows)" in finding.summary
    finding = the(opened(GradientNotFinite(), story(gradient_norms=[1e30, 1e30, 0.2])))
    assert "each of its 3 tensors is finite: their sum of squares overflows" in finding.summary


def test_without_the_norms_of_the_tensors_it_still_fires():
    finding = the(opened(GradientNotFinite(), story()))
    assert finding.summary == "gradient norm nan at step 1; the loss is finite"


def test_it_is_fatal_once_weights_are_lost():
    last = {"loss": NAN, "gradient_norms": [NAN] * 3, "nonfinite_weights": 2, "input_nonfinite": 0.5}
    finding = the(opened(GradientNotFinite(), story(**last)))
    assert finding.severity == Severity.FATAL
    assert finding.summary.endswith("the loss is nan; 2 weight tensors were already not finite before this update")
    assert finding.evidence["input_nonfinite"] == 0.5


@pytest.mark.parametrize("skips", [1, 100])
def test_updates_that_a_scaler_skips_are_healthy(skips):
    assert opened(GradientNotFinite(), rows([{"gradient_norm": INF, "update_skipped": 1}] * skips)) == []


def test_a_flag_that_says_not_skipped_protects_nothing():
    assert the(opened(GradientNotFinite(), rows([{"gradient_norm": INF, "update_skipped": 0}]))).step == 0
