"""Exact zeros among gradients, against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trimtab.live import Live
from trimtab.sensors import Precision
from trimtab.sensors.precision import SAMPLE, zero_shares


def share(gradient):
    values = gradient.reshape(-1).tolist()
    return sum(value == 0 for value in values) / len(values)


def read(model):
    return Precision().read(Live(stream="main", step=0, update=0, parameters=tuple(model.parameters())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "model", [lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2)), lambda: nn.Linear(4, 1)]
)
def test_on_small_models_it_counts_every_element(model, dtype):
    torch.manual_seed(1)
    network = model().to(dtype)
    network(torch.randn(2, next(network.parameters()).shape[1], dtype=dtype)).square().mean().backward()
    reading = read(network)
    expected = [share(p.grad.float()) for p in network.parameters()]
    assert reading["gradient_zero_share"].tolist() == pytest.approx(expected, abs=0.005)
    assert reading["half_share"] == float(dtype == torch.bfloat16)


@given(st.lists(st.sampled_from([0.0, -0.0, 1e-30, 2.0]), min_size=1, max_size=SAMPLE))
def test_up_to_the_size_of_the_sample_it_is_exact(values):
    assert zero_shares([torch.tensor(values)]).item() == pytest.approx(share(torch.tensor(values)), abs=1e-6)


def test_a_large_gradient_is_sampled_through_all_columns():
    gradient = torch.ones(256, 256)
    gradient[:, ::2] = 0.0
    assert zero_shares([gradient]).item() == pytest.approx(0.5, abs=0.05)
    gradient = torch.ones(256, 256)
    gradient[:128] = 0.0
    assert zero_shares([gradient]).item() == pytest.approx(0.5, abs=0.05)


def test_missing_empty_and_sparse_gradients():
    table = nn.Embedding(50, 4, sparse=True)
    table(torch.tensor([1, 3])).sum().backward()
    shares = zero_shares([None, torch.zeros(0), table.weight.grad, torch.zeros(3)])
    assert shares.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert read(nn.Linear(2, 2)) == {}


def test_what_passes_through_float16_is_seen():
    torch.manual_seed(0)
    model = nn.Linear(32, 4)
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: (gradient * 1e-6).half().float() * 1e6)
    (0.01 * model(torch.randn(64, 32)).square().mean()).backward()
    assert read(model)["gradient_zero_share"].min() > 0.3
