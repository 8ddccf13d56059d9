"""Going back as a second answer: only where leaving updates out does not help."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.actions.kit import Training, found, training
from trimtab.actions import RollBack, SkipStep

WAITS = RollBack(when="skipping in vain")


def left_out(one, updates):
    """Leave out so many updates in a row."""
    for _ in range(updates):
        one.gradient()
        live = one.live()
        assert SkipStep().apply(live, found()).result == "done"
        one.levers.end(one.optimizer)


def test_it_waits_until_eight_updates_in_a_row_were_left_out():
    one = training("Adam")
    one.snapshots.begin({"main": -1})
    left_out(one, 7)
    assert not WAITS.needed(one.live(), found(event="judged"))
    one.update()
    left_out(one, 7)
    assert not WAITS.needed(one.live(), found(event="judged"))
    left_out(one, 1)
    assert WAITS.needed(one.live(), found(event="judged"))
    assert WAITS.apply(one.live(), found(event="judged")).result == "done"
    one.levers.end(one.optimizer)
    assert not WAITS.needed(one.live(), found(event="judged"))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_weight_that_is_lost_is_reason_enough(broken):
    one = training("SGD")
    with torch.no_grad():
        one.model[0].weight[0, 0] = broken
    assert WAITS.needed(one.live(), found())
    assert RollBack(when="weights lost").needed(one.live(), found())


def normalised(mask=False):
    """A training with running statistics, and a buffer that is infinite on purpose."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    if mask:
        model.register_buffer("mask", torch.full((2, 2), -math.inf))
    one = Training(model, torch.optim.SGD(model.parameters(), lr=0.1))
    one.snapshots.begin({"main": -1})
    return one


def test_so_is_a_running_mean_that_a_batch_has_spoiled_before_the_update():
    one = normalised()
    assert not WAITS.needed(one.live(), found())
    one.model[1].running_mean[0] = math.nan
    assert WAITS.needed(one.live(), found())
    assert WAITS.apply(one.live(), found()).result == "done"
    assert torch.isfinite(one.model[1].running_mean).all()


def test_a_buffer_that_is_infinite_on_purpose_is_none():
    one = normalised(mask=True)
    assert not WAITS.needed(one.live(), found())
    one.model[1].running_var[0] = math.nan
    assert WAITS.needed(one.live(), found())


def test_of_a_leap_that_came_back_nothing_is_left_to_answer():
    one = training("SGD")
    over = found("loss-spike", came_back=1.0)
    left_out(one, 9)
    assert not SkipStep().needed(one.live(), over)
    assert not WAITS.needed(one.live(), over)
    assert SkipStep().needed(one.live(), found("loss-spike", came_back=0.0))


@pytest.mark.parametrize(("event", "needed"), [("opened", True), ("worsened", True), ("judged", False)])
def test_as_a_first_answer_it_is_given_once(event, needed):
    assert RollBack().needed(training().live(), found(event=event)) is needed


def test_while_updates_are_left_out_for_another_finding_it_waits():
    one = training("Adam")
    one.snapshots.begin({"main": -1})
    left_out(one, 3)
    assert not RollBack().needed(one.live(), found(id="F1"))
    left_out(one, 2)
    assert not RollBack().needed(one.live(), found(id="F1", event="judged"))
    one.gradient()
    one.update()
    assert not RollBack().needed(one.live(), found(id="F2", event="judged"))
    assert RollBack().needed(one.live(), found(id="F1", event="judged"))
    RollBack().apply(one.live(), found(id="F1", event="judged"))
    one.levers.end(one.optimizer)
    one.gradient()
    one.update()
    assert not RollBack().needed(one.live(), found(id="F1", event="judged"))
