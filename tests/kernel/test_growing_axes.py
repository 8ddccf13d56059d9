"""Signals whose labels are learned on the way: layers, attentions, modules, losses."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from trimtab import Guard
from trimtab.cadence import Tier
from trimtab.detectors import DETECTORS
from trimtab.graph import Layer
from trimtab.judge import History, Judge
from trimtab.live import Point
from trimtab.run import Run, RunWriter


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Returns what it is told for each step, and keeps what it saw."""

    returns: Any
    name: str = "seen"
    points: tuple[Point, ...] = ("before",)
    tier: Tier = "step"
    axes: dict[str, str] = field(default_factory=lambda: {"size": "layers", "other": "layers"})
    sparse: tuple[str, ...] = ()
    copies_weights: bool = False

    def read(self, live):
        return self.returns(live)


def train(path, sensors, steps, model=None, **options):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Guard(path, model, optimizer, sensors=sensors, overhead=None, **options) as guard:
        for _ in range(steps):
            model(torch.randn(8, 4)).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert not [note for note in guard.history.notes if note.kind == "trimtab-failed"]
    return guard


def growing(live):
    labels = ["b", "a"] if live.step < 3 else ["c", "a"]
    return {"size": {label: torch.tensor(float(live.step)) if label == "a" else 0.5 for label in labels}}


@pytest.mark.parametrize("seal", [1000, 4])
def test_a_label_keeps_its_place_and_what_is_missing_is_nan(tmp_path, seal, monkeypatch):
    usual = RunWriter.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(RunWriter.__init__, "__kwdefaults__", {**usual, "seal_rows": seal, "seal_bytes": 1 << 20})
    guard = train(tmp_path / "run", [Seen(returns=growing)], 6)
    rows = [row for row in Run(tmp_path / "run").rows() if "size" in row.values]
    assert [row.labels["size"] for row in rows] == [("b", "a")] * 3 + [("b", "a", "c")] * 3
    assert all(len(row.labels["size"]) == len(row.values["size"]) for row in rows)
    assert rows[2].values["size"] == (0.5, 2.0)
    last = rows[5].values["size"]
    assert math.isnan(last[0])
    assert last[1:] == (5.0, 0.5)
    lived = guard.history.traces["main"]
    assert lived.vector("size")["c"] == 0.5
    replayed = History(Judge(DETECTORS))
    for row in Run(tmp_path / "run").rows():
        replayed.add(row)
    again = replayed.traces["main"]
    assert again.labels("size") == lived.labels("size")
    assert repr(again.window("size", 99)) == repr(lived.window("size", 99))
    assert len(list((tmp_path / "run" / "signals").glob("*.npz"))) == (0 if seal == 1000 else 1)


def test_two_signals_of_an_axis_share_its_labels(tmp_path):
    sensors = [Seen(returns=lambda live: {"size": {"a": 1.0}, "other": {"b": 2.0, "a": 3.0}})]
    train(tmp_path / "run", sensors, 2)
    row = next(row for row in Run(tmp_path / "run").rows() if "size" in row.values)
    assert row.labels["size"] == row.labels["other"] == ("a", "b")
    assert json.dumps(row.values["other"]) == "[3.0, 2.0]"


def test_memory_lives_as_long_as_the_stream(tmp_path):
    counted = []

    def count(live):
        live.memory["seen"] = live.memory.get("seen", 0) + 1
        counted.append((live.stream, live.memory["seen"]))
        return {}

    train(tmp_path / "run", [Seen(returns=count, points=("backward",)), Seen(returns=count, name="too")], 3)
    assert counted == [("", 1), ("main", 1), ("", 2), ("main", 2), ("", 3), ("main", 3)]


def test_layers_are_there_when_they_are_due(tmp_path):
    seen = {}

    def look(live):
        assert all(isinstance(layer, Layer) for layer in live.layers)
        seen[live.update] = [layer.label for layer in live.layers]
        return {"size": {layer.label: layer.given.numel() for layer in live.layers if layer.given is not None}}

    train(tmp_path / "run", [Seen(returns=look, points=("backward",), tier="layers")], 70)
    assert sorted(seen) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 28, 32, 64]
    assert all(labels == ["0>linear", "0>relu", "2>linear"] for labels in seen.values())
    rows = [row for row in Run(tmp_path / "run").rows() if "size" in row.values]
    assert rows[-1].labels["size"] == ("0>linear", "2>linear")


def test_layers_before_the_first_update_are_named_by_the_model(tmp_path):
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 1))
    labels = []

    def note(live):
        labels.append(tuple(one.label for one in live.layers))
        return {}

    look = Seen(returns=note, points=("backward",), tier="layers")
    train(tmp_path / "run", [look], 2, model=model)
    assert set(labels) == {("0>linear", "0>tanh", "2>linear")}


def test_several_passes_before_an_update_are_looked_into_once(tmp_path):
    looks = []

    def count(live):
        looks.append(len(live.layers))
        return {}

    look = Seen(returns=count, points=("backward",), tier="layers")
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Guard(tmp_path / "run", model, optimizer, sensors=[look], overhead=None):
        for _ in range(3):
            for _ in range(4):
                model(torch.randn(8, 4)).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert looks == [3, 0, 0, 0] * 3
