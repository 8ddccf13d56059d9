"""Stories about parts that are frozen at random, and about optimizers that begin again."""

from __future__ import annotations

from typing import Any

from tests.traces.make import PER_PARAMETER, Row, Trace, fires, healthy, is_full, lean, set_all, silent

KEPT = (
    "loss", "learning_rate", "gradient_norm", "update_ratio", "parameter_trainable", "parameter_held",
    "parameter_reached",
)  # fmt: skip
NAMES = ("encoder.0.weight", "encoder.0.bias", "decoder.0.weight", "decoder.0.bias", "decoder.2.weight")
OPEN, SHUT = [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]
LOOKS = (0, 1, 2, 4, 8, 16, 32, 96)
"""The steps at which frozen values are looked at, in a training of 100 updates or fewer."""


def partly_frozen(
    steps: int, *, trainable: list[int] = SHUT, path: list[int] | None = None, drawn: list[int] | None = None
) -> Trace:
    """A training with five tensors: which can be trained, which frozen ones the loss passes, which are as drawn."""
    rows = set_all(
        lean(healthy(steps), *KEPT),
        parameter_trainable=trainable,
        parameter_held=trainable,
        parameter_reached=trainable,
    )
    for step, row in enumerate(rows):
        if step in LOOKS:
            row["frozen_on_path"] = path or [0, 0, 0, 0, 0]
            if drawn is not None:
                row["frozen_at_start"] = drawn
    names = dict.fromkeys((*PER_PARAMETER, "frozen_on_path", "frozen_at_start"), NAMES)
    return {"labels": names}, rows


@fires("random-and-frozen", by=16)
def decoder_that_never_learned() -> Trace:
    return partly_frozen(40, path=[0, 0, 1, 0, 1], drawn=[0, 0, 1, 0, 1])


@fires("random-and-frozen", by=16)
def last_layer_that_a_load_missed() -> Trace:
    """The load fitted else, and one layer of the frozen part got nothing."""
    facts = {"module": "Net", "tensors": 5.0, "missing": 1.0, "unexpected": 0.0, "changed": 4.0}
    head, rows = partly_frozen(40, path=[0, 0, 1, 0, 1], drawn=[0, 0, 0, 0, 1])
    return head | {"notes": [{"kind": "weights-loaded", "step": 0, "facts": facts}]}, rows


@silent("random-and-frozen")
def nothing_is_frozen() -> Trace:
    return partly_frozen(40, trainable=OPEN)


@silent("random-and-frozen")
def pretrained_and_frozen() -> Trace:
    return partly_frozen(100, path=[0, 0, 1, 0, 1], drawn=[0, 0, 0, 0, 0])


@silent("random-and-frozen")
def unfrozen_before_it_is_looked_at_again() -> Trace:
    """A player of a game that rests while the other moves, or a part that waits for the first few updates."""
    head, rows = partly_frozen(40, path=[0, 0, 1, 0, 1], drawn=[0, 0, 1, 0, 1])
    for row in rows[10:]:
        for name in ("parameter_trainable", "parameter_held", "parameter_reached"):
            if name in row:
                row[name] = OPEN
        row.pop("frozen_at_start", None)
        if "frozen_on_path" in row:
            row["frozen_on_path"] = [0, 0, 0, 0, 0]
    return head, rows


@silent("random-and-frozen")
def random_features_that_are_announced() -> Trace:
    head, rows = partly_frozen(40, path=[0, 0, 1, 0, 1], drawn=[0, 0, 1, 0, 1])
    return head | {"notes": [{"kind": "freeze", "step": 0, "until": 1000, "text": "fixed random features"}]}, rows


# --- the state of the optimizer -------------------------------------------------------------------


def counted(steps: int, count: Any, **head: Any) -> Trace:
    """A training whose optimizer counts its updates: `count(step)`, on rows that are measured in full."""
    rows: list[Row] = lean(healthy(steps), "loss", "learning_rate", "gradient_norm", "update_ratio")
    for step, row in enumerate(rows):
        if is_full(step):
            row["optimizer_age"] = count(step)
    return head, rows


@fires("optimizer-state-reset", by=120)
def optimizer_of_each_epoch() -> Trace:
    """An epoch has 39 updates."""
    return counted(200, lambda step: step % 39 + 1)


@fires("optimizer-state-reset", by=40)
def optimizer_of_each_few_batches() -> Trace:
    return counted(64, lambda step: step % 5 + 1)


@silent("optimizer-state-reset")
def one_count_to_the_end() -> Trace:
    return counted(200, lambda step: step + 1)


@silent("optimizer-state-reset")
def fresh_start_after_unfreezing() -> Trace:
    return counted(200, lambda step: step + 1 if step < 60 else step - 59 if step < 120 else step - 119)


@silent("optimizer-state-reset")
def updates_that_a_scaler_left_out() -> Trace:
    """The count stands still while the scaler looks for its scale."""
    return counted(120, lambda step: max(step - 10, 1))


@silent("optimizer-state-reset")
def restarts_that_are_announced() -> Trace:
    note = {"kind": "restart", "step": 0, "until": 1000, "text": "a fresh optimizer for each cycle"}
    return counted(200, lambda step: step % 50 + 1, notes=[note])
