"""A softmax before a loss that applies one."""

from __future__ import annotations

import math

import pytest

from tests.detectors.kit import opened, rows, the
from trimtab.detectors import DoubleSoftmax


def graphs(*squashed, **more):
    return rows({"squashed_before_loss": flag, "loss": 2.2, **more} for flag in squashed)


@pytest.mark.parametrize(("classes", "floor"), [(10, 1.4612), (2, 0.3133), (1000, 5.9095)])
def test_it_says_how_low_the_loss_can_still_go(classes, floor):
    finding = the(opened(DoubleSoftmax(), graphs(1, 1, chance_level=math.log(classes))))
    assert finding.evidence["loss_floor"] == pytest.approx(floor, abs=1e-4)
    assert f"cannot fall below {floor:.3g}, it is 2.2" in finding.summary


@pytest.mark.parametrize("chance", [0.036, 3.3])
def test_of_a_scaled_loss_it_does_not_say_so(chance):
    finding = the(opened(DoubleSoftmax(), graphs(1, 1, chance_level=chance)))
    assert "loss_floor" not in finding.evidence


def test_one_graph_is_not_enough_and_neither_is_one_of_the_past():
    assert opened(DoubleSoftmax(), graphs(1)) == []
    assert opened(DoubleSoftmax(), graphs(1, 0, 0)) == []
    assert the(opened(DoubleSoftmax(), graphs(1, 0, 1))).since_step == 0
