"""Tensors that the user names: what is measured of them, and when."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trimtab import Guard
from trimtab.errors import UserError
from trimtab.run import Run
from trimtab.sensors._examined import effective_rank, examined, rows_of


def slow_rank(rows):
    values = torch.linalg.svdvals((rows - rows.mean(0)).double())
    shares = [value / values.sum().item() for value in values.tolist() if value > 1e-3 * values.max().item()]
    return math.exp(-sum(share * math.log(share) for share in shares))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), d=st.integers(1, 30), r=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_rank_agrees_with_a_decomposition(n, d, r, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, r, generator=generator) @ torch.randn(r, d, generator=generator) + 3.0
    assert effective_rank(rows).item() == pytest.approx(slow_rank(rows), rel=0.02)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_rows_that_are_not_finite_have_no_rank(broken):
    rows = torch.randn(32, 8)
    rows[3, 2] = broken
    assert effective_rank(rows).isnan()


def test_a_representation_that_collapsed_has_no_rank_and_no_spread():
    same = torch.ones(32, 8) * torch.arange(8)
    assert examined("representation", same) == {"rank": 0.0, "spread": 0.0}
    line = torch.linspace(-1, 1, 32)[:, None] * torch.ones(8)
    assert examined("representation", line)["rank"] == pytest.approx(1.0, abs=0.01)
    whole = torch.eye(8).repeat(4, 1)
    assert examined("representation", whole)["rank"] == pytest.approx(7.0, rel=0.01)


def test_the_slow_obvious_way_to_spread_and_active_units():
    torch.manual_seed(0)
    means = torch.cat([torch.randn(64, 3), 0.01 * torch.randn(64, 5)], dim=1)
    found = examined("latent", means)
    deviations = [math.sqrt(sum((v - sum(c) / 64) ** 2 for v in c) / 64) for c in means.T.tolist()]
    size = math.sqrt(sum(v * v for row in means.tolist() for v in row) / means.numel())
    assert found["spread"] == pytest.approx(sum(deviations) / 8 / size, rel=1e-4)
    assert found["active_units"] == 3.0 == sum(d * d > 0.01 for d in deviations)


def test_attention_is_judged_by_the_keys_that_it_may_look_at():
    uniform = torch.ones(2, 6, 6).tril()
    uniform = uniform / uniform.sum(-1, keepdim=True)
    found = examined("attention", uniform)
    assert found["entropy"] == pytest.approx(1.0)
    assert found["peak"] == pytest.approx(1.0)
    assert examined("attention", torch.eye(6).expand(2, 3, 6, 6)) == {"entropy": 0.0, "peak": 6.0}
    half = torch.tensor([[0.5, 0.5, 1e-9, 1e-9]])
    assert examined("attention", half) == pytest.approx({"entropy": 0.5, "peak": 2.0}, rel=1e-3)


@pytest.mark.parametrize("shape", [(5,), (600, 3), (4, 9, 16), (8, 3, 40, 40)])
def test_of_a_large_tensor_a_sample_is_read(shape):
    rows = rows_of(torch.randn(shape))
    assert rows.shape[0] <= 256
    assert rows.shape[1] <= 512


def train(path, steps, examine):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Guard(path, model, optimizer, overhead=None) as guard:
        for _ in range(steps):
            out = model(torch.randn(8, 4))
            examine(guard, out)
            out.pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return [row for row in Run(path).rows() if "z/rank" in row.values], [p.detach().clone() for p in model.parameters()]


def test_it_is_recorded_when_layers_are_looked_into_and_changes_nothing(tmp_path):
    rows, weights = train(tmp_path / "run", 40, lambda guard, z: guard.examine(kind="representation", z=z))
    assert len(rows) == 15
    assert set(rows[0].values) == {"z/rank", "z/spread"}
    every, _ = train(tmp_path / "every", 40, lambda guard, z: guard.examine(kind="latent", z=z, every=10))
    assert len(every) == 4
    assert "z/active_units" in every[0].values
    _, bare = train(tmp_path / "bare", 40, lambda guard, z: None)
    assert all(torch.equal(one, other) for one, other in zip(weights, bare, strict=True))


def test_a_tensor_counts_once_for_each_update(tmp_path):
    def twice(guard, z):
        guard.examine(kind="representation", z=z)
        guard.examine(kind="representation", z=z)

    assert len(train(tmp_path / "run", 3, twice)[0]) == 3


def test_what_cannot_be_examined_is_said_at_once(tmp_path):
    with Guard(tmp_path / "run") as guard:
        with pytest.raises(UserError, match="expected one of 'representation', 'attention', 'latent'"):
            guard.examine(kind="thought", z=torch.ones(3, 3))
        with pytest.raises(UserError, match="'z' must be a tensor, got list"):
            guard.examine(kind="latent", z=[1.0])


@pytest.mark.parametrize("kind", ["latent", "representation"])
def test_one_example_says_nothing_about_differences(kind):
    assert examined(kind, torch.randn(1, 8)) == {}
