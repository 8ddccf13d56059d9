"""Squashing layers are driven to their ends, where their slope is next to nothing.

How it shows. Nearly all values of a tanh or sigmoid stand at its ends (`saturated-units`), often from the first update
on; the layers before it get little gradient (`gradient-vanishing`).

Why the weights. Saturated layers are the finding itself: +21 from the first look on, +16 later, while the loss did not
fall. A gradient that fades on its way to the first layers agrees: +4. Inputs that were never scaled saturate the first
layer by themselves: -12. A gradient that explodes saturates layers later on: -8.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy, Severity

HYPOTHESIS = Hypothesis(
    cause="activations-saturate",
    summary="Squashing layers (tanh, sigmoid) are driven to their ends, where their slope is next to nothing.",
    gate=Gate.REST,
    prior=-9.0,
    evidence=(
        Weight(
            "saturated-units", 21.0, when=(Condition("from_start", "==", 1.0), *shared.GRAVE), family="saturated",
            why="a layer was saturated from the first look on",
        ),
        Weight(
            "saturated-units", 16.0, when=shared.GRAVE, family="saturated",
            why="a layer is saturated while the loss has not fallen",
        ),
        Weight(
            "gradient-vanishing", 4.0, when=shared.GRAVE,
            why="the gradient fades on its way to the first layers",
        ),
        Weight(
            "inputs-unscaled", -12.0, when=shared.GRAVE, family="what drove them there",
            why="inputs that are far too large saturate the first layer by themselves",
        ),
        Weight(
            "gradient-exploding", -8.0, when=(Condition("severity", ">=", Severity.ERROR),),
            family="what drove them there",
            why="weights that blow up saturate whatever comes after them",
        ),
    ),
    probe="activations-keep-their-scale",
    remedies=(
        Remedy(kind="text", text="begin with smaller weights: Xavier initialisation with the gain of the activation"),
        Remedy(kind="text", text="put a normalisation before the activation, or use ReLU or GELU inside the network"),
        Remedy(kind="text", text="bring the inputs to mean 0 and deviation 1"),
    ),
    settings=("*activation*", "*gain*"),
)  # fmt: skip
