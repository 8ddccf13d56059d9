"""What happens in long scripts: optimizers made anew, folds, several losses, Guards that nobody closed."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trimtab import Guard, Milestone, Stop, TrainingStopped
from trimtab.errors import UserError
from trimtab.records import Finding, Severity
from trimtab.run import Run


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def batch(index, rows=32):
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(index))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def loop(model, optimizer, steps, *, start=0, zero=None):
    for index in range(start, start + steps):
        x, y = batch(index)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        (zero or optimizer.zero_grad)()


def codes(guard):
    return {e.code for e in guard.events if isinstance(e, Finding) and e.severity >= Severity.WARNING}


def steps_of(guard, stream="main"):
    rows = Run(guard.run_path).rows()
    return [row.step for row in rows if row.stream == stream and "loss" in row.values]


@pytest.mark.parametrize("handed_over", [True, False])
def test_an_optimizer_that_is_made_anew_goes_on_in_the_same_stream(tmp_path, handed_over):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    given = (model, optimizer) if handed_over else ()
    with Guard(tmp_path / "a", *given, overhead=None) as guard:
        loop(model, optimizer, 40)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        loop(model, optimizer, 40, start=40)
    assert steps_of(guard) == list(range(80))
    assert "learning-rate-zero" in codes(guard)


def test_a_head_that_the_second_optimizer_forgets_is_found(tmp_path):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with Guard(tmp_path / "a") as guard:
        loop(model, optimizer, 40)
        optimizer = torch.optim.Adam(model[0].parameters(), lr=0.01)
        loop(model, optimizer, 60, start=40, zero=model.zero_grad)
    assert "parameters-outside-optimizer" in codes(guard)


def test_folds_leave_nothing_behind_but_the_last_one_and_close_lets_go_of_that(tmp_path):
    seen = []
    guard = Guard(tmp_path / "a")
    for fold in range(4):
        model = net(fold)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        seen.append((weakref.ref(model), weakref.ref(optimizer)))
        loop(model, optimizer, 10, start=100 * fold)
    del model, optimizer
    gc.collect()
    assert [model() is not None for model, _ in seen] == [False, False, False, True]
    assert [optimizer() for _, optimizer in seen] == [None] * 4
    guard.close()
    gc.collect()
    assert seen[-1][0]() is None
    assert steps_of(guard) == list(range(40))
    assert not codes(guard)


def test_stop_under_a_closure_acts_before_the_next_update(tmp_path):
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    x, y = batch(0)
    done = []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) * (float("nan") if len(done) == 3 else 1.0)
        loss.backward()
        return loss

    def train():
        for step in range(20):
            optimizer.step(closure)
            done.append(step)

    with Guard(tmp_path / "a", model, optimizer, respond={"*": Stop()}) as guard, pytest.raises(TrainingStopped):
        train()
    assert done == [0, 1, 2, 3]
    assert [o.result for o in guard.outcomes] == ["done"]


def test_a_stop_that_comes_at_the_end_is_declined_and_not_claimed(tmp_path):
    milestones = [Milestone(metric="a", comparison=">=", value=1.0, by_step=0)]
    with Guard(tmp_path / "a", respond={"milestone-missed": Stop()}, milestones=milestones) as guard:
        guard.record(a=0.0)
    assert [(o.result, o.because, o.stops) for o in guard.outcomes] == [("declined", "the run had ended", False)]


def test_a_head_swapped_inside_the_optimizer_is_no_missing_zero_grad(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Guard(tmp_path / "a", model, optimizer, overhead=None) as guard:
        loop(model, optimizer, 10)
        model[2] = nn.Linear(16, 3)
        optimizer.param_groups[0]["params"][2:] = list(model[2].parameters())
        loop(model, optimizer, 30, start=10)
    assert not codes(guard)


def test_zeroing_through_data_is_zeroing(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def zero():
        for parameter in model.parameters():
            parameter.grad.data.zero_()

    with Guard(tmp_path / "a", model, optimizer) as guard:
        loop(model, optimizer, 40, zero=zero)
    assert "gradients-accumulate" not in codes(guard)


def test_each_of_two_losses_belongs_to_the_optimizer_whose_parameters_it_reaches(tmp_path):
    actor, critic = net(0), net(1)
    streams = {
        "actor": torch.optim.SGD(actor.parameters(), lr=0.01),
        "critic": torch.optim.SGD(critic.parameters(), lr=0.01),
    }
    expected = []
    with Guard(tmp_path / "a", [actor, critic], streams, overhead=None) as guard:
        for index in range(10):
            x, y = batch(index)
            first, second = F.cross_entropy(actor(x), y), 50 * F.cross_entropy(critic(x), y)
            first.backward()
            second.backward()
            for optimizer in streams.values():
                optimizer.step()
                optimizer.zero_grad()
            expected.append((first.item(), second.item()))
    rows = list(Run(guard.run_path).rows())
    for place, stream in enumerate(streams):
        losses = [row.values["loss"] for row in rows if row.stream == stream]
        assert losses == [pair[place] for pair in expected]


def test_a_scaler_of_one_loss_does_not_touch_the_other_stream(tmp_path):
    scaled, plain = net(0), net(1)
    streams = {
        "scaled": torch.optim.SGD(scaled.parameters(), lr=0.01),
        "plain": torch.optim.SGD(plain.parameters(), lr=0.01),
    }
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    true = []
    with Guard(tmp_path / "a", [scaled, plain], streams, overhead=None) as guard:
        for index in range(5):
            x, y = batch(index)
            scaler.scale(F.cross_entropy(scaled(x), y)).backward()
            F.cross_entropy(plain(x), y).backward()
            true.append(torch.nn.utils.get_total_norm([p.grad for p in plain.parameters()]).item())
            scaler.step(streams["scaled"])
            scaler.update()
            streams["plain"].step()
            for optimizer in streams.values():
                optimizer.zero_grad()
    rows = list(Run(guard.run_path).rows())
    assert [r.values["gradient_norm"] for r in rows if r.stream == "plain"] == pytest.approx(true, rel=1e-5)
    assert all(r.values["gradient_norm"] < 10 for r in rows if r.stream == "scaled")


def test_an_optimizer_that_was_not_handed_over_takes_no_loss_away(tmp_path):
    model = net()
    first = torch.optim.SGD(model[0].parameters(), lr=0.01)
    second = torch.optim.SGD(model[2].parameters(), lr=0.01)
    with Guard(tmp_path / "a", model, second, overhead=None) as guard:
        for index in range(10):
            x, y = batch(index)
            F.cross_entropy(model(x), y).backward()
            first.step()
            second.step()
            model.zero_grad()
    assert steps_of(guard) == list(range(1, 10))


def test_several_roots_of_one_backward_give_their_mean(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = batch(0)
    with Guard(tmp_path / "a", model, optimizer) as guard:
        one, other = F.cross_entropy(model(x), y), 5 * F.cross_entropy(model(x), y)
        torch.autograd.backward([one, other])
        optimizer.step()
    (row,) = [row for row in Run(guard.run_path).rows() if "loss" in row.values]
    assert row.values["loss"] == pytest.approx((one.item() + other.item()) / 2)


def test_the_steps_of_a_milestone_are_turns_of_the_loop_also_with_two_optimizers(tmp_path):
    maker, critic = net(0), net(1)
    streams = {
        "maker": torch.optim.SGD(maker.parameters(), lr=0.01),
        "critic": torch.optim.SGD(critic.parameters(), lr=0.01),
    }
    milestones = [Milestone(metric="score", comparison=">=", value=1.0, by_step=20)]
    opened = []
    with Guard(tmp_path / "a", [maker, critic], streams, milestones=milestones) as guard:
        for index in range(40):
            x, y = batch(index)
            (F.cross_entropy(maker(x), y) + F.cross_entropy(critic(x), y)).backward()
            for optimizer in streams.values():
                optimizer.step()
                optimizer.zero_grad()
            guard.record(score=0.0)
            if "milestone-missed" in codes(guard):
                opened.append(index)
    assert opened[0] in (20, 21)


def test_a_guard_that_nobody_closed_makes_way_for_the_next(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    first = Guard(tmp_path / "a", model, optimizer)
    loop(model, optimizer, 5)
    with Guard(tmp_path / "b", model, optimizer) as second:
        loop(model, optimizer, 5)
    assert Run(first.run_path).status == "finished"
    assert len(steps_of(first)) == len(steps_of(second)) == 5


def test_calls_that_go_wrong_do_not_end_the_recording(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Guard(tmp_path / "a", model, optimizer) as guard:
        guard.keep("half", torch.ones(2, dtype=torch.bfloat16))
        guard.keep(3, torch.ones(2))
        with pytest.raises(UserError, match="writes itself"):
            guard.note("ignore")
        loop(model, optimizer, 20)
    assert len(steps_of(guard)) == 20
    assert len(list((tmp_path / "a" / "samples").iterdir())) == 2
    assert not codes(guard)
