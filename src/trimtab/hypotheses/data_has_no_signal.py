"""The targets cannot be predicted from the inputs: shuffled labels, rows joined with a shift, random data.

How it shows. A declared milestone on held-out data was missed, the metric is at rest although the weights moved, and
everything else was judged and is in order: batches differ, the loss is right, nothing blows up.

Why the weights. A miss at rest: +10; a loss at rest at chance, though the weights move: +14; a metric at rest near
where it began: +6 (one family). A metric that had come a good part of the way speaks of a signal: -15. Weights that
went a good way without it: +6; weights that hardly moved, or updates too small to move them, have not tried yet: -14.
Each rule that judged and stayed silent takes another explanation away, +1 or +2; where it could not judge it counts
nothing and is listed. A metric that had been better before, or a code that carries too little, explains the miss in
part: -8, once. Another fault found explains the miss better: -25, once, for data are blamed last although they
are looked at first.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="data-has-no-signal",
    summary="The targets cannot be predicted from the inputs: shuffled labels, rows joined wrongly, or random data.",
    gate=Gate.DATA,
    prior=-11.0,
    evidence=(
        Weight(
            "milestone-missed", 10.0, when=(shared.AT_REST,), family="trend",
            why="the metric came to rest far from where it should be",
        ),
        Weight(
            "milestone-missed", 2.0, when=(shared.NOT_ON_ITS_WAY,), family="trend",
            why="the metric has hardly left where it began",
        ),
        Weight(
            "loss-at-chance", 14.0, when=shared.GRAVE, family="trend",
            why="the loss rests at that of a guess that knows nothing, though the weights move",
        ),
        Weight(
            "metric-stuck-below-target", 6.0, when=(shared.NOT_ON_ITS_WAY,), family="trend",
            why="the metric rests near where it began",
        ),
        Weight(
            "milestone-missed", -15.0, when=(shared.ON_ITS_WAY,), why="the metric had come a good part of the way"
        ),
        Weight("milestone-missed", 6.0, when=(shared.MOVED,), family="movement", why="the weights went a good way"),
        Weight(
            "milestone-missed", -14.0, when=(shared.HARDLY_MOVED,), family="movement",
            why="the weights have hardly moved",
        ),
        Weight("parameters-never-changed", 2.0, absent=True, why="the parameters move"),
        Weight("parameters-outside-optimizer", 1.0, absent=True, why="an optimizer holds every parameter"),
        Weight("learning-rate-zero", 1.0, absent=True, why="the learning rate is not zero"),
        Weight("same-batch-repeated", 2.0, absent=True, why="the batches differ"),
        Weight("gradients-accumulate", 1.0, absent=True, why="the gradients are cleared"),
        Weight("double-softmax", 1.0, absent=True, why="the loss gets raw scores"),
        Weight("gradient-exploding", 2.0, absent=True, why="the training does not blow up"),
        Weight(
            "update-too-small", -14.0, when=shared.GRAVE, family="movement", why="updates change next to nothing"
        ),
        Weight("past-its-peak", -8.0, when=shared.GRAVE, family="in part", why="the metric had been better before"),
        Weight("latent-unused", -8.0, when=shared.GRAVE, family="in part", why="the code carries too little"),
        *shared.other_faults(-25.0),
    ),
    probe="data-is-learnable",
    remedies=(
        Remedy(
            kind="text",
            text="print twenty inputs with their targets as the loss gets them, and check the pairs by eye",
        ),
        Remedy(
            kind="text",
            text="look where inputs and targets are shuffled, sorted or joined: both must move together",
        ),
    ),
    settings=("*data*", "*label*", "*shuffle*", "*split*"),
)  # fmt: skip
