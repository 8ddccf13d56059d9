"""Spread and rank of what a model makes of a batch, against plain loops and a decomposition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

from trimtab import graph
from trimtab.live import Live, Root
from trimtab.sensors.representation import ROWS, Representation, _rows, sample, spread_and_rank


def spread(rows):
    return spread_and_rank(rows)[0]


def rank(rows):
    return spread_and_rank(rows)[1]


def slow_spread(rows):
    """The same in plain Python."""
    columns = list(zip(*rows.tolist(), strict=True))
    deviations = []
    for column in columns:
        mean = sum(column) / len(column)
        deviations.append(math.sqrt(sum((value - mean) ** 2 for value in column) / len(column)))
    size = math.sqrt(sum(value**2 for row in rows.tolist() for value in row) / rows.numel())
    return sum(deviations) / len(deviations) / size


def slow_rank(rows):
    """From the variances along the principal axes, which a decomposition gives."""
    variances = torch.linalg.svdvals((rows - rows.mean(0)).double()).square()
    return float(variances.sum().square() / variances.square().sum())


@given(seed=some.integers(0, 1000), rows=some.integers(3, 40), columns=some.integers(2, 40))
def test_spread_and_rank_agree_with_their_slow_twins(seed, rows, columns):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * torch.arange(1, columns + 1)
    assert float(spread(values)) == pytest.approx(slow_spread(values), rel=1e-4)
    assert float(rank(values)) == pytest.approx(slow_rank(values), rel=1e-3)


def test_the_rank_counts_directions_whatever_the_scale():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(128, 3, generator=generator) @ torch.linalg.qr(torch.randn(40, 3, generator=generator))[0].T
    for scale in (1e-12, 1.0, 1e12):
        assert float(rank(scale * values)) == pytest.approx(3, rel=0.05)
    assert float(rank(values[:, :1] * torch.ones(40))) == pytest.approx(1, rel=1e-4)


def test_inputs_that_are_all_alike_have_no_spread():
    assert float(spread(torch.full((8, 4), 3.0))) == 0
    assert float(spread(torch.zeros(8, 4))) == 0
    assert float(rank(torch.zeros(8, 4))) == 0


def test_a_sample_is_small_and_evenly_spread():
    large = torch.arange(1000.0).reshape(1000, 1).expand(1000, 700)
    assert sample(large).shape == (125, 234)
    assert sample(large)[:, 0].tolist() == list(range(0, 1000, 8))
    assert sample(torch.randn(16, 8, 20, 20)).shape[0] == 16
    assert sample(torch.randn(16, 8, 20, 20)).shape[1] <= 256
    assert sample(torch.randn(5)).shape == (5, 1)


def read(model, x, loss_of):
    loss = loss_of(model(x))
    layers, _ = graph.layers(loss.grad_fn, {id(p): (name, p) for name, p in model.named_parameters()})
    live = Live(stream="", step=0, update=0, roots=(Root(value=0.0, node=loss.grad_fn),), layers=layers)
    return {name: float(value) for name, value in Representation().read(live).items()}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))


def test_a_classifier_is_measured_before_its_last_layers_and_at_its_logits():
    model, x = network(), torch.randn(20, 6)
    reading = read(model, x, lambda logits: F.cross_entropy(logits, torch.randint(4, (20,))))
    logits = model(x).detach()
    hidden = [model[:2](x).detach(), model[:4](x).detach()]
    assert reading["output_spread"] == pytest.approx(slow_spread(logits - logits.mean(1, keepdim=True)), rel=1e-4)
    assert reading["representation_spread"] == pytest.approx(min(map(slow_spread, hidden)), rel=1e-4)
    assert reading["representation_rank"] == pytest.approx(min(map(slow_rank, hidden)), rel=1e-3)


@pytest.mark.parametrize("loss_of", [F.mse_loss, F.binary_cross_entropy_with_logits, F.huber_loss])
def test_other_losses_are_measured_at_what_they_were_given(loss_of):
    model, x = network(), torch.randn(20, 6)
    reading = read(model, x, lambda output: loss_of(output, torch.rand(20, 4)))
    assert reading["output_spread"] == pytest.approx(slow_spread(model(x).detach()), rel=1e-4)


def test_logits_of_sequences_are_rows_of_places():
    model, x = network(), torch.randn(5, 7, 6)
    targets = torch.randint(4, (5, 7))
    flat = read(model, x, lambda logits: F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    turned = read(model, x, lambda logits: F.cross_entropy(logits.transpose(1, 2), targets))
    assert turned == pytest.approx(flat, rel=1e-5)


def test_a_loss_that_is_not_recognised_leaves_the_representation():
    reading = read(network(), torch.randn(20, 6), lambda output: output.pow(4).sum())
    assert set(reading) == {"representation_spread", "representation_rank"}


def test_data_and_batches_of_one_are_not_measured():
    one_layer = nn.Sequential(nn.Linear(6, 4))
    assert set(read(one_layer, torch.randn(20, 6), lambda output: F.mse_loss(output, torch.rand(20, 4)))) == {
        "output_spread"
    }
    assert read(network(), torch.randn(1, 6), lambda output: F.mse_loss(output, torch.rand(1, 4))) == {}


def test_the_rows_of_a_map_of_classes_are_those_of_the_flat_one():
    scores = torch.randn(5, 7, 20, 11).movedim(1, -1)
    wanted = scores.flatten(0, -2)
    assert torch.equal(_rows(scores), wanted[:: -(-wanted.shape[0] // ROWS)])
