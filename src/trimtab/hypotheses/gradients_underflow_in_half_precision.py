"""Gradients are smaller than 16-bit numbers can be, and most of their elements are exactly zero.

How it shows. Exact zeros among the gradients of every tensor, the last layer included (`precision-underflow`), while
the loss is finite and the forward pass is right.

Why the weights. Zeros in every tensor at once come from the number format; dead units and sparse inputs leave the last
layer alone: +22. Gradients that are kept in 16 bits, or a loss scale in use, say that the format is there: +5. No such
zeros where they were counted: -25. Weights that have shrunk to nothing have tiny gradients for another reason: -15.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="gradients-underflow-in-half-precision",
    summary="Gradients are smaller than 16-bit numbers can be, and most of their elements are exactly zero.",
    gate=Gate.INTEGRITY,
    prior=-10.0,
    evidence=(
        Weight(
            "precision-underflow", 22.0, when=shared.GRAVE, why="exact zeros in the gradients of every tensor at once"
        ),
        Weight(
            "precision-underflow", 5.0, when=(Condition("half_share", ">", 0.0),), family="format",
            why="gradients are kept in 16 bits",
        ),
        Weight(
            "precision-underflow", 5.0, when=(Condition("loss_scale", ">", 0.0),), family="format",
            why="a loss scale is in use, so 16-bit numbers are",
        ),
        Weight("precision-underflow", -25.0, absent=True, why="the gradients have no such zeros"),
        Weight(
            "weight-decay-dominates", -15.0, when=shared.GRAVE, why="weights that have shrunk have tiny gradients"
        ),
    ),
    probe="gradients-keep-their-elements-in-full-precision",
    remedies=(
        Remedy(kind="text", text="scale the loss: `torch.amp.GradScaler`, with `scaler.scale(loss).backward()`"),
        Remedy(kind="config", text="use bfloat16, which has the range of float32: `dtype`", change={"dtype": "bf16"}),
        Remedy(kind="text", text="look for a factor that makes the loss small, and for casts to half in custom layers"),
    ),
    settings=("*precision*", "*fp16*", "*bf16*", "*dtype*", "*.amp"),
)  # fmt: skip
