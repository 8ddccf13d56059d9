"""What makes a training harder, held by what it does to it: the real rule, a real Guard, a model of a learner.

The learner is as simple as one can be: it gets used to a difficulty at a fixed rate, and its accuracy falls by half of
what it is behind. The write-up saw the same of a network (93 -> 79 while an adapter was escalated); `rlan.md` 6, G.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from trimtab import Guard
from trimtab.stabilizers import HealthGate, Knob, StagedEscalation

RAMP = 40
RATE = 1 / 120
"""The learner needs three times as long as the ramp takes."""


def learn(path, *, gated, updates=220, **how):
    """Return accuracy and difficulty at each update of the escalation, which begins after 60 updates."""
    weight = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(weight.parameters(), lr=1e-3)
    task = SimpleNamespace(difficulty=0.0)
    used_to, accuracies, difficulties = 0.0, [], []
    with Guard(path, weight, optimizer, overhead=None, every=1, pyproject=False) as guard:
        gate = HealthGate(guard, ("metric-dropped",), fresh={"accuracy": 4}) if gated else None
        escalation = None
        for update in range(updates):
            optimizer.zero_grad()
            behind = task.difficulty - used_to
            ((0.1 + behind) * (1.0 + 0.01 * weight(torch.ones(4, 1)).mean())).backward()
            optimizer.step()
            used_to += min(RATE, task.difficulty - used_to)
            accuracy = min(0.25 + update / 50, 0.95) - 0.5 * (task.difficulty - used_to)
            guard.record(accuracy=accuracy, better="higher")
            if escalation is not None:
                escalation.step()
                accuracies.append(accuracy)
                difficulties.append(task.difficulty)
            elif update == 60:
                escalation = StagedEscalation(
                    [Knob.of(task, "difficulty", 1.0)], RAMP, gate=gate, guard=guard, clear_for=5, **how
                )
    return accuracies, difficulties, [entry["what"] for entry in escalation.log]


def test_without_a_gate_the_accuracy_falls_with_the_ramp(tmp_path):
    accuracies, difficulties, _ = learn(tmp_path / "a", gated=False, updates=110)
    assert difficulties[-1] == 1.0
    assert min(accuracies) < 0.65


def test_with_a_gate_it_stays_near_its_best_and_the_target_is_reached_all_the_same(tmp_path):
    accuracies, difficulties, said = learn(tmp_path / "a", gated=True)
    assert min(accuracies) > 0.80
    assert difficulties[-1] == 1.0
    assert said.count("held") >= 1
    assert said[-1] == "complete"


def test_backing_off_is_as_safe_and_slower(tmp_path):
    how = {"on_unhealthy": "back off", "cooldown": 10, "restore": 0.02}
    accuracies, difficulties, said = learn(tmp_path / "a", gated=True, **how)
    assert min(accuracies) > 0.80
    assert 0.5 < difficulties[-1] < 1.0
    assert said.count("backed off") >= 1
