"""What is to be predicted can be read off the inputs, or the test examples were among those trained on.

How it shows. `better-than-possible`: a metric lies beyond the ceiling that was declared for it, or the loss falls from
chance to nothing within a few updates, faster than anything is learned.

Why the weights. A result beyond what is possible, as somebody knew who knows the data: +26. A loss that falls at once:
+14, for a task may be that easy. A loader that repeats one batch makes the loss fall as well: -20.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="target-leaks-into-input",
    summary="The target can be read off the inputs, or the test examples were among those trained on.",
    gate=Gate.DATA,
    prior=-10.0,
    evidence=(
        Weight(
            "better-than-possible", 26.0, when=(Condition("declared", "==", 1.0),), family="too good",
            why="the result lies beyond what was declared to be possible",
        ),
        Weight(
            "better-than-possible", 14.0, when=(Condition("declared", "==", 0.0),), family="too good",
            why="the loss fell faster than anything is learned",
        ),
        Weight(
            "same-batch-repeated", -20.0, when=shared.GRAVE, why="a single batch is learned by heart at once"
        ),
    ),
    probe="no-single-input-predicts-the-target",
    remedies=(
        Remedy(kind="text", text="predict the target from each input alone: one that suffices is the leak"),
        Remedy(kind="text", text="look for examples, persons or times that stand on both sides of the split"),
        Remedy(kind="text", text="see that a decoder cannot look at the token that it is to predict"),
    ),
    settings=("*feature*", "*mask*"),
)  # fmt: skip
