"""The contract over the sensor catalogue: finite on a healthy model, no random numbers, no waiting, labels that fit."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trimtab.sensors
from trimtab import graph
from trimtab.live import GROWING, Live, Root
from trimtab.sensors import SENSORS


class Mix(nn.Module):
    """An attention between the rows of a batch."""

    def forward(self, x):
        return (torch.softmax((x @ x.T / 3).unsqueeze(0), -1) @ x.unsqueeze(0)).squeeze(0)


def live(device="cpu", **changes):
    """Return the Live of one healthy step; on the meta device, which has no numbers, every read of one raises."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), Mix(), nn.Linear(8, 3)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        optimizer.state[parameter] = {"exp_avg_sq": torch.ones_like(parameter)}
    x, y = torch.ones(5, 4, device=device), torch.zeros(5, dtype=torch.long, device=device)
    loss = F.cross_entropy(model(x), y)
    if changes.pop("terms", 1) == 2:
        loss = loss + 0.01 * model(x).square().mean()
    node = loss.grad_fn
    layers = ()
    if changes.pop("point", "") != "backward":
        loss.backward()
    else:
        layers, _ = graph.layers(node, {id(p): (name, p) for name, p in model.named_parameters()})
    names = tuple(name for name, _ in model.named_parameters())
    parameters = tuple(model.parameters())
    facts = {
        "stream": "main",
        "step": 3,
        "update": 3,
        "optimizer": optimizer,
        "parameters": parameters,
        "axes": {"parameters": names, "groups": ("0",), "everything": names},
        "group_of": (0, 0, 0, 0),
        "model_parameters": parameters,
        "held": frozenset(map(id, parameters)),
        "models": (model,),
        "roots": (Root(value=loss.detach(), node=node),),
        "batch": (x, y),
        "weights_before": tuple(p.detach() - 0.5 for p in parameters),
        "carried": 0.0,
        "scale": 2.0,
        "memory": {"gradient_noise": (2, torch.ones(sum(p.numel() for p in parameters), device=device))},
        "learning_rates": (0.1,),
        "loaders": ((5, 50),),
        "layers": layers,
        "evaluations": (4, 1),
    }
    return Live(**{**facts, **changes}), (model, loss)


def readings(sensor, **changes):
    if sensor.name == "loss_components":  # it has nothing to say about a loss of one term
        changes["terms"] = 2
    for point in sensor.points:
        facts, keep = live(point=point, **changes)
        if point == "backward":
            facts = facts.__class__(**{**{k: getattr(facts, k) for k in facts.__slots__}, "optimizer": None})
        yield sensor.read(facts), facts, keep


def parts(value):
    """The numbers of a reading: of a scalar, a vector, or a mapping label -> number."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, torch.Tensor):
        return list(value.reshape(-1))
    return list(value) if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda s: s.name)
def test_it_is_finite_on_a_healthy_model(sensor):
    seen = {}
    for reading, _, _ in readings(sensor):
        seen.update(reading)
    assert seen, "the sensor says nothing about a healthy step"
    for name, value in seen.items():
        numbers = torch.tensor([float(part) for part in parts(value)], dtype=torch.float64)
        assert torch.isfinite(numbers).all(), name


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda s: s.name)
def test_it_draws_no_random_numbers_and_leaves_weights_and_gradients_alone(sensor):
    for point in sensor.points:
        facts, (model, _) = live(point=point)
        weights = [p.detach().clone() for p in model.parameters()]
        gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        state = torch.get_rng_state()
        sensor.read(facts)
        assert torch.equal(state, torch.get_rng_state())
        for parameter, weight, gradient in zip(model.parameters(), weights, gradients, strict=True):
            assert torch.equal(parameter.detach(), weight)
            assert (parameter.grad is None) == (gradient is None)
            assert gradient is None or torch.equal(parameter.grad, gradient)


WAITS = {"first_nonfinite": "is read on rows in trouble only", "graph_census": "counts the labels of the first steps"}


@pytest.mark.parametrize("sensor", [s for s in SENSORS if s.name not in WAITS], ids=lambda s: s.name)
def test_it_stays_on_the_device_and_never_waits_for_it(sensor):
    for reading, _, _ in readings(sensor, device="meta"):
        for value in [part for whole in reading.values() for part in parts(whole)]:
            assert isinstance(value, float) or value.device.type == "meta"


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda s: s.name)
def test_its_vectors_are_as_long_as_their_labels(sensor):
    for reading, facts, _ in readings(sensor):
        for name, value in reading.items():
            if sensor.axes.get(name) in GROWING:
                assert isinstance(value, Mapping), name
                continue
            tensor = torch.as_tensor(value)
            assert (tensor.dim() == 1) == (name in sensor.axes), name
            if name in sensor.axes:
                assert len(tensor) == len(facts.axes[sensor.axes[name]]), name


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda s: s.name)
def test_its_docstring_names_every_value_that_it_writes(sensor):
    written = {name for reading, _, _ in readings(sensor) for name in reading}
    missing = [name for name in written if f"`{name}`" not in (type(sensor).__doc__ or "")]
    assert not missing


def test_the_catalogue_is_the_folder():
    folder = Path(trimtab.sensors.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert {sensor.name for sensor in SENSORS} == files
    for stem in files:
        assert ast.get_docstring(ast.parse((folder / f"{stem}.py").read_text()))


def test_the_slow_obvious_twin_of_the_fingerprint_agrees():
    from trimtab.sensors.batch_fingerprint import fingerprint

    values = torch.tensor([[3.0, -1.0], [0.5, 2.0]])
    golden = (math.sqrt(5) - 1) / 2
    slow = sum(v * ((i * golden) % 1 + 0.5) for i, v in enumerate(values.reshape(-1).tolist(), start=1))
    assert fingerprint(values).item() == pytest.approx(slow, rel=1e-12)
    assert fingerprint(values) != fingerprint(values.flip(0))
    assert fingerprint(values.flip(0).flip(0)) == fingerprint(values)
