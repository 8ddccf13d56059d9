"""Writes the stored traces: `python -m tests.traces.make`. They are made up, with numbers as real trainings have them.

Each is a file `<code>/<fires or silent>/<name>.jsonl`: a first line with labels, notes, milestones, patience and the
step by which the rule must fire, then one row a line. Every silent trace is healthy to all rules. Files `about_*.py`
beside this one hold more of them.
"""

from __future__ import annotations

import importlib
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = ("body.0.weight", "body.0.bias", "head.weight", "head.bias")
SHARES = (0.8, 0.1, 0.55, 0.15)
"""How the gradient norm of the small network spreads over its tensors."""
NAN, INF = math.nan, math.inf

Row = dict[str, Any]
Head = dict[str, Any]
Trace = tuple[Head, list[Row]]

PER_TENSOR = (
    "gradient_norms", "update_norms", "gradient_missing", "nonfinite_share", "weight_norms", "moment_scale",
    "gradient_zero_share",
)  # fmt: skip
PER_PARAMETER = ("parameter_trainable", "parameter_held", "parameter_reached")
MADE: dict[tuple[str, str, str], Callable[[], Trace]] = {}


def fires(code: str, by: int) -> Callable[[Callable[[], Trace]], Callable[[], Trace]]:
    """Store what the function makes as a trace on which the rule must have fired by that step."""

    def keep(make: Callable[[], Trace]) -> Callable[[], Trace]:
        def with_budget() -> Trace:
            head, rows = make()
            return {**head, "by": by}, rows

        MADE[code, "fires", make.__name__] = with_budget
        return make

    return keep


def silent(*codes: str) -> Callable[[Callable[[], Trace]], Callable[[], Trace]]:
    """Store what the function makes as a trace on which all rules, and first of all these, stay silent."""

    def keep(make: Callable[[], Trace]) -> Callable[[], Trace]:
        for code in codes:
            MADE[code, "silent", make.__name__] = make
        return make

    return keep


# --- a healthy training, whose rows the others change ---------------------------------------------


def is_full(step: int) -> bool:
    """Whether everything is measured at this step."""
    return step < 32 or step % 8 == 0


def looks_into_layers(step: int) -> bool:
    """Whether the layers are looked into at this step."""
    return step < 8 or (step % 4 == 0 if step < 32 else step % 32 == 0)


def fingerprint(step: int) -> float:
    """A number of its own for each step."""
    return round(300.0 + 40.0 * math.sin(12.9898 * (step + 1)), 9)


def healthy(steps: int = 56, seed: int = 1, start: float = 2.3, rate: float = 0.002, noise: float = 0.08) -> list[Row]:
    """A small classifier that learns: every signal that a Guard would write of it."""
    chance = random.Random(seed)
    rows = []
    for step in range(steps):
        loss = start * (0.15 + 0.85 * math.exp(-step / 60)) * math.exp(chance.gauss(0, noise))
        norm = 0.3 * (1 + 2 * (1 - math.exp(-step / 20))) * math.exp(chance.gauss(0, 3 * noise))
        values: Row = {
            "loss": loss, "backward_calls": 1, "learning_rate": [rate], "gradient_norm": norm,
            "target_fingerprint": fingerprint(step), "gradients_carried": 0,
        }  # fmt: skip
        if step == 0:
            del values["gradients_carried"]
        if step < 8:
            values |= {
                "chance_level": math.log(10), "loss_terms": 1, "label_entropy": 2.2, "label_classes": 10,
                "squashed_before_loss": 0, "parameter_reached": [1, 1, 1, 1],
            }  # fmt: skip
        if is_full(step):
            values |= {
                "gradient_norms": [share * norm for share in SHARES], "gradient_norm_applied": norm, "clipped": 0,
                "update_ratio": [0.02 / (1 + step / 10)], "update_norms": [0.1 * share for share in SHARES],
                "gradient_missing": [0, 0, 0, 0], "parameter_trainable": [1, 1, 1, 1], "parameter_held": [1, 1, 1, 1],
                "input_fingerprint": 7 * fingerprint(step + 1000), "batch_rows": 64, "loader_rows": 1397,
                "input_nonfinite": 0, "clip_factor": 1, "weight_norms": [4.6, 0.6, 2.9, 0.3], "decay_share": [0],
                "moment_scale": [0.02 * share * norm for share in SHARES],
            }  # fmt: skip
        if looks_into_layers(step):
            values |= {"gradient_zero_share": [0.27, 0.12, 0.1, 0], "half_share": 0}
        rows.append(values)
    return rows


def lean(rows: list[Row], *names: str) -> list[Row]:
    """The rows with these signals alone."""
    return [{name: row[name] for name in names if name in row} for row in rows]


def set_all(rows: list[Row], since: int = 0, **values: Any) -> list[Row]:
    """Change signals from a step on, on the rows that have them."""
    for row in rows[since:]:
        row |= {name: value for name, value in values.items() if name in row}
    return rows


def scalars(losses: list[float], norms: list[float], ratios: dict[int, float] | None = None) -> Trace:
    """Loss and gradient norm of each step, and the update ratio of some."""
    rows: list[Row] = [{"loss": loss, "gradient_norm": norm} for loss, norm in zip(losses, norms, strict=True)]
    for step, ratio in (ratios or {}).items():
        rows[step]["update_ratio"] = [ratio]
    return {}, rows


# --- healthy, whatever the rule -------------------------------------------------------------------


@silent("loss-not-finite", "gradient-not-finite", "gradients-accumulate", "double-softmax")
def ordinary_training() -> Trace:
    return {}, healthy()


@silent("loss-not-finite", "gradient-not-finite")
def loss_scale_search() -> Trace:
    rows = healthy(48)
    for step in range(16):
        rows[step] |= {"update_skipped": 1, "gradient_norm": INF, "loss": INF if step < 4 else rows[step]["loss"]}
        for name in ("update_norms", "update_ratio", "gradient_norms"):
            rows[step].pop(name, None)
        rows[step] |= {"nonfinite_share": [1, 1, 1, 1], "nonfinite_weights": 0}
    return {}, rows


@silent("loss-not-finite", "gradient-exploding")
def policy_gradient() -> Trace:
    chance = random.Random(5)
    losses = [0.4 * chance.gauss(-0.1, 1) for _ in range(300)]
    return scalars(losses, [0.15 * math.exp(chance.gauss(0.8 * step / 300, 0.5)) for step in range(300)], {0: 0.036})


@silent("gradient-not-finite", "gradient-exploding")
def loss_near_zero() -> Trace:
    """It falls by fourteen orders of magnitude, with spikes of a thousand times the last."""
    losses = [4.4 * 10 ** (-step / 20) * (1000 if step > 100 and step % 40 == 0 else 1) for step in range(280)]
    return scalars(losses, [0.8 * math.sqrt(loss) for loss in losses], {0: 0.05, 1: 0.043})


@silent("gradient-exploding")
def warm_up_bump() -> Trace:
    chance = random.Random(7)
    losses, norms = [], []
    for step in range(200):
        bump = math.exp(-(((step - 40) / 15) ** 2))
        losses.append((2.3 * math.exp(-step / 80) + 0.9 * bump) * math.exp(chance.gauss(0, 0.05)))
        norms.append((0.22 + 2.4 * bump) * math.exp(chance.gauss(0, 0.2)))
    return scalars(losses, norms, {40: 0.06, 48: 0.05, 88: 0.04})


@silent("gradient-exploding")
def game_of_two_networks() -> Trace:
    """The generator's gradient grows to 24 times its early level while its loss hardly moves."""
    chance = random.Random(8)
    norms = [
        0.025 * (1 + 23 / (1 + math.exp(-(step - 150) / 20))) * math.exp(chance.gauss(0, 0.15)) for step in range(300)
    ]
    return scalars([0.7 + 0.2 * chance.random() for _ in norms], norms, {32: 0.009, 160: 0.009})


@silent("gradient-exploding")
def batch_of_two() -> Trace:
    """Single gradients of fifty times the usual one come, and go."""
    chance = random.Random(9)
    heavy = [math.exp(1.3 * chance.gauss(0, 1)) for _ in range(300)]
    return scalars([2.0 * math.exp(-step / 150) * h**0.5 for step, h in enumerate(heavy)], heavy, {0: 0.009})


@silent("gradient-exploding")
def head_that_begins_at_zero() -> Trace:
    """Its first update is infinitely larger than its weights, the second as large."""
    losses = [1.6 * math.exp(-step / 30) for step in range(80)]
    return scalars(losses, [0.9 * math.exp(-step / 60) for step in range(80)], {0: 1e30, 1: 0.97, 2: 0.6, 3: 0.4})


@silent("gradients-accumulate")
def accumulation_of_four() -> Trace:
    rows = lean(healthy(48), "loss", "gradient_norm", "gradients_carried")
    return {}, [row | {"backward_calls": 4} for row in rows]


@silent("gradients-accumulate")
def carried_now_and_then() -> Trace:
    rows = lean(healthy(60), "loss", "gradient_norm", "gradients_carried")
    for step in range(1, 60):
        rows[step]["gradients_carried"] = float(step % 4 != 0)
    return {}, rows


@silent("parameters-outside-optimizer", "parameters-never-changed")
def backbone_declared_frozen() -> Trace:
    rows = healthy()
    return {}, set_all(
        rows, parameter_trainable=[0, 0, 1, 1], parameter_held=[1, 1, 1, 1], update_norms=[0, 0, 0.05, 0.02],
        gradient_missing=[1, 1, 0, 0],
    )  # fmt: skip


@silent("parameters-outside-optimizer")
def optimizer_that_comes_later() -> Trace:
    """The generator's optimizer steps for the first time after six steps of the critic."""
    rows = healthy()
    for row in rows[:6]:
        row["parameter_held"] = [0, 0, 1, 1]
    return {}, rows


@silent("parameters-outside-optimizer", "parameters-never-changed")
def module_that_is_never_called() -> Trace:
    """It is in no optimizer and in no graph."""
    names = (*NAMES, "unused.weight")
    rows = healthy()
    set_all(rows, parameter_reached=[1, 1, 1, 1, 0], parameter_held=[1, 1, 1, 1, 0], parameter_trainable=[1] * 5)
    return {"labels": dict.fromkeys(PER_PARAMETER, names)}, rows


@silent("parameters-never-changed")
def layers_that_are_left_out_at_times() -> Trace:
    chance = random.Random(11)
    rows = healthy(80)
    for row in rows:
        if "update_norms" in row and chance.random() < 0.6:
            row |= {"update_norms": [0, 0, 0.05, 0.02], "gradient_missing": [1, 1, 0, 0]}
    return {}, rows


@silent("parameters-never-changed")
def expert_that_waits() -> Trace:
    names = ("experts.0.weight", "experts.1.weight", "head.weight", "head.bias")
    rows = set_all(healthy(80), update_norms=[0.05, 0, 0.05, 0.02], gradient_missing=[0, 1, 0, 0])
    return {"labels": dict.fromkeys((*PER_TENSOR, *PER_PARAMETER), names)}, rows


@silent("parameters-never-changed")
def bias_before_a_normalisation() -> Trace:
    rows = healthy(80)
    for row in rows:
        if "update_norms" in row:
            row["update_norms"][1], row["gradient_norms"][1] = 0, 4e-9
    return {}, rows


@silent("learning-rate-zero")
def warm_up_from_zero() -> Trace:
    return {}, [{"loss": 2.0, "learning_rate": [1e-3 * min(step / 20, 1)]} for step in range(60)]


@silent("learning-rate-zero")
def cosine_with_restarts() -> Trace:
    rates = [0.05 * (1 + math.cos(math.pi * (step % 40) / 39)) / 2 for step in range(160)]
    return {}, [{"loss": 2.0, "learning_rate": [rate if rate > 1e-9 else 0.0]} for rate in rates]


@silent("learning-rate-zero")
def schedule_that_ends_with_the_run() -> Trace:
    """Ten of six hundred updates come after its end."""
    return {}, [{"learning_rate": [max(1e-3 * (1 - step / 590), 0.0)]} for step in range(600)]


@silent("double-softmax", "loss-far-from-chance")
def language_model() -> Trace:
    rows = lean(healthy(24, start=4.3), "loss", "gradient_norm", "squashed_before_loss", "chance_level", "loss_terms")
    return {}, set_all(rows, chance_level=3.97)


@silent("double-softmax")
def one_odd_graph() -> Trace:
    """A softmax before the loss in a single first pass."""
    rows = lean(healthy(24), "loss", "squashed_before_loss", "chance_level")
    rows[0]["squashed_before_loss"] = 1
    return {}, rows


@silent("loss-far-from-chance")
def margin_loss() -> Trace:
    rows = lean(healthy(24, start=9.0), "loss", "gradient_norm", "chance_level", "loss_terms")
    return {}, set_all(rows, chance_level=math.log(5))


@silent("loss-far-from-chance")
def sum_that_is_divided_by_hand() -> Trace:
    rows = lean(healthy(24), "loss", "gradient_norm", "chance_level", "loss_terms")
    return {}, set_all(rows, chance_level=math.log(10) / 64, loss_terms=64)


@silent("loss-far-from-chance")
def pretrained_model() -> Trace:
    return {}, healthy(24, start=0.1)


@silent("same-batch-repeated")
def game_with_targets_of_one() -> Trace:
    return {}, set_all(healthy(), target_fingerprint=64.5106965997814)


@silent("same-batch-repeated")
def labels_in_order() -> Trace:
    rows = healthy(96)
    for step, row in enumerate(rows):
        row["target_fingerprint"] = 64.5 * (1 + step // 20)
    return {}, rows


@silent("same-batch-repeated")
def full_data_at_each_update() -> Trace:
    rows = set_all(healthy(), target_fingerprint=88.25, input_fingerprint=-3.5, batch_rows=1397)
    for row in rows:
        row.pop("loader_rows", None)
    return {}, rows


@silent("same-batch-repeated")
def policy_updates_on_one_rollout() -> Trace:
    rows = []
    for step in range(120):
        print_ = fingerprint(step // 20)
        rows.append({"loss": 0.1, "gradient_norm": 0.2, "batch_fingerprint": print_, "batch_rows": 256})
    return {}, rows


def evaluated(rows: list[Row], course: Callable[[int], float], every: int = 8) -> Iterator[tuple[int, Row]]:
    """The rows with their steps, and a row with the accuracy after every eighth, and a closing row."""
    for step, row in enumerate(rows):
        yield step, row
        if (step + 1) % every == 0:
            yield step, {"validation/accuracy": course(step)}
    yield len(rows) - 1, {"trimtab_seconds": 0.05}


def with_metric(milestones: list[str], course: Callable[[int], float], steps: int = 120) -> Trace:
    """An ordinary training with an accuracy."""
    rows = [{"step": step} | row for step, row in evaluated(lean(healthy(steps), "loss", "gradient_norm"), course)]
    return {"milestones": milestones}, rows


@silent("milestone-missed")
def reached_in_time() -> Trace:
    return with_metric(["validation/accuracy >= 0.8 by 100"], lambda step: 0.95 - 0.85 * math.exp(-step / 30))


@silent("milestone-missed")
def reached_once_and_noisy() -> Trace:
    chance = random.Random(3)
    return with_metric(["validation/accuracy >= 0.6 by 100"], lambda step: 0.55 + 0.3 * chance.random())


@silent("milestone-missed")
def not_due_yet() -> Trace:
    return with_metric(["validation/accuracy >= 0.9 by 500", "loss <= 1.5 by 60"], lambda step: 0.3)


@silent("trimtab-failed", "response-budget-spent")
def nothing_to_report() -> Trace:
    return {}, lean(healthy(24), "loss", "gradient_norm")


@silent("trimtab-failed", "response-budget-spent")
def other_notes() -> Trace:
    notes = [{"kind": "metric", "step": 3, "after_rows": 4, "text": "validation/loss", "facts": {"better": "lower"}}]
    return {"notes": notes}, lean(healthy(24), "loss", "gradient_norm")


@silent("trimtab-failed", "response-budget-spent")
def only_a_closing_row() -> Trace:
    return {}, [*lean(healthy(24), "loss"), {"trimtab_seconds": 0.01}]


# --- faults -----------------------------------------------------------------------------------------


def broken(since: int, rows: list[Row], *, weights: bool) -> list[Row]:
    """From a step on loss and gradient are NaN, and the weights one step later."""
    for step, row in enumerate(rows[since:], since):
        row |= {"loss": NAN, "gradient_norm": NAN, "gradient_norms": [NAN] * 4, "nonfinite_share": [1, 1, 1, 1]}
        row |= {"nonfinite_weights": 4 if weights and step > since else 0, "input_nonfinite": 0}
    return rows


@fires("loss-not-finite", by=25)
def everything_is_lost() -> Trace:
    return {}, broken(24, healthy(40), weights=True)


@fires("logged-loss-not-finite", by=30)
def only_the_number() -> Trace:
    rows = healthy(48)
    for row in rows[30:]:
        row |= {"loss": NAN, "nonfinite_weights": 0, "nonfinite_share": [0, 0, 0, 0]}
    return {}, rows


@fires("loss-not-finite", by=45)
def scaler_that_never_finds_a_scale() -> Trace:
    rows = broken(16, healthy(56), weights=False)
    for row in rows[16:]:
        row["update_skipped"] = 1
    return {}, rows


@fires("gradient-not-finite", by=24)
def custom_backward() -> Trace:
    rows = healthy(40)
    rows[24] |= {"gradient_norm": NAN, "gradient_norms": [NAN, NAN, 0.2, 0.05]}
    rows[24] |= {"nonfinite_share": [1, 0.015625, 0, 0], "nonfinite_weights": 0}
    return {}, broken(25, rows, weights=True)


@fires("gradient-not-finite", by=24)
def infinite_input() -> Trace:
    rows = broken(24, healthy(40), weights=True)
    for row in rows[24:]:
        row |= {"input_nonfinite": 2.4e-4 if row is rows[24] else 0}
    return {}, rows


@fires("gradient-exploding", by=5)
def learning_rate_times_300() -> Trace:
    losses = [2.29, 450, 385, 455, 192, 30.8, 8.46, 6.47, 3.7, 3.06, 2.65, 2.53, 2.44, 2.57, 2.38, 2.48, 2.44, 2.51]
    norms = [0.213, 281, 278, 241, 112, 25.4, 3.05, 3.35, 1.73, 0.9, 0.57, 0.51, 0.72, 0.57, 0.48, 0.63, 0.67, 1.03]
    ratios = [7.1, 0.74, 0.42, 0.27, 0.2, 0.15, 0.12, 0.095, 0.079, 0.066, 0.056, 0.048]
    return scalars(losses, norms, dict(enumerate(ratios)))


@fires("gradient-exploding", by=8)
def long_steps_under_clipping() -> Trace:
    losses = [4.33, 3.43, 4.56, 4.57, 12.5, 9.15, 6.3, 5.32, 5.49, 3.81, 4.82, 4.82, 4.14, 4.0, 5.15]
    norms = [10.5, 1.82, 4.83, 3.08, 6.12, 5.06, 3.16, 2.95, 3.92, 1.44, 3.42, 3.2, 1.66, 2.12, 7.47]
    return scalars(losses, norms, dict(enumerate([0.48, 0.61, 0.54, 0.44, 0.38, 0.31, 0.25, 0.2, 0.16])))


@fires("gradient-exploding", by=224)
def late_divergence() -> Trace:
    chance = random.Random(13)
    grow = [math.exp(max(step - 200, 0) / 4) for step in range(230)]
    losses = [(0.4 + math.exp(-step / 50)) * g**0.5 * math.exp(chance.gauss(0, 0.1)) for step, g in enumerate(grow)]
    return scalars(losses, [0.7 * g * math.exp(chance.gauss(0, 0.2)) for g in grow], {200: 0.01, 208: 0.03, 216: 0.09})


@fires("gradient-exploding", by=3)
def absurd_from_the_start() -> Trace:
    return scalars([1.45e14, 4.92e12, 9.92e11, 4.2e10, 1.1e12], [5.1e15, 1.4e14, 2.8e13, 7.8e11, 2.6e13], {0: 0.0019})


@fires("gradients-accumulate", by=5)
def nobody_zeroes() -> Trace:
    return {}, set_all(lean(healthy(24), "loss", "gradient_norm", "gradients_carried"), gradients_carried=1)


@fires("gradients-accumulate", by=24)
def lost_after_twenty_updates() -> Trace:
    return {}, set_all(lean(healthy(40), "loss", "gradient_norm", "gradients_carried"), 20, gradients_carried=1)


@fires("parameters-outside-optimizer", by=12)
def head_replaced_after_the_optimizer() -> Trace:
    return {}, set_all(healthy(), parameter_held=[1, 1, 0, 0])


@fires("parameters-outside-optimizer", by=12)
def one_layer_forgotten() -> Trace:
    return {}, set_all(healthy(), parameter_held=[1, 0, 1, 1])


@fires("parameters-never-changed", by=31)
def graph_cut() -> Trace:
    rows = set_all(healthy(), update_norms=[0, 0, 0.05, 0.02], gradient_missing=[1, 1, 0, 0])
    return {}, set_all(rows, gradient_norms=[0, 0, 0.2, 0.05])


@fires("parameters-never-changed", by=31)
def update_lost() -> Trace:
    return {}, set_all(healthy(), update_norms=[0, 0.01, 0.05, 0.02])


@fires("parameters-never-changed", by=31)
def dead_from_the_start() -> Trace:
    rows = set_all(healthy(), update_norms=[0, 0, 0, 0.02])
    return {}, set_all(rows, gradient_norms=[0, 0, 0, 0.05])


@fires("learning-rate-zero", by=38)
def schedule_with_a_short_horizon() -> Trace:
    return {}, [{"loss": 1.0, "learning_rate": [max(0.01 * (1 - step / 30), 0.0)]} for step in range(60)]


@fires("learning-rate-zero", by=15)
def factor_of_zero() -> Trace:
    return {}, [{"loss": 2.3, "learning_rate": [0.0]} for _ in range(40)]


@fires("learning-rate-zero", by=15)
def one_group_forgotten() -> Trace:
    rows = [{"loss": 2.3 * math.exp(-step / 40), "learning_rate": [0.0, 1e-3]} for step in range(40)]
    return {"labels": {"learning_rate": ["body", "head"]}}, rows


@fires("double-softmax", by=1)
def softmax_before_cross_entropy() -> Trace:
    return {}, set_all(healthy(24), squashed_before_loss=1)


@fires("double-softmax", by=1)
def sigmoid_before_binary_cross_entropy() -> Trace:
    rows = lean(healthy(24, start=0.7), "loss", "squashed_before_loss", "chance_level", "loss_terms")
    return {}, set_all(rows, squashed_before_loss=1, chance_level=math.log(2))


@fires("loss-far-from-chance", by=0)
def weights_too_large() -> Trace:
    return {}, healthy(24, start=84.3)


@fires("loss-far-from-chance", by=0)
def large_and_summed() -> Trace:
    rows = lean(healthy(24, start=5312), "loss", "gradient_norm", "chance_level", "loss_terms")
    return {}, set_all(rows, loss_terms=64)


@fires("same-batch-repeated", by=8)
def iterator_made_anew() -> Trace:
    return {}, set_all(healthy(), target_fingerprint=161.5, input_fingerprint=-20.25)


@fires("same-batch-repeated", by=56)
def stuck_after_forty() -> Trace:
    return {}, set_all(healthy(96), 40, target_fingerprint=161.5, input_fingerprint=-20.25)


@fires("same-batch-repeated", by=20)
def batch_handed_over() -> Trace:
    rows = [row | {"batch_fingerprint": fingerprint(min(step, 12))} for step, row in enumerate(healthy(48))]
    return {}, lean(rows, "loss", "batch_fingerprint")


@fires("milestone-missed", by=101)
def at_chance() -> Trace:
    chance = random.Random(2)
    return with_metric(["validation/accuracy >= 0.8 by 100"], lambda step: 0.1 + 0.02 * chance.gauss(0, 1))


@fires("milestone-missed", by=101)
def still_improving() -> Trace:
    return with_metric(["validation/accuracy >= 0.8 by 100"], lambda step: 0.1 + 0.004 * step)


@fires("trimtab-failed", by=10)
def sensor_that_raises() -> Trace:
    rows = lean(healthy(24), "loss", "gradient_norm")
    facts = {"part": "sensor update_ratio"}
    notes = [
        {"kind": "trimtab-failed", "step": 10, "after_rows": 10, "text": "RuntimeError: no storage", "facts": facts}
    ]
    return {"notes": notes}, [*rows[:10], {"step": 10, "trimtab_failures": 1}, *rows[10:]]


@fires("trimtab-failed", by=0)
def two_parts() -> Trace:
    notes = [
        {"kind": "trimtab-failed", "step": 0, "after_rows": 1, "text": "KeyError: 'lr'", "facts": {"part": part}}
        for part in ("sensor learning_rate", "detector learning-rate-zero")
    ]
    return {"notes": notes}, [{"loss": 2.0}, {"step": 0, "trimtab_failures": 2}]


def spent(action: str, code: str, step: int) -> Head:
    """A note that the answer to a code has been given as often as it may."""
    facts = {"action": action, "code": code, "at_most": 3.0}
    text = f"{action} answered {code} 3 times and it came again"
    note = {"kind": "response-budget-spent", "step": step, "after_rows": step + 1, "text": text, "facts": facts}
    return {"notes": [note]}


@fires("response-budget-spent", by=12)
def rollbacks() -> Trace:
    rows = lean(healthy(13), "loss", "gradient_norm")
    return spent("roll-back", "loss-not-finite", 12), [*rows, {"step": 12, "responses_spent": 1}]


@fires("response-budget-spent", by=5)
def skipped_updates() -> Trace:
    rows = lean(healthy(6), "loss", "gradient_norm")
    return spent("skip-step", "gradient-not-finite", 5), [*rows, {"step": 5, "responses_spent": 1}]


# --- writing ------------------------------------------------------------------------------------------


def text_of(trace: Trace) -> str:
    """The file of a trace: four digits are enough, but for fingerprints."""
    head, rows = trace
    names = {name for row in rows for name in row}
    labels: dict[str, tuple[str, ...]] = {name: NAMES for name in (*PER_TENSOR, *PER_PARAMETER) if name in names}
    labels |= {name: ("0",) for name in ("learning_rate", "update_ratio", "decay_share") if name in names}
    labels |= {name: tuple(given) for name, given in head.get("labels", {}).items() if name in names}
    lines = [json.dumps({**head, "labels": labels})]
    for place, row in enumerate(rows):
        values = {name: short(name, value) for name, value in row.items() if name != "step"}
        lines.append(json.dumps({"step": row.get("step", place), "values": values}, separators=(",", ":")))
    return "\n".join(lines) + "\n"


def short(name: str, value: Any) -> Any:
    """The value with no more digits than it needs."""
    if isinstance(value, (list, tuple)):
        return [short(name, part) for part in value]
    return value if name.endswith("fingerprint") or not math.isfinite(value) else float(f"{value:.4g}")


def files() -> dict[Path, str]:
    """Every stored trace and its text, those of the files `about_*.py` included."""
    for path in sorted(HERE.glob("about_*.py")):
        importlib.import_module(f"tests.traces.{path.stem}")
    return {HERE / code / kind / f"{name}.jsonl": text_of(make()) for (code, kind, name), make in MADE.items()}


def main() -> None:
    """Write every trace, and remove those that are no longer made."""
    made = files()
    for path in HERE.rglob("*.jsonl"):
        if path not in made:
            path.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    # the files about_*.py add to the module that they import, which is not this one when it is run as a script
    importlib.import_module("tests.traces.make").main()
