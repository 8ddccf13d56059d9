"""Something keeps the autograd graph alive from step to step: a loss added up with its history, outputs in a list.

How it shows. Memory rises along a straight line (`memory-growing`); where backward goes through the old graph too, the
steps take longer and longer, also along a line (`step-slowing` at warning).

Why the weights. A leak of memory is mostly a graph: +19; steps that slow down in a straight line: +18; both together
leave little else. Steps that slow down otherwise may be the machine, and are info. Memory that was
judged and is at rest: -8, as a small graph adds little.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="graph-kept-across-steps",
    summary="Something keeps the autograd graph alive from step to step: a loss added up with its history, or outputs.",
    gate=Gate.REST,
    prior=-12.0,
    evidence=(
        Weight("memory-growing", 19.0, when=shared.GRAVE, why="the memory grows by the same amount with every step"),
        Weight(
            "step-slowing", 18.0, when=shared.GRAVE, why="each step takes longer than the one before"
        ),
        Weight("memory-growing", -8.0, absent=True, why="the memory is at rest"),
    ),
    probe="steps-take-constant-time",
    remedies=(
        Remedy(kind="text", text="add up numbers and not tensors: `total += loss.item()`"),
        Remedy(kind="text", text="`detach()` what is carried from step to step: hidden states, outputs kept in lists"),
        Remedy(kind="text", text="remove `retain_graph=True`: where it is needed, the graph is not let go of"),
    ),
    settings=("*retain_graph*", "*bptt*"),
)  # fmt: skip
