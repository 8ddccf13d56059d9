"""Stories about what the layers give: dead and saturated units, with numbers as small real networks have them."""

from __future__ import annotations

import math
import random

from tests.traces.make import NAN, Row, Trace, fires, healthy, lean, looks_into_layers, set_all, silent

RELU = ("body.0>relu", "body.2>relu", "body.4>relu")
TANH = ("body.0>tanh", "body.2>tanh", "body.4>tanh")


def looked(rows: list[Row], name: str, labels: tuple[str, ...], shares: object) -> Trace:
    """Rows whose looks have one share for each label; `shares` takes the step."""
    assert callable(shares)
    for step, row in enumerate(rows):
        if looks_into_layers(step):
            row[name] = shares(step)
            row["activation_rms"] = [0.8, 0.7, 0.6]
    return {"labels": dict.fromkeys((name, "activation_rms"), labels)}, rows


def course(steps: int = 100, seed: int = 1) -> list[Row]:
    """What tells how a healthy training goes."""
    return lean(healthy(steps, seed), "loss", "gradient_norm", "learning_rate", "update_ratio", "chance_level")


def stuck(steps: int = 100) -> list[Row]:
    """A training whose loss stays where it began."""
    chance = random.Random(5)
    rows = course(steps)
    for row in rows:
        row |= {"loss": 2.305 * math.exp(chance.gauss(0, 0.01)), "gradient_norm": 0.05 * math.exp(chance.gauss(0, 0.1))}
    return rows


# --- dead-units -----------------------------------------------------------------------------------


@fires("dead-units", by=2)
def biases_of_minus_ten() -> Trace:
    return looked(stuck(40), "dead_share", RELU, lambda step: [1.0, 1.0, 1.0])


@fires("dead-units", by=96)
def killed_by_a_burst_of_the_rate() -> Trace:
    rows = course(130)
    for row in rows[40:]:
        row["loss"] = 2.4
    for row in rows[40:44]:
        row |= {name: [0.4] for name in ("update_ratio",) if name in row}
    return looked(rows, "dead_share", RELU, lambda step: [0.95, 0.97, 1.0] if step > 40 else [0.16, 0.1, 0.12])


@fires("dead-units", by=96)
def one_layer_dies_by_and_by() -> Trace:
    return looked(course(100), "dead_share", RELU, lambda step: [0.1, min(0.1 + step / 40, 0.94), 0.12])


@silent("dead-units")
def half_dead_at_birth_in_a_deep_network() -> Trace:
    return looked(course(), "dead_share", RELU, lambda step: [0.2, 0.41, max(0.56 - step / 300, 0.3)])


@silent("dead-units")
def a_batch_unlike_the_others() -> Trace:
    return looked(course(), "dead_share", RELU, lambda step: [0.2, 0.96 if step in (5, 6, 32) else 0.3, 0.3])


@silent("dead-units")
def an_expert_that_is_idle_and_gets_few_rows() -> Trace:
    return looked(course(), "dead_share", RELU, lambda step: [0.1, NAN if step % 3 else 0.95, 0.2])


@silent("dead-units")
def a_network_of_gelus() -> Trace:
    return looked(course(), "dead_share", ("body.0>gelu", "body.2>gelu", "body.4>gelu"), lambda step: [0.0, 0.0, 0.0])


# --- saturated-units ------------------------------------------------------------------------------


@fires("saturated-units", by=2)
def weights_forty_times_too_large() -> Trace:
    return looked(course(40), "saturated_share", TANH, lambda step: [0.93, 0.91, 0.9])


@fires("saturated-units", by=96)
def saturates_later_and_learns_nothing() -> Trace:
    return looked(stuck(), "saturated_share", TANH, lambda step: [0.05, 0.94 if step > 20 else 0.1, 0.1])


@silent("saturated-units")
def a_classifier_that_is_sure() -> Trace:
    return looked(course(), "saturated_share", TANH, lambda step: [0.02, 0.3 * step / 100, min(step / 60, 0.96)])


@silent("saturated-units")
def goes_on_from_a_trained_network() -> Trace:
    rows = set_all(course(), loss=0.31)
    return looked(rows, "saturated_share", TANH, lambda step: [0.2, 0.4, 0.88])


@silent("saturated-units")
def gates_that_are_often_closed() -> Trace:
    return looked(course(), "saturated_share", TANH, lambda step: [0.45, 0.55, 0.5])
