"""The weights are trained in evaluation mode: dropout and batch normalisation do not work as they should.

How it shows. The modules say it: over dozens of updates the model and all its dropout and batch normalisation were in
evaluation mode (`modules-in-wrong-mode` during updates), although an optimizer trains them.

Why the weights. The mode is read, not guessed, and what is frozen on purpose is left out: +28. The same finding about
evaluation says nothing about updates. Judged and silent, the modes were right: -25.
"""

from __future__ import annotations

from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy, Severity

HYPOTHESIS = Hypothesis(
    cause="trained-in-evaluation-mode",
    summary="The weights are trained in evaluation mode: dropout and batch normalisation do not work as they should.",
    gate=Gate.INTEGRITY,
    prior=-12.0,
    evidence=(
        Weight(
            "modules-in-wrong-mode", 28.0,
            when=(Condition("during", "==", "updates"), Condition("severity", ">=", Severity.WARNING)),
            why="dozens of updates were taken in evaluation mode",
        ),
        Weight("modules-in-wrong-mode", -25.0, absent=True, why="the modes were right"),
    ),
    probe="training-mode-changes-the-output",
    remedies=(
        Remedy(kind="text", text="call `model.train()` before the updates of each epoch, and after each evaluation"),
        Remedy(kind="text", text="a pretrained model may come in evaluation mode: look at `model.training`"),
    ),
)  # fmt: skip
