"""A fall from the best average: what a best single value would get wrong (`rlan.md` P1.2)."""

from __future__ import annotations

import math
import random

from tests.detectors.kit import events, opened, reasons, row, the
from trimtab.detectors import MetricDropped, PastItsPeak
from trimtab.records import Finding, Note, Severity

DIRECTION = Note(kind="metric", step=0, text="validation/accuracy", facts={"better": "higher"})


def run(values, loss=lambda place: 1.0, name="validation/accuracy"):
    """Eight steps of training before each evaluation."""
    rows = []
    for place, value in enumerate(values):
        for step in range(8 * place, 8 * place + 8):
            rows.append(row(step, {"loss": loss(place), "update_ratio": [0.002]}))
        rows.append(row(8 * place + 7, {name: value}))
    return [*rows, row(8 * len(values), {"update_ratio": [0.002]})]


def healthy(steps, seed=1, noise=0.0):
    chance = random.Random(seed)
    return [0.93 - 0.38 * math.exp(-step / 20) + noise * chance.gauss(0, 1) for step in range(steps)]


def test_a_sudden_fall_is_seen_at_the_second_bad_evaluation_or_before():
    story = run([*healthy(30), *[0.79] * 3])
    finding = the(opened(MetricDropped(), story, [DIRECTION]))
    assert finding.step <= 8 * 32
    assert (finding.subject, finding.severity) == ("validation/accuracy", Severity.WARNING)
    assert finding.evidence["last"] == 0.79


def test_a_healthy_rise_never_alarms():
    for seed in range(20):
        assert opened(MetricDropped(), run(healthy(80, seed, noise=0.01)), [DIRECTION]) == []


def test_noise_around_a_plateau_never_alarms():
    for seed in range(20):
        chance = random.Random(seed)
        values = [0.2, 0.5, 0.7] + [0.8 + 0.03 * chance.gauss(0, 1) for _ in range(120)]
        assert opened(MetricDropped(), run(values), [DIRECTION]) == []
        assert opened(PastItsPeak(), run(values, lambda place: math.exp(-place / 40)), [DIRECTION]) == []


def test_it_resolves_when_the_metric_comes_back():
    story = run([*healthy(30), *[0.7] * 4, *healthy(60)[30:50]])
    assert [e.event for e in events(MetricDropped(), story, [DIRECTION]) if isinstance(e, Finding)] == [
        "opened",
        "resolved",
    ]


def test_lower_can_be_better():
    note = Note(kind="metric", step=0, text="validation/loss", facts={"better": "lower"})
    values = [1.0 - value for value in [*healthy(30), *[0.6] * 4]]
    finding = the(opened(MetricDropped(), run(values, name="validation/loss"), [note]))
    assert finding.evidence["last"] == values[-1]
    assert finding.evidence["best"] < 0.2


def test_where_the_loss_goes_on_falling_the_other_rule_speaks():
    story = run([*healthy(30), *[0.7] * 8], lambda place: math.exp(-place / 10))
    assert opened(MetricDropped(), story, [DIRECTION]) == []
    finding = the(opened(PastItsPeak(), story, [DIRECTION]))
    assert finding.evidence["loss"] < finding.evidence["loss_then"]


def test_an_unknown_direction_is_not_guessed_and_training_metrics_have_no_peak():
    story = run([*healthy(30), *[0.5] * 8], lambda place: math.exp(-place / 10))
    assert opened(MetricDropped(), story) == []
    assert any("known direction" in reason for reason in reasons(MetricDropped(), story))
    note = Note(kind="metric", step=0, text="train/accuracy", facts={"better": "higher"})
    values = [*healthy(30), *[0.5] * 8]
    story = run(values, lambda place: math.exp(-place / 10), name="train/accuracy")
    assert opened(PastItsPeak(), story, [note]) == []


def test_an_escalation_that_was_announced_is_info():
    notes = [DIRECTION, Note(kind="escalation", step=230, until=400)]
    assert the(opened(MetricDropped(), run([*healthy(30), *[0.7] * 4]), notes)).severity == Severity.INFO
