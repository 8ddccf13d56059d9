"""Noise comes from a generator of its own, goes on where it was, and says when nobody heard it."""

import pytest
import torch
from torch import nn

from trimtab.errors import UserError
from trimtab.stabilizers import Noise
from trimtab.tap import tap


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.0), nn.Linear(64, 2))


def x(rows=400):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))


def added(model, noise, times=1):
    """What was added to the output of the module."""
    found = []
    for _ in range(times):
        with tap(model, noise.where) as before, noise, tap(model, noise.where) as after:
            model(x())
        found.append(after.output - before.output)
    return found[0] if times == 1 else found


def test_it_has_the_size_that_was_asked_for(model):
    noise = added(model, Noise(model, "0", size=0.3))
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert abs(noise.mean().item()) < 0.01
    size = model[0](x()).square().mean().sqrt().item()
    assert added(model, Noise(model, "0", size=0.3, relative=True)).std().item() == pytest.approx(0.3 * size, rel=0.02)


def test_no_other_random_number_is_moved_by_it(model):
    before = torch.get_rng_state()
    added(model, Noise(model, "0", size=0.3))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_says_which_noise(model):
    one, other, third = (added(model, Noise(model, "0", size=1.0, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_it_goes_on_where_it_was(model):
    one, other = Noise(model, "0", size=1.0), Noise(model, "0", size=1.0, seed=9)
    added(model, one)
    state = one.state_dict()
    other.load_state_dict(state)
    assert other.state_dict()["calls"] == 1
    assert torch.equal(other.state_dict()["generator"], state["generator"])
    assert torch.equal(added(model, one), added(model, other))
    assert one.state_dict()["largest_change"] == other.state_dict()["largest_change"]


def test_a_state_of_another_device_is_refused(model):
    noise = Noise(model, "0", size=1.0)
    noise.load_state_dict({**noise.state_dict(), "device": "cuda", "generator": torch.Generator().get_state()})
    with pytest.raises(UserError, match="one of 'cuda' and cannot go on on 'cpu'"):
        added(model, noise)


def test_in_evaluation_it_is_silent_unless_asked(model):
    model.eval()
    with pytest.raises(UserError, match="'0' is in eval mode; pass in_evaluation=True"), Noise(model, "0", size=1.0):
        model(x())
    assert added(model, Noise(model, "0", size=1.0, in_evaluation=True)).any()


def test_the_gradient_is_that_without_it(model):
    plain, noisy = x().requires_grad_(), x().requires_grad_()
    model[0](plain).sum().backward()
    with Noise(model, "0", size=1.0):
        model[0](noisy).sum().backward()
    assert torch.equal(plain.grad, noisy.grad)


def test_a_size_that_grows_from_zero(model):
    noise = Noise(model, "0", size=0.0)
    assert not added(model, noise).any()
    assert noise.calls == 0
    noise.size = 0.5
    assert added(model, noise).any()
    assert noise.calls == 1


@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_a_size_must_be_a_size(model, size):
    with pytest.raises(UserError, match="0 or more and finite"):
        Noise(model, "0", size=size)
