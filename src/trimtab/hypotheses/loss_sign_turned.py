"""The loss, or a term of it, has the wrong sign, so that it can fall without an end.

How it shows. Of a loss function with a minus before it the graph says so, and the loss falls below zero
(`loss-does-not-fit-targets`, kind "loss negated"). Of a term with the wrong sign only the end is seen: the loss is
below minus a million when the gradients break.

Why the weights. A turned loss that falls further is an ascent on purpose or this: +28. Log-densities of images reach
minus ten thousand and stay there; minus a million with gradients that are not finite has no floor: +20, and no larger,
for a density that shrinks onto single points falls so too. Judged and silent counts nothing, since terms are not read.
"""

from __future__ import annotations

from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy, Severity

HYPOTHESIS = Hypothesis(
    cause="loss-sign-turned",
    summary="The loss, or a term of it, has the wrong sign, so that it can fall without an end.",
    gate=Gate.METRIC,
    prior=-12.0,
    evidence=(
        Weight(
            "loss-does-not-fit-targets", 28.0,
            when=(Condition("kind", "==", "loss negated"), Condition("severity", ">=", Severity.WARNING)),
            why="the loss is multiplied by a negative number, and falls below zero",
        ),
        Weight(
            "gradient-not-finite", 20.0, when=(Condition("loss", "<", -1e6), Condition("loss", ">", -1e300)),
            why="the loss is finite and below minus a million: it has no floor",
        ),
    ),
    probe="loss-has-a-floor",
    remedies=(
        Remedy(kind="text", text="take out the minus before the loss, or before the term of it that falls and falls"),
        Remedy(kind="text", text="for an ascent that is meant: `--ignore loss-does-not-fit-targets`"),
    ),
    settings=("*criterion*", "*loss_fn*"),
)  # fmt: skip
