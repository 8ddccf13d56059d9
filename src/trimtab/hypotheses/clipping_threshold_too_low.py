"""The threshold of gradient clipping lies far below the usual gradient, so next to nothing is left of it.

How it shows. The norm after clipping is a tiny fraction of the norm before, update after update (`clipping-starves`
where the weights hardly move, `clipping-always-active` where an optimizer like Adam makes up for it).

Why the weights. Little left of the gradient and weights that hardly move is the definition: +26. Less than a thousandth
left with updates of a usual size: +12, for the threshold is wrong and does little harm (one family). Where hardly any
gradient was clipped: -22.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="clipping-threshold-too-low",
    summary="The threshold of gradient clipping lies far below the usual gradient, so next to nothing is left of it.",
    gate=Gate.SETTINGS,
    prior=-10.0,
    evidence=(
        Weight(
            "clipping-starves", 26.0, when=shared.GRAVE, family="clipped",
            why="clipping leaves next to nothing, and the weights hardly move",
        ),
        Weight(
            "clipping-always-active", 12.0, when=shared.GRAVE, family="clipped",
            why="clipping leaves less than a thousandth of every gradient",
        ),
        Weight("clipping-always-active", -22.0, absent=True, why="most gradients were not clipped, or hardly"),
    ),
    probe="higher-clipping-threshold-learns-faster",
    remedies=(
        Remedy(
            kind="config",
            text="set the threshold near the 90th percentile of the gradient norm before clipping: `max_norm`",
            change={"max_norm": "p90 of gradient_norm"},
        ),
        Remedy(kind="text", text="check whether the gradients are clipped while they still carry a loss scale"),
    ),
    settings=("*clip*", "*max_norm*", "*max_grad_norm*"),
)  # fmt: skip
