"""Schedules that are parts of a training: they go back with it, exactly, and the action `BackOff` finds them."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trimtab import Guard
from trimtab.actions import BackOff, LowerLearningRate, RollBack
from trimtab.checkpoint.snapshots import Ring
from trimtab.stabilizers import (
    Curriculum,
    Knob,
    LearningRate,
    ModuleSchedule,
    Phase,
    Stage,
    StagedEscalation,
    parameter_groups,
)
from trimtab.stabilizers.learning_rate import cosine, warm_up

OFTEN = Ring(every=10, keep=3, clean=3)
UPDATES = 50


def train(path, *, policy, broken_at=()):
    """Train with every schedule at once; at these updates, counted with those that come twice, the loss is NaN."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(parameter_groups(model, ["0", "3"]), lr=0.02)
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    penalty = SimpleNamespace(weight=0.0)
    rate = LearningRate(optimizer, w=warm_up(5, start=0.2), c=cosine(45, begin=5))
    phases = [
        Phase(name="head", begins=0, trains=("3",)),
        Phase(name="all", begins=27, trains=("*",), learning_rate={"0": 0.5}),
    ]
    schedule = ModuleSchedule(model, optimizer, phases, rate=rate)
    escalation = StagedEscalation([Knob.of(penalty, "weight", 0.1)], 30, clear_for=1, cooldown=4)
    curriculum = Curriculum(x.norm(dim=1), [Stage(begins=0, at_most=2.5), Stage(begins=24, at_most=math.inf)])
    batches = curriculum.batches(8, seed=2)
    state = {
        "rate": rate, "schedule": schedule, "escalation": escalation, "curriculum": curriculum, "batches": batches,
    }  # fmt: skip
    course = []
    with Guard(
        path, model, optimizer, respond=policy, state=state, snapshots=OFTEN, overhead=None, pyproject=False
    ) as guard:
        count = 0
        while guard.measure.streams.get("main", -1) + 1 < UPDATES:
            indices_B = next(batches)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[indices_B]), y[indices_B])
            loss = loss + penalty.weight * sum(p.square().sum() for p in model.parameters())
            (loss * math.nan if count in broken_at else loss).backward()
            count += 1
            guard.allows(batch=indices_B)
            optimizer.step()
            rate.step()
            schedule.step()
            escalation.step()
            curriculum.step()
            course.append((penalty.weight, rate.rates, schedule.phase.name, curriculum.count))
            assert count < 3 * UPDATES
    parts = SimpleNamespace(**state)
    return [p.detach().clone() for p in model.parameters()], parts, course, guard


@pytest.fixture(scope="module")
def never_wrong(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "a", policy={"loss-not-finite": RollBack(data="again")})


@pytest.mark.parametrize("broken_at", [(24,), (28,), (33, 45)], ids=["over a stage", "over a phase", "twice"])
def test_a_rollback_with_every_schedule_ends_bit_for_bit_where_it_would_have_ended(tmp_path, never_wrong, broken_at):
    weights, parts, course, guard = train(
        tmp_path / "a", policy={"loss-not-finite": RollBack(data="again")}, broken_at=broken_at
    )
    assert [outcome.result for outcome in guard.outcomes] == ["done"] * len(broken_at)
    expected, kept, clean, _ = never_wrong
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert course[-1] == clean[-1]
    for name in ("rate", "schedule", "escalation", "curriculum", "batches"):
        assert getattr(parts, name).state_dict() == getattr(kept, name).state_dict()


@pytest.mark.parametrize(
    "order",
    [
        ("optimizer", "schedule", "rate", "escalation"),
        ("escalation", "optimizer", "schedule", "rate"),
        ("rate", "escalation", "schedule", "optimizer"),
    ],
)
def test_the_order_in_which_a_run_is_put_together_again_does_not_matter(order):
    def made():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
        optimizer = torch.optim.SGD(parameter_groups(model, ["0", "1"]), lr=0.02)
        rate = LearningRate(optimizer, w=warm_up(5, start=0.2), staged=0.1)
        phases = [
            Phase(name="head", begins=0, trains=("1",)),
            Phase(name="all", begins=4, trains=("*",), learning_rate={"0": 0.5}),
        ]
        schedule = ModuleSchedule(model, optimizer, phases, rate=rate)
        staged = Knob("staged", 0.1, 1.0, lambda v: rate.set_factor("staged", v), lambda: rate.factors["staged"])
        return model, {
            "optimizer": optimizer, "rate": rate, "schedule": schedule, "escalation": StagedEscalation([staged], 20),
        }  # fmt: skip

    def some(model, parts, times):
        rates = []
        for _ in range(times):
            parts["optimizer"].zero_grad()
            model(torch.ones(2, 6)).square().mean().backward()
            parts["optimizer"].step()
            for name in ("rate", "schedule", "escalation"):
                parts[name].step()
            rates.append(parts["rate"].rates)
        return rates

    model, parts = made()
    some(model, parts, 7)
    stored = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    other, again = made()
    for name in order:
        again[name].load_state_dict(stored[name])
    assert some(other, again, 9) == some(model, parts, 9)
    assert again["rate"].rates[0] == pytest.approx(0.5 * again["rate"].rates[1])


def test_back_off_finds_escalation_and_curriculum_and_they_rest(tmp_path):
    _, parts, course, guard = train(
        tmp_path / "a", policy={"loss-not-finite": (RollBack(), BackOff())}, broken_at=(33,)
    )
    assert [(o.action, o.result) for o in guard.outcomes] == [("roll-back", "done"), ("back-off", "done")]
    assert parts.escalation.log[-2]["what"] in ("backed off", "going", "restored")
    assert [entry["what"] for entry in parts.escalation.log].count("backed off") == 1
    assert [entry["what"] for entry in parts.curriculum.log].count("backed off") == 1
    before, after = course[32][0], course[33][0]
    assert 0 < after < before / 2 + 1e-9


def test_a_rate_that_is_lowered_for_some_updates_is_no_foreign_one(tmp_path):
    _, parts, course, guard = train(
        tmp_path / "a", policy={"loss-not-finite": (RollBack(), LowerLearningRate(steps=8, ramp=4))}, broken_at=(33,)
    )
    assert [o.result for o in guard.outcomes] == ["done", "done"]
    assert course[-1][1] == parts.rate.rates
