"""Units of the network died: no input makes them active any more, so nothing brings them back.

How it shows. A whole layer of rectifiers gives zeros (`dead-units`); the layers before it get no gradient
(`parameters-never-changed`, `graph-detached` where nothing comes through at all), and the loss stays where it is.

Why the weights. Dead units are the finding itself: +21 where they were dead from the first look on, for then nothing
else has to explain it; +14 where they died later, for long steps and broken data kill units too. A gradient of exactly
zero in trainable tensors agrees: +4. What kills units speaks for itself (one family, once): an explosion -8, inputs
that were never scaled -12, a loss far above chance at the first step -8.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="units-died",
    summary="Units of the network died: no input makes them active any more, so nothing brings them back.",
    gate=Gate.REST,
    prior=-9.0,
    evidence=(
        Weight(
            "dead-units", 21.0, when=(Condition("from_start", "==", 1.0), *shared.GRAVE), family="dead",
            why="nearly all units of a layer were dead from the first look on",
        ),
        Weight("dead-units", 14.0, when=shared.GRAVE, family="dead", why="nearly all units of a layer are dead"),
        Weight(
            "parameters-never-changed", 4.0, when=(Condition("gradient_zero", ">", 0.0), *shared.GRAVE),
            why="the gradient of some tensors is exactly zero",
        ),
        Weight("gradient-exploding", -8.0, when=shared.GRAVE, family="what killed them", why="long steps kill units"),
        Weight(
            "inputs-unscaled", -12.0, when=shared.GRAVE, family="what killed them",
            why="inputs far from zero kill units",
        ),
        Weight(
            "loss-far-from-chance", -8.0, when=(Condition("measured", ">=", 3.0),), family="what killed them",
            why="the first loss was far too high, so the first weights or inputs are too large",
        ),
    ),
    probe="every-unit-is-active-for-some-input",
    remedies=(
        Remedy(kind="text", text="look at how the biases before the dead layer begin; zero is the usual value"),
        Remedy(kind="config", text="divide the learning rate by 10, or warm it up: `lr`", change={"lr": "/ 10"}),
        Remedy(kind="text", text="use LeakyReLU or GELU, or put a normalisation before the activation"),
    ),
    settings=("*activation*", "*negative_slope*"),
)  # fmt: skip
