"""Stories about gradients, optimizers and number formats, with numbers as the recorded trainings have them."""

from __future__ import annotations

import math
import random

from tests.traces import make
from tests.traces.make import (
    INF,
    NAMES,
    PER_PARAMETER,
    PER_TENSOR,
    Row,
    Trace,
    fires,
    healthy,
    is_full,
    lean,
    set_all,
    silent,
)  # fmt: skip

LAYERS = (*(f"body.{index}.weight" for index in range(8)), "head.weight", "head.bias")
DEEP = {"labels": dict.fromkeys(PER_TENSOR, LAYERS)}


def deep(factor: float, steps: int = 56) -> list[Row]:
    """A network of nine weights in which each layer passes on `factor` of its relative gradient."""
    rows = lean(healthy(steps), "loss", "gradient_norm", "gradient_norms", "weight_norms", "update_ratio")
    for row in rows:
        if "gradient_norms" in row:
            row["gradient_norms"] = [0.3 * factor ** (8 - place) for place in range(9)] + [0.2]
            row["weight_norms"] = [3.1] * 8 + [2.2, 0.2]
    return rows


def slim(rows: list[Row], *more: str) -> list[Row]:
    """The rows with what tells how a training goes, and these signals."""
    return lean(rows, "loss", "gradient_norm", "learning_rate", "update_ratio", "weight_norms", *more)


def flat(steps: int = 56, **values: object) -> list[Row]:
    """A training whose loss stays where it began, with other values for some signals."""
    chance = random.Random(21)
    rows = healthy(steps)
    for row in rows:
        row |= {"loss": 2.31 * math.exp(chance.gauss(0, 0.02)), "gradient_norm": 0.23 * math.exp(chance.gauss(0, 0.1))}
    return set_all(rows, **values)


# --- gradient-vanishing ---------------------------------------------------------------------------


@fires("gradient-vanishing", by=12)
def fourteen_sigmoid_layers() -> Trace:
    return DEEP, deep(0.07)


@fires("gradient-vanishing", by=20)
def slope_that_saturates() -> Trace:
    return DEEP, deep(0.8)[:8] + deep(0.15)[8:]


@silent("gradient-vanishing")
def deep_and_residual() -> Trace:
    return DEEP, deep(0.8)


@silent("gradient-vanishing")
def deep_tanh() -> Trace:
    return DEEP, deep(0.55)


@silent("gradient-vanishing")
def deep_behind_a_head_of_zeros() -> Trace:
    rows = deep(0.8)
    for step, share in enumerate((0.0, 1e-6, 1e-4)):
        rows[step]["gradient_norms"] = [share * norm for norm in rows[step]["gradient_norms"][:8]] + [0.3, 0.2]
    return DEEP, rows


# --- graph-detached -------------------------------------------------------------------------------


@fires("graph-detached", by=6)
def cut_before_the_head() -> Trace:
    return {}, set_all(healthy(), parameter_reached=[0, 0, 1, 1])


@fires("graph-detached", by=6)
def cut_behind_the_third_layer() -> Trace:
    reached = [0.0] * 3 + [1.0] * 7
    rows = lean(deep(0.8), "loss", "gradient_norm", "gradient_norms", "weight_norms")
    for row in rows[:8]:
        row |= {"parameter_reached": reached, "parameter_trainable": [1] * 10, "parameter_held": [1] * 10}
    return {"labels": dict.fromkeys((*PER_TENSOR, *PER_PARAMETER), LAYERS)}, rows


@silent("graph-detached", "parameters-never-changed")
def head_beside_that_is_not_called() -> Trace:
    """An auxiliary head in the middle is called only in evaluation, and the optimizer holds it; its weights decay."""
    rows = set_all(healthy(), parameter_reached=[1, 0, 1, 1], gradient_missing=[0, 1, 0, 0])
    return {}, rows


@silent("graph-detached")
def losses_that_take_turns() -> Trace:
    rows = healthy()
    for step, row in enumerate(rows[:8]):
        row["parameter_reached"] = [0, 0, 1, 1] if step % 2 else [1, 1, 0, 0]
    return {}, rows


@silent("graph-detached")
def front_that_is_declared_frozen() -> Trace:
    rows = set_all(healthy(), parameter_reached=[0, 0, 1, 1], parameter_trainable=[0, 0, 1, 1])
    return {}, set_all(rows, update_norms=[0, 0, 0.05, 0.02], gradient_missing=[1, 1, 0, 0])


# --- update-too-large, update-too-small -----------------------------------------------------------


@fires("update-too-large", by=40)
def steps_of_a_tenth() -> Trace:
    return {}, set_all(flat(), update_ratio=[0.11])


@fires("update-too-large", by=180)
def rate_that_was_raised() -> Trace:
    rows = lean(healthy(200), "loss", "gradient_norm", "update_ratio", "update_norms", "weight_norms")
    return {}, set_all(rows, 40, update_ratio=[0.09])


silent("update-too-large")(make.warm_up_bump)
silent("update-too-large")(make.head_that_begins_at_zero)


@silent("update-too-large", "gradient-exploding")
def restarts_with_long_steps() -> Trace:
    rows = healthy(120)
    for step, row in enumerate(rows):
        if is_full(step):
            row["update_ratio"] = [0.07 if step % 40 < 8 else 0.02]
    return {}, slim(rows)


@fires("update-too-small", by=16)
def rate_of_a_billionth() -> Trace:
    return {}, flat(update_ratio=[1.1e-8], learning_rate=[2e-9])


@fires("update-too-small", by=120)
def tiny_after_a_warm_up() -> Trace:
    rows = flat(128)
    for step, row in enumerate(rows):
        row["learning_rate"] = [3e-9 * min((step + 1) / 20, 1)]
        if "update_ratio" in row:
            row["update_ratio"] = [2.3e-8 * min((step + 1) / 20, 1)]
    return {}, slim(rows)


@fires("update-too-small", by=100)
def updates_that_stop_midway() -> Trace:
    return {}, slim(set_all(healthy(128), 40, update_ratio=[0], update_norms=[0] * 4))


@silent("update-too-small")
def fine_tuning_near_the_optimum() -> Trace:
    return {}, set_all(healthy(start=0.4), update_ratio=[3.8e-6], learning_rate=[1e-6], chance_level=2.3)


@silent("update-too-small", "learning-rate-zero")
def warm_up_of_many_steps() -> Trace:
    rows = flat(64)
    for step, row in enumerate(rows):
        row["learning_rate"] = [1e-8 * 1.3**step]
        if "update_ratio" in row:
            row["update_ratio"] = [1e-7 * 1.3**step if step < 40 else 0.003]
    return {}, rows


@silent("update-too-small")
def annealed_to_nothing() -> Trace:
    rows = healthy(160)
    for step, row in enumerate(rows):
        share = 0.5 * (1 + math.cos(math.pi * step / 160)) + 1e-9
        row["learning_rate"] = [0.002 * share]
        if "update_ratio" in row:
            row["update_ratio"] = [0.01 * share**3]
    return {}, slim(rows)


# --- clipping-starves, clipping-always-active -----------------------------------------------------


def clipped(rows: list[Row], factor: float, since: int = 0, until: int = 10_000) -> list[Row]:
    """The rows with clipping that leaves this much of the gradient."""
    for row in rows[since:until]:
        if "clip_factor" in row:
            row |= {"clipped": 1, "clip_factor": factor, "gradient_norm_applied": factor * row["gradient_norm"]}
    return rows


@fires("clipping-starves", by=16)
def threshold_of_a_hundred_thousandth() -> Trace:
    return {}, clipped(flat(update_ratio=[1.8e-5]), 2.6e-6)


@fires("clipping-starves", by=20)
def threshold_for_another_loss() -> Trace:
    return {}, clipped(set_all(healthy(), update_ratio=[6e-5]), 0.004)


@silent("clipping-starves", "clipping-always-active")
def clipped_and_adam_does_not_mind() -> Trace:
    return {}, clipped(healthy(), 0.008)


@silent("clipping-starves")
def clipped_in_a_warm_up() -> Trace:
    rows = clipped(healthy(64), 0.006)
    for step, row in enumerate(rows):
        row["learning_rate"] = [2e-3 * min(1.2 ** (step - 40), 1)]
        if "update_ratio" in row:
            row["update_ratio"] = [0.006 * min(1.2 ** (step - 40), 1)]
    return {}, rows


@silent("clipping-starves", "clipping-always-active")
def clipped_while_the_gradient_settles() -> Trace:
    return {}, clipped(healthy(), 0.2, until=9)


@fires("clipping-always-active", by=24)
def nothing_left_but_the_direction() -> Trace:
    return {}, clipped(healthy(), 1.8e-5)


@fires("clipping-always-active", by=24)
def loss_of_another_unit() -> Trace:
    rows = healthy(start=2300.0)
    return {}, clipped(lean(rows, "loss", "gradient_norm", "gradient_norm_applied", "clip_factor", "clipped"), 4e-4)


@silent("clipping-always-active")
def clipped_at_every_second_update() -> Trace:
    rows = healthy(96)
    for step in range(0, 96, 2):
        clipped(rows, 0.6, step, step + 1)
    return {}, rows


# --- moments-poisoned -----------------------------------------------------------------------------


def moments(rows: list[Row], since: int, factor: float, half_life: float = 1e9) -> list[Row]:
    """The rows with second moments that jump at a step and then fall."""
    for step, row in enumerate(rows[since:]):
        if "moment_scale" in row:
            row["moment_scale"] = [max(1.0, factor * 0.5 ** (step / half_life)) * share for share in make.SHARES]
    return rows


@fires("moments-poisoned", by=30)
def one_gradient_of_a_thousand() -> Trace:
    rows = moments(moments(healthy(72), 0, 1.0), 24, 31.0, 1400)
    rows[24]["gradient_norm"] = 900.0
    return {}, set_all(rows, 25, update_ratio=[2e-4])


@fires("moments-poisoned", by=120)
def one_gradient_between_measured_rows() -> Trace:
    """Full rows are far apart, and the memory is one of a hundred updates."""
    rows = moments(moments(healthy(160), 0, 1.0), 61, 60.0, 140)
    rows[61]["gradient_norm"] = 600.0
    return {}, slim(rows, "moment_scale")


@silent("moments-poisoned")
def moments_that_grow_from_zero() -> Trace:
    rows = healthy(96)
    for step, row in enumerate(rows):
        if "moment_scale" in row:
            row["moment_scale"] = [0.3 * share * math.sqrt(1 - 0.999 ** (step + 1)) for share in make.SHARES]
    return {}, slim(rows, "moment_scale")


@silent("moments-poisoned")
def moments_that_grow_from_zero_again() -> Trace:
    """The optimizer is made anew at step 64, and the first gradient that it meets is a small one."""
    rows = healthy(200)
    for step, row in enumerate(rows):
        age = step + 1 if step < 64 else step - 63
        if "moment_scale" in row:
            second = 1 - 0.999**age - (0.00099 * 0.999 ** (age - 1) if step >= 64 else 0.0)
            row["moment_scale"] = [0.3 * share * math.sqrt(second) for share in make.SHARES]
            row["optimizer_age"] = float(age)
    return {}, lean(rows, "gradient_norm", "moment_scale", "update_ratio", "optimizer_age")


@silent("moments-poisoned", "gradient-exploding")
def gradients_with_heavy_tails() -> Trace:
    chance = random.Random(31)
    rows = healthy(200)
    scale = 1.0
    for row in rows:
        heavy = math.exp(1.3 * chance.gauss(0, 1))
        scale = math.sqrt(0.99 * scale**2 + 0.01 * heavy**2)
        row["gradient_norm"] = 0.5 * heavy
        if "moment_scale" in row:
            row["moment_scale"] = [scale * share for share in make.SHARES]
    return {}, lean(rows, "loss", "gradient_norm", "moment_scale", "update_ratio")


@silent("moments-poisoned", "gradient-exploding")
def gradient_that_has_really_grown() -> Trace:
    """A head is let loose at step 32: ten times the gradient, and it stays."""
    rows = lean(moments(moments(healthy(120), 0, 1.0), 32, 10.0), "gradient_norm", "moment_scale", "update_ratio")
    for row in rows[32:]:
        row["gradient_norm"] *= 10
    return {}, rows


# --- weight-decay-dominates -----------------------------------------------------------------------


def shrinking(rows: list[Row], each: float) -> list[Row]:
    """The rows with weights that shrink by this factor at each update."""
    for step, row in enumerate(rows):
        if "weight_norms" in row:
            row["weight_norms"] = [norm * each**step for norm in (4.6, 0.6, 2.9, 0.3)]
    return rows


@fires("weight-decay-dominates", by=32)
def decay_of_one() -> Trace:
    return {}, shrinking(flat(decay_share=[30.0]), 0.97)


@fires("weight-decay-dominates", by=128)
def decay_beside_a_small_gradient() -> Trace:
    rows = lean(flat(160, decay_share=[0.45]), "loss", "decay_share", "weight_norms", "update_ratio", "gradient_norm")
    return {}, shrinking(rows, 0.996)


@silent("weight-decay-dominates")
def decay_in_balance() -> Trace:
    return {}, set_all(healthy(96), decay_share=[0.04])


@silent("weight-decay-dominates")
def everything_is_fitted() -> Trace:
    """The gradient has vanished with the loss, and only the decay is left."""
    rows = healthy(200)
    for step, row in enumerate(rows):
        row["loss"] = 2.3 * math.exp(-step / 15)
        if "decay_share" in row:
            row["decay_share"] = [0.01 * math.exp(step / 30)]
    return {}, shrinking(lean(rows, "loss", "decay_share", "weight_norms", "update_ratio"), 0.995)


@silent("weight-decay-dominates")
def decay_that_shrinks_nothing() -> Trace:
    return {}, set_all(healthy(96), decay_share=[0.4])


# --- precision-underflow --------------------------------------------------------------------------


@fires("precision-underflow", by=8)
def gradients_through_float16() -> Trace:
    return {}, set_all(healthy(), gradient_zero_share=[1, 1, 0.96, 0.6])


@fires("precision-underflow", by=8)
def nothing_left_in_float16() -> Trace:
    rows = flat(gradient_zero_share=[1, 1, 1, 1], half_share=1, gradient_norms=[0, 0, 0, 0])
    return {}, set_all(rows, gradient_norm=0, gradient_norm_applied=0)


@silent("precision-underflow")
def units_that_are_dead() -> Trace:
    return {}, set_all(healthy(), gradient_zero_share=[0.98, 0.98, 0.9, 0])


@silent("precision-underflow")
def head_of_zeros_that_wakes_up() -> Trace:
    rows = healthy()
    for row in rows[:2]:
        row["gradient_zero_share"] = [1, 1, 0.4, 0.25]
    return {}, rows


@silent("precision-underflow")
def sparse_inputs() -> Trace:
    rows = set_all(healthy(), gradient_zero_share=[0.97, 0.3, 0.4, 0.02])
    return {}, rows


# --- scaler-skips-too-often -----------------------------------------------------------------------


def skipping(rows: list[Row], skips: set[int]) -> list[Row]:
    """The rows with updates that a scaler leaves out."""
    for step in sorted(skips):
        rows[step] = {"loss": rows[step]["loss"], "gradient_norm": INF, "update_skipped": 1}
    return rows


@fires("scaler-skips-too-often", by=130)
def scale_that_only_grows() -> Trace:
    rows = [row | {"loss_scale": 65536.0} for row in lean(healthy(160), "loss", "gradient_norm")]
    return {}, skipping(rows, set(range(100, 160)))


@fires("scaler-skips-too-often", by=110)
def scale_that_is_raised_too_soon() -> Trace:
    rows = lean(healthy(200), "loss", "gradient_norm")
    return {}, skipping(rows, set(range(18)) | set(range(20, 200, 5)))


silent("scaler-skips-too-often")(make.loss_scale_search)


@silent("scaler-skips-too-often")
def lively_scaler() -> Trace:
    return {}, skipping(lean(healthy(400), "loss", "gradient_norm"), set(range(8)) | set(range(60, 400, 64)))


@silent("scaler-skips-too-often")
def long_search_for_a_scale() -> Trace:
    return {}, skipping(lean(healthy(120), "loss", "gradient_norm"), set(range(28)))


# --- norm-growing ---------------------------------------------------------------------------------


def adapter(course_of: object, steps: int = 320) -> Trace:
    """A training in which the last weight's norm is `course_of(step)`."""
    rows = lean(healthy(steps), "loss", "gradient_norm", "weight_norms", "update_ratio")
    for step, row in enumerate(rows):
        if "weight_norms" in row:
            row["weight_norms"][2] = course_of(step)
    names = (NAMES[0], NAMES[1], "adapter.up.weight", NAMES[3])
    return {"labels": {"weight_norms": names}}, rows


@fires("norm-growing", by=240)
def adapter_that_runs_away() -> Trace:
    return adapter(lambda step: 0.2 * math.exp(step / 60))


@fires("norm-growing", by=30)
def adapter_with_a_rate_of_its_own() -> Trace:
    return adapter(lambda step: 2.0 + 35.0 * (1 - math.exp(-step / 15)), 64)


@fires("norm-growing", by=300)
def recorded_norm_of_a_delta() -> Trace:
    trace, rows = adapter(lambda step: 2.9)
    for step, row in enumerate(rows):
        if step % 4 == 0:
            row["delta_norm"] = 1.0 + 0.02 * math.exp(step / 40)
    return trace, rows


@silent("norm-growing")
def adapter_that_begins_at_zero() -> Trace:
    return adapter(lambda step: 0.02 * step)


@silent("norm-growing")
def gain_that_begins_far_below_the_others() -> Trace:
    return adapter(lambda step: 1e-4 + 1.5 * (1 - math.exp(-step / 40)), 200)


@silent("norm-growing")
def norm_that_settles() -> Trace:
    return adapter(lambda step: 0.04 + 6.0 * (1 - math.exp(-max(step - 40, 0) / 40)))


@silent("norm-growing")
def norm_that_grew_early() -> Trace:
    trace, rows = adapter(lambda step: 2.9)
    for step, row in enumerate(rows):
        row["latent_norm"] = 0.05 + 4.0 * min(step / 100, 1.0)
    return trace, rows
