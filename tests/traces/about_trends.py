"""Stories of what the loss and recorded metrics do over many steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from tests.traces.make import (
    INF,
    Row,
    Trace,
    fires,
    healthy,
    is_full,
    loss_scale_search,
    not_due_yet,
    ordinary_training,
    policy_gradient,
    reached_in_time,
    reached_once_and_noisy,
    silent,
    with_metric,
)

TEN = math.log(10)


def course(
    losses: Sequence[float],
    norms: Sequence[float] | None = None,
    *,
    chance: float | None = TEN,
    ratio: float = 0.003,
    rates: Sequence[float] | None = None,
    calls: Sequence[int] | None = None,
) -> list[Row]:
    """Rows with these losses; gradient norm and update ratio on full rows."""
    rows: list[Row] = []
    for step, loss in enumerate(losses):
        row: Row = {"loss": loss, "learning_rate": [0.002 if rates is None else rates[step]]}
        if calls is not None:
            row["backward_calls"] = calls[step]
        if chance is not None and step < 8:
            row |= {"chance_level": chance, "loss_terms": 1, "label_classes": 10}
        if norms is not None:
            row["gradient_norm"] = norms[step]
        if is_full(step):
            row["update_ratio"] = [ratio]
        rows.append(row)
    return rows


def noisy(level: Callable[[int], float], steps: int, noise: float = 0.06, seed: int = 1) -> list[float]:
    """A course with noise that is a share of its level."""
    chance = random.Random(seed)
    return [level(step) * math.exp(chance.gauss(0, noise)) for step in range(steps)]


def falling(step: int) -> float:
    """A loss that is learned."""
    return TEN * (0.1 + 0.9 * math.exp(-step / 60))


# --- the loss, healthy --------------------------------------------------------------------------------------


@silent(
    "loss-spike", "loss-diverging", "loss-not-moving", "loss-at-chance", "never-better-than-start", "oscillating",
    "better-than-possible",
)  # fmt: skip
def learns_for_long() -> Trace:
    return {}, course(noisy(falling, 560))


@silent("loss-diverging", "loss-spike", "never-better-than-start", "loss-scale-changed")
def bump_at_the_end_of_a_warm_up() -> Trace:
    def level(step: int) -> float:
        return TEN * math.exp(-step / 70) + 1.3 * math.exp(-(((step - 60) / 18) ** 2)) + 0.2

    rates = [0.01 * min(step / 60, 1.0) for step in range(240)]
    return {}, course(noisy(level, 240), noisy(lambda _: 0.8, 240, 0.2, seed=3), rates=rates)


@silent("loss-diverging", "oscillating", "loss-spike")
def rate_that_starts_again() -> Trace:
    """Cosine restarts: at each the loss loses two thirds of what it had gained, for a while."""
    rates = [0.02 * (1 + math.cos(math.pi * (step % 100) / 100)) / 2 + 1e-4 for step in range(400)]
    losses = noisy(lambda step: 0.2 + TEN * math.exp(-step / 50) + 60 * rates[step], 400)
    return {}, course(losses, rates=rates)


@silent("loss-spike", "oscillating")
def two_examples_a_batch() -> Trace:
    chance = random.Random(4)
    losses = [TEN * (0.25 + 0.75 * math.exp(-step / 80)) * math.exp(0.9 * chance.gauss(0, 1)) for step in range(400)]
    return {}, course(losses)


@silent("loss-spike", "loss-diverging", "loss-scale-changed", "never-better-than-start")
def falls_by_ten_orders_of_magnitude() -> Trace:
    """With leaps of a thousand times the last value, none of which is anything beside the beginning."""
    losses = [4.4 * 10 ** (-step / 30) * (1000 if step > 90 and step % 40 == 0 else 1) for step in range(300)]
    return {}, course(losses, [0.8 * math.sqrt(loss) for loss in losses], chance=None)


@silent("loss-at-chance", "loss-not-moving", "never-better-than-start")
def understands_late() -> Trace:
    """At chance for three hundred steps, then all at once."""
    losses = noisy(lambda step: 0.02 + 0.67 / (1 + math.exp((step - 340) / 15)), 560, 0.01)
    return {}, course(losses, chance=math.log(2), ratio=0.004)


@silent("loss-not-moving", "loss-at-chance")
def slow_and_sure() -> Trace:
    return {}, course(noisy(lambda step: TEN * (1 - step / 1500), 560, 0.02), ratio=0.0003)


@silent("better-than-possible")
def solves_it_in_twenty_updates_of_twenty_passes() -> Trace:
    losses = [max(TEN * 10 ** (-step / 5), 1e-6) for step in range(64)]
    return {}, course(losses, calls=[20] * 64)


@silent("better-than-possible")
def begins_where_it_was_left() -> Trace:
    return {}, course(noisy(lambda _: 0.005, 64))


@silent("loss-scale-changed")
def harder_data_that_were_announced() -> Trace:
    def level(step: int) -> float:
        return falling(step) if step < 160 else 3.2 * falling(160) * math.exp(-(step - 160) / 90)

    notes = [{"kind": "curriculum", "step": 158, "after_rows": 158, "until": 300}]
    losses = noisy(level, 300, 0.04)
    return {"notes": notes}, course(losses, [2.0 * loss for loss in losses])


@silent("never-better-than-start")
def waits_and_then_learns() -> Trace:
    return {}, course(noisy(lambda step: TEN * (1.0 if step < 100 else math.exp(-(step - 100) / 60)), 240, 0.01))


@silent("oscillating")
def full_batch_on_the_edge() -> Trace:
    """It swings by a few hundredths of itself, and falls."""
    losses = [TEN * math.exp(-step / 150) * (1 + 0.05 * (-1) ** step) for step in range(240)]
    return {}, course(losses)


silent("logged-loss-not-finite")(ordinary_training)
silent("logged-loss-not-finite")(loss_scale_search)
silent("logged-loss-not-finite")(policy_gradient)


# --- the loss, faulty ---------------------------------------------------------------------------------------


@fires("logged-loss-not-finite", by=31)
def broken_at_every_other_step() -> Trace:
    rows = healthy(64)
    for row in rows[30::2]:
        row |= {"loss": INF, "nonfinite_weights": 0}
    return {}, rows


@fires("loss-spike", by=88)
def one_broken_batch() -> Trace:
    losses, norms = noisy(falling, 120), noisy(lambda _: 0.8, 120, 0.2, seed=5)
    losses[80], norms[80] = 410.0, 300.0
    losses[81:86] = [3.1, 2.4, 1.9, 1.4, 1.1]
    return {}, course(losses, norms)


@fires("loss-spike", by=120)
def a_shard_of_broken_batches() -> Trace:
    losses = noisy(falling, 160)
    losses[104:110] = [55.0, 81.0, 77.0, 60.0, 93.0, 71.0]
    return {}, course(losses, chance=None)


@fires("loss-diverging", by=200)
def rises_beyond_its_beginning() -> Trace:
    return {}, course(noisy(lambda step: falling(step) + 0.02 * math.exp(max(step - 100, 0) / 14), 210))


@fires("loss-diverging", by=184)
def forgets_what_it_had_learned() -> Trace:
    """The data change at step 120, and nobody has said so."""
    losses = noisy(lambda step: falling(step) if step < 120 else 2.1 + 0.001 * (step - 120), 240, 0.04)
    return {}, course(losses)


@fires("loss-not-moving", by=96)
def rate_of_a_millionth() -> Trace:
    return {}, course(noisy(lambda _: 2.42, 160, 0.01), ratio=1e-8, rates=[2e-9] * 160)


@fires("loss-not-moving", by=264)
def moves_and_learns_nothing() -> Trace:
    """The weights go far, and the loss rests above chance."""
    return {}, course(noisy(lambda _: 2.9, 320, 0.02), ratio=0.004)


@fires("loss-at-chance", by=520)
def shuffled_labels() -> Trace:
    return {}, course(noisy(lambda step: TEN * (1 + 0.2 * math.exp(-step / 10)), 560, 0.012), ratio=0.004)


@fires("loss-at-chance", by=520)
def only_how_often_each_answer_occurs() -> Trace:
    """Unequal classes: the loss rests at the entropy of the labels, well below ln C."""
    rows = course(noisy(lambda step: 1.62 + 0.6 * math.exp(-step / 10), 560, 0.01), ratio=0.004)
    for step, row in enumerate(rows):
        if step % 32 == 0:
            row |= {"label_entropy": 1.62, "label_classes": 10, "target_count": 256}
    return {}, rows


@fires("never-better-than-start", by=184)
def loaded_and_spoiled() -> Trace:
    """Fine-tuning whose first updates throw the network back."""
    return {}, course(noisy(lambda step: 0.4 + 0.3 * (1 - math.exp(-step / 30)), 240, 0.05))


@fires("never-better-than-start", by=128)
def worse_than_a_guess() -> Trace:
    """A rate ten times too high on two examples a batch: it falls from 2.9 and rests above ln 10."""
    return {}, course(noisy(lambda step: 2.5 + 0.5 * math.exp(-step / 20), 160, 0.1), ratio=0.02)


@fires("never-better-than-start", by=184)
def sign_that_is_wrong() -> Trace:
    return {}, course(noisy(lambda step: 2.3 + 1.4 * (1 - math.exp(-step / 50)), 240, 0.03), chance=None)


@fires("oscillating", by=136)
def to_and_fro() -> Trace:
    chance = random.Random(6)
    losses = [1.4 * (1 + 0.55 * (-1) ** step) * math.exp(chance.gauss(0, 0.1)) for step in range(200)]
    return {}, course([2.3, 2.0, *losses])


@fires("oscillating", by=160)
def gradients_against_each_other() -> Trace:
    chance = random.Random(7)
    rows = course([1.5 * math.exp(chance.gauss(0, 0.6)) for _ in range(200)], ratio=0.06)
    for step, row in enumerate(rows):
        if step % 16 < 2:
            row["gradient_cosine"] = -0.45 + 0.1 * chance.gauss(0, 1)
    return {}, rows


@fires("loss-scale-changed", by=128)
def eight_batches_added_up() -> Trace:
    losses = noisy(lambda step: falling(step) * (8 if step >= 100 else 1), 180, 0.05)
    return {}, course(losses, noisy(lambda step: 8.0 if step >= 100 else 1.0, 180, 0.05, seed=8))


@fires("loss-scale-changed", by=128)
def four_batches_whose_gradients_differ() -> Trace:
    """Their sum is only twice as long; the graph of the loss is another one from then on."""
    losses = noisy(lambda step: falling(step) * (4 if step >= 100 else 1), 180, 0.05)
    rows = course(losses, noisy(lambda step: 2.1 if step >= 100 else 1.0, 180, 0.05, seed=8))
    rows[104]["parameter_reached"] = [1, 1, 1, 1]
    return {}, rows


@fires("loss-scale-changed", by=168)
def divided_once_more() -> Trace:
    losses = noisy(lambda step: falling(step) / (4 if step >= 140 else 1), 220, 0.05)
    norms = noisy(lambda step: 0.25 if step >= 140 else 1.0, 220, 0.05, seed=9)
    return {}, course(losses, norms, calls=[1 if step < 140 else 4 for step in range(220)])


@fires("better-than-possible", by=31)
def target_among_the_inputs() -> Trace:
    return {}, course(noisy(lambda step: max(TEN * math.exp(-step / 2), 0.003), 64))


# --- metrics ------------------------------------------------------------------------------------------------

Head = dict[str, object]


def metric(
    losses: Sequence[float],
    accuracy: Callable[[int], float],
    *,
    name: str = "validation/accuracy",
    better: str = "higher",
    noise: float = 0.004,
    notes: Sequence[Head] = (),
) -> Trace:
    """A training whose metric is recorded after every tenth step."""
    chance = random.Random(10)
    rows: list[Row] = []
    for step, row in enumerate(course(losses)):
        rows.append({"step": step, **row})
        if step % 10 == 9:
            rows.append({"step": step, name: accuracy(step) + noise * chance.gauss(0, 1)})
    rows.append({"step": len(losses) - 1, "trimtab_seconds": 0.05})
    told = {"kind": "metric", "step": 9, "after_rows": 10, "text": name, "facts": {"better": better}}
    return {"notes": [*notes, told]}, rows


def rising(step: int) -> float:
    """An accuracy that is learned."""
    return 0.93 - 0.8 * math.exp(-step / 60)


@silent("metric-dropped", "past-its-peak")
def rises_and_stays() -> Trace:
    return metric(noisy(falling, 320), rising)


@silent("metric-dropped", "past-its-peak")
def scatters_by_a_tenth() -> Trace:
    return metric(noisy(falling, 320), rising, noise=0.04)


@silent("metric-dropped", "past-its-peak")
def validation_loss_that_falls() -> Trace:
    def loss(step: int) -> float:
        return 1.1 * falling(step)

    return metric(noisy(falling, 320), loss, name="validation/loss", better="lower", noise=0.03)


@silent("metric-dropped", "past-its-peak")
def a_single_bad_evaluation() -> Trace:
    return metric(noisy(falling, 320), lambda step: 0.4 if step == 199 else rising(step))


@fires("metric-dropped", by=232)
def falls_at_once() -> Trace:
    """An escalation at step 200 takes fourteen points, at a training loss that rises."""
    losses = noisy(lambda step: falling(step) * (1.6 if step >= 200 else 1.0), 320)
    return metric(losses, lambda step: 0.79 if step >= 200 else 0.93 - 0.6 * math.exp(-step / 40))


@fires("metric-dropped", by=310)
def slides_away() -> Trace:
    losses = noisy(lambda step: max(falling(step), 0.3) + max(step - 200, 0) * 0.003, 400)
    return metric(losses, lambda step: rising(step) - 0.004 * max(step - 200, 0))


@fires("past-its-peak", by=300)
def learns_the_examples() -> Trace:
    losses = noisy(lambda step: TEN * math.exp(-step / 80) + 0.002, 400)

    def loss(step: int) -> float:
        return 0.6 + 1.7 * math.exp(-step / 40) + 0.003 * max(step - 120, 0)

    return metric(losses, loss, name="validation/loss", better="lower", noise=0.02)


@fires("past-its-peak", by=330)
def accuracy_that_turns() -> Trace:
    losses = noisy(lambda step: TEN * math.exp(-step / 80) + 0.002, 400)
    return metric(losses, lambda step: rising(step) - 0.0015 * max(step - 140, 0))


def beside(trace: Trace, loss: Callable[[int], float]) -> Trace:
    """The trace with a loss of the metric's own data, recorded just after it."""
    head, rows = trace
    found: list[Row] = []
    for row in rows:
        found.append(row)
        if "validation/accuracy" in row:
            found.append({"step": row["step"], "validation/loss": loss(row["step"])})
    told = {"kind": "metric", "step": 9, "after_rows": 11, "text": "validation/loss", "facts": {"better": "lower"}}
    return {"notes": [*head["notes"], told]}, found


@fires("past-its-peak", by=370)
def loss_that_does_not_ask_for_the_metric() -> Trace:
    """The metric loses two hundredths of itself while the loss of its own data goes on falling."""
    trace = metric(noisy(falling, 400), lambda step: rising(step) - 0.0002 * max(step - 200, 0), noise=0.001)
    return beside(trace, lambda step: 1.05 * falling(step))


@silent("past-its-peak")
def loses_a_hundredth_to_the_examples() -> Trace:
    """A healthy classifier grows too sure of itself: as much as in the story above, but its loss no longer falls."""
    trace = metric(noisy(falling, 400), lambda step: rising(step) - 0.0001 * max(step - 200, 0), noise=0.001)
    return beside(trace, lambda step: max(1.05 * falling(step), 1.05 * falling(200)))


@silent("better-than-possible")
def below_its_ceiling() -> Trace:
    note: Head = {"kind": "ceiling", "step": 0, "text": "validation/accuracy", "facts": {"value": 0.96}}
    return metric(noisy(falling, 120), rising, notes=[note])


@fires("better-than-possible", by=130)
def above_its_ceiling() -> Trace:
    facts = {"value": 0.76, "better": "higher"}
    note: Head = {"kind": "ceiling", "step": 0, "text": "validation/accuracy", "facts": facts}
    return metric(noisy(falling, 200), rising, notes=[note])


silent("metric-stuck-below-target")(reached_in_time)
silent("metric-stuck-below-target")(reached_once_and_noisy)
silent("metric-stuck-below-target")(not_due_yet)


@silent("metric-stuck-below-target")
def still_on_its_way() -> Trace:
    return with_metric(["validation/accuracy >= 0.9 by 400"], lambda step: 0.1 + 0.003 * step, 200)


@fires("metric-stuck-below-target", by=191)
def rests_at_two_thirds() -> Trace:
    chance = random.Random(11)

    def accuracy(step: int) -> float:
        return 0.64 - 0.5 * math.exp(-step / 25) + 0.005 * chance.gauss(0, 1)

    return with_metric(["validation/accuracy >= 0.9 by 400"], accuracy, 240)


@fires("metric-stuck-below-target", by=239)
def never_leaves_chance() -> Trace:
    chance = random.Random(12)
    return with_metric(["validation/accuracy >= 0.9 by 400"], lambda _: 0.1 + 0.01 * chance.gauss(0, 1), 280)
