"""What clipping leaves of the gradient, and the factor of loss scaling."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from trimtab.live import Live
from trimtab.sensors import GradientNormApplied, LossScale
from trimtab.sensors.gradient_norm import norms_of


@pytest.mark.parametrize("sizes", [(4, 6, 2), (3, 1)])
@pytest.mark.parametrize(("most", "scale"), [(0.1, 1.0), (1e-5, 1.0), (1e9, 1.0), (0.5, 128.0)])
def test_the_factor_is_the_norm_after_clipping_over_the_norm_before(sizes, most, scale):
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
    (scale * model(torch.randn(8, sizes[0])).square().mean()).backward()
    before = norms_of(tuple(model.parameters()), scale)
    norm = nn.utils.clip_grad_norm_(model.parameters(), most)
    reading = GradientNormApplied().read(
        Live(
            stream="main",
            step=0,
            update=0,
            parameters=tuple(model.parameters()),
            gradient_norms=before,
            clipped=True,
            scale=scale,
        )
    )
    assert reading["clip_factor"].item() == pytest.approx(min(1.0, most / norm.item()), rel=1e-4)
    assert reading["clipped"] == 1.0


def test_without_clipping_it_is_one_and_costs_nothing():
    live = Live(stream="main", step=0, update=0, gradient_norms=torch.tensor([3.0, 4.0]))
    reading = GradientNormApplied().read(live)
    assert (reading["clip_factor"], reading["gradient_norm_applied"].item()) == (1.0, 5.0)


def test_gradients_of_zero_are_not_shortened():
    model = nn.Linear(2, 1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    live = Live(
        stream="main",
        step=0,
        update=0,
        parameters=tuple(model.parameters()),
        gradient_norms=torch.zeros(2),
        clipped=True,
    )
    assert GradientNormApplied().read(live)["clip_factor"].item() == 1.0


def test_the_loss_scale_is_told_while_the_gradients_carry_it():
    assert LossScale().read(Live(stream="main", step=0, update=0)) == {}
    assert LossScale().read(Live(stream="main", step=0, update=0, scale=1024.0)) == {"loss_scale": 1024.0}


def test_where_the_scaler_has_divided_by_it_the_scaler_is_asked():
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    scaler.scale(torch.ones(1))
    memory = {"loss_scale": scaler}
    live = Live(stream="main", step=0, update=0, memory=memory)
    assert LossScale().read(live)["loss_scale"].item() == 512.0
    assert memory == {}
    assert LossScale().read(live) == {}
