"""One huge gradient has gone into the optimizer's memory and holds the updates small long after it.

How it shows. The second moment jumps at one step and stays, while the gradients are what they were before
(`moments-poisoned`). The loss falls more slowly than before, for hundreds of updates.

Why the weights. A moment far above the gradients that it is divided into is the definition: +26, and no other cause of
the catalogue leaves it. No jump of the moments where they were read: -25. A loss that is broken in itself would not
come back to calm gradients: -12.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="optimizer-state-poisoned",
    summary="One huge gradient has gone into the optimizer's memory and holds the updates small long after it.",
    gate=Gate.INTEGRITY,
    prior=-11.0,
    evidence=(
        Weight(
            "moments-poisoned", 26.0, when=shared.GRAVE,
            why="the second moment is far above the gradients that it is divided into",
        ),
        Weight("moments-poisoned", -25.0, absent=True, why="the second moments did not jump"),
        Weight("gradient-not-finite", -12.0, when=shared.GRAVE, why="gradients that are not finite do not calm down"),
    ),
    probe="fresh-optimizer-state-learns-faster",
    remedies=(
        Remedy(
            kind="text",
            text="go back to a checkpoint before the jump, or clear the optimizer's state and warm the rate up again",
        ),
        Remedy(
            kind="config", text="clip the gradient norm near its usual value: `max_norm`", change={"max_norm": "p90"}
        ),
        Remedy(kind="text", text="look at the batch of that step, and leave it out if it is broken"),
    ),
    settings=("*beta2*", "*betas*"),
)  # fmt: skip
