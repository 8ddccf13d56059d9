"""Losses of several batches are added up for one update, and nobody divides by their number.

How it shows. From one step on loss and gradient norm are a whole multiple of what they were, together, and stay there
(`loss-scale-changed`): the number of batches in an update has changed, or the division was forgotten.

Why the weights. Loss and gradient that jump by the same factor at the same step say that only the unit has changed:
+22. A factor below 1.8 is no number of batches: -8. No such jump where it was judged: -22. A sum in the loss function
itself is a neighbour that shows from the first step on: -12.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="accumulation-not-averaged",
    summary="Losses of several batches are added up for one update, and nobody divides by their number.",
    gate=Gate.METRIC,
    prior=-10.0,
    evidence=(
        Weight(
            "loss-scale-changed", 22.0, when=shared.GRAVE,
            why="loss and gradient jumped by the same factor at the same step",
        ),
        Weight(
            "loss-scale-changed", -8.0, when=(Condition("factor", "<", 1.8),), why="the factor is no number of batches"
        ),
        Weight("loss-scale-changed", -22.0, absent=True, why="the unit of the loss has not changed"),
        Weight(
            "loss-far-from-chance", -12.0, when=(Condition("loss_terms", ">", 1.0),),
            why="the loss function itself adds up its terms",
        ),
    ),
    probe="loss-does-not-depend-on-the-number-of-batches",
    remedies=(
        Remedy(kind="text", text="divide each loss by the number of batches in an update before `backward`"),
        Remedy(
            kind="text",
            text="where batches hold different numbers of tokens, add sums up and divide once by the number of tokens",
        ),
    ),
    settings=("*accumul*", "*micro_batch*", "*world_size*"),
)  # fmt: skip
