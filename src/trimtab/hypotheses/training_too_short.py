"""The training was on its way and had not enough of it: too few updates, or too small ones.

How it shows. A declared milestone was missed, while the metric was still improving or the weights have hardly moved,
and nothing else is wrong. A learning rate far too low is the same thing: too little movement in the time given.

Why the weights. A metric that had come a good part of the way and was still improving: +14; improving, but only just
(noise does that once in a while): +6; at rest, though its best value is its latest: +3; best value long ago, or a
metric that rests near where it began: -10. These exclude one another. The way that the weights went, the typical update
times their number, is less than a fifth of themselves: +12, for a fresh network has to go further; a good way went
without progress: -8. Another fault explains the miss by itself: -15, once, whichever it is.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="training-too-short",
    summary="The training was on its way: it had too few updates, or too small ones.",
    gate=Gate.BUDGET,
    prior=-9.0,
    evidence=(
        Weight(
            "milestone-missed", 14.0, when=(shared.IMPROVING, shared.ON_ITS_WAY), family="trend",
            why="the metric had come a good part of the way and was still improving",
        ),
        Weight("milestone-missed", 6.0, when=(shared.IMPROVING,), family="trend", why="the metric was still improving"),
        Weight(
            "milestone-missed", 3.0, when=(shared.AT_REST, Condition("best_step", ">=", 0.9, of="since_step")),
            family="trend", why="the best value is the latest one",
        ),
        Weight(
            "milestone-missed", -10.0, when=(shared.AT_REST, Condition("best_step", "<", 0.9, of="since_step")),
            why="the best value was reached long before",
        ),
        Weight(
            "milestone-missed", 12.0, when=(shared.HARDLY_MOVED,), family="movement",
            why="the weights have hardly moved",
        ),
        Weight(
            "milestone-missed", -8.0, when=(shared.MOVED, shared.NOT_ON_ITS_WAY), family="movement",
            why="the weights went a good way without progress",
        ),
        Weight(
            "metric-stuck-below-target", -10.0, when=(shared.NOT_ON_ITS_WAY,),
            why="the metric rests near where it began",
        ),
        *shared.other_faults(-15.0),
    ),
    probe="longer-training-reaches-the-milestone",
    remedies=(
        Remedy(kind="config", text="train longer, and give the schedule the new length", change={"steps": "x 2"}),
        Remedy(
            kind="config",
            text="multiply the learning rate by 3, and see that a warm-up ends early in the run: `lr`",
            change={"lr": "x 3"},
        ),
    ),
    settings=("*steps", "*epochs", "*lr", "*learning_rate*", "*warmup*", "*batch_size"),
)  # fmt: skip
