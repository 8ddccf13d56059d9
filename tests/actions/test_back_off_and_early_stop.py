"""Escalations that go back, and trainings that end with their best weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.actions.kit import found, training
from trimtab.actions import BackOff, EarlyStop
from trimtab.errors import UserError


class Escalation:
    """Remembers what it was told."""

    def __init__(self):
        self.told = []

    def pause(self, because):
        self.told.append(("pause", because))

    def back_off(self, because, factor=0.5):
        self.told.append(("back off", factor, because))


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (BackOff(), ("back off", 0.5, "metric-dropped: it fell")),
        (BackOff(factor=0.25), ("back off", 0.25, "metric-dropped: it fell")),
        (BackOff(pause=True), ("pause", "metric-dropped: it fell")),
    ],
)
def test_every_escalation_is_told_and_why(action, told):
    one = training()
    one.levers.escalations += [Escalation(), Escalation()]
    outcome = action.apply(one.live(), found("metric-dropped", summary="it fell"))
    assert outcome.result == "done"
    assert [escalation.told for escalation in one.levers.escalations] == [[told], [told]]


def test_without_an_escalation_there_is_nothing_to_back_off():
    outcome = BackOff().apply(training().live(), found())
    assert outcome.result == "declined"
    assert "Guard(state=" in outcome.because


@pytest.mark.parametrize("wrong", [{"factor": 1.0}, {"factor": -0.1}, {"factor": 0.5, "pause": True}])
def test_a_factor_that_takes_nothing_back_is_an_error(wrong):
    with pytest.raises(UserError, match="back-off"):
        BackOff(**wrong)


def trained():
    """A training whose accuracy was best after its second update, and whose weights have moved since."""
    one = training("Adam")
    one.snapshots.watch_best("accuracy", "higher")
    best = []
    for step, accuracy in enumerate((0.5, 0.8, 0.7, 0.6)):
        one.gradient()
        one.optimizer.step()
        one.snapshots.recorded({"accuracy": accuracy}, {"main": step})
        if step == 1:
            best = [parameter.detach().clone() for parameter in one.model.parameters()]
    return one, best


def test_the_best_weights_come_back_and_the_training_stops():
    one, best = trained()
    outcome = EarlyStop().apply(one.live(), found("patience-spent"))
    assert (outcome.result, outcome.stops, outcome.to_step) == ("done", True, None)
    assert outcome.because.endswith("the weights are those of step 1, where accuracy was 0.8")
    assert all(torch.equal(a, b) for a, b in zip(best, one.model.parameters(), strict=True))
    assert all(int(one.optimizer.state[p]["step"]) == 2 for p in one.model.parameters())


def test_the_last_weights_stay_where_that_is_asked_for():
    one, best = trained()
    outcome = EarlyStop(restore_best=False).apply(one.live(), found("patience-spent"))
    assert outcome.stops
    assert "last update" in outcome.because
    assert not torch.equal(best[0], next(one.model.parameters()))


def test_it_stops_also_where_no_best_moment_is_known_or_it_does_not_fit():
    one = training()
    outcome = EarlyStop().apply(one.live(), found("patience-spent"))
    assert outcome.stops
    assert "no best moment was kept" in outcome.because
    one, _ = trained()
    live = one.live()
    one.model[2] = nn.Linear(4, 3)
    outcome = EarlyStop().apply(live, found("patience-spent"))
    assert outcome.stops
    assert "does not fit" in outcome.because
    assert EarlyStop().apply(None, found("patience-spent")).stops
