"""The loss itself computes something that has no number: a logarithm or a division of zero, a root at zero.

How it shows. At one update the loss turns NaN or infinite and the gradient with it, out of a calm training, while the
input and the weights were finite. Or the loss is still finite and only its slope is not (a root at zero): then the
gradient of every tensor is broken, the ones nearest to the loss included.

Why the weights. Loss and gradient broken together with whole weights: +14, or +6 where the weights were not looked at;
the gradients of all tensors broken under a finite loss: +16; these say where it began (one family). A small update
just before, or a training that was judged and calm, speaks for a fault of the moment: +5 and +3. Gradients that are
right nearest to the loss: -10. A finite gradient, a broken input, a long update or lost weights before put the
beginning elsewhere: -20 to -25, once. Where the training was blowing up, such numbers come by themselves: -12.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="numerical-fault-in-loss",
    summary="The loss computes something that has no number, such as the logarithm of zero.",
    gate=Gate.REST,
    prior=-10.0,
    evidence=(
        Weight(
            "loss-not-finite", 14.0, when=(*shared.GRADIENT_BROKEN, Condition("nonfinite_weights", "==", 0.0)),
            family="onset", why="loss and gradient broke at the same update, and the weights were whole",
        ),
        Weight(
            "loss-not-finite", 6.0, when=shared.GRADIENT_BROKEN, family="onset",
            why="loss and gradient are broken together",
        ),
        Weight(
            "gradient-not-finite", 16.0, when=(shared.LOSS_WHOLE, *shared.ALL_BROKEN), family="onset",
            why="the gradient of every tensor is broken under a finite loss: it began in the loss",
        ),
        Weight(
            "loss-not-finite", 5.0, when=shared.SHORT_STEP, family="calm", why="the update before was small"
        ),
        Weight("gradient-not-finite", 5.0, when=shared.SHORT_STEP, family="calm", why="the update before was small"),
        Weight("gradient-exploding", 3.0, absent=True, why="the training was calm before"),
        Weight("gradient-exploding", -12.0, why="a training that blows up reaches such numbers by itself"),
        Weight(
            "gradient-not-finite", -10.0, when=shared.PART_BROKEN, why="the gradients nearest to the loss are right"
        ),
        Weight(
            "logged-loss-not-finite", -25.0, family="elsewhere", why="the gradient is finite"
        ),
        Weight("loss-not-finite", -25.0, when=shared.INPUT_BROKEN, family="elsewhere", why="the input is not finite"),
        Weight(
            "gradient-not-finite", -25.0, when=shared.INPUT_BROKEN, family="elsewhere",
            why="the input is not finite",
        ),
        Weight(
            "loss-not-finite", -20.0, when=shared.LONG_STEP, family="elsewhere",
            why="the update before replaced a tenth of the weights or more",
        ),
        Weight(
            "gradient-not-finite", -20.0, when=shared.LONG_STEP, family="elsewhere",
            why="the update before replaced a tenth of the weights or more",
        ),
        Weight(
            "gradient-not-finite", -20.0, when=shared.WEIGHTS_LOST, family="elsewhere",
            why="the weights were lost before",
        ),
    ),
    probe="loss-is-finite-at-its-extremes",
    remedies=(
        Remedy(
            kind="text",
            text="clamp what goes into the logarithm, root or division of the loss, or use one that takes raw scores "
            "(`cross_entropy`, `binary_cross_entropy_with_logits`)",
        ),
        Remedy(
            kind="runtime",
            text="stop at the first such update, before the weights are lost: `respond={'loss-not-finite': Stop()}`",
            change={"loss-not-finite": "stop"},
        ),
    ),
)  # fmt: skip
