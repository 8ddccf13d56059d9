"""The levers: effects stand around updates, and whatever was changed for one update is put back."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD

from tests.kernel.kit import LEAN, everything, loss_of, net, same, train
from trimtab import Guard, TrainingStopped
from trimtab.actions import Action, RollBack, SkipStep, Stop
from trimtab.run import Run

NAN = float("nan")


class Doubles:
    """An effect: the learning rate twice as high during each update."""

    def __init__(self, log, stream="main", updates=3, fails=None):
        self.log, self.stream, self.updates, self.fails = log, stream, updates, fails

    @property
    def over(self):
        return self.updates <= 0

    def before(self, optimizer, live):
        if self.fails == "before":
            raise RuntimeError("planted")
        self.log.append(("before", live.step))
        self.kept = optimizer.param_groups[0]["lr"]
        optimizer.param_groups[0]["lr"] = 2 * self.kept

    def after(self, optimizer):
        if self.fails == "after":
            raise RuntimeError("planted")
        self.updates -= 1
        optimizer.param_groups[0]["lr"] = self.kept


class Doubling(Action):
    """An action that lets such an effect stand."""

    name, changes = "doubling", "schedule"

    def apply(self, live, finding):
        live.levers.around(LOG["effect"])
        return self.outcome(finding, "done")


LOG = {}


def responding(path, policy, **options):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    return Guard(path, model, optimizer, respond=policy, detectors=LEAN, **options), model, optimizer


def test_an_effect_changes_the_updates_of_its_stream_until_it_is_over(tmp_path):
    log = []
    LOG["effect"] = Doubles(log)
    guard, model, optimizer = responding(tmp_path / "a", {"too-steep": Doubling()})
    with guard:
        train(model, optimizer, [1.0, 1.0, 1e6, 1.0, 1.0, 1.0, 1.0])
    assert log == [("before", 2), ("before", 3), ("before", 4)]
    assert optimizer.param_groups[0]["lr"] == 0.1
    rates = [row.values["learning_rate"] for row in Run(tmp_path / "a").rows() if "learning_rate" in row.values]
    assert {rate for row in rates for rate in row} == {0.1}


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_effect_that_fails_is_dropped_and_told_and_the_training_goes_on(tmp_path, where):
    LOG["effect"] = Doubles([], fails=where)
    guard, model, optimizer = responding(tmp_path / "a", {"too-steep": Doubling()})
    with guard:
        train(model, optimizer, [1.0, 1.0, 1e6, 1.0, 1.0])
    failures = [note.facts["part"] for note in guard.history.notes if note.kind == "trimtab-failed"]
    assert failures == ["effect Doubles"]
    assert [row.step for row in Run(tmp_path / "a").rows() if "loss" in row.values] == list(range(5))


def test_an_update_that_is_left_out_is_no_update_of_an_effect(tmp_path):
    log = []
    LOG["effect"] = Doubles(log)
    guard, model, optimizer = responding(
        tmp_path / "a", {"too-steep": Doubling(at_most=1), "loss-not-finite": SkipStep()}
    )
    with guard:
        train(model, optimizer, [1.0, 1e6, NAN, 1.0, 1.0, 1.0])
    assert log == [("before", 1), ("before", 3), ("before", 4)]


def test_a_stop_puts_the_gradients_back(tmp_path):
    guard, model, optimizer = responding(tmp_path / "a", {"loss-not-finite": (SkipStep(), Stop())})
    with pytest.raises(TrainingStopped), guard:
        train(model, optimizer, [1.0, NAN])
    assert [(o.action, o.result) for o in guard.outcomes] == [("skip-step", "done"), ("stop", "done")]
    assert all(p.grad is not None and not p.grad.isfinite().all() for p in model.parameters())


def test_a_failure_of_ours_in_the_middle_puts_the_gradients_back(tmp_path, monkeypatch):
    guard, model, optimizer = responding(tmp_path / "a", {"loss-not-finite": SkipStep()})
    monkeypatch.setattr(guard._answering, "begin", lambda live: 1 / 0 if live.step == 1 else None)
    with guard:
        train(model, optimizer, [1.0])
        loss_of(model, 1, NAN).backward()
        optimizer.step()
    assert all(p.grad is not None for p in model.parameters())


def test_a_step_that_raises_leaves_nothing_behind(tmp_path):
    log = []
    LOG["effect"] = Doubles(log)
    guard, model, optimizer = responding(tmp_path / "a", {"too-steep": Doubling(at_most=1)})
    with guard:
        train(model, optimizer, [1.0])
        loss_of(model, 1, 1e6).backward()
        handle = optimizer.register_step_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            optimizer.step()
        handle.remove()
        optimizer.zero_grad()
        before = everything(model, optimizer)
        train(model, optimizer, [1.0, 1.0, 1.0])
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert not same(before, everything(model, optimizer))


def test_what_a_response_decides_by_is_measured_before_each_update(tmp_path):
    for name, policy in (("observing", None), ("responding", {"loss-not-finite": SkipStep()})):
        guard, model, optimizer = responding(tmp_path / name, policy, every=64, overhead=None)
        with guard:
            train(model, optimizer, [1.0] * 60)
        steps = {row.step for row in Run(tmp_path / name).rows() if "gradient_norm" in row.values}
        assert (steps == set(range(60))) == (name == "responding")


def test_without_an_action_that_goes_back_there_are_no_snapshots(tmp_path):
    guard, model, optimizer = responding(tmp_path / "a", {"loss-not-finite": SkipStep()})
    with guard:
        train(model, optimizer, [1.0] * 3)
    assert guard._answering.levers.snapshots is None


def test_tensors_of_no_model_are_part_of_the_state(tmp_path):
    torch.manual_seed(0)
    weight = torch.randn(4, requires_grad=True)
    before = weight.detach().clone()
    optimizer = torch.optim.Adam([weight], lr=0.1)
    with Guard(tmp_path / "a", optimizer=optimizer, respond={"*": RollBack()}, detectors=LEAN) as guard:
        for step in range(4):
            (weight.square().sum() * (NAN if step == 3 else 1.0)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [o.result for o in guard.outcomes] == ["done"]
    assert torch.equal(weight, before)


def test_an_optimizer_that_a_script_makes_anew_goes_on_in_the_same_stream(tmp_path):
    model = net()
    with Guard(tmp_path / "a", respond={"loss-not-finite": RollBack()}, detectors=LEAN) as guard:
        for _ in range(3):
            optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
            train(model, optimizer, [1.0] * 4)
            schedule.step()
        train(model, optimizer, [NAN, 1.0])
    assert list(guard.history.traces) == ["main"]
    assert [o.result for o in guard.outcomes] == ["done"]
    assert set(guard._answering.levers.state.parts) == {"LambdaLR"}
