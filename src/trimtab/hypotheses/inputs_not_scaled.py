"""The inputs are not scaled: they reach the first layer with means or deviations of dozens to thousands.

How it shows. At the very first step the inputs are large and the loss is far above chance or the gradient dozens of
times the loss (`inputs-unscaled`). Weights that are too large show the same loss with ordinary inputs.

Why the weights. Large inputs together with a start that feels them: +24. The loss far above chance, which follows from
it: +3. Judged and silent, the inputs were in order or were normalised at once: -25.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="inputs-not-scaled",
    summary="The inputs are not scaled: they reach the first layer with means or deviations of dozens to thousands.",
    gate=Gate.DATA,
    prior=-11.0,
    evidence=(
        Weight(
            "inputs-unscaled", 24.0, when=shared.GRAVE,
            why="the inputs are large, and the first loss or gradient feels it",
        ),
        Weight("loss-far-from-chance", 3.0, when=shared.GRAVE, why="the first loss is far above that of a guess"),
        Weight("inputs-unscaled", -25.0, absent=True, why="the inputs were in order"),
    ),
    probe="standardised-inputs-start-at-chance",
    remedies=(
        Remedy(
            kind="text",
            text="standardise: subtract the mean of each feature over the training data and divide by its deviation",
        ),
        Remedy(kind="text", text="use the same numbers for validation, and save them with the model"),
        Remedy(kind="text", text="or begin the network with a normalisation layer"),
    ),
    settings=("*preprocess*", "*scaler*", "*.rescale*"),
)  # fmt: skip
