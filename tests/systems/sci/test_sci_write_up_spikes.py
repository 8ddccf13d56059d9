"""The write-up's rule for a loss that leaps, and the actions that answer it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from trimtab import Guard
from trimtab.records import Finding, Signal, Unknown
from trimtab.trace import Trace
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.settings import SpikeAction
from trimtab_systems.sci.write_up.spikes import LossAboveAverage, detector, policy

RULE = LossAboveAverage(window=10, first=5, changes=(30,), after_change=5)


def judged(losses: Sequence[float], rule: LossAboveAverage = RULE) -> list[int]:
    """Return the steps at which the rule finds something."""
    trace, found = Trace(folds=rule.folds), []
    for step, loss in enumerate(losses):
        trace.append(Signal(step=step, update=step, time=0.0, values={"loss": loss}))
        answer = rule.detect(trace)
        if isinstance(answer, Finding):
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("leaps", "found"),
    [
        ({20: 3.1}, [20]),
        ({20: 2.9}, []),
        ({3: 50.0}, []),
        ({30: 50.0}, []),
        ({34: 50.0}, []),
        ({35: 50.0}, [35]),
        ({20: 50.0, 21: 50.0}, [20, 21]),
        (dict.fromkeys(range(20, 25), 50.0), [20, 21, 22, 23]),
    ],
)
def test_a_leap_above_three_times_the_mean_is_told_outside_of_the_grace(leaps: dict[int, float], found: list[int]):
    assert judged([leaps.get(step, 1.0) for step in range(40)]) == found


def test_too_few_losses_are_not_judged():
    trace = Trace(folds=RULE.folds)
    trace.append(Signal(step=9, update=9, time=0.0, values={"loss": 1.0}))
    assert isinstance(RULE.detect(trace), Unknown)


def test_the_settings_reach_the_rule():
    config = WriteUpConfig(spike_threshold=4.0, spike_window=50, spike_grace=20, spike_grace_after_change=7)
    made = detector(config, (90, 30, 90))
    assert (made.times, made.window, made.first, made.after_change, made.changes) == (4.0, 50, 20, 7, (30, 90))
    assert policy(WriteUpConfig(spike_action="none")) == {}


def trained(action: SpikeAction, folder: Path) -> tuple[list[float], list[str]]:
    """Return the weight after each of 40 updates, the 30th of a batch gone wrong, and what the answers did."""
    config = WriteUpConfig(spike_action=action, spike_window=20, spike_grace=20)
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(
        folder, model, optimizer, detectors=(detector(config, ()),), respond=policy(config), every=1, pyproject=False
    )
    weights = []
    with guard:
        for step in range(40):
            loss = (model(torch.ones(1, 1)) * (9.0 if step == 30 else 1.0)).square().mean()
            loss.backward()
            if guard.allows():
                optimizer.step()
            optimizer.zero_grad()
            weights.append(float(model.weight.detach()))
    return weights, [f"{one.action} {one.result}" for one in guard.outcomes]


def test_each_action_answers_as_the_write_up_says(tmp_path: Path):
    untouched, nothing = trained("none", tmp_path / "none")
    assert nothing == []
    skipped, said = trained("skip", tmp_path / "skip")
    assert said == ["skip-step done"]
    assert skipped[30] == skipped[29]
    assert untouched[30] < 0
    back, said = trained("rollback", tmp_path / "rollback")
    assert said == ["roll-back done"]
    assert back[30] > skipped[29]
    slower, said = trained("reduce_lr", tmp_path / "reduce")
    assert said == ["lower-learning-rate done"]
    assert slower[39] / slower[38] == pytest.approx(1 - 0.01, abs=1e-4)
    assert skipped[39] / skipped[38] == pytest.approx(1 - 0.02, abs=1e-4)
