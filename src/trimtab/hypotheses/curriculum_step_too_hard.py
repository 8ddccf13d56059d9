"""The data became harder at once, by more than the model could follow.

How it shows. Between two updates the loss rises most of the way back, not all of it, and does not come down again
(`labels-unrelated` below 0.95): part of what was learned still helps. An announced step is excused and shows as info.

Why the weights. A jump that leaves something of what was learned: +20; one that leaves nothing speaks of other data:
+9. A loss or a metric that turned for the worse goes with it: +2, once. Long updates are another story: -15.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="curriculum-step-too-hard",
    summary="The data became harder at once, by more than the model could follow.",
    gate=Gate.DATA,
    prior=-12.0,
    evidence=(
        Weight(
            "labels-unrelated", 20.0, when=(Condition("measured", "<", 0.95),), family="jump",
            why="the loss rose at once and stayed, below that of a guess",
        ),
        Weight(
            "labels-unrelated", 9.0, when=(Condition("measured", ">=", 0.95),), family="jump",
            why="the loss rose at once and stayed",
        ),
        Weight("loss-diverging", 2.0, family="worse", why="the loss turned for the worse"),
        Weight("metric-dropped", 2.0, family="worse", why="the metric turned for the worse"),
        Weight(
            "gradient-exploding", -15.0, when=shared.LONG_STEP, why="single updates replaced a good part of the weights"
        ),
    ),
    probe="easier-data-restores-the-loss",
    remedies=(
        Remedy(kind="text", text="step back to the easier data, and mix the harder ones in little by little"),
        Remedy(kind="text", text="raise the difficulty when a metric is reached, not at a step of the clock"),
        Remedy(kind="text", text="announce the step: `guard.note('curriculum', steps=200)`"),
    ),
    settings=("*curriculum*", "*difficult*"),
)  # fmt: skip
