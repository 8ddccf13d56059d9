"""Parameters that the loss depends on are in no optimizer, so nothing will ever move them.

How it shows. `parameters-outside-optimizer`: after the optimizer was built a head was replaced, a lazy layer made, or
every tensor wrapped anew. The tensors that the optimizer still holds may then get no gradient any more.

Why the weights. The finding compares the loss's graph with the optimizer's lists, so it is right about the wiring. At
error (the last layer, or scattered tensors) nobody means it: +28. At warning (all tensors below some layer) it may be a
freeze that was not declared: +20. Judged and silent, every tensor is held: -30. Held tensors without a gradient fit an
optimizer built for an earlier model: +2.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy, Severity

HYPOTHESIS = Hypothesis(
    cause="optimizer-does-not-hold-parameters",
    summary="Parameters that the loss depends on are in no optimizer, so nothing will ever move them.",
    gate=Gate.INTEGRITY,
    prior=-11.0,
    evidence=(
        Weight(
            "parameters-outside-optimizer", 28.0, when=(Condition("severity", ">=", Severity.ERROR),), family="outside",
            why="tensors are in no optimizer, and not in a way that one freezes on purpose",
        ),
        Weight(
            "parameters-outside-optimizer", 20.0, when=shared.GRAVE,
            family="outside", why="tensors are in no optimizer",
        ),
        Weight(
            "parameters-outside-optimizer", -30.0, absent=True, why="an optimizer holds all that the loss reaches"
        ),
        Weight(
            "parameters-never-changed", 2.0, when=(Condition("no_gradient", ">", 0.0),),
            why="the optimizer holds tensors that the loss does not reach, as after a replaced module",
        ),
    ),
    probe="optimizer-holds-what-the-loss-reaches",
    remedies=(
        Remedy(
            kind="text", text="build the optimizer after the last change of the model (head, device, dtype, wrapper)"
        ),
        Remedy(kind="text", text="or hand the new tensors over: `optimizer.add_param_group({'params': ...})`"),
        Remedy(kind="text", text="if they are meant to stay as they are, declare it: `requires_grad_(False)`"),
    ),
)  # fmt: skip
