"""A batch holds a NaN or an infinity before the model sees it.

How it shows. Loss and gradient turn NaN at once, and the share of non-finite elements of the input, measured at the
same update, is not zero. Often a division by the deviation of a constant column, or by the brightest pixel of a blank
image.

Why the weights. A non-finite input is measured, not inferred, and turns everything behind it NaN: +30, said by either
finding (one family). An input that was measured and finite refutes it: -30. Trainings that were blown up before
(`gradient-exploding`) are less likely to have met a bad batch by chance as well: -2.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="non-finite-input",
    summary="A batch holds a NaN or an infinity before the model sees it.",
    gate=Gate.DATA,
    prior=-10.0,
    evidence=(
        Weight(
            "loss-not-finite", 30.0, when=shared.INPUT_BROKEN, family="input",
            why="the input of this update is not finite",
        ),
        Weight(
            "gradient-not-finite", 30.0, when=shared.INPUT_BROKEN, family="input",
            why="the input of this update is not finite",
        ),
        Weight(
            "loss-not-finite", -30.0, when=shared.INPUT_WHOLE, family="input",
            why="the input of this update is finite",
        ),
        Weight(
            "gradient-not-finite", -30.0, when=shared.INPUT_WHOLE, family="input",
            why="the input of this update is finite",
        ),
        Weight("gradient-exploding", -2.0, why="the training had already blown up"),
    ),
    probe="inputs-are-finite",
    remedies=(
        Remedy(
            kind="text",
            text="find the rows with `torch.isfinite` in the data set, and what divides there (a deviation, a maximum)",
        ),
        Remedy(kind="text", text="add a small number to the divisor, or leave such rows out"),
    ),
)  # fmt: skip
