"""The two rules about Trimtab itself read what it noted."""

from __future__ import annotations

import pytest

from tests.detectors.kit import opened, reasons, rows, the
from trimtab.detectors import DETECTORS, ResponseBudgetSpent, TrimtabFailed, response_budget_spent, trimtab_failed
from trimtab.judge import FAILED_KIND, History, Judge, failed
from trimtab.records import Finding, Note, Severity
from trimtab.respond import SPENT_KIND


def test_each_failed_part_is_one_warning_however_often_it_fails():
    notes = [failed("sensor loss", KeyError("x"), 1), failed("writer", OSError("full"), 1)]
    notes += [failed("writer", OSError("full"), 2)] * 9
    found = opened(TrimtabFailed(), rows([{"loss": 1.0}, {"loss": 1.0}, {"trimtab_failures": 11}]), notes)
    assert [(f.subject, f.severity, f.since_step, f.measured) for f in found] == [
        ("sensor loss", Severity.WARNING, 1, 1.0), ("writer", Severity.WARNING, 1, 10.0),
    ]  # fmt: skip
    assert found[1].summary == "writer failed at step 1 and is left out: OSError: full"


def test_a_detector_that_raises_is_found_by_the_rule_about_failures():
    history = History(Judge(DETECTORS))
    history.tell(failed("detector loss-not-finite", RuntimeError("boom"), 0))
    happened = history.add(rows([{"trimtab_failures": 1}])[0])
    subjects = [e.subject for e in happened if isinstance(e, Finding) and e.code == "trimtab-failed"]
    assert subjects == ["detector loss-not-finite"]


def test_a_spent_budget_is_an_error_about_the_code_that_came_again():
    facts: dict[str, float | str] = {"action": "roll-back", "code": "loss-not-finite", "at_most": 3.0}
    notes = [Note(kind=SPENT_KIND, step=7, facts=facts)] * 2
    finding = the(opened(ResponseBudgetSpent(), rows([{"responses_spent": 1}]), notes))
    assert (finding.subject, finding.severity, finding.since_step) == ("loss-not-finite", Severity.ERROR, 7)
    assert finding.summary == (
        "roll-back answered loss-not-finite 3 times, as often as it may, and it came again at step 7"
    )


@pytest.mark.parametrize(
    ("detector", "signal"), [(TrimtabFailed(), "trimtab_failures"), (ResponseBudgetSpent(), "responses_spent")]
)
def test_what_was_counted_but_not_noted_is_unknown(detector, signal):
    assert len(reasons(detector, rows([{signal: 1}]))) == 1
    assert reasons(detector, rows([{"loss": 1.0}])) == []


def test_the_kinds_of_the_notes_are_those_that_are_written():
    assert trimtab_failed.KIND == FAILED_KIND
    assert response_budget_spent.KIND == SPENT_KIND
