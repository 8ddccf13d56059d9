"""The number that is reported as loss is NaN or infinite, while the gradients, and so the training, are right.

How it shows. `logged-loss-not-finite`, with a finite gradient norm at the same update: something without a gradient, a
constant or a term of weight zero, was added to the loss. The weights stay whole and the metrics go on improving.

Why the weights. A NaN that takes part in the gradient makes the gradient NaN; a finite gradient under a NaN loss is
close to a proof: +28. A gradient that is broken too refutes it: -30, said by either finding (one family). A gradient
that is finite but about to overflow belongs to a blow-up and counts nothing; the blow-up itself: -15.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="only-the-logged-loss-is-broken",
    summary="The reported loss is not a number, while the gradients and the training are right.",
    gate=Gate.METRIC,
    prior=-13.0,
    evidence=(
        Weight(
            "logged-loss-not-finite", 28.0,
            why="the gradient of the same update is finite and calm",
        ),
        Weight(
            "loss-not-finite", -30.0, when=shared.GRADIENT_BROKEN, family="gradient",
            why="the gradient broke with the loss",
        ),
        Weight("gradient-not-finite", -30.0, family="gradient", why="a gradient is not finite"),
        Weight("gradient-exploding", -15.0, why="the training itself blows up"),
    ),
    probe="loss-without-its-constants-is-finite",
    remedies=(
        Remedy(
            kind="text",
            text="leave terms without a gradient out of the loss: log them beside it, look for 0 x inf",
        ),
        Remedy(kind="text", text="do not stop or roll back for it: the weights are right"),
    ),
)  # fmt: skip
