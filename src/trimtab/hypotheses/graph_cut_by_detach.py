"""The graph between the loss and a part of the network is cut, so that part gets no gradient.

How it shows. Tensors that the optimizer holds never get a gradient (`parameters-never-changed` with the reason "no
gradient"): a `detach`, `.data`, `no_grad`, an argmax or a module that the forward pass never calls lies between. The
autograd graph of the first passes ends at that place (`graph-detached`).

Why the weights. A gradient that never came is measured; besides a cut graph only an optimizer of an earlier model and
unused modules explain it: +22. A graph that leaves out the front of the network up to one place says the same at once
(one family): +24. No tensor without a gradient: -25. When parameters lie outside every optimizer as well,
the held ones are more likely left over from an earlier model: -14.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

CUT_OFF = (Condition("no_gradient", ">", 0.0),)

HYPOTHESIS = Hypothesis(
    cause="graph-cut-by-detach",
    summary="The graph between the loss and a part of the network is cut, so that part gets no gradient.",
    gate=Gate.INTEGRITY,
    prior=-11.0,
    evidence=(
        Weight(
            "parameters-never-changed", 22.0, when=CUT_OFF, family="cut", why="held tensors never got a gradient"
        ),
        Weight(
            "graph-detached", 24.0, when=shared.GRAVE, family="cut",
            why="the graph of the loss ends between two layers",
        ),
        Weight("parameters-never-changed", -25.0, when=CUT_OFF, absent=True, why="every tensor got a gradient"),
        Weight(
            "parameters-outside-optimizer", -14.0, when=shared.GRAVE,
            why="an optimizer that was built for an earlier model holds tensors without a gradient, too",
        ),
    ),
    probe="gradient-reaches-every-parameter",
    remedies=(
        Remedy(
            kind="text",
            text="follow the forward pass from the first tensor named to the loss and take out the `detach`, `.data`, "
            "`no_grad` or argmax",
        ),
        Remedy(kind="text", text="if a module is never called, call it or leave it out of the model"),
    ),
)  # fmt: skip
