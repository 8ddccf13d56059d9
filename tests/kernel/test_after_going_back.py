"""What a loop meets after a rollback: its own metrics, its gradients, its buffers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.kernel.kit import batch, loss_of, net
from trimtab import Guard
from trimtab.actions import RollBack, SkipStep
from trimtab.checkpoint.snapshots import Ring
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
