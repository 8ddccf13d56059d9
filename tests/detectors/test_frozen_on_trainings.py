"""What is frozen at random, loaded in part or begun again, on small trainings."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import Adam

from trimtab import Guard, attach
from trimtab.records import Severity
from trimtab.sensors.frozen_values import as_drawn


def autoencoder(dropout=False):
    torch.manual_seed(0)
    middle = (nn.Dropout(0.1),) if dropout else ()
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), *middle, nn.Linear(32, 16), nn.Linear(16, 32), nn.Linear(32, 12))


def trained(path, model, updates=24, lr=0.01, note=""):
    """Train it to give its input back; return code -> severity of what was opened."""
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    with Guard(path, model, optimizer) as guard:
        if note:
            guard.note(note)
        for seed in range(updates):
            x = torch.randn(32, 12, generator=torch.Generator().manual_seed(seed))
            nn.functional.mse_loss(model(x), x).backward()
            optimizer.step()
            optimizer.zero_grad()
    return {e.code: e.severity for e in guard.events if getattr(e, "event", "") == "opened"}


def test_a_decoder_that_is_frozen_at_random_is_an_error(tmp_path):
    model = autoencoder()
    model[3:].requires_grad_(False)
    assert trained(tmp_path / "a", model)["random-and-frozen"] == Severity.ERROR


def test_one_that_was_trained_before_is_none_though_nobody_saw_it(tmp_path):
    model = autoencoder()
    trained(tmp_path / "a", model)
    model[3:].requires_grad_(False)
    assert "random-and-frozen" not in trained(tmp_path / "b", model)


def test_random_features_that_are_announced_are_only_a_fact(tmp_path):
    model = autoencoder()
    model[3:].requires_grad_(False)
    assert trained(tmp_path / "a", model, note="freeze")["random-and-frozen"] == Severity.INFO


def test_a_single_small_update_takes_the_mark_of_a_new_layer_away():
    torch.manual_seed(1)
    layers = [nn.Linear(32, 64) for _ in range(200)]
    assert sum(as_drawn(layer.weight).item() for layer in layers) >= 196
    for layer in layers:
        step = 1e-3 * torch.randn_like(layer.weight).sign()  # of Adam, at its usual rate
        with torch.no_grad():
            layer.weight += step
    # 2,048 uniform weights: the outermost of them lies within 1/2048 of the bound, and passes it half of the time
    assert sum(as_drawn(layer.weight).item() for layer in layers) <= 20


def test_weights_of_other_shapes_are_not_taken_for_a_new_layer():
    torch.manual_seed(2)
    for make in (nn.init.kaiming_normal_, nn.init.orthogonal_, nn.init.zeros_, nn.init.ones_):
        assert as_drawn(make(torch.empty(64, 64))).item() == 0.0
    scaled = 0.7 * nn.Linear(64, 64).weight
    assert as_drawn(scaled).item() == 0.0
    assert as_drawn(torch.full((64, 64), math.nan)).item() == 0.0


class Net(nn.Module):
    """Two layers, with or without a dropout between them."""

    def __init__(self, dropout):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 32), *([nn.Dropout(0.1)] if dropout else []), nn.Linear(32, 12))


def test_a_load_whose_numbers_have_moved_is_heard_and_names_what_stayed_random(tmp_path):
    model = Net(dropout=False)
    with attach.loads_heard() as loads:
        model.load_state_dict(Net(dropout=True).state_dict(), strict=False)
    assert attach.listeners() == ()
    assert [(missing, changed) for _, missing, _, changed in loads] == [(("net.1.weight", "net.1.bias"), 2)]
    optimizer = Adam(model.parameters(), lr=0.01)
    with Guard(tmp_path / "a", model, optimizer) as guard:
        guard.weights_loaded(*loads[0])
        x = torch.randn(32, 12)
        nn.functional.mse_loss(model.net(x), x).backward()
        optimizer.step()
    (found,) = [e for e in guard.events if getattr(e, "event", "") == "opened"]
    assert found.code == "weights-lost-after-load"
    assert "net.2.weight -> net.1.weight" in found.summary


def test_names_that_differ_in_one_number_or_a_prefix_belong_together():
    moved = attach.moved_names(
        ["net.2.weight", "net.2.bias", "head.weight", "body.weight"],
        ["net.3.weight", "net.3.bias", "classifier.weight", "module.body.weight"],
    )
    assert moved == {"net.2.weight": "net.3.weight", "net.2.bias": "net.3.bias", "body.weight": "module.body.weight"}
    assert attach.moved_names(["classifier.weight", "layers.4.weight"], ["fc.weight"]) == {}


def test_an_optimizer_that_forgets_after_each_epoch_is_named(tmp_path):
    model = autoencoder()
    optimizer = Adam(model.parameters(), lr=0.01)
    with Guard(tmp_path / "a", model, optimizer) as guard:
        for step in range(24):
            x = torch.randn(32, 12)
            nn.functional.mse_loss(model(x), x).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 6 == 5:
                optimizer.state.clear()
    opened = [
        e for e in guard.events if getattr(e, "code", "") == "optimizer-state-reset" and e.severity >= Severity.WARNING
    ]
    assert len(opened) == 1
    assert opened[0].evidence["age_highest"] == 6.0
