"""Stories about data, modes of modules, loads of weights, time and memory."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from tests.traces.make import Row, Trace, fires, healthy, is_full, lean, set_all, silent

BOTH = ("(model)", "body.1", "body.4")
KEPT = (
    "loss", "backward_calls", "learning_rate", "gradient_norm", "target_fingerprint", "update_ratio", "chance_level",
    "loss_terms", "parameter_reached",
)  # fmt: skip


def plain(steps: int, **options: Any) -> list[Row]:
    """A healthy training without what is measured of each tensor, for long stories."""
    return lean(healthy(steps, **options), *KEPT)


def with_labels(rows: list[Row], labels_of: Any, classes: int = 10, size: int = 64) -> list[Row]:
    """Add the labels of each batch to the rows that are measured in full: `labels_of(step)` gives mean and spread."""
    for step, row in enumerate(rows):
        if is_full(step):
            mean, spread = labels_of(step)
            entropy = min(math.log(classes), 2.2 * spread / 2.87)
            row |= {"label_mean": mean, "target_spread": spread, "target_count": size, "label_entropy": entropy}
            row["label_classes"] = min(classes, 1 + 3 * spread)
    return rows


def shuffled(seed: int = 3) -> Any:
    """Ten classes, mixed: means of 64 labels."""
    chance = random.Random(seed)
    return lambda step: (4.5 + 0.36 * chance.gauss(0, 1), 2.87 + 0.15 * chance.gauss(0, 1))


def in_order(step: int) -> tuple[float, float]:
    """A sweep through ten classes in 22 batches, again and again."""
    return round(10 * (step % 22) / 22, 2), 0.35


# --- the labels come in order ---------------------------------------------------------------------


@fires("labels-sorted", by=16)
def loader_that_does_not_shuffle() -> Trace:
    rows = with_labels(plain(96), in_order)
    for step, row in enumerate(rows):
        row["loss"] *= 1 + 0.4 * math.sin(step / 3.5)
    return {}, rows


@fires("labels-sorted", by=40)
def two_classes_one_after_the_other() -> Trace:
    rows = with_labels(plain(72), lambda step: (float(step % 14 >= 7), 0.0), classes=2)
    return {}, set_all(rows, chance_level=math.log(2))


@silent("labels-sorted")
def shuffled_classes() -> Trace:
    return {}, with_labels(plain(160), shuffled())


@silent("labels-sorted")
def game_of_ones_and_zeros() -> Trace:
    """The targets of the critic are ones and zeros in turn."""
    return {}, with_labels(healthy(64), lambda step: (float(step % 2), 0.0), classes=2)


@silent("labels-sorted")
def policy_that_settles_on_one_action() -> Trace:
    """It begins with all actions and ends with one: spread at first, then alike."""
    return {}, with_labels(plain(160), lambda step: (3.0 * math.exp(-step / 60), 1.2 * math.exp(-step / 80)), 4)


@silent("labels-sorted")
def nineteen_of_twenty_of_one_class() -> Trace:
    chance = random.Random(4)
    return {}, with_labels(plain(96), lambda step: (0.05 + 0.03 * chance.random(), 0.22), classes=2)


# --- the labels no longer belong to the inputs ----------------------------------------------------


def jump(rows: list[Row], since: int, level: float, noise: float = 0.06, gradient: float = 4.0) -> list[Row]:
    """From a step on the loss has another level, with the same noise."""
    chance = random.Random(6)
    for row in rows[since:]:
        row["loss"] = level * math.exp(noise * chance.gauss(0, 1))
        row["gradient_norm"] *= gradient
    return rows


@fires("labels-unrelated", by=168)
def labels_shuffled_in_the_middle() -> Trace:
    return {}, jump(plain(176), 130, 2.6)


@fires("labels-unrelated", by=216)
def another_file_with_other_codes() -> Trace:
    """The network is sure of itself and wrong; it takes twenty updates to doubt everything."""
    rows = jump(plain(232, start=1.4), 180, 1.45, gradient=9.0)
    for step, row in enumerate(rows[180:]):
        row["loss"] *= 1 + 3 * math.exp(-step / 6)
    return {}, rows


@fires("labels-unrelated", by=216)
def language_model_back_at_the_frequencies_of_words() -> Trace:
    """A guess that knows how often each word comes is far below one that knows nothing."""
    rows = set_all(plain(232, start=4.3, noise=0.03), chance_level=3.97)
    for step, row in enumerate(rows):
        row["loss"] = (2.4 + 1.9 * math.exp(-step / 25)) * row["loss"] / (4.3 * (0.15 + 0.85 * math.exp(-step / 60)))
        if is_full(step):
            row["label_entropy"] = 2.7
    return {}, jump(rows, 180, 2.95, noise=0.03, gradient=1.5)


@fires("labels-unrelated", by=192)
def harder_data_without_notice() -> Trace:
    """The loss only goes back half of the way, and stays there."""
    return {}, jump(plain(200), 150, 1.2)


@silent("labels-unrelated")
def single_bad_batches() -> Trace:
    rows = plain(200)
    for step in (110, 140, 141, 170):
        rows[step] |= {"loss": 4.0, "gradient_norm": 3.0}
    return {}, rows


@silent("labels-unrelated")
def restart_of_the_rate() -> Trace:
    """The rate jumps back up, and the loss with it."""
    rows = plain(208)
    for step, row in enumerate(rows):
        if step >= 140:
            row |= {"learning_rate": [0.02], "loss": row["loss"] + 1.5 * math.exp(-(step - 140) / 60)}
        else:
            row["learning_rate"] = [0.02 * (1 + math.cos(math.pi * step / 140)) / 2 + 1e-5]
    return {}, rows


@silent("labels-unrelated")
def harder_data_that_is_learned() -> Trace:
    """The loss rises threefold at once, and falls."""
    rows = plain(208)
    for step, row in enumerate(rows[130:]):
        row["loss"] += 0.9 * math.exp(-step / 25)
    return {}, rows


@silent("labels-unrelated")
def loss_that_never_fell_much() -> Trace:
    chance = random.Random(8)
    rows = plain(160)
    for row in rows:
        row["loss"] = 2.3 + 0.1 * chance.gauss(0, 1)
    return {}, rows


# --- the scale of the inputs ----------------------------------------------------------------------


def with_inputs(rows: list[Row], mean: float, spread: float) -> list[Row]:
    """Add what the inputs look like to the first rows, and to each fourth full one."""
    for step, row in enumerate(rows):
        if step < 32 or step % 32 == 0:
            row |= {"input_mean": mean, "input_std": spread, "input_largest": abs(mean) + 3 * spread}
    return rows


@fires("inputs-unscaled", by=0)
def pixels_of_255() -> Trace:
    rows = with_inputs(healthy(40), 33.0, 78.0)
    rows[0] |= {"loss": 13.2, "gradient_norm": 160.0}
    return {}, rows


@fires("inputs-unscaled", by=0)
def raw_measurements_in_a_regression() -> Trace:
    rows = with_inputs(lean(healthy(40), "loss", "gradient_norm", "update_ratio"), 950.0, 292.0)
    rows[0] |= {"loss": 4120.0, "gradient_norm": 1.1e5}
    rows[0] |= {"chance_level": 0.82, "loss_terms": 1, "prediction_rms": 64.0, "target_mean": 0.1, "target_spread": 0.9}
    return {}, rows


@silent("inputs-unscaled")
def standardised() -> Trace:
    return {}, with_inputs(plain(72), 0.01, 0.99)


@silent("inputs-unscaled")
def pixels_into_a_normalisation() -> Trace:
    """Loss and gradient are in order: what comes first divides by the scale."""
    return {}, with_inputs(healthy(40, start=2.4), 1090.0, 113.0)


@silent("inputs-unscaled")
def counts_of_words() -> Trace:
    return {}, with_inputs(healthy(40), 0.4, 6.0)


# --- loss and targets -----------------------------------------------------------------------------


def with_graphs(rows: list[Row], **flags: float) -> list[Row]:
    """Add what the graph says to the first eight rows."""
    for row in rows[:8]:
        row |= flags
    return rows


SQUARED = {
    "one_hot_under_squared": 0, "codes_under_squared": 0, "targets_broadcast": 0, "prediction_rms": 0.2,
    "loss_terms": 1,
}  # fmt: skip


def regression(steps: int = 40) -> list[Row]:
    """A regression that learns."""
    rows = healthy(steps, start=0.9)
    for row in rows:
        for name in ("label_entropy", "label_classes", "squashed_before_loss", "chance_level"):
            row.pop(name, None)
    return with_graphs(rows, **SQUARED, chance_level=0.95)


@fires("loss-does-not-fit-targets", by=1)
def squared_error_on_classes() -> Trace:
    return {}, with_graphs(regression(), one_hot_under_squared=1, chance_level=0.09)


@fires("loss-does-not-fit-targets", by=1)
def binary_loss_on_classes() -> Trace:
    rows = healthy(40, start=0.7)
    for row in rows[:8]:
        row |= {"one_hot_under_binary": 1, "chance_level": math.log(2)}
    return {}, rows


@fires("loss-does-not-fit-targets", by=1)
def every_prediction_against_every_target() -> Trace:
    return {}, with_graphs(regression(), targets_broadcast=1)


def with_a_minus(level: Callable[[int], float]) -> list[Row]:
    """A cross-entropy that is multiplied by -1."""
    rows = healthy(96)
    for step, row in enumerate(rows):
        row["loss"] = -level(step)
        row.pop("chance_level", None)
        if step < 8:
            row["loss_negated"] = 1
    return rows


@fires("loss-does-not-fit-targets", by=72)
def cross_entropy_with_a_minus() -> Trace:
    return {}, with_a_minus(lambda step: 2.4 + 0.002 * step**2)


@silent("loss-does-not-fit-targets")
def log_likelihood_that_is_maximised() -> Trace:
    """By `maximize=True`: the loss rises towards zero."""
    return {}, with_a_minus(lambda step: 0.3 + 2.1 * math.exp(-step / 40))


@silent("loss-does-not-fit-targets")
def ordinary_regression() -> Trace:
    return {}, regression()


@silent("loss-does-not-fit-targets")
def several_labels_at_once() -> Trace:
    """One small batch happens to have a single label in each row."""
    rows = with_graphs(healthy(40, start=0.7), one_hot_under_binary=0, chance_level=math.log(2))
    rows[3]["one_hot_under_binary"] = 1
    return {}, rows


@silent("loss-does-not-fit-targets")
def ratings_from_one_to_five() -> Trace:
    return {}, with_graphs(regression(), codes_under_squared=1)


# --- modes ----------------------------------------------------------------------------------------


def looks_at(step: int) -> bool:
    """Whether the modules are looked at in this step."""
    return step < 8 or (step < 32 and step % 4 == 0) or step % 32 == 0


def with_modes(rows: list[Row], modes_of: Any, calls_of: Any = lambda step: (0, 0.0)) -> list[Row]:
    """Add modes where the modules are looked at, and calls without gradients to full rows."""
    for step, row in enumerate(rows):
        if looks_at(step):
            row["modules_training"] = modes_of(step)
        if is_full(step):
            calls, share = calls_of(step)
            row["evaluation_calls"] = calls
            if calls:
                row["evaluated_in_training"] = share
    return rows


MODES = {"labels": {"modules_training": BOTH}}
ALL, NONE, FROZEN_NORMS = [1, 1, 1], [0, 0, 0], [1, 0, 0]


@fires("modules-in-wrong-mode", by=24)
def trained_in_evaluation_mode() -> Trace:
    return MODES, with_modes(plain(72), lambda step: NONE)


@fires("modules-in-wrong-mode", by=160)
def never_switched_back() -> Trace:
    return MODES, with_modes(plain(224), lambda step: ALL if step < 40 else NONE)


@fires("modules-in-wrong-mode", by=80)
def evaluated_with_dropout() -> Trace:
    calls = lambda step: (4, 1.0) if step % 40 == 0 and step else (0, 0.0)  # noqa: E731
    return MODES, with_modes(plain(136), lambda step: ALL, calls)


@silent("modules-in-wrong-mode")
def modes_in_order() -> Trace:
    calls = lambda step: (4, 0.0) if step % 24 == 0 and step else (0, 0.0)  # noqa: E731
    return MODES, with_modes(plain(136), lambda step: ALL, calls)


@silent("modules-in-wrong-mode")
def normalisations_frozen_on_purpose() -> Trace:
    return MODES, with_modes(plain(136), lambda step: FROZEN_NORMS)


@silent("modules-in-wrong-mode")
def teacher_in_every_step() -> Trace:
    """It runs without gradients, in training mode, as part of each step."""
    return MODES, with_modes(plain(136), lambda step: ALL, lambda step: (1 if step < 32 else 8, 1.0))


@silent("modules-in-wrong-mode")
def statistics_estimated_anew_once() -> Trace:
    calls = lambda step: (20, 1.0) if step == 96 else (2, 0.0) if step in (20, 40, 120) else (0, 0.0)  # noqa: E731
    return MODES, with_modes(plain(136), lambda step: ALL, calls)


# --- loads ----------------------------------------------------------------------------------------


def loaded(step: int, rows: int, **facts: float | str) -> dict[str, Any]:
    """A note that weights were loaded."""
    note = {"kind": "weights-loaded", "step": step, "after_rows": rows, "facts": {"module": "Net", **facts}}
    return {"notes": [note]}


@fires("weights-lost-after-load", by=0)
def prefix_of_a_wrapper() -> Trace:
    return loaded(0, 0, tensors=4.0, missing=4.0, unexpected=4.0, changed=0.0), healthy(40)


@fires("weights-lost-after-load", by=80)
def older_weights_loaded_in_the_middle() -> Trace:
    rows = plain(104)
    for step, row in enumerate(rows[64:]):
        row["loss"] = 2.3 * (0.15 + 0.85 * math.exp(-step / 60))
    return loaded(63, 64, tensors=4.0, missing=0.0, unexpected=0.0, changed=4.0), rows


@fires("weights-lost-after-load", by=0)
def dropout_that_moved_the_numbers() -> Trace:
    """Two layers of the file have another number in the model; all else fits, and the last ones stay random."""
    moved = "net.3.weight -> net.2.weight, net.3.bias -> net.2.bias"
    facts = {"tensors": 12.0, "missing": 2.0, "unexpected": 2.0, "changed": 10.0, "moved": 2.0, "moved_names": moved}
    return loaded(0, 0, **facts), healthy(40)


@silent("weights-lost-after-load")
def backbone_into_a_larger_model() -> Trace:
    return loaded(0, 0, tensors=4.0, missing=2.0, unexpected=1.0, changed=2.0), healthy(40)


@silent("weights-lost-after-load")
def everything_fits() -> Trace:
    return loaded(0, 0, tensors=4.0, missing=0.0, unexpected=0.0, changed=4.0), healthy(40, start=0.3)


@silent("weights-lost-after-load")
def average_swapped_in() -> Trace:
    rows = plain(104)
    for row in rows[96:]:
        row["loss"] *= 1.3
    return loaded(95, 96, tensors=4.0, missing=0.0, unexpected=0.0, changed=4.0), rows


@silent("weights-lost-after-load")
def best_weights_loaded_again() -> Trace:
    return loaded(95, 96, tensors=4.0, missing=0.0, unexpected=0.0, changed=0.0), plain(104)


# --- time and memory ------------------------------------------------------------------------------


def long_run(steps: int, seconds_of: Any, bytes_of: Any) -> Trace:
    """The full rows of a long run with nothing but time and memory, and a little noise that only adds."""
    chance = random.Random(9)
    rows: list[Row] = []
    for step in range(steps):
        if is_full(step):
            late = 1 + 0.15 * chance.random() + (2.0 if chance.random() < 0.03 else 0.0)
            rows.append({"step": step, "memory_bytes": bytes_of(step)})
            if step:
                rows[-1]["step_seconds"] = seconds_of(step) * late
    return {}, rows


@fires("step-slowing", by=1100)
def graph_that_is_kept() -> Trace:
    return long_run(1400, lambda step: 0.004 + 1.2e-5 * step, lambda step: 4e8 + 1e4 * step)


@fires("step-slowing", by=1600)
def list_that_is_searched() -> Trace:
    return long_run(1800, lambda step: 0.02 + 6e-5 * step, lambda step: 4e8)


@silent("step-slowing", "memory-growing")
def steady() -> Trace:
    return long_run(1400, lambda step: 0.005, lambda step: 4e8 + 3e7 * min(step, 100))


@silent("step-slowing")
def machine_shared_for_a_while() -> Trace:
    """Four times as slow in the middle of the run and at its end."""
    return long_run(1400, lambda step: 0.02 if 300 < step < 700 or step > 1200 else 0.005, lambda step: 4e8)


@silent("step-slowing")
def slow_first_steps() -> Trace:
    return long_run(1000, lambda step: 0.4 if step < 6 else 0.005, lambda step: 4e8)


@fires("memory-growing", by=900)
def losses_added_up_with_their_graphs() -> Trace:
    return long_run(1200, lambda step: 0.005, lambda step: 4e8 + 5e5 * step)


@fires("memory-growing", by=1000)
def outputs_in_a_list() -> Trace:
    return long_run(1200, lambda step: 0.005, lambda step: 1e9 + 1.2e6 * step + (2e7 if step % 5 == 0 else 0))


@silent("memory-growing")
def cache_that_fills() -> Trace:
    """It is full after 400 steps."""
    return long_run(1200, lambda step: 0.005, lambda step: 4e8 + 1e6 * min(step, 400))


@silent("memory-growing")
def allocator_that_goes_up_and_down() -> Trace:
    chance = random.Random(12)
    return long_run(1000, lambda step: 0.005, lambda step: 4e8 + 6e8 * chance.random())
