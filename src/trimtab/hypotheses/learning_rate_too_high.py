"""The learning rate is too high: each update overshoots, and makes the next one larger.

How it shows. The first loss is what it should be; then single updates replace a good part of the weights, loss and
gradient grow (`gradient-exploding`), and numbers may stop being finite within a few steps.

Why the weights. An update that replaces a tenth of the weights, followed by growth or by NaN, is the mark of a step
that is too long: +18, whichever finding carries it (one family); updates that stay that long, with no growth to show
for it, say a little less: +16; an explosion without any says less still: +8. NaN in loss and gradient is how blow-ups
end: +5, but after a small update it came from elsewhere: -15. What makes long steps at
any rate speaks against the rate, the strongest of them once: weights or inputs too large before the first update
(-20), a loss that is a sum (-20), gradients that are never cleared (-20). So does a fault that has a place of its own:
a broken input, a loss whose number alone is broken, a gradient broken in a part of the network only (-25, once). A
first loss in order, judged, is what one expects: +3.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="learning-rate-too-high",
    summary="The learning rate is too high: each update overshoots, and makes the next one larger.",
    gate=Gate.SETTINGS,
    prior=-7.0,
    evidence=(
        Weight(
            "gradient-exploding", 18.0, when=shared.LONG_STEP, family="blow-up",
            why="a single update replaces a tenth of the weights or more, and the loss grows",
        ),
        Weight(
            "loss-not-finite", 18.0, when=(*shared.LONG_STEP, *shared.GRADIENT_BROKEN), family="blow-up",
            why="the update before replaced a tenth of the weights or more",
        ),
        Weight(
            "gradient-not-finite", 18.0, when=shared.LONG_STEP, family="blow-up",
            why="the update before replaced a tenth of the weights or more",
        ),
        Weight(
            "update-too-large", 16.0, when=(Condition("other_groups", ">=", 0.3), *shared.GRAVE), family="blow-up",
            why="updates keep replacing a good part of the weights, in every group",
        ),
        Weight(
            "update-too-large", 16.0, when=(Condition("groups", "==", 1.0), *shared.GRAVE), family="blow-up",
            why="updates keep replacing a good part of the weights",
        ),
        Weight("gradient-exploding", 8.0, family="blow-up", why="the gradient grows far beyond what it was"),
        Weight(
            "loss-not-finite", 5.0, when=shared.GRADIENT_BROKEN,
            why="a training that blows up ends in such numbers",
        ),
        Weight(
            "loss-not-finite", -15.0, when=(*shared.SHORT_STEP, *shared.GRADIENT_BROKEN), family="small step",
            why="the update before was small",
        ),
        Weight(
            "gradient-not-finite", -15.0, when=shared.SHORT_STEP, family="small step", why="the update before was small"
        ),
        Weight("loss-far-from-chance", 3.0, absent=True, why="the first loss was in order"),
        Weight(
            "loss-far-from-chance", -20.0, when=(Condition("measured", ">=", 3.0),), family="long at any rate",
            why="the loss was too high before the first update",
        ),
        Weight(
            "gradient-exploding", -20.0, when=shared.STEEP_FIRST, family="long at any rate",
            why="the gradient was far too large before the first update",
        ),
        Weight(
            "gradient-exploding", -20.0, when=shared.A_SUM, family="long at any rate",
            why="the loss is a sum, which makes long steps at any rate",
        ),
        Weight(
            "inputs-unscaled", -20.0, when=shared.GRAVE, family="long at any rate",
            why="inputs that are not scaled make long steps at any rate",
        ),
        Weight(
            "gradients-accumulate", -20.0, family="long at any rate",
            why="gradients that are never cleared make long steps at any rate",
        ),
        Weight(
            "logged-loss-not-finite", -25.0, family="elsewhere",
            why="the gradient is calm: only the number of the loss is broken",
        ),
        Weight("loss-not-finite", -25.0, when=shared.INPUT_BROKEN, family="elsewhere", why="the input is not finite"),
        Weight(
            "gradient-not-finite", -25.0, when=shared.INPUT_BROKEN, family="elsewhere",
            why="the input is not finite",
        ),
        Weight(
            "gradient-not-finite", -25.0, when=shared.PART_SURELY_BROKEN, family="elsewhere",
            why="only a part of the gradients broke, under a finite loss",
        ),
    ),
    probe="smaller-learning-rate-trains",
    remedies=(
        Remedy(kind="config", text="divide the learning rate by 10: `lr`", change={"lr": "/ 10"}),
        Remedy(
            kind="runtime",
            text="stop when it blows up again: `respond={'gradient-exploding': Stop()}`",
            change={"gradient-exploding": "stop"},
        ),
        Remedy(kind="text", text="warm the rate up over the first updates, and clip the gradient near its usual norm"),
    ),
    settings=("*lr", "*learning_rate*", "*learning-rate*", "*warmup*", "*momentum", "*clip*", "*optimizer*.class"),
)  # fmt: skip
