"""Adversarial games: whoever moves, the other moves against it, so that a rising loss is no fault."""

from __future__ import annotations

import math

import pytest

from tests.detectors.kit import BY_CODE, opened, reasons, rows
from tests.traces.make import is_full

STEPS = 240


def generator(step):
    """It begins below chance, and rises as the discriminator gets better."""
    return 0.58 + 0.6 * min(step / 150, 1.0) + 0.01 * (step % 3)


def discriminator(step):
    """Two binary terms: it wins at first, and is caught up with."""
    return 0.25 + 1.1 * math.exp(-step / 15) + 1.0 / (1 + math.exp((130 - step) / 12)) + 0.01 * (step % 3)


def game(loss, share, *, chance=None):
    """Rows with this loss, whose binary targets are ones with this share."""
    each = []
    for step in range(STEPS):
        row = {"loss": loss(step), "learning_rate": [2e-4]}
        if is_full(step):
            row |= {"update_ratio": [0.003], "label_mean": share, "target_count": 64}
            row["target_spread"] = math.sqrt(share * (1 - share)) if share < 0.9 else 3e-8
            if chance is not None:
                row |= {"chance_level": chance, "loss_terms": 1}
        each.append(row)
    return rows(each)


@pytest.mark.parametrize("share", [1.0, 0.9])
@pytest.mark.parametrize(
    ("code", "loss", "chance"),
    [("never-better-than-start", generator, math.log(2)), ("loss-diverging", discriminator, None)],
)
def test_a_binary_loss_whose_targets_are_all_alike_is_not_judged(code, loss, chance, share):
    history = game(loss, share, chance=chance)
    assert opened(BY_CODE[code], history) == []
    assert "all targets are of one kind, as in adversarial games" in reasons(BY_CODE[code], history)


@pytest.mark.parametrize(
    ("code", "loss", "chance"),
    [("never-better-than-start", generator, math.log(2)), ("loss-diverging", discriminator, None)],
)
def test_the_same_course_on_mixed_targets_is_a_fault(code, loss, chance):
    assert [finding.code for finding in opened(BY_CODE[code], game(loss, 0.5, chance=chance))] == [code]
