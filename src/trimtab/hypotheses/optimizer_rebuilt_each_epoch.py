"""The optimizer is made anew, or its state cleared, again and again: it never knows how large the gradients are.

How it shows. `optimizer-state-reset`: the optimizer's own count of updates falls back, several times in one run. The
usual place is a loop that builds the optimizer inside the loop over epochs or phases.

Why the weights. A count that falls back several times has hardly another reason: +24. Resets that somebody announced
count nothing, for they are only info.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="optimizer-rebuilt-each-epoch",
    summary="The optimizer is made anew, or its state is cleared, again and again.",
    gate=Gate.INTEGRITY,
    prior=-10.0,
    evidence=(
        Weight("optimizer-state-reset", 24.0, when=shared.GRAVE, why="the optimizer began from nothing several times"),
    ),
    probe="optimizer-keeps-its-state",
    remedies=(
        Remedy(kind="text", text="build the optimizer once, before the loop over epochs or phases"),
        Remedy(
            kind="text",
            text="where groups change, use `add_param_group`, or carry the state over with `load_state_dict`",
        ),
        Remedy(kind="text", text='if restarts are meant, announce them: `guard.note("restart")`'),
    ),
    settings=("*optimizer*rebuil*", "*rebuild*optimizer*", "*optimizer*reset*", "*reset*optimizer*"),
)
