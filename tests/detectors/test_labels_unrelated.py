"""What else makes a loss jump."""

from __future__ import annotations

import math
import random

import pytest

from tests.detectors.kit import opened, reasons, rows, the
from trimtab.detectors import LabelsUnrelated
from trimtab.records import Note, Severity


def course(after, *, steps=240, since=150, **changes):
    """A loss that falls from 2.3 to 0.4, and from a step on follows another course."""
    chance = random.Random(1)
    each = []
    for step in range(steps):
        loss = 0.4 + 1.9 * math.exp(-step / 30) if step < since else after(step - since)
        row = {"loss": loss * math.exp(0.1 * chance.gauss(0, 1)), "gradient_norm": 1.0, "target_fingerprint": step}
        row["learning_rate"] = [0.1]
        if step < 32 or step % 8 == 0:
            row["update_ratio"] = [0.01]
        if step >= since:
            row |= {name: value for name, value in changes.items() if name != "update_ratio" or step % 8 == 0}
        each.append(row)
    return rows(each)


def test_back_at_the_beginning_at_once_and_for_good():
    finding = the(opened(LabelsUnrelated(), course(lambda t: 2.4)))
    assert finding.since_step == 150
    assert finding.step <= 176
    assert finding.evidence["loss_before"] == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize(
    ("what", "history"),
    [
        ("another unit: a sum over eight batches", course(lambda t: 3.4)),
        ("harder data that are learned", course(lambda t: 0.4 + 2.0 * math.exp(-t / 8))),
        ("a rise over many steps", course(lambda t: 0.4 + min(t / 12, 1.0) * 2.0)),
        ("a small part of the way back", course(lambda t: 0.7)),
        ("a raised rate", course(lambda t: 2.4, learning_rate=[0.2])),
        ("long updates", course(lambda t: 2.4, update_ratio=[0.3])),
    ],
)
def test_other_reasons_for_a_rise(what, history):
    assert opened(LabelsUnrelated(), history) == [], what


def test_half_of_the_way_back_is_a_warning():
    finding = the(opened(LabelsUnrelated(), course(lambda t: 1.3)))
    assert (finding.severity, finding.since_step) == (Severity.WARNING, 150)


def test_loaded_weights_are_the_business_of_another_rule():
    note = Note(kind="weights-loaded", step=149, after_rows=150)
    assert opened(LabelsUnrelated(), course(lambda t: 2.4), [note]) == []


def test_without_targets_it_cannot_judge():
    history = rows([{"loss": 1.0, "update_ratio": [0.01]}] * 8)
    assert reasons(LabelsUnrelated(), history) == ["no targets were recognised in the loss"]
