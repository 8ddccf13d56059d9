"""Stories about attentions, representations and latents."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from tests.traces.make import Row, Trace, fires, healthy, lean, silent

HEADS = ("blocks.0>sdpa", "blocks.1>sdpa")
KEPT = ("loss", "gradient_norm", "update_ratio", "chance_level", "loss_terms")
UNKNOWN_LOSS = ("loss", "gradient_norm", "update_ratio")


def is_looked_at(step: int) -> bool:
    """Whether the layers are looked into at this step."""
    return step < 8 or step % (4 if step < 32 else 32) == 0


def looked(rows: list[Row], measure: Callable[[int], Row]) -> list[Row]:
    """The rows, with more on those on which the layers are looked into."""
    return [row | measure(step) if is_looked_at(step) else row for step, row in enumerate(rows)]


def language(steps: int, seed: int = 1) -> list[Row]:
    """A small language model that learns."""
    return lean(healthy(steps, seed=seed, start=4.2), *KEPT)


def attentions(rows: list[Row], looks: Callable[[int, int], tuple[float, float]]) -> Trace:
    """The rows with what two attentions do: `looks(place, step)` gives entropy and largest logit."""

    def measure(step: int) -> Row:
        found = [looks(place, step) for place in range(len(HEADS))]
        return {
            "attention_entropy": [entropy for entropy, _ in found],
            "attention_peak": [max(1.0, 17 * (1 - entropy)) for entropy, _ in found],
            "attention_logit": [logit for _, logit in found],
        }

    labels = dict.fromkeys(("attention_entropy", "attention_peak", "attention_logit"), HEADS)
    return {"labels": labels}, looked(rows, measure)


def learns(seed: int, *, sharp: float = 0.55, slow: float = 60.0) -> Callable[[int, int], tuple[float, float]]:
    """Attentions that begin uniform and become as sharp as they need to be, the second one later."""
    chance = random.Random(seed)

    def looks(place: int, step: int) -> tuple[float, float]:
        gone = 1 - math.exp(-max(step - 12 - 30 * place, 0) / slow)
        entropy = 0.99 - sharp / (1 + place) * gone
        return entropy * math.exp(chance.gauss(0, 0.004)), (1.2 + 14 / (1 + place) * gone) * math.exp(
            chance.gauss(0, 0.1)
        )

    return looks


# --- healthy ----------------------------------------------------------------------------------------


@silent("attention-uniform", "attention-saturated", "attention-logits-growing")
def small_transformer() -> Trace:
    return attentions(language(200), learns(3))


@silent("attention-uniform", "attention-saturated", "attention-logits-growing")
def attention_that_stays_a_mean() -> Trace:
    """It was never sharper, and the model learns all the same."""
    chance = random.Random(4)
    return attentions(
        language(330), lambda place, step: (0.9985 - 0.0008 * chance.random(), 0.6 + 0.2 * chance.random())
    )


@silent("attention-saturated", "attention-logits-growing")
def head_that_copies() -> Trace:
    """One attention looks at one key because that is the solution; its logits are 20 to 30."""

    def looks(place: int, step: int) -> tuple[float, float]:
        entropy, logit = learns(5)(place, step)
        gone = 1 - math.exp(-max(step - 20, 0) / 20)
        return (entropy, logit) if place else (0.98 - 0.965 * gone, 1.5 + 28 * gone)

    return attentions(language(200, seed=2), looks)


@silent("attention-uniform")
def sharp_by_chance_at_first() -> Trace:
    """Large embeddings make it sharp; it is uniform before it begins to learn."""

    def looks(place: int, step: int) -> tuple[float, float]:
        return (0.7 + 0.297 * min(step / 16, 1), 6 - 5 * min(step / 16, 1)) if step < 200 else (0.9, 5.0)

    return attentions(language(260, seed=3), looks)


@silent("attention-logits-growing")
def logits_that_level_off() -> Trace:
    def looks(place: int, step: int) -> tuple[float, float]:
        return 0.35, 8 + 50 * min(step / 60, 1)

    return attentions(language(330, seed=4), looks)


def represented(rows: list[Row], course: Callable[[int], tuple[float, float]], **more: Any) -> Trace:
    """The rows with spread and rank before the last layer."""
    return {}, looked(
        rows,
        lambda step: {"representation_spread": course(step)[0], "representation_rank": course(step)[1], **more},
    )


def similarity(reached: float, steps: int, seed: int = 1) -> list[Row]:
    """The negative cosine similarity of two views."""
    chance = random.Random(seed)
    rows = lean(healthy(steps, seed=seed), *UNKNOWN_LOSS)
    for step, row in enumerate(rows):
        row["loss"] = -reached * (1 - math.exp(-step / 25)) + 0.015 * chance.gauss(0, 1)
    return rows


@silent("representation-collapsed")
def stop_gradient() -> Trace:
    """Two views of one network, one of them stopped: the rank falls to half and rises again."""
    return represented(
        similarity(0.86, 300), lambda step: (0.8, 5 + 5 * math.exp(-step / 12) + 2 * (1 - math.exp(-step / 200)))
    )


@silent("representation-collapsed")
def two_classes_told_apart() -> Trace:
    """In the end there is one direction, which is all that is needed."""
    rows = lean(healthy(200, start=0.69), *KEPT)
    for row in rows:
        row |= {name: value for name, value in {"chance_level": math.log(2)}.items() if name in row}
    return represented(rows, lambda step: (0.5 + 0.3 * (1 - math.exp(-step / 60)), 1.02 + 7 * math.exp(-step / 30)))


@silent("representation-collapsed")
def layers_that_are_alike_at_first() -> Trace:
    """A zero-initialised head and small embeddings: differences come with learning."""
    return represented(language(160, seed=5), lambda step: (0.003 + 0.4 * (1 - math.exp(-step / 30)), 3.0))


@silent("representation-collapsed")
def few_directions_without_targets() -> Trace:
    """The loss of a policy: below zero at times, and no similarity."""
    chance = random.Random(6)
    rows = lean(healthy(200, seed=6), *UNKNOWN_LOSS)
    for row in rows:
        row["loss"] = 0.4 * chance.gauss(-0.1, 1)
    return represented(rows, lambda step: (0.6, 1.5 + 6 * math.exp(-step / 20)))


def coded(rows: list[Row], **courses: Callable[[int], float]) -> Trace:
    """The rows, each look at the latent as a row of its own as `examine` and `record` write it."""
    found: list[Row] = []
    for step, row in enumerate(rows):
        found.append({"step": step} | row)
        if is_looked_at(step):
            found.append({"step": step} | {name.replace("__", "/"): course(step) for name, course in courses.items()})
    return {}, found


def autoencoder(steps: int, seed: int = 1) -> list[Row]:
    """Reconstruction and divergence of digits, in nats."""
    rows = lean(healthy(steps, seed=seed, noise=0.03), *UNKNOWN_LOSS)
    for row in rows:
        row["loss"] = 24 + 8 * row["loss"]
    return rows


@silent("latent-unused")
def code_that_is_used() -> Trace:
    return coded(
        autoencoder(240),
        kl=lambda step: 0.08 + 1.7 * (1 - math.exp(-step / 90)),
        code__active_units=lambda step: float(min(8, step // 16)),
    )


@silent("latent-unused")
def weight_raised_from_zero() -> Trace:
    """What is recorded is the product of a rising weight and the divergence."""
    return coded(autoencoder(260, seed=2), kl_loss=lambda step: 0.0 if step < 40 else 8.0 * (step - 40) / 4000)


@silent("latent-unused")
def student_of_a_teacher() -> Trace:
    """A divergence that shall be small, and was large."""
    rows = lean(healthy(300, seed=7), *KEPT)
    return coded(rows, train__kl=lambda step: 3.0 * math.exp(-step / 20) + 0.0005)


@silent("latent-unused")
def averaged_over_pixels() -> Trace:
    """Loss and divergence are divided by the number of pixels: what counts is their ratio."""
    rows = autoencoder(240, seed=3)
    for row in rows:
        row["loss"] /= 784
    return coded(rows, kl=lambda step: (0.08 + 1.7 * (1 - math.exp(-step / 90))) / 784)


# --- faults -----------------------------------------------------------------------------------------


@fires("attention-saturated", by=4)
def products_four_hundred_times_too_large() -> Trace:
    chance = random.Random(8)
    return attentions(language(120), lambda place, step: (0.012 * math.exp(chance.gauss(0, 0.5)), 500.0))


@fires("attention-saturated", by=256)
def saturated_after_a_while() -> Trace:
    def looks(place: int, step: int) -> tuple[float, float]:
        grown = min(max(step - 40, 0) / 60, 1)
        return 0.9 * (1 - grown) + 0.01, 2 + 200 * grown

    return attentions(language(260), looks)


@fires("attention-logits-growing", by=224)
def logits_without_bound() -> Trace:
    def looks(place: int, step: int) -> tuple[float, float]:
        return 0.99 - 0.85 * min(step / 200, 1), (1.3 + 0.1 * place) * math.exp(step / 45)

    return attentions(language(240), looks)


@fires("attention-logits-growing", by=260)
def one_of_two() -> Trace:
    def looks(place: int, step: int) -> tuple[float, float]:
        return learns(9)(place, step) if place else (0.9 / (1 + step / 100), 2 + 0.3 * step)

    return attentions(language(290), looks)


@fires("attention-uniform", by=330)
def lost_what_it_had_learned() -> Trace:
    def looks(place: int, step: int) -> tuple[float, float]:
        return learns(10)(place, step) if step < 150 else (0.9992, 0.2)

    return attentions(language(340), looks)


@fires("attention-uniform", by=330)
def decayed_to_a_mean() -> Trace:
    def looks(place: int, step: int) -> tuple[float, float]:
        return 0.999 - 0.4 * math.exp(-(((step - 64) / 40) ** 2)), 0.3 + 9 * math.exp(-(((step - 64) / 40) ** 2))

    return attentions(language(360, seed=2), looks)


@fires("representation-collapsed", by=160)
def no_stop_gradient() -> Trace:
    return represented(similarity(0.94, 200), lambda step: (0.8, 2.5 + 7 * math.exp(-step / 16)))


@fires("representation-collapsed", by=96)
def no_stop_gradient_and_no_normalisation() -> Trace:
    return represented(
        similarity(0.995, 120, seed=3), lambda step: (0.25 + 0.55 * math.exp(-step / 8), 2.2 + 7 * math.exp(-step / 10))
    )


@silent("representation-collapsed")
def narrow_for_a_while() -> Trace:
    """The rank falls to a third before the similarity is reached, and rises again."""
    return represented(
        similarity(0.84, 260, seed=4), lambda step: (0.8, 8.3 - 5.8 * min(step / 30, 1) + 1.2 * min(step / 200, 1))
    )


@fires("representation-collapsed", by=50)
def fourteen_sigmoid_layers() -> Trace:
    rows = lean(healthy(64), *KEPT)
    for row in rows:
        row["loss"] = 2.31 + 0.02 * math.sin(13 * row["gradient_norm"])
    return represented(rows, lambda step: (0.0004, 1.3))


@fires("representation-collapsed", by=96)
def named_and_flat() -> Trace:
    rows = similarity(0.999, 120, seed=2)
    return coded(
        rows,
        encoder__spread=lambda step: 0.009 + 0.5 * math.exp(-step / 6),
        encoder__rank=lambda step: 1.2 + 9 * math.exp(-step / 6),
    )


@fires("latent-unused", by=160)
def divergence_weighs_too_much() -> Trace:
    return coded(
        autoencoder(200, seed=4),
        kl=lambda step: 0.0012 + 0.08 * math.exp(-step / 10),
        code__active_units=lambda step: 0.0,
    )


@fires("latent-unused", by=160)
def only_the_divergence_was_recorded() -> Trace:
    chance = random.Random(11)
    return coded(
        autoencoder(200, seed=5),
        train__kl_loss=lambda step: (0.001 + 0.08 * math.exp(-step / 8)) * math.exp(chance.gauss(0, 0.1)),
    )


@fires("latent-unused", by=160)
def code_that_carries_too_little() -> Trace:
    """Nineteen thousand items take 9.9 nats; 3.4 tell thirty of them apart."""
    return coded(
        autoencoder(240, seed=8),
        validation__kl=lambda step: 3.4 + 15.0 * math.exp(-step / 12),
        validation__nats_needed=lambda step: 9.888,
    )


@silent("latent-unused")
def code_that_carries_enough() -> Trace:
    return coded(
        autoencoder(240, seed=9),
        validation__kl=lambda step: 18.0 + 12.0 * math.exp(-step / 60),
        validation__nats_needed=lambda step: 9.888,
    )


@fires("latent-unused", by=260)
def code_that_was_used_once() -> Trace:
    return coded(autoencoder(280, seed=6), code__active_units=lambda step: 5.0 if 8 < step < 90 else 0.0)
