"""Activations against plain loops over everything that hooks see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trimtab import graph
from trimtab.live import Live
from trimtab.sensors import ActivationStats
from trimtab.sensors.activation_stats import sample


def mlp():
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 12), nn.Tanh(), nn.Linear(12, 9), nn.Sigmoid(),
                         nn.Linear(9, 2))  # fmt: skip


def cnn():
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(54, 2)
    )


def read(model, x):
    """What the sensor says of one forward pass, and what hooks saw of it by module."""
    seen = {}
    hooks = [
        one.register_forward_hook(lambda m, args, out, name=name: seen.update({name: (args[0].detach(), out.detach())}))
        for name, one in model.named_children()
    ]
    out = model(x)
    for hook in hooks:
        hook.remove()
    names = {id(p): (name, p) for name, p in model.named_parameters()}
    layers, _ = graph.layers(out.sum().grad_fn, names)
    reading = ActivationStats().read(Live(stream="", step=0, update=0, layers=layers))
    return {name: {k: float(v) for k, v in values.items()} for name, values in reading.items()}, seen


def slow_rms(tensor):
    values = tensor.reshape(-1).tolist()
    return math.sqrt(sum(v * v for v in values) / len(values))


def slow_dead(out, channels):
    rows = out.movedim(channels, -1).reshape(-1, out.shape[channels]).tolist()
    return sum(all(row[unit] <= 0 for row in rows) for unit in range(len(rows[0]))) / len(rows[0])


def test_an_mlp_agrees_with_hooks_and_loops():
    torch.manual_seed(0)
    model = mlp()
    with torch.no_grad():
        model[0].bias[:15] = -10.0
        model[2].weight.mul_(40)
        model[4].weight.mul_(30)
    found, seen = read(model, torch.randn(50, 6))
    assert found["dead_share"] == pytest.approx({"0>relu": slow_dead(seen["1"][1], 1)})
    assert found["dead_share"]["0>relu"] >= 0.75
    tanh, sigmoid = seen["3"][1].reshape(-1).tolist(), seen["5"][1].reshape(-1).tolist()
    assert found["saturated_share"] == pytest.approx({
        "2>tanh": sum(abs(v) > 0.99 for v in tanh) / len(tanh),
        "4>sigmoid": sum(not 0.01 <= v <= 0.99 for v in sigmoid) / len(sigmoid),
    }, abs=1e-6)  # fmt: skip
    assert found["saturated_share"]["2>tanh"] > 0.3
    rms = {"0>linear": slow_rms(seen["0"][0]), "0>relu": slow_rms(seen["1"][1]), "4>sigmoid": slow_rms(seen["5"][1])}
    assert {label: found["activation_rms"][label] for label in rms} == pytest.approx(rms, rel=1e-5)
    assert set(found["activation_half"].values()) == {0.0}


def test_a_cnn_has_its_units_in_the_channels():
    torch.manual_seed(0)
    model = cnn()
    with torch.no_grad():
        model[1].bias[:3] = -20.0
    found, seen = read(model, torch.randn(16, 2, 7, 7))
    assert found["dead_share"] == {"1>relu": slow_dead(seen["2"][1], 1)} == {"1>relu": 0.375}
    assert found["activation_rms"]["3>tanh"] == pytest.approx(slow_rms(seen["4"][1]), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "units"), [((5000, 64), -1), ((40, 128, 32), -1), ((64, 16, 32, 32), 1), ((8, 12, 500), 1), ((7,), -1)]
)
@pytest.mark.parametrize("last", [False, True])
def test_the_sample_is_small_and_of_all_examples(shape, units, last):
    tensor = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    if last and len(shape) == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    rows = sample(tensor, units)
    wide = shape[units] if len(shape) > 1 else 1
    assert rows.shape[1] == wide
    assert rows.numel() <= 2 * max(16_384, 64 * wide)
    assert rows.unique().numel() == rows.numel()
    size = math.prod(shape[1:])
    assert (rows[:, 0] // size).max() >= 0.9 * (shape[0] - 1)


@pytest.mark.parametrize("act", [nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.ReLU6])
def test_units_without_a_slope_are_dead_whatever_the_function(act):
    model = nn.Sequential(nn.Linear(4, 8), act(), nn.Linear(8, 1))
    with torch.no_grad():
        model[0].bias[:6] = -30.0
    found, _ = read(model, torch.randn(32, 4))
    assert list(found["dead_share"].values()) == [0.75]


def test_outputs_hinges_and_batches_of_few_rows_are_not_judged():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid())
    found, _ = read(model, torch.randn(32, 4))
    assert "saturated_share" not in found
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    assert "dead_share" not in read(model, torch.randn(32, 4))[0]
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    assert "dead_share" not in read(model, torch.randn(2, 4))[0]
    assert "dead_share" in read(model, torch.randn(8, 4))[0]


def test_half_precision_is_told():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = read(model, torch.randn(32, 4))
    assert found["activation_half"] == {"0>linear": 1.0, "0>relu": 1.0, "2>linear": 1.0}
