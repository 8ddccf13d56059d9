"""A lower rate for some updates, that leaves no trace in what sets the rate."""

from __future__ import annotations

import pytest
import torch

from tests.actions.kit import found, training
from trimtab.actions import LowerLearningRate
from trimtab.errors import UserError


def rates(one, action, updates, between=lambda: None):
    """The rates of these updates, the first of them the one that the action answers."""
    outcome = action.apply(one.live(), found())
    assert outcome.result == "done", outcome.because
    seen = []
    for _ in range(updates):
        one.gradient()
        seen.append(one.update()[0])
        between()
    return seen


def test_the_rate_is_lowered_and_comes_back_by_the_same_ratio_each_time():
    one = training("SGD", lr=0.1)
    seen = rates(one, LowerLearningRate(factor=0.1, steps=3, ramp=3), 8)
    assert seen == pytest.approx([0.01] * 3 + [0.01 * 10**0.25, 0.01 * 10**0.5, 0.01 * 10**0.75] + [0.1] * 2)
    assert one.levers._effects == []


def test_between_updates_the_rate_is_the_very_same_object():
    one = training("SGD", lr=0.123)
    before = one.optimizer.param_groups[0]["lr"]
    seen = []
    rates(one, LowerLearningRate(steps=2, ramp=2), 3, lambda: seen.append(one.optimizer.param_groups[0]["lr"]))
    assert all(rate is before for rate in seen)


def test_two_of_them_multiply_and_end_one_after_the_other():
    one = training("SGD", lr=1.0)
    LowerLearningRate(factor=0.1, steps=2, ramp=0).apply(one.live(), found())
    assert rates(one, LowerLearningRate(factor=0.5, steps=4, ramp=0), 5) == pytest.approx([0.05, 0.05, 0.5, 0.5, 1.0])


def test_a_scheduler_is_not_disturbed():
    def run(lowered):
        one = training("SGD", lr=1.0)
        schedule = torch.optim.lr_scheduler.ExponentialLR(one.optimizer, gamma=0.9)
        if lowered:
            LowerLearningRate(factor=0.1, steps=4, ramp=2).apply(one.live(), found())
        seen, said = [], []
        for _ in range(10):
            one.gradient()
            seen.append(one.update()[0])
            schedule.step()
            said.append(schedule.get_last_lr()[0])
        return seen, said

    (plain, said_plain), (lowered, said_lowered) = run(False), run(True)
    assert said_plain == said_lowered
    assert lowered[:4] == [0.1 * rate for rate in plain[:4]]
    assert lowered[6:] == plain[6:]


def test_a_rate_that_is_a_tensor_is_changed_in_place_and_put_back_exactly():
    one = training("Adam", lr=torch.tensor(0.1), foreach=False)
    rate = one.optimizer.param_groups[0]["lr"]
    seen = rates(one, LowerLearningRate(factor=0.3, steps=2, ramp=0), 3)
    assert seen == pytest.approx([0.03, 0.03, 0.1])
    assert one.optimizer.param_groups[0]["lr"] is rate
    assert torch.equal(rate, torch.tensor(0.1))


def test_only_the_groups_that_are_named_take_smaller_steps():
    one = training("SGD", groups=2)
    LowerLearningRate(factor=0.5, groups=(1,)).apply(one.live(), found())
    assert one.update() == [0.1, 0.05]


def test_a_rate_that_somebody_sets_inside_the_step_is_theirs():
    one = training("SGD")
    LowerLearningRate().apply(one.live(), found())
    one.levers.begin(one.optimizer, "main", one.live())
    one.optimizer.param_groups[0]["lr"] = 0.7
    one.levers.end(one.optimizer)
    assert one.optimizer.param_groups[0]["lr"] == 0.7


def test_of_an_update_that_raised_the_rate_is_put_back_before_the_next():
    one = training("SGD", lr=0.1)
    LowerLearningRate(factor=0.5, steps=5).apply(one.live(), found())
    one.levers.begin(one.optimizer, "main", one.live())
    one.levers.begin(one.optimizer, "main", one.live())
    assert one.optimizer.param_groups[0]["lr"] == 0.05
    one.levers.end(one.optimizer)
    assert one.optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(("kind", "says"), [("Rprop", "Rprop")])
def test_it_declines_where_the_rate_says_nothing(kind, says):
    outcome = LowerLearningRate().apply(training(kind).live(), found())
    assert outcome.result == "declined"
    assert says in outcome.because


@pytest.mark.parametrize("wrong", [{"factor": 0.0}, {"factor": 1.0}, {"steps": 0}, {"ramp": -1}])
def test_a_setting_out_of_range_is_an_error(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        LowerLearningRate(**wrong)


def test_a_group_that_does_not_exist_is_an_error():
    with pytest.raises(UserError, match="there is no group 3; stream 'main' has 1"):
        LowerLearningRate(groups=(3,)).apply(training().live(), found())
