"""The optimizer's second moment, against plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from trimtab.live import Live
from trimtab.sensors import Moments


def trained(optimizer_of, *sizes):
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
    optimizer = optimizer_of(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, sizes[0])).square().mean().backward()
        optimizer.step()
    return model, optimizer


def read(model, optimizer):
    return Moments().read(
        Live(stream="main", step=3, update=3, optimizer=optimizer, parameters=tuple(model.parameters()))
    )


@pytest.mark.parametrize("sizes", [(3, 5, 2), (4, 1)])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda p: torch.optim.Adam(p, lr=1e-3), "exp_avg_sq"),
        (lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True), "exp_avg_sq"),
        (lambda p: torch.optim.NAdam(p, lr=1e-3), "exp_avg_sq"),
        (lambda p: torch.optim.RMSprop(p, lr=1e-3), "square_avg"),
        (lambda p: torch.optim.Adagrad(p, lr=1e-3), "sum"),
    ],
)
def test_it_is_the_root_mean_of_what_the_optimizer_keeps(make, name, sizes):
    model, optimizer = trained(make, *sizes)
    scales = read(model, optimizer)["moment_scale"].tolist()
    for scale, parameter in zip(scales, model.parameters(), strict=True):
        kept = optimizer.state[parameter][name].reshape(-1).tolist()
        assert scale == pytest.approx(math.sqrt(sum(kept) / len(kept)), rel=1e-5)


def test_sgd_keeps_none():
    assert read(*trained(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 3, 2)) == {}


def test_a_tensor_without_a_state_counts_zero_and_looking_makes_none():
    model, optimizer = trained(lambda p: torch.optim.Adam(p, lr=1e-3), 3, 4, 2)
    weight = model[0].weight
    del optimizer.state[weight]
    assert read(model, optimizer)["moment_scale"][0] == 0.0
    assert weight not in optimizer.state
