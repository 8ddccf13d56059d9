"""A part of the network is kept from moving, although it should be trained.

How it shows. The gradient is there and the update does not arrive (`parameters-never-changed`, "update lost"): a group
whose learning rate was left at 0, a kernel or hook that restores the weights. Or the gradient is exactly zero: masked
by a hook that was left over. Or the rate of every group was zero from the first update on. Or updates that were there
once have stopped, at a rate that is not zero (`update-too-small` with a measured 0). Or a part was declared frozen
before anything was learned in it (`random-and-frozen`).

Why the weights. A gradient without an update is close to the definition: +22. A rate of zero in one group beside
others that learn says the same thing (one family): +20 when it never was positive. So do updates that have become
exactly zero with a gradient beside them: +22. Frozen weights that are still those of the first draw are the fault
itself: +24. A gradient of exactly zero may also come from dead units: +13, and -15
where units are seen to be dead. All rates at zero from the start: +20. A rate that was positive before belongs to a
schedule: -14.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="frozen-by-mistake",
    summary="A part of the network that should learn is kept from moving: a rate of 0, a lost update, a freeze.",
    gate=Gate.INTEGRITY,
    prior=-11.0,
    evidence=(
        Weight(
            "parameters-never-changed", 22.0, when=(Condition("update_lost", ">", 0.0), *shared.GRAVE),
            family="at rest",
            why="tensors have a gradient and do not move",
        ),
        Weight(
            "learning-rate-zero", 20.0, when=(Condition("was_positive", "==", 0.0), *shared.GRAVE), family="at rest",
            why="a learning rate was zero from the first update on",
        ),
        Weight(
            "update-too-small", 22.0, when=(Condition("measured", "==", 0.0), *shared.GRAVE), family="at rest",
            why="the updates have stopped, though there is a gradient",
        ),
        Weight(
            "random-and-frozen", 24.0, when=shared.GRAVE, family="at rest",
            why="a part is frozen that was never trained",
        ),
        Weight(
            "parameters-never-changed", 13.0, when=(Condition("gradient_zero", ">", 0.0), *shared.GRAVE),
            family="at rest",
            why="the gradient of some tensors is exactly zero",
        ),
        Weight(
            "learning-rate-zero", -14.0, when=(Condition("was_positive", "==", 1.0),),
            why="the rate had been positive: its schedule took it to zero",
        ),
        Weight("dead-units", -15.0, when=shared.GRAVE, why="dead units pass no gradient on to what comes before them"),
    ),
    probe="every-trainable-parameter-moves",
    remedies=(
        Remedy(
            kind="config",
            text="give the group that rests a learning rate: `lr` of its parameter group",
            change={"lr": "> 0"},
        ),
        Remedy(kind="text", text="look for hooks on these tensors, and for code that writes their old values back"),
        Remedy(
            kind="text", text="unfreeze what was never trained, or load its weights first: `requires_grad_(True)`"
        ),
        Remedy(kind="text", text="if they are meant to rest, declare it: `requires_grad_(False)`"),
    ),
    settings=("*freeze*", "*frozen*", "*trainable*", "*.tensors", "*lr"),
)  # fmt: skip
