"""A leap is told once it is over, or at once where it is beyond all measure."""

from __future__ import annotations

import random

import pytest

from tests.detectors.kit import events, opened, row, the
from trimtab.detectors import LossSpike
from trimtab.records import Finding, Note, Severity


def run(losses, every=1):
    rows = []
    for step, loss in enumerate(losses):
        values = {"loss": loss}
        if step < 32 or step % every == 0:
            values["update_ratio"] = [0.002]
        if step < 32 or step % max(every // 8, 1) == 0:
            values["gradient_norm"] = 1.0 if loss < 50 else 40.0
        rows.append(row(step, values))
    return rows


CALM = [1.0 + 0.1 * (step % 3) for step in range(80)]


def test_a_leap_is_told_when_it_is_over_and_shows_its_height():
    finding = the(opened(LossSpike(), run([*CALM, 60.0, 55.0, *CALM])))
    assert (finding.step, finding.since_step, finding.severity) == (82, 80, Severity.WARNING)
    assert finding.evidence["steps"] == 2
    assert finding.evidence["came_back"] == 1
    assert finding.evidence["gradient_ratio"] == 40.0
    assert finding.evidence["update_ratio"] == 0.002
    assert "loss 60 at step 80, where it was 1.1" in finding.summary


def test_one_beyond_all_measure_is_told_at_once():
    finding = the(opened(LossSpike(), run([*CALM, 3e5, 4e20])))
    assert (finding.step, finding.evidence["came_back"]) == (80, 0.0)


def test_it_is_told_before_the_update_which_only_the_loss_and_the_gradient_are_known_of():
    rows = run([*CALM, 3e5])
    before = row(80, {"loss": 3e5, "gradient_norm": 40.0})
    assert the(opened(LossSpike(), [*rows[:-1], before])).step == 80


def test_it_is_found_on_thin_rows_too_and_resolves():
    happened = events(LossSpike(), run([*CALM, 60.0, *CALM, *CALM, *CALM], every=64))
    assert [(event.event, event.step) for event in happened if isinstance(event, Finding)] == [
        ("opened", 88),
        ("resolved", 120),
    ]


@pytest.mark.parametrize(("peak", "severity"), [(1.45, None), (2.4, Severity.INFO), (30.0, Severity.WARNING)])
def test_how_large_it_is_says_how_grave(peak, severity):
    found = [e for e in events(LossSpike(), run([*CALM, peak, *CALM])) if isinstance(e, Finding)]
    assert [f.severity for f in found][:1] == ([] if severity is None else [severity])


def test_a_level_that_stays_is_no_leap():
    assert opened(LossSpike(), run([*CALM, *[60.0] * 80])) == []


def test_rewards_with_heavy_tails_are_measured_by_their_own_kind():
    for seed in range(10):
        chance = random.Random(seed)
        losses = [chance.gauss(0, 1) * (5 if chance.random() < 0.02 else 1) for _ in range(600)]
        found = opened(LossSpike(), run(losses))
        assert [f for f in found if f.severity >= Severity.WARNING] == []


def test_a_restart_that_was_announced_is_info():
    notes = [Note(kind="restart", step=75, until=220)]
    assert the(opened(LossSpike(), run([*CALM, 60.0, *CALM]), notes)).severity == Severity.INFO
