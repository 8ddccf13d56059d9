"""The loss function is made for other targets: a squared error or a binary loss on classes, shapes that spread.

How it shows. The graph says which loss it is and its targets what they are (`loss-does-not-fit-targets`), at the first
steps. The training learns, slowly and less than it could.

Why the weights. Rows with a single one under such a loss, or an N x N comparison, are hardly ever meant: +28. Small
whole numbers under a squared error may be ratings or counts: such a finding is info and counts nothing. Judged and
silent: -25.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="wrong-loss-for-targets",
    summary="The loss function is made for other targets than these.",
    gate=Gate.METRIC,
    prior=-12.0,
    evidence=(
        Weight(
            "loss-does-not-fit-targets", 28.0, when=(*shared.GRAVE, Condition("kind", "!=", "loss negated")),
            why="the targets are classes, or every prediction is compared with every target",
        ),
        Weight("loss-does-not-fit-targets", -25.0, absent=True, why="loss and targets go together"),
    ),
    probe="cross-entropy-learns-faster",
    remedies=(
        Remedy(
            kind="text",
            text="for classes that exclude each other: `F.cross_entropy(scores, class_indices)` on raw scores",
        ),
        Remedy(kind="text", text="for shapes that spread: `prediction.squeeze(-1)`, so that both have shape (N,)"),
    ),
    settings=("*criterion*", "*loss_fn*", "*loss.name", "*loss.kind"),
)  # fmt: skip
