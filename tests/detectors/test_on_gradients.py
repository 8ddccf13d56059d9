"""The rules about gradients, optimizers and number formats on real small trainings under a Guard."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trimtab.guard import Guard
from trimtab.records import Finding, Severity


def found(path, model, optimizer, *, steps=48, each=lambda step: None, update=None, clip=None) -> dict[str, Finding]:
    """Train a classifier on fresh data; return what was opened at warning or above, by code."""
    torch.manual_seed(0)
    truth = torch.randn(8, 3)
    with Guard(path / "run", model, optimizer, overhead=None) as guard:
        for step in range(steps):
            each(step)
            x = torch.randn(32, 8)
            loss = F.cross_entropy(model(x), (x @ truth).argmax(1))
            if update is not None:
                update(optimizer, loss)
                continue
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    grave = [e for e in guard.events if isinstance(e, Finding) and e.severity >= Severity.WARNING]
    return {e.code: e for e in reversed(grave) if e.event == "opened"}


def network(*sizes: int, act: Any = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


SMALL = (8, 24, 24, 3)


def sgd(model, rate=0.05, **more):
    return torch.optim.SGD(model.parameters(), lr=rate, **more)


def adam(model, rate=2e-3, **more):
    return torch.optim.Adam(model.parameters(), lr=rate, **more)


@pytest.mark.parametrize("make", [sgd, adam, lambda m: torch.optim.AdamW(m.parameters(), lr=2e-3, weight_decay=0.1)])
def test_a_healthy_training_raises_none_of_them(tmp_path, make):
    model = network(*SMALL)
    assert found(tmp_path, model, make(model), steps=200, clip=1.0) == {}


def test_a_gradient_that_vanishes_is_named_with_the_layers_between(tmp_path):
    model = network(8, *[16] * 12, 3, act=nn.Sigmoid)
    finding = found(tmp_path, model, adam(model))["gradient-vanishing"]
    assert finding.step == 11
    assert finding.evidence["first_weight"] == "0.weight"
    assert finding.measured < 1e-5


def test_a_rate_of_a_billionth_moves_nothing(tmp_path):
    model = network(*SMALL)
    assert found(tmp_path, model, adam(model, 1e-9))["update-too-small"].step == 15


def test_updates_that_stop_are_told(tmp_path):
    model = network(*SMALL)
    optimizer = adam(model)
    kept: list[torch.Tensor] = []

    def restore(*_):
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), kept, strict=False):
                parameter.copy_(value)

    def each(step):
        if step == 20:
            kept.extend(parameter.detach().clone() for parameter in model.parameters())

    optimizer.register_step_post_hook(restore)
    finding = found(tmp_path, model, optimizer, each=each)["update-too-small"]
    assert (finding.measured, finding.since_step, finding.step) == (0.0, 20, 25)


def test_long_steps_under_clipping_are_told_by_their_length(tmp_path):
    model = network(*SMALL)
    finding = found(tmp_path, model, adam(model, 0.3), steps=64)
    assert {"update-too-large", "gradient-exploding"} & finding.keys()


def test_a_threshold_that_starves_the_weights(tmp_path):
    model = network(*SMALL)
    findings = found(tmp_path, model, sgd(model), clip=1e-5)
    assert findings["clipping-starves"].step == 15
    assert findings["clipping-starves"].severity == Severity.ERROR
    assert "update-too-small" not in findings


def test_adam_does_not_mind_a_low_threshold_and_only_the_fact_is_told(tmp_path):
    model = network(*SMALL)
    assert set(found(tmp_path, model, adam(model), clip=1e-5)) == {"clipping-always-active"}


def test_one_gradient_of_a_thousand_poisons_adam_and_not_sgd(tmp_path):
    def spiked(make):
        model = network(*SMALL)
        now = [0]
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: gradient * (1e3 if now[0] == 30 else 1.0))
        folder = tmp_path / make.__name__
        return found(folder, model, make(model), steps=64, each=lambda step: now.__setitem__(0, step), clip=None)

    finding = spiked(adam)["moments-poisoned"]
    assert finding.since_step == 30
    assert finding.step <= 40
    assert finding.measured > 20
    assert "moments-poisoned" not in spiked(sgd)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: adam(m, weight_decay=1.0),
        lambda m: sgd(m, weight_decay=1.0),
        lambda m: torch.optim.AdamW(m.parameters(), lr=2e-2, weight_decay=5.0),
    ],
)
def test_weight_decay_that_eats_the_network(tmp_path, make):
    model = network(*SMALL)
    finding = found(tmp_path, model, make(model), steps=96)["weight-decay-dominates"]
    assert finding.evidence["weight_norm"] < 0.7 * finding.evidence["weight_norm_first"]


def test_gradients_that_pass_through_float16_too_small(tmp_path):
    model = network(*SMALL)
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: (gradient * 1e-6).half().float() * 1e6)
    assert "precision-underflow" in found(tmp_path, model, sgd(model))


def test_dead_units_are_no_underflow(tmp_path):
    model = network(*SMALL)
    with torch.no_grad():
        model[0].bias.fill_(-20.0)
    assert "precision-underflow" not in found(tmp_path, model, sgd(model))


def in_half(model):
    """Let the gradients of a model pass through float16, where a large scale overflows."""
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient.half().float())
    return model


def test_a_scale_that_is_never_lowered(tmp_path):
    model = in_half(network(*SMALL))
    scaler, step = torch.amp.GradScaler("cpu", init_scale=2.0**8), [0]

    def update(optimizer, loss):
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        step[0] += 1
        scaler.update(2.0**40 if step[0] >= 60 else None)

    finding = found(tmp_path, model, sgd(model), steps=110, update=update)["scaler-skips-too-often"]
    assert (finding.since_step, finding.step, finding.evidence["loss_scale"]) == (60, 69, 2.0**40)


def test_a_healthy_scaler_finds_its_scale_unnoticed(tmp_path):
    model = in_half(network(*SMALL))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=40)

    def update(optimizer, loss):
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    assert "scaler-skips-too-often" not in found(tmp_path, model, sgd(model), steps=120, update=update)


class Cut(nn.Module):
    """Two layers and a head with the graph cut behind the second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(F.relu(self.second(F.relu(self.first(x)))).detach())
        return out


def test_a_cut_graph_says_where(tmp_path):
    model = Cut()
    finding = found(tmp_path, model, sgd(model), steps=12)["graph-detached"]
    assert finding.step == 3
    assert (finding.evidence["last_unreached"], finding.evidence["first_reached"]) == ("second.bias", "head.weight")
    assert finding.severity == Severity.ERROR


def test_a_weight_with_a_rate_of_its_own_runs_away(tmp_path):
    model = network(8, 24, 24, 24, 3)
    with torch.no_grad():
        model[2].weight.mul_(0.3)
    optimizer = torch.optim.Adam(
        [
            {"params": [model[2].weight], "lr": 0.2},
            {"params": [p for p in model.parameters() if p is not model[2].weight], "lr": 1e-4},
        ]
    )
    findings = found(tmp_path, model, optimizer, steps=96)
    assert findings["norm-growing"].subject == "2.weight"
