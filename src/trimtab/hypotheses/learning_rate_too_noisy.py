"""The steps are too long for how much the batches differ: each update undoes what the one before did.

How it shows. `oscillating`: the loss swings around a level and gets no further, consecutive gradients point against
each other, updates are long; the training neither blows up nor comes to rest.

Why the weights. A loss that swings and does not fall: +20. Gradients that were seen to point against each other: +3.
Long updates are its means: +4. A gradient that explodes, a loss that diverges or has never been better than at the
start belongs to a rate that is too high whatever the batches: -10, once. Labels in order make the loss swing too: -15.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="learning-rate-too-noisy",
    summary="The steps are too long for how much the batches differ: updates undo each other.",
    gate=Gate.SETTINGS,
    prior=-9.0,
    evidence=(
        Weight("oscillating", 20.0, when=shared.GRAVE, why="the loss swings and gets no further"),
        Weight(
            "oscillating", 3.0, when=(Condition("gradient_cosine", "<=", -0.1),),
            why="consecutive gradients point against each other",
        ),
        Weight("update-too-large", 4.0, when=shared.GRAVE, why="updates are long"),
        Weight("gradient-exploding", -10.0, when=shared.GRAVE, family="blow-up", why="the gradient explodes"),
        Weight("loss-diverging", -10.0, when=shared.GRAVE, family="blow-up", why="the loss rises and stays up"),
        Weight(
            "never-better-than-start", -10.0, when=shared.GRAVE, family="blow-up",
            why="the loss has never been better than at the start",
        ),
        Weight("labels-sorted", -15.0, when=shared.GRAVE, why="labels in order make the loss swing"),
    ),
    probe="larger-batches-calm-the-loss",
    remedies=(
        Remedy(kind="config", text="divide the learning rate by 3: `lr`", change={"lr": "/ 3"}),
        Remedy(
            kind="config",
            text="or take larger batches, or accumulate over several: `batch_size`",
            change={"batch_size": "x 4"},
        ),
        Remedy(kind="text", text="let the rate fall towards the end, or average the weights of the last steps"),
    ),
    settings=("*lr", "*learning_rate*", "*learning-rate*", "*batch_size*", "*momentum"),
)  # fmt: skip
