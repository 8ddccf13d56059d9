"""Nobody clears the gradients between updates, so each update follows the sum of all gradients so far.

How it shows. The backward pass adds to gradients that the optimizer has used already, update after update: that is
what `gradients-accumulate` reads from the gradients themselves. The sum grows, so the gradient norm and later the loss
may blow up as well; those findings are consequences.

Why the weights. `gradients-accumulate` is a fact about the loop, not a guess from a curve: legal accumulation over
several backward passes never trips it, and no other cause of the catalogue does, so +30 (a thousand to one; what is
left is a training that accumulates over updates on purpose). Where the rule judged and stayed silent the gradients
were cleared: -30. An explosion beside it is a consequence (the sum grows) and counts nothing.
"""

from __future__ import annotations

from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="missing-zero-grad",
    summary="Nobody clears the gradients between updates, so each update follows the sum of all gradients so far.",
    gate=Gate.INTEGRITY,
    prior=-10.0,
    evidence=(
        Weight("gradients-accumulate", 30.0, why="the gradients of the update before were still there"),
        Weight("gradients-accumulate", -30.0, absent=True, why="the gradients were cleared before each update"),
    ),
    probe="gradients-are-cleared-between-updates",
    remedies=(
        Remedy(kind="text", text="call `optimizer.zero_grad()` once for each update, before its first backward pass"),
        Remedy(
            kind="text",
            text="if the loop accumulates over several batches, clear the gradients after each update, "
            "and check the counter that decides when",
        ),
    ),
)
