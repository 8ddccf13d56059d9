"""The rules on real small trainings under a Guard: broken on purpose, and healthy in ways that look broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from trimtab.guard import Guard
from trimtab.records import Finding, Severity

STEPS = 48


class Net(nn.Module):
    """Two layers that classify, with a place to cut the graph between them."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.cut = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.body(x))
        logits: Tensor = self.head(hidden.detach() if self.cut else hidden)
        return logits


@dataclass
class Training:
    """A small classification, every piece of it open to a fault."""

    model: Net = field(default_factory=Net)
    rate: float = 0.01
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    clear: bool = True
    fresh_batches: bool = True
    optimizer: Any = None
    on_step: Callable[[int], None] = lambda step: None

    def run(self, path, steps=STEPS) -> list[Finding]:
        """Train under a Guard; return the findings that were opened or grew worse, at warning or above."""
        x = torch.randn(256, 8)
        data = TensorDataset(x, (x[:, :3] + 0.3 * torch.randn(256, 3)).argmax(1))
        loader = DataLoader(data, batch_size=32, shuffle=True)
        optimizer = self.optimizer or torch.optim.Adam(self.model.parameters(), lr=self.rate)
        stuck = next(iter(loader))
        with Guard(path / "run", self.model, optimizer, overhead=None) as guard:
            batches = iter(loader)
            for step in range(steps):
                self.on_step(step)
                batch = next(batches, None) or next(batches := iter(loader))
                x, y = batch if self.fresh_batches else stuck
                if self.clear:
                    optimizer.zero_grad()
                self.criterion(self.model(x), y).backward()
                optimizer.step()
        grave = [e for e in guard.events if isinstance(e, Finding) and e.severity >= Severity.WARNING]
        return [e for e in grave if e.event != "resolved"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def codes(findings):
    return list(dict.fromkeys(finding.code for finding in findings))


def test_a_healthy_training_raises_no_alarm(tmp_path):
    assert Training().run(tmp_path, steps=120) == []


def test_a_cut_graph_names_what_lies_before_the_cut(tmp_path):
    training = Training()
    training.model.cut = True
    found = {finding.code: finding for finding in training.run(tmp_path)}
    assert set(found) == {"parameters-never-changed", "graph-detached"}
    assert found["parameters-never-changed"].evidence["no_gradient"] == ("body.weight", "body.bias")


def test_a_nan_in_backward_names_the_layer_where_it_began(tmp_path):
    training = Training()

    def poison(step):
        if step == 20:
            training.model.body.weight.register_hook(lambda gradient: gradient * float("nan"))

    training.on_step = poison
    first, *_ = training.run(tmp_path)
    assert (first.code, first.step) == ("gradient-not-finite", 20)
    assert first.evidence["first_tensor"] == "body.weight"


def test_a_logged_nan_is_a_warning_and_nothing_else(tmp_path):
    (finding,) = Training(criterion=lambda p, y: F.cross_entropy(p, y) + float("nan")).run(tmp_path)
    assert (finding.code, finding.severity) == ("logged-loss-not-finite", Severity.WARNING)


def test_a_forgotten_zero_grad_is_named(tmp_path):
    findings = Training(clear=False).run(tmp_path)
    assert findings[0].code == "gradients-accumulate"
    assert findings[0].step == 4


def test_a_head_that_was_replaced_is_named(tmp_path):
    training = Training()
    training.optimizer = torch.optim.Adam(training.model.parameters(), lr=0.01)
    training.model.head = nn.Linear(16, 3)
    findings = training.run(tmp_path)
    assert codes(findings) == ["parameters-outside-optimizer", "parameters-never-changed"]
    assert findings[0].evidence["names"] == ("head.weight", "head.bias")


def test_a_softmax_before_the_loss_is_named(tmp_path):
    (finding,) = Training(criterion=lambda p, y: F.cross_entropy(p.softmax(-1), y)).run(tmp_path)
    assert finding.code == "double-softmax"


def test_a_stuck_loader_is_named(tmp_path):
    findings = Training(fresh_batches=False).run(tmp_path)
    assert codes(findings) == ["same-batch-repeated"]
    assert findings[0].step == 7


def test_a_rate_that_falls_to_zero_is_named(tmp_path):
    training = Training()
    training.optimizer = torch.optim.SGD(training.model.parameters(), lr=0.05)

    def end(step):
        if step == 30:
            training.optimizer.param_groups[0]["lr"] = 0.0

    training.on_step = end
    (finding,) = training.run(tmp_path)
    assert (finding.code, finding.since_step, finding.step) == ("learning-rate-zero", 30, 37)


def test_weights_that_are_too_large_are_told_at_the_first_step(tmp_path):
    training = Training()
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.mul_(12)
    findings = training.run(tmp_path)
    assert (findings[0].code, findings[0].step) == ("loss-far-from-chance", 0)


def test_a_rate_that_is_far_too_high_is_told_within_a_few_steps(tmp_path):
    findings = Training(rate=3.0).run(tmp_path)
    assert findings[0].code == "gradient-exploding"
    assert findings[0].step <= 5


@pytest.mark.parametrize("frozen", ["body", "head"])
def test_declared_freezing_raises_no_alarm(tmp_path, frozen):
    training = Training()
    getattr(training.model, frozen).requires_grad_(False)
    assert training.run(tmp_path) == []


def test_an_adversarial_game_raises_no_alarm(tmp_path):
    """Constant targets, gradients left in the other network, and a bias of the critic whose gradient cancels."""
    generator, critic = nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    optimizers = {
        "main": torch.optim.Adam(generator.parameters(), lr=1e-3),
        "critic": torch.optim.Adam(critic.parameters(), lr=1e-3),
    }
    ones, zeros = torch.ones(32, 1), torch.zeros(32, 1)
    loss = F.binary_cross_entropy_with_logits
    with Guard(tmp_path / "run", [generator, critic], optimizers, overhead=None) as guard:
        for _ in range(STEPS):
            real, fake = torch.randn(32, 2) + 2.0, generator(torch.randn(32, 4))
            optimizers["critic"].zero_grad()
            (loss(critic(real), ones) + loss(critic(fake.detach()), zeros)).backward()
            optimizers["critic"].step()
            optimizers["main"].zero_grad()
            loss(critic(fake), ones).backward()
            optimizers["main"].step()
    assert [e.summary for e in guard.events if isinstance(e, Finding) and e.severity >= Severity.WARNING] == []
