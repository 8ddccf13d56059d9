"""An optimizer that forgets begins anew, exactly."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.actions.kit import found, training
from trimtab.actions import ResetMoments
from trimtab.actions.reset_moments import BEGINS_ANEW
from trimtab.errors import UserError

OPTIONS = {"SGD": {"momentum": 0.9, "dampening": 0.1}, "RMSprop": {"momentum": 0.5, "centered": True}}


def run(one, updates):
    for _ in range(updates):
        one.gradient()
        one.optimizer.step()


def kinds():
    return [kind.__name__ for kind in BEGINS_ANEW if kind.__name__ not in ("Muon", "SparseAdam")] + ["Adagrad"]


def own_state(optimizer):
    return [
        {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in optimizer.state[p].items()}
        for group in optimizer.param_groups
        for p in group["params"]
    ]


@pytest.mark.parametrize("kind", kinds())
def test_the_updates_after_it_are_those_of_a_new_optimizer(kind):
    one = training(kind, **OPTIONS.get(kind, {}))
    run(one, 5)
    outcome = ResetMoments().apply(one.live(), found())
    assert outcome.result == "done", outcome.because
    assert "state of 4 tensors" in outcome.because
    fresh = training(kind, **OPTIONS.get(kind, {}))
    fresh.model.load_state_dict(copy.deepcopy(one.model.state_dict()))
    run(one, 3)
    run(fresh, 3)
    for ours, theirs in zip(one.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_momentum_of_muon_is_forgotten_too():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    weight = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = torch.optim.Muon([weight], lr=0.1)
    weight.grad = torch.ones(3, 3)
    optimizer.step()
    one = training("SGD")
    live = one.live(optimizer=optimizer, parameters=(weight,), axes={"parameters": ("weight",)})
    assert ResetMoments().apply(live, found()).result == "done"
    assert not optimizer.state


def test_only_what_is_named_is_forgotten():
    one = training("Adam", groups=2)
    run(one, 3)
    before = own_state(one.optimizer)
    assert ResetMoments(parameters="2.*").apply(one.live(), found()).result == "done"
    assert [bool(state) for state in own_state(one.optimizer)] == [True, True, False, False]
    assert torch.equal(own_state(one.optimizer)[0]["exp_avg"], before[0]["exp_avg"])
    run(one, 1)
    assert ResetMoments(groups=(0,), parameters=("*.weight",)).apply(one.live(), found()).result == "done"
    assert [bool(state) for state in own_state(one.optimizer)] == [False, True, True, True]


def test_the_weights_stay():
    one = training("Adam")
    run(one, 3)
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    ResetMoments().apply(one.live(), found())
    assert all(torch.equal(a, b) for a, b in zip(before, one.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (ResetMoments(parameters=("*", "heads.*")), "no tensor of stream 'main' matches 'heads.*'"),
        (ResetMoments(groups=(1,)), "there is no group 1; stream 'main' has 1"),
    ],
)
def test_what_names_nothing_is_an_error_and_clears_nothing(action, says):
    one = training("Adam")
    run(one, 2)
    with pytest.raises(UserError) as raised:
        action.apply(one.live(), found())
    assert says in str(raised.value)
    assert all(own_state(one.optimizer))


class Mine(torch.optim.Adam):
    """An optimizer with a step of its own."""

    def step(self, closure=None):
        return super().step(closure)


class Named(torch.optim.Adam):
    """One that only has another name."""


@pytest.mark.parametrize(("kind", "result"), [(Mine, "declined"), (Named, "done")])
def test_a_class_with_a_step_of_its_own_is_left_alone(kind, result):
    one = training("Adam")
    optimizer = kind(one.model.parameters(), lr=0.1)
    one.gradient()
    optimizer.step()
    assert ResetMoments().apply(one.live(optimizer=optimizer), found()).result == result
    assert bool(optimizer.state) == (result == "declined")


def test_an_optimizer_that_remembers_nothing_is_said_so():
    one = training("SGD")
    run(one, 2)
    outcome = ResetMoments().apply(one.live(), found())
    assert (outcome.result, outcome.because) == ("declined", "SGD remembers nothing of these 4 tensors")
