"""What a loop meets after a rollback: its own metrics, its gradients, its buffers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.kernel.kit import batch, everything, loss_of, net, same, train
from trimtab import Guard
from trimtab.actions import RollBack, SkipStep
from trimtab.checkpoint import TrainingState
from trimtab.checkpoint.snapshots import Ring, Snapshots
from trimtab.detectors import MetricDropped
from trimtab.judge import replay
from trimtab.run import Run

OFTEN = Ring(every=10, keep=3, clean=3)


def test_recorded_metrics_from_before_it_stay_known_where_no_optimizer_is_called_main(tmp_path):
    models = [net(), net()]
    optimizers = {name: torch.optim.Adam(m.parameters(), 0.01) for name, m in zip("ab", models, strict=True)}
    policy = {"loss-not-finite": RollBack()}
    with Guard(tmp_path / "a", models, optimizers, respond=policy, snapshots=OFTEN) as guard:
        for index in range(30):
            for number, (model, optimizer) in enumerate(zip(models, optimizers.values(), strict=True)):
                optimizer.zero_grad()
                loss_of(model, index, math.nan if (index, number) == (25, 0) else 1.0).backward()
                optimizer.step()
            if index % 3 == 2:
                guard.record(split="validation", accuracy=0.5, better="higher")
    (outcome,) = guard.outcomes
    assert outcome.to_steps == {"a": 19, "b": 19, "main": 19}
    steps = guard.history.traces["main"].window("validation/accuracy", 100)[0]
    assert list(steps)[:6] == [2, 5, 8, 11, 14, 17]
    assert [o.to_steps for o in Run(tmp_path / "a").outcomes()] == [outcome.to_steps]


@pytest.mark.parametrize("streams", [1, 2])
def test_the_loop_may_look_at_the_gradients_of_an_update_in_place_of_which_it_went_back(tmp_path, streams):
    models = [net() for _ in range(streams)]
    optimizers = {name: torch.optim.SGD(m.parameters(), 0.01) for name, m in zip("ab", models, strict=False)}
    norms = []
    policy = {"loss-not-finite": RollBack()}
    with Guard(tmp_path / "a", models, optimizers, respond=policy, snapshots=OFTEN) as guard:
        for index in range(30):
            for model, optimizer in zip(models, optimizers.values(), strict=True):
                optimizer.zero_grad()
                loss_of(model, index, math.nan if index == 25 and model is models[0] else 1.0).backward()
                optimizer.step()
                norms.append([float(p.grad.norm()) for p in model.parameters()])
    assert [o.result for o in guard.outcomes] == ["done"]
    assert set(norms[25 * streams]) == {0.0}
    assert all(min(norm) > 0.0 for norm in norms[: 25 * streams] + norms[26 * streams :])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_running_mean_that_a_skipped_batch_has_spoiled_goes_back_also_in_a_compiled_model(tmp_path, compiled):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    seen = torch.compile(model, backend="eager") if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    policy = {"loss-not-finite": (SkipStep(), RollBack(when="weights lost"))}
    with Guard(tmp_path / "a", seen, optimizer, respond=policy, snapshots=OFTEN) as guard:
        for index in range(30):
            x, y = batch(index)
            nn.functional.cross_entropy(seen(x * math.nan if index == 25 else x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [o.action for o in guard.outcomes] == ["skip-step", "roll-back"]
    assert model[1].running_mean.isfinite().all()


def test_a_metric_that_fell_between_rare_evaluations_goes_back_to_its_best_one(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    values, weights = [0.1, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.1, 0.1, 0.1], {}
    policy, rules = {"metric-dropped": RollBack()}, (MetricDropped(),)
    with Guard(tmp_path / "a", model, optimizer, respond=policy, detectors=rules, snapshots=OFTEN) as guard:
        for index in range(50 * len(values)):
            x, y = batch(index)
            broken = index >= 350
            nn.functional.cross_entropy(model(x), (y + 1) % 3 if broken else y).backward()
            optimizer.step()
            if guard.outcomes:
                break
            weights[index] = everything(model, optimizer)
            optimizer.zero_grad()
            if index % 50 == 49:
                guard.record(split="validation", accuracy=values[index // 50], better="higher")
    (outcome,) = guard.outcomes
    assert (outcome.result, outcome.to_step) == ("done", 350)
    assert "best evaluation of validation/accuracy" in outcome.because
    assert same(weights[350], everything(model, optimizer))
    replayed, _ = replay(rules, *(getattr(Run(tmp_path / "a"), what)() for what in ("rows", "notes", "outcomes")))
    assert repr(replayed) == repr(guard.events)


def test_the_best_evaluations_of_two_metrics_are_kept_and_memory_is_used_again():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, [1.0])
    snapshots = Snapshots(TrainingState({"model": model}, {"main": optimizer}), every=10, keep=3, clean=4)
    better = {"a": "higher", "b": "lower", "c": "higher"}
    snapshots.begin({"main": -1})
    places = set()
    for step in range(300):
        snapshots.updated("main", {"main": step})
        kept = [*snapshots._good, *snapshots._pending, *(one for _, one in snapshots._evaluations.values())]
        places |= {one.captured.tensors["model/model/0.weight"].data_ptr() for one in kept}
        if step % 7 == 0:
            snapshots.evaluated({"a": float(min(step, 70)), "b": -float(step), "c": float(step)}, better)
    assert {name: one.steps["main"] for name, (_, one) in snapshots._evaluations.items()} == {"a": 71, "b": 295}
    a, b, c = (snapshots.newest_good("main", 0, metric) for metric in better)
    assert (a.steps["main"], a.good) == (71, True)
    assert b is c is snapshots.newest_good()  # it is older than the best one of b
    assert len(places) <= 7
    snapshots.went_back(a)
    assert [one.steps["main"] for one in snapshots._good] == [71]
    assert snapshots.newest_good("main", 0, "b") is a


class Remembers(nn.Module):
    """A table that grows with the longest input, one that comes late, and one that goes."""

    def __init__(self):
        super().__init__()
        self.inner = net()
        self.register_buffer("table", torch.arange(2.0), persistent=False)
        self.register_buffer("late", None)
        self.register_buffer("early", torch.ones(3))

    def forward(self, x, index):
        if index >= 23:
            self.register_buffer("table", torch.arange(float(index)), persistent=False)
            self.late, self.early = torch.ones(2), None
        return self.inner(x) + 0.0 * self.table.sum()


def test_a_buffer_that_has_grown_since_then_is_what_it_was(tmp_path):
    model = Remembers()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    policy = {"loss-not-finite": RollBack()}
    with Guard(tmp_path / "a", model, optimizer, respond=policy, snapshots=OFTEN) as guard:
        for index in range(26):
            x, y = batch(index)
            (nn.functional.cross_entropy(model(x, index), y) * (math.nan if index == 25 else 1.0)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [(o.result, o.to_step) for o in guard.outcomes] == [("done", 19)]
    assert (model.table.tolist(), model.early.tolist()) == ([0.0, 1.0], [1.0, 1.0, 1.0])


class Counting(torch.utils.data.Sampler[int]):
    """A sampler that knows where it stands, and says nothing else about itself."""

    def __init__(self):
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


@pytest.mark.parametrize(("data", "position"), [("onward", 25), ("again", 19)])
def test_a_sampler_of_torch_is_the_position_in_the_data(tmp_path, data, position):
    model, sampler = net(), Counting()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    policy = {"loss-not-finite": RollBack(data=data)}
    with Guard(tmp_path / "a", model, optimizer, respond=policy, snapshots=OFTEN, state={"sampler": sampler}) as guard:
        for index in range(26):
            sampler.position = index
            loss_of(model, index, math.nan if index == 25 else 1.0).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert sampler.position == position
    assert "hand it over" not in guard.outcomes[0].because
