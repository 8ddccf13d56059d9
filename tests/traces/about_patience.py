"""Stories of a metric that somebody declared a patience for."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from tests.traces.make import Row, Trace, evaluated, fires, healthy, lean, silent

ACCURACY = "validation/accuracy"
FIVE = {"metric": ACCURACY, "better": "higher", "patience": 5, "min_delta": 0.001}


def waited(patience: dict[str, Any], course: Callable[[int], float], steps: int = 120) -> Trace:
    """An ordinary training with an accuracy after every eighth update."""
    rows: list[Row] = [
        {"step": step} | row for step, row in evaluated(lean(healthy(steps), "loss", "gradient_norm"), course)
    ]
    return {"patience": patience}, rows


@fires("patience-spent", by=87)
def at_rest_after_forty_steps() -> Trace:
    return waited(FIVE, lambda step: min(0.2 + step / 65, 0.8))


@fires("patience-spent", by=63)
def two_epochs_without_gain() -> Trace:
    epochs = FIVE | {"patience": 2, "unit": "epochs", "updates_per_epoch": 20}
    return waited(epochs, lambda step: 0.8 - 0.002 * abs(step - 23))


@silent("patience-spent")
def better_until_the_end() -> Trace:
    return waited(FIVE, lambda step: 0.95 - 0.85 * math.exp(-step / 30))


@silent("patience-spent")
def noisy_and_better_now_and_then() -> Trace:
    chance = random.Random(4)
    return waited(FIVE, lambda step: 0.3 + 0.004 * step + 0.02 * chance.gauss(0, 1))


@silent("patience-spent")
def the_last_updates_gain_again() -> Trace:
    updates = FIVE | {"patience": 60, "unit": "updates"}
    return waited(updates, lambda step: 0.5 + 0.1 * (step > 20) + 0.1 * (step > 80))
