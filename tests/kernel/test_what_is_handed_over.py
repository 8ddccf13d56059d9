"""A wrong kind of answer, patience or part is an error when the Guard is made, and not at the first finding."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.optim import SGD

from trimtab import EarlyStop, Guard, Patience, RollBack, SkipStep
from trimtab.actions import Action
from trimtab.detectors import DETECTORS
from trimtab.errors import UserError
from trimtab.records import Finding, Severity
from trimtab.respond import Respond

FIVE = Patience(metric="val/accuracy", better="higher", patience=2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"respond": {"loss-spike": RollBack}}, r"'loss-spike' got the class RollBack; write RollBack\(\)"),
        ({"respond": {"loss-spike": "skip-step"}}, "'loss-spike' got 'skip-step'; expected an action such as"),
        ({"respond": {"loss-spike": [SkipStep(), "stop"]}}, "'loss-spike' got 'stop'; expected an action such as"),
        ({"respond": {"loss-spike": None}}, "'loss-spike' got None; expected an action such as"),
        ({"respond": {"loss-spike": ()}}, "'loss-spike' has no action"),
        ({"respond": RollBack()}, "expected 'safe', or a mapping from finding codes to actions"),
        ({"respond": True}, "expected 'safe', or a mapping from finding codes to actions"),
        ({"respond": {"patience-spent": EarlyStop()}}, "'patience-spent' never opens without a patience"),
        ({"early_stop": "val/accuracy"}, "expected a Patience, such as"),
        ({"early_stop": EarlyStop()}, "expected a Patience, such as"),
        ({"state": [torch.Generator()]}, "state must be a mapping from names to parts"),
        ({"state": {"loader": [1, 2]}}, r"state\['loader'\] is a list, which has no state_dict"),
        ({"snapshots": 50}, "expected trimtab.checkpoint.snapshots.Ring"),
    ],
)
def test_a_wrong_kind_is_an_error_at_once(tmp_path, options, says):
    with pytest.raises(UserError, match=says):
        Guard(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_two_directions_for_one_metric_are_an_error(tmp_path):
    with (
        Guard(tmp_path / "a", early_stop=FIVE) as guard,
        pytest.raises(UserError, match="'val/accuracy', but early_stop says 'higher'"),
    ):
        guard.record(split="val", accuracy=0.5, better="lower")


@pytest.mark.parametrize(
    ("split", "times", "said_by_then"), [("validation", 3, True), ("validation", 2, False), ("train", 3, False)]
)
def test_a_patience_whose_metric_never_comes_is_told(tmp_path, caplog, split, times, said_by_then):
    def said():
        return sum("early_stop: 'val/accuracy' was never recorded" in text for text in caplog.messages)

    caplog.set_level(logging.INFO, logger="trimtab")
    model = nn.Linear(2, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    with Guard(tmp_path / "a", model, optimizer, early_stop=FIVE) as guard:
        for _ in range(times):
            model(torch.ones(4, 2)).mean().backward()
            optimizer.step()
            guard.record(split=split, accuracy=0.5)
        assert said() == said_by_then
    assert said() == 1
    assert f"recorded: '{split}/accuracy'" in caplog.text


def test_a_patience_whose_metric_comes_is_not(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="trimtab")
    with Guard(tmp_path / "a", early_stop=FIVE) as guard:
        guard.record(split="val", accuracy=0.5)
    assert "never recorded" not in caplog.text


def test_an_action_that_cannot_even_say_whether_it_is_needed_ends_with_its_budget():
    class Broken(Action):
        name = "broken"
        changes = "weights"
        each_update = True

        def needed(self, live, finding):
            raise RuntimeError("planted")

        def apply(self, live, finding):
            raise AssertionError

    respond = Respond({"loss-not-finite": Broken(at_most=2)}, [rule.code for rule in DETECTORS])
    found = Finding(
        code="loss-not-finite", id="F1", event="opened", severity=Severity.ERROR, step=3, summary="loss nan",
        measured=1.0, threshold=0.0,
    )  # fmt: skip
    outcomes = [answer.outcome for _ in range(3) for answer in respond.answers(found, None)]
    assert [(one.action, one.result) for one in outcomes] == [("broken", "failed")] * 2 + [("stop", "done")]
