"""The backward pass of one module makes numbers that are not finite, while the loss and the forward pass are right.

How it shows. `gradient-not-finite` under a finite loss; the tensors nearer to the loss than the module have right
gradients, the ones behind it are broken. One update later the weights are lost and the loss is NaN as well, which is a
consequence. A half-precision overflow, a custom backward, a norm or root at zero inside the network.

Why the weights. A finite loss with right gradients near it and broken ones further away leaves a module between: +22.
All of them broken points to the loss instead: -8. Where the loss broke with the gradient (-20), the input was broken
(-25), the weights had been lost before (-20) or the update before was long (-15), it did not begin in the module; of
these one counts. Beside an explosion such numbers come by themselves: -10.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import NONFINITE, Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="backward-fault-in-one-module",
    summary="The backward pass of one module makes gradients that are not finite, while the loss is right.",
    gate=Gate.REST,
    prior=-12.0,
    evidence=(
        Weight(
            "gradient-not-finite", 22.0, when=shared.PART_SURELY_BROKEN, family="part",
            why="the loss is finite, the gradients nearest to it are right and others hold broken elements",
        ),
        Weight(
            "gradient-not-finite", 15.0, when=shared.PART_BROKEN, family="part",
            why="the loss is finite, the gradients nearest to it are right and others are broken",
        ),
        Weight(
            "gradient-not-finite", -8.0, when=shared.ALL_BROKEN, family="elsewhere",
            why="every gradient is broken, the ones nearest to the loss included",
        ),
        Weight(
            "gradient-not-finite", -20.0, when=(Condition("loss", "is", NONFINITE),), family="elsewhere",
            why="the loss broke with the gradient",
        ),
        Weight(
            "gradient-not-finite", -25.0, when=shared.INPUT_BROKEN, family="elsewhere",
            why="the input is not finite",
        ),
        Weight("loss-not-finite", -25.0, when=shared.INPUT_BROKEN, family="elsewhere", why="the input is not finite"),
        Weight(
            "gradient-not-finite", -20.0, when=shared.WEIGHTS_LOST, family="elsewhere",
            why="the weights were lost before",
        ),
        Weight(
            "gradient-not-finite", -15.0, when=shared.LONG_STEP, family="elsewhere",
            why="the update before replaced a tenth of the weights or more",
        ),
        Weight("gradient-exploding", -10.0, why="a training that blows up reaches such numbers by itself"),
    ),
    probe="gradients-match-finite-differences",
    remedies=(
        Remedy(
            kind="text",
            text="look at the module whose tensor the finding names: a root, norm or division at zero, an overflow in "
            "half precision, a backward of its own; `torch.autograd.set_detect_anomaly(True)` names the line",
        ),
        Remedy(
            kind="runtime",
            text="stop before the weights are lost: `respond={'gradient-not-finite': Stop()}`",
            change={"gradient-not-finite": "stop"},
        ),
    ),
)  # fmt: skip
