"""What two gradients in a row have in common, against plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from trimtab.live import Live
from trimtab.sensors.gradient_noise import SAMPLE, GradientNoise, common, sample


def network(*sizes):
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])


def slow(first, second):
    """Both numbers by plain Python."""
    a = [value for gradient in first for value in gradient.reshape(-1).tolist()]
    b = [value for gradient in second for value in gradient.reshape(-1).tolist()]
    inner = sum(x * y for x, y in zip(a, b, strict=True))
    noise = 0.5 * sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return inner / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)), inner / noise


def gradients_of(model, seed, scale=1.0):
    torch.manual_seed(seed)
    model.zero_grad()
    (scale * model(torch.randn(16, model[0].in_features)).square().mean()).backward()
    return [p.grad.clone() for p in model.parameters()]


def reading(model, step, memory, scale=1.0):
    return GradientNoise().read(
        Live(stream="main", step=step, update=step, parameters=tuple(model.parameters()), memory=memory, scale=scale)
    )


@pytest.mark.parametrize("sizes", [(5, 7, 3), (4, 1)])
def test_on_small_models_it_is_what_plain_loops_give(sizes):
    model, memory = network(*sizes), {}
    first = gradients_of(model, 1)
    assert reading(model, 0, memory) == {}
    second = gradients_of(model, 2)
    read = reading(model, 1, memory)
    cosine, signal = slow(first, second)
    assert read["gradient_cosine"].item() == pytest.approx(cosine, rel=1e-4)
    assert read["gradient_signal"].item() == pytest.approx(signal, rel=1e-4)


def test_a_step_that_was_left_out_makes_no_pair():
    model, memory = network(5, 3), {}
    gradients_of(model, 1)
    assert reading(model, 4, memory) == {}
    assert reading(model, 6, memory) == {}
    assert set(reading(model, 7, memory)) == {"gradient_cosine", "gradient_signal"}


def test_a_loss_scale_that_changes_between_the_two_changes_nothing():
    model, memory = network(5, 3), {}
    gradients_of(model, 1)
    reading(model, 0, memory)
    gradients_of(model, 1, scale=1024.0)
    assert reading(model, 1, memory, scale=1024.0)["gradient_cosine"].item() == pytest.approx(1.0)
    assert reading(model, 2, memory, scale=torch.tensor(1024.0))["gradient_signal"].item() > 1e6


def test_the_sample_of_a_large_model_is_bounded_and_spread_over_all_tensors():
    gradients = [torch.full((256, 512), 1.0), None, torch.full((300,), 2.0), torch.full((64, 1024), 3.0)]
    taken = sample(gradients)
    assert 0.8 * SAMPLE < len(taken) <= SAMPLE
    assert set(taken.tolist()) == {1.0, 2.0, 3.0}
    assert (taken == 1.0).sum() / len(taken) == pytest.approx(2 / 3, abs=0.02)


def test_the_sample_is_a_copy_that_later_updates_do_not_reach():
    gradient = torch.ones(10)
    taken = sample([gradient])
    gradient.zero_()
    assert taken.sum() == 10


def test_no_gradient_gives_nothing_and_zeros_give_zero():
    assert sample([None, torch.zeros(0)]) is None
    assert common(torch.zeros(3), torch.ones(3))["gradient_cosine"].item() == 0.0


def test_the_signal_tells_how_much_of_a_batch_is_noise():
    torch.manual_seed(3)
    truth = torch.randn(20_000)
    for noise in (0.1, 1.0, 10.0):
        draws = [truth + noise * torch.randn(20_000) for _ in range(2)]
        signal = common(*draws)["gradient_signal"].item()
        assert signal == pytest.approx(1 / noise**2, rel=0.05, abs=0.03)
