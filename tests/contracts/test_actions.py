"""The contract over the catalogue of actions, and the policy that calls them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import trimtab.actions
from trimtab.actions import ACTIONS, Action, Notify, Stop
from trimtab.errors import UserError
from trimtab.live import Live
from trimtab.records import Finding, Outcome, Severity
from trimtab.respond import Respond

FOUND = Finding(
    code="loss-not-finite",
    severity=Severity.ERROR,
    step=7,
    summary="loss nan at step 7",
    measured=float("nan"),
    threshold=0.0,
    event="opened",
)


def live():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    return Live(stream="main", step=7, update=7, optimizer=optimizer, parameters=tuple(model.parameters())), model


def state(model, optimizer):
    tensors = [t.detach().clone() for p in model.parameters() for t in (p, p.grad)]
    return tensors, repr(optimizer.state_dict()), torch.get_rng_state()


@pytest.mark.parametrize("kind", ACTIONS, ids=lambda kind: kind.name)
def test_it_is_in_the_file_of_its_name_and_says_what_it_changes(kind):
    folder = Path(trimtab.actions.__file__).parent
    assert (folder / f"{kind.name.replace('-', '_')}.py").exists()
    assert kind.changes in ("nothing", "schedule", "weights")
    assert kind.__doc__


def test_the_catalogue_is_the_folder():
    files = {p.stem for p in Path(trimtab.actions.__file__).parent.glob("[a-z]*.py")} - {"safe"}
    assert {kind.name.replace("-", "_") for kind in ACTIONS} == files


@pytest.mark.parametrize("kind", [k for k in ACTIONS if k.changes == "nothing"], ids=lambda kind: kind.name)
def test_one_that_changes_nothing_changes_nothing(kind):
    facts, model = live()
    before = state(model, facts.optimizer)
    outcome = kind().apply(facts, FOUND)
    after = state(model, facts.optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])
    assert (outcome.result, outcome.code, outcome.step, outcome.changes) == ("done", FOUND.code, 7, "nothing")


@pytest.mark.parametrize("kind", ACTIONS, ids=lambda kind: kind.name)
def test_it_can_answer_a_recorded_metric_where_there_is_no_step(kind):
    assert kind().apply(None, FOUND).action == kind.name


def test_stop_asks_for_a_stop_and_notify_does_not():
    assert Stop().apply(None, FOUND).stops
    assert not Notify().apply(None, FOUND).stops


class LowersRate(Action):
    """An action that changes the schedule, for the tests of budgets."""

    name = "lowers-rate"
    changes = "schedule"

    def apply(self, live, finding):
        return self.outcome(finding, "done")


@pytest.mark.parametrize(("at_most", "says"), [(None, "give it a budget"), (0, "must be 1 or more")])
def test_an_action_that_changes_something_needs_a_budget(at_most, says):
    with pytest.raises(ValueError, match=says):
        LowersRate(at_most=at_most)


@pytest.mark.parametrize(
    ("change", "answered"),
    [
        ({}, True),
        ({"event": "worsened"}, True),
        ({"event": "resolved"}, False),
        ({"severity": Severity.INFO}, False),
        ({"severity": Severity.WARNING}, True),
        ({"code": "gradient-exploding"}, False),
    ],
)
def test_the_policy_answers_what_it_names(change, answered):
    policy = Respond({"loss-not-finite": Notify()}, ["loss-not-finite", "gradient-exploding"])
    assert bool(list(policy.answers(replace(FOUND, **change), None))) == answered


@pytest.mark.parametrize(("severity", "answered"), [(Severity.WARNING, False), (Severity.ERROR, True)])
def test_the_star_answers_what_is_grave(severity, answered):
    policy = Respond({"*": Notify()}, ["loss-not-finite"])
    assert bool(list(policy.answers(replace(FOUND, severity=severity), None))) == answered


def test_a_spent_budget_stops_and_leaves_a_note():
    policy = Respond({"loss-not-finite": LowersRate(at_most=2)}, ["loss-not-finite"])
    answers = [answer for _ in range(3) for answer in policy.answers(FOUND, None)]
    assert [a.outcome.stops for a in answers] == [False, False, True]
    assert answers[2].note is not None
    assert answers[2].note.kind == "response-budget-spent"


def test_an_action_that_raises_is_a_failed_outcome():
    class Breaks(LowersRate):
        def apply(self, live, finding):
            raise RuntimeError("planted")

    (answer,) = Respond({"*": Breaks()}, []).answers(FOUND, None)
    assert isinstance(answer.outcome, Outcome)
    assert (answer.outcome.result, answer.outcome.because) == ("failed", "RuntimeError: planted")


def test_a_misspelt_code_is_an_error_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'loss-not-finite'"):
        Respond({"loss-not-finit": Stop()}, ["loss-not-finite"])
