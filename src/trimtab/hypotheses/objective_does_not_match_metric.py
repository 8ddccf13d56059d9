"""The loss asks for something else than the metric: what lowers the one makes the other worse.

How it shows. `past-its-peak`: the metric was best long ago and has got worse since, while the loss falls, that of the
training and that of the metric's own data alike. A loss on the means of groups, for instance, has nothing to say about
single examples.

Why the weights. A metric that gets worse on data whose loss gets better is the definition: +26. Without a loss of its
own data it may just as well be over-fitting, which is more common: +6, one family. A blow-up, or layers in the wrong
mode, spoil a metric by themselves: -15, once.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="objective-does-not-match-metric",
    summary="The loss asks for something else than the metric: what lowers the one makes the other worse.",
    gate=Gate.METRIC,
    prior=-9.0,
    evidence=(
        Weight(
            "past-its-peak", 26.0, when=(Condition("held_out", "<", 0.98, of="held_out_then"), *shared.GRAVE),
            family="apart",
            why="the metric got worse on data whose loss got better",
        ),
        Weight("past-its-peak", 6.0, when=shared.GRAVE, family="apart", why="the metric turned while the loss fell"),
        Weight(
            "gradient-exploding", -15.0, when=shared.GRAVE, family="another fault",
            why="a blow-up spoils a metric by itself",
        ),
        Weight(
            "modules-in-wrong-mode", -15.0, when=shared.GRAVE, family="another fault",
            why="training or evaluation ran in the wrong mode",
        ),
    ),
    probe="loss-and-metric-agree",
    remedies=(
        Remedy(kind="text", text="change the loss, not the number of epochs: let it see what the metric sees"),
        Remedy(kind="text", text="judge single examples, not means of groups, and leave a band that costs nothing"),
        Remedy(kind="text", text="until then keep the weights with the best metric"),
    ),
    settings=("*objective*", "*loss_on*"),
)  # fmt: skip
