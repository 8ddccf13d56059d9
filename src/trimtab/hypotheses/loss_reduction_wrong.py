"""The loss is a sum where a mean was meant, so gradients grow with the size of the batch.

How it shows. The graph says that the loss adds up its terms (`loss_terms`), each of them is of the size that is
expected of one (`loss-far-from-chance` as info), and a training with a learning rate meant for a mean blows up.

Why the weights. A sum alone is no fault: Adam divides the factor out again, and auto-encoders sum on purpose; known by
the first loss it is worth +10, which the prior outweighs. With an explosion beside it, the factor is the simplest
reason: +24 (the same fact, one family). A loss that was judged as a mean: -25.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="loss-reduction-wrong",
    summary="The loss is a sum where a mean was meant, so gradients grow with the size of the batch.",
    gate=Gate.METRIC,
    prior=-12.0,
    evidence=(
        Weight(
            "gradient-exploding", 24.0, when=shared.A_SUM, family="sum",
            why="the loss adds up its terms, and the training blows up",
        ),
        Weight(
            "loss-far-from-chance", 10.0, when=(Condition("loss_terms", ">", 1.0),), family="sum",
            why="the loss adds up its terms",
        ),
        Weight(
            "loss-far-from-chance", -25.0, when=(Condition("loss_terms", ">", 1.0),), absent=True,
            why="the first loss is that of a mean",
        ),
    ),
    probe="loss-does-not-grow-with-the-batch",
    remedies=(
        Remedy(
            kind="config",
            text="take the mean: `reduction='mean'`, or divide by the number of terms",
            change={"reduction": "mean"},
        ),
        Remedy(
            kind="config",
            text="or divide the learning rate by the number of terms: `lr`",
            change={"lr": "/ terms"},
        ),
    ),
    settings=("*reduction*", "*batch_size*"),
)  # fmt: skip
