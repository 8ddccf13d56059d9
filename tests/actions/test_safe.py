"""The table of safe answers keeps what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab.actions import LowerLearningRate, Notify, RollBack, SkipStep, Stop, safe
from trimtab.actions.safe import SAFE
from trimtab.cli._watching import responses
from trimtab.detectors import DETECTORS
from trimtab.respond import HARMLESS, Respond
from trimtab.watch import policy

CODES = {detector.code: detector for detector in DETECTORS}
ROOT = Path(__file__).parent.parent.parent
ROWS = pytest.mark.parametrize("row", SAFE, ids=lambda row: row.code)


@ROWS
def test_each_row_answers_a_finding_that_exists_and_says_why(row):
    assert row.code in CODES
    assert row.actions
    assert row.because[0].islower()
    assert len(row.because) > 40
    assert row.confirm is None or row.confirm > CODES[row.code].confirm


@ROWS
def test_what_changes_a_training_has_a_budget(row):
    assert all(action.at_most is not None for action in row.actions if action.changes != "nothing")


@ROWS
def test_no_rule_that_gave_a_false_alarm_is_answered(row):
    measured = json.loads((ROOT / "benchmarks" / "results" / "false_alarms.json").read_text(encoding="utf-8"))
    assert row.code not in {alarm["code"] for alarm in measured["detail"]["alarms"]}


def test_each_finding_has_one_row():
    assert len({row.code for row in SAFE}) == len(SAFE)


def test_nothing_touches_a_training_that_goes_well():
    answers = safe.policy()
    assert all(action.changes == "nothing" for code in HARMLESS for action in answers.get(code, ()))
    assert set(Respond(answers, CODES).policy) == {row.code for row in SAFE}


def test_a_number_that_is_not_finite_is_left_out_before_it_does_harm():
    for code in ("loss-not-finite", "gradient-not-finite"):
        assert safe.policy()[code] == (SkipStep(at_most=50), RollBack(when="skipping in vain"))


def test_only_what_is_answered_as_the_table_does_needs_its_confirmations():
    every = {row.code: row.confirm for row in SAFE if row.confirm is not None}
    assert every
    assert safe.confirmations(safe.policy()) == every
    first = next(iter(every))
    assert first not in safe.confirmations({**safe.policy(), first: Stop()})
    assert safe.confirmations({}) == {}


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        (("safe",), "loss-spike", safe.policy()["loss-spike"]),
        (("safe", "loss-spike=stop"), "loss-spike", Stop()),
        (("loss-spike=stop", "safe"), "loss-spike", safe.policy()["loss-spike"]),
        (("loss-spike=stop", "loss-spike=lower-learning-rate"), "loss-spike", LowerLearningRate()),
        (("safe", "notify"), "*", Notify()),
    ],
)
def test_on_the_command_line_what_comes_later_wins(words, code, answer):
    assert policy(responses(words))[code] == answer
