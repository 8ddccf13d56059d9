"""Going back: everything stands where it stood, the loop goes on from there, and the record follows."""

from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, OneCycleLR, ReduceLROnPlateau

from tests.kernel.kit import LEAN, batch, everything, loss_of, net, same, train
from trimtab import Guard, TrainingStopped
from trimtab.actions import LowerLearningRate, Notify, RollBack, SkipStep, Stop
from trimtab.batches import Batches
from trimtab.checkpoint.snapshots import Ring
from trimtab.detectors import DETECTORS
from trimtab.errors import UserError
from trimtab.judge import replay
from trimtab.milestone import Milestone
from trimtab.run import Run

OFTEN = Ring(every=10, keep=3, clean=3)
UPDATES = 40
NAN = float("nan")


def taken(guard, stream="main"):
    """How many updates of a stream stand on the path of the training."""
    return guard.measure.streams[stream] + 1


def same_when_replayed(guard):
    run = Run(guard.run_path)
    events, _ = replay(guard.judge.detectors, run.rows(), run.notes(), run.outcomes())
    return repr(events) == repr(run.events()) == repr(guard.events)


SCHEDULES = {
    "none": lambda optimizer: None,
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 1.0 / (1 + 0.1 * step)),
    "one-cycle": lambda optimizer: OneCycleLR(optimizer, max_lr=0.05, total_steps=UPDATES + 20),
    "restarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, T_0=7),
    "plateau": lambda optimizer: ReduceLROnPlateau(optimizer, patience=2, factor=0.7),
}


def run(path, *, schedule="none", data="again", broken_at=(), kind=AdamW, compiled=False, rules=LEAN):
    """Train on batches with a position; at these updates, counted with those that come twice, the loss is NaN."""
    model = net(dropout=0.2)
    seen = torch.compile(model, backend="eager") if compiled else model
    optimizer = kind(model.parameters(), lr=0.02)
    scheduler = SCHEDULES[schedule](optimizer)
    batches = Batches(torch.arange(200), 8, seed=3)
    random.seed(0)
    np.random.seed(0)
    policy = {"loss-not-finite": RollBack(data=data)}
    count = 0
    with Guard(
        path, seen, optimizer, respond=policy, state={"batches": batches}, snapshots=OFTEN, detectors=rules
    ) as guard:
        while not count or taken(guard) < UPDATES:
            x, y = batch(int(next(batches).sum()))
            x = x + 0.01 * random.random() + torch.from_numpy(np.random.rand(*x.shape)).float() * 0.01
            loss = nn.functional.cross_entropy(seen(x), y)
            if count in broken_at:
                loss = loss * NAN
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(float(loss.detach()))
            elif scheduler is not None:
                scheduler.step()
            count += 1
            assert count < 3 * UPDATES
    return everything(model, optimizer), guard, scheduler


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_with_data_again_it_is_bit_for_bit_the_training_that_never_went_wrong(tmp_path, schedule):
    clean, _, clean_schedule = run(tmp_path / "clean", schedule=schedule)
    back, guard, scheduler = run(tmp_path / "back", schedule=schedule, broken_at=(17, 33))
    assert [o.result for o in guard.outcomes] == ["done", "done"]
    assert "left as it is" not in guard.outcomes[0].because
    assert same(clean, back)
    assert scheduler is None or same(clean_schedule.state_dict(), scheduler.state_dict())
    assert same_when_replayed(guard)


def test_a_compiled_model_goes_back_too(tmp_path):
    clean, _, _ = run(tmp_path / "clean", compiled=True)
    back, guard, _ = run(tmp_path / "back", compiled=True, broken_at=(25,))
    assert [o.result for o in guard.outcomes] == ["done"]
    assert same(clean, back)


def test_onward_meets_other_batches_and_leaves_random_numbers_alone(tmp_path):
    clean, _, _ = run(tmp_path / "clean")
    back, guard, _ = run(tmp_path / "back", data="onward", broken_at=(25,))
    assert [o.result for o in guard.outcomes] == ["done"]
    assert "the data goes on where it is" in guard.outcomes[0].because
    assert not same(clean, back)
    assert all(p.isfinite().all() for p in back[0])


def test_rows_after_it_are_those_of_the_next_attempt_and_go_on_one_by_one(tmp_path):
    _, guard, _ = run(tmp_path / "a", broken_at=(25,), rules=DETECTORS)
    assert same_when_replayed(guard)
    rows = [(row.attempt, row.step) for row in Run(tmp_path / "a").rows() if "loss" in row.values]
    assert rows == [(0, step) for step in range(26)] + [(1, step) for step in range(20, UPDATES)]
    (outcome,) = Run(tmp_path / "a").outcomes()
    assert (outcome.step, outcome.to_step, outcome.to_steps) == (25, 19, {"main": 19})
    assert guard.history.traces["main"].attempt == 1


def test_a_scheduler_and_a_scaler_are_found_and_go_back(tmp_path):
    def one(path, broken_at):
        model = net()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = LambdaLR(optimizer, lambda step: 0.95**step)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=4)
        count = 0
        policy = {"too-steep": RollBack()}
        with Guard(path, model, optimizer, respond=policy, detectors=LEAN, snapshots=OFTEN) as guard:
            while not count or taken(guard) < UPDATES:
                factor = 1e7 if count == broken_at else 1.0
                scaler.scale(loss_of(model, taken(guard) if count else 0, factor)).backward()
                scaler.step(optimizer)
                scaler.update()
                scheduler.step()
                optimizer.zero_grad()
                count += 1
        return everything(model, optimizer), scaler.state_dict(), scheduler.state_dict(), guard

    clean, back = one(tmp_path / "clean", -1), one(tmp_path / "back", 25)
    assert [o.to_step for o in back[3].outcomes] == [19]
    assert same(clean[:3], back[:3])


def test_weights_that_a_scaler_hides_by_leaving_every_update_out_are_seen_and_go_back(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with Guard(tmp_path / "a", model, optimizer, respond={"*": RollBack()}, snapshots=OFTEN) as guard:
        for index in range(80):
            if index == 25:
                with torch.no_grad():
                    model[0].weight[0, 0] = NAN
            scaler.scale(loss_of(model, index)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert [o.result for o in guard.outcomes] == ["done"]
    assert all(p.isfinite().all() for p in model.parameters())


def game(path, *, broken_at=None, where="second", beside=None):
    """Two optimizers that step in turn on one batch after the other; without a path nobody watches."""
    torch.manual_seed(0)
    first, second = net(0, dropout=0.2), net(1, dropout=0.2)
    optimizers = {"first": Adam(first.parameters(), lr=0.01), "second": SGD(second.parameters(), lr=0.05)}
    batches = Batches(torch.arange(200), 8, seed=3)
    policy = {"loss-not-finite": RollBack(data="again")}
    count, guard = 0, None
    if path:
        guard = Guard(
            path, [first, second], optimizers, respond=policy, state={"batches": batches}, snapshots=OFTEN,
            detectors=LEAN,
        )  # fmt: skip
    with guard or nullcontext():
        while not count or (taken(guard, "second") if guard else count) < UPDATES:
            index = int(next(batches).sum())
            loss = loss_of(first, index) + loss_of(second, index).detach()
            (loss * (NAN if count == broken_at and where == "first" else 1.0)).backward()
            optimizers["first"].step()
            optimizers["first"].zero_grad()
            if beside is not None:
                before = everything(*beside)
                loss_of(beside[0], count).backward()
                beside[1].step()
                beside[1].zero_grad()
                assert not same(before, everything(*beside))
            loss = loss_of(second, index) + 0.1 * first(batch(index)[0]).square().mean()
            (loss * (NAN if count == broken_at and where == "second" else 1.0)).backward()
            optimizers["second"].step()
            optimizers["second"].zero_grad()
            optimizers["first"].zero_grad()
            count += 1
            assert count < 3 * UPDATES
    return [everything(first, optimizers["first"]), everything(second, optimizers["second"])], guard


@pytest.mark.parametrize("where", ["first", "second"])
def test_of_two_that_step_in_turn_both_go_back_to_the_same_moment(tmp_path, where):
    clean, _ = game(tmp_path / "clean")
    back, guard = game(tmp_path / "back", broken_at=25, where=where)
    (outcome,) = guard.outcomes
    assert (outcome.result, dict(outcome.to_steps)) == ("done", {"first": 19, "second": 19})
    assert same(clean, back)
    assert same_when_replayed(guard)
    for stream in ("first", "second"):
        rows = [
            (row.attempt, row.step)
            for row in Run(tmp_path / "back").rows()
            if "loss" in row.values and row.stream == stream
        ]
        assert rows[-20:] == [(1, step) for step in range(20, UPDATES)]


def test_an_optimizer_that_was_not_handed_over_is_left_alone_on_the_way_back(tmp_path):
    model = net()
    clean, _ = game(tmp_path / "clean")
    back, guard = game(tmp_path / "b", broken_at=25, where="first", beside=(model, SGD(model.parameters(), lr=0.1)))
    assert [o.result for o in guard.outcomes] == ["done"]
    assert same(clean, back)


def test_accumulated_gradients_of_the_abandoned_way_are_dropped(tmp_path):
    def one(path, broken_at):
        model = net()
        optimizer = Adam(model.parameters(), lr=0.01)
        count = 0
        policy = {"loss-not-finite": RollBack()}
        with Guard(path, model, optimizer, respond=policy, snapshots=OFTEN, detectors=LEAN) as guard:
            while not count or taken(guard) < UPDATES:
                step = taken(guard) if count else 0
                for part in range(3):
                    (loss_of(model, 3 * step + part, NAN if count == broken_at and part == 1 else 1.0) / 3).backward()
                optimizer.step()
                optimizer.zero_grad()
                count += 1
        return everything(model, optimizer), guard

    clean, back = one(tmp_path / "clean", -1), one(tmp_path / "back", 25)
    assert [o.to_step for o in back[1].outcomes] == [19]
    assert same(clean[0], back[0])


class Halves(SGD):
    """A class of somebody's own that changes weights even without gradients."""

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.mul_(0.999)
        return super().step(closure)


def test_an_optimizer_that_is_not_known_goes_back_after_its_step(tmp_path):
    clean, _, _ = run(tmp_path / "clean", kind=Halves)
    back, guard, _ = run(tmp_path / "back", kind=Halves, broken_at=(25,))
    assert [o.result for o in guard.outcomes] == ["done"]
    assert same(clean, back)


def test_a_training_with_closures_goes_back_at_the_update_after(tmp_path):
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    calls = []

    def closure():
        optimizer.zero_grad()
        calls.append(0)
        loss = loss_of(model, 0, NAN if len(calls) == 25 else 1.0)
        loss.backward()
        return loss

    policy = {"loss-not-finite": RollBack(), "gradient-not-finite": RollBack()}
    with Guard(tmp_path / "a", model, optimizer, respond=policy, snapshots=Ring(every=5, keep=2, clean=1)) as guard:
        for _ in range(30):
            optimizer.step(closure)
    assert [o.result for o in guard.outcomes] == ["done"]
    assert all(p.isfinite().all() for p in model.parameters())


def test_what_a_recorded_metric_tells_is_answered_at_the_next_update(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    kept = {}
    milestones = [Milestone(metric="a", comparison=">=", value=1.0, by_step=30)]
    policy = {"milestone-missed": (RollBack(), LowerLearningRate(steps=5, ramp=0), Notify())}
    with Guard(tmp_path / "a", model, optimizer, respond=policy, milestones=milestones, snapshots=OFTEN) as guard:
        for index in range(45):
            if index == 31:
                guard.record(a=0.0)
            before = everything(model, optimizer)
            loss_of(model, index).backward()
            optimizer.step()
            if index == 19:
                kept = everything(model, optimizer)
            if index == 31:
                assert same(everything(model, optimizer), kept)
                assert not same(everything(model, optimizer), before)
            optimizer.zero_grad()
    assert [(o.action, o.result) for o in guard.outcomes[:3]] == [
        ("roll-back", "done"), ("lower-learning-rate", "done"), ("notify", "done"),
    ]  # fmt: skip
    assert same_when_replayed(guard)


def test_skipping_comes_first_and_going_back_only_when_weights_are_lost(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    answer = (SkipStep(), RollBack(when="weights lost"))
    policy = {"gradient-not-finite": answer, "loss-not-finite": answer}
    with Guard(tmp_path / "a", model, optimizer, respond=policy, snapshots=OFTEN) as guard:
        for index in range(60):
            if index == 40:
                with torch.no_grad():
                    model[0].weight[0, 0] = NAN
            loss_of(model, index, NAN if index == 20 else 1.0).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [(o.action, o.result, o.step) for o in guard.outcomes] == [
        ("skip-step", "done", 20), ("skip-step", "done", 40), ("roll-back", "done", 40),
    ]  # fmt: skip
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_loss_that_is_only_reported_as_nan_is_never_answered_by_a_change(tmp_path):
    def one(path, respond):
        model = net(dropout=0.2)
        optimizer = Adam(model.parameters(), lr=0.01)
        guard = Guard(path, model, optimizer, respond=respond, snapshots=OFTEN) if path else None
        for index in range(60):
            loss = loss_of(model, index)
            if index >= 20:
                loss = loss + NAN
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if guard is not None:
            guard.close()
        return everything(model, optimizer), guard

    bare, _ = one(None, None)
    for name, respond in (("any", {"*": RollBack()}), ("safe", "safe")):
        answered, guard = one(tmp_path / name, respond)
        assert same(bare, answered)
        assert {o.action for o in guard.outcomes} <= {"notify"}
        assert any(e.code == "logged-loss-not-finite" for e in guard.events)
    with pytest.raises(UserError, match="would harm a training that goes well"):
        Guard(tmp_path / "c", respond={"logged-loss-not-finite": RollBack()})


def test_what_could_not_go_back_is_named(tmp_path):
    class Odd:
        def state_dict(self):
            return {"a": object()}

        def load_state_dict(self, state):
            raise AssertionError("nothing was stored")

    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    policy = {"too-steep": RollBack(data="again")}
    with Guard(
        tmp_path / "a", model, optimizer, respond=policy, detectors=LEAN, state={"odd": Odd()}, snapshots=OFTEN
    ) as guard:
        train(model, optimizer, [1.0] * 25 + [1e7] + [1.0] * 5)
    (outcome,) = guard.outcomes
    assert outcome.result == "done"
    assert "cannot be stored without pickle" in outcome.because
    assert "the position in the data (hand it over, such as Guard(state={'batches': batches}))" in outcome.because


def test_without_a_good_snapshot_it_is_declined(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    with Guard(tmp_path / "a", model, optimizer, respond={"*": RollBack()}, snapshots=None) as guard:
        train(model, optimizer, [1.0, 1.0, 1.0, NAN, 1.0])
    assert {o.result for o in guard.outcomes} == {"declined"}
    assert "no snapshots are taken" in guard.outcomes[0].because


def test_a_part_that_refuses_leaves_everything_as_it_is(tmp_path):
    class Stubborn:
        def state_dict(self):
            return {"a": 1}

        def load_state_dict(self, state):
            raise RuntimeError("planted")

    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    policy = {"too-steep": RollBack()}
    with Guard(
        tmp_path / "a", model, optimizer, respond=policy, detectors=LEAN, state={"x": Stubborn()}, snapshots=OFTEN
    ) as guard:
        for index in range(30):
            loss_of(model, index, 1e7 if index == 25 else 1.0).backward()
            optimizer.step()
            assert all(p.grad is not None for p in model.parameters())
            optimizer.zero_grad()
    (outcome,) = guard.outcomes
    assert outcome.result == "failed"
    assert "part 'x' could not be put back" in outcome.because
    assert [row.step for row in Run(tmp_path / "a").rows() if "loss" in row.values] == list(range(30))


def test_a_fault_that_comes_again_is_gone_back_from_until_the_budget_is_spent(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def go_on(guard):
        for count in range(300):
            step = taken(guard) if count else 0
            loss_of(model, step, NAN if step == 35 else 1.0).backward()
            optimizer.step()
            optimizer.zero_grad()

    with (
        pytest.raises(TrainingStopped, match="came again"),
        Guard(tmp_path / "a", model, optimizer, respond={"*": RollBack(at_most=3)}, snapshots=OFTEN) as guard,
    ):
        go_on(guard)
    assert [o.to_step for o in guard.outcomes] == [29, 29, 19, None]
    assert all(p.isfinite().all() for p in model.parameters())
    assert same_when_replayed(guard)


def test_a_stop_for_another_finding_of_the_same_update_holds(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    policy = {"loss-not-finite": RollBack(), "gradient-not-finite": Stop()}
    with (
        pytest.raises(TrainingStopped),
        Guard(tmp_path / "a", model, optimizer, respond=policy, snapshots=OFTEN) as guard,
    ):
        train(model, optimizer, [1.0] * 25 + [NAN] + [1.0] * 5)
    assert [(o.action, o.result) for o in guard.outcomes] == [("roll-back", "done"), ("stop", "done")]


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_where_nothing_fires_a_training_that_responds_is_bit_identical_to_a_bare_one(tmp_path, kind):
    def one(path):
        model = net(dropout=0.3)
        optimizer = kind(model.parameters(), lr=0.01)
        data = torch.utils.data.TensorDataset(*batch(0))
        loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
        guard = Guard(path, model, optimizer, respond="safe", snapshots=OFTEN) if path else None
        for _ in range(15):
            for x, y in loader:
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        if guard is not None:
            guard.close()
            assert not guard.outcomes
            assert guard._answering.levers.snapshots.taken > 3
        return everything(model, optimizer), torch.get_rng_state()

    assert same(one(None), one(tmp_path / "a"))


def test_two_that_step_in_turn_and_respond_are_bit_identical_to_bare_ones(tmp_path):
    bare, _ = game(None)
    guarded, guard = game(tmp_path / "a")
    assert not guard.outcomes
    assert same(bare, guarded)
