"""The model is evaluated in training mode: its numbers are those of another, noisier network.

How it shows. Now and then the model runs without gradients, and each time with its dropout or batch normalisation in
training mode (`modules-in-wrong-mode` during evaluation). A teacher that runs in every step is not counted.

Why the weights. The mode is read, not guessed, and two evaluations in a row agree: +28. The same finding about updates
says nothing about evaluation. Judged and silent, the modes were right: -25.
"""

from __future__ import annotations

from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy, Severity

HYPOTHESIS = Hypothesis(
    cause="evaluated-in-training-mode",
    summary="The model is evaluated in training mode: its numbers are those of another, noisier network.",
    gate=Gate.METRIC,
    prior=-12.0,
    evidence=(
        Weight(
            "modules-in-wrong-mode", 28.0,
            when=(Condition("during", "==", "evaluation"), Condition("severity", ">=", Severity.WARNING)),
            why="evaluations ran with dropout or batch normalisation in training mode",
        ),
        Weight("modules-in-wrong-mode", -25.0, absent=True, why="the modes were right"),
    ),
    probe="evaluation-repeats-exactly",
    remedies=(
        Remedy(kind="text", text="call `model.eval()` before each evaluation, and `model.train()` after it"),
        Remedy(kind="text", text="give the framework the evaluation to do, which switches modes by itself"),
    ),
)  # fmt: skip
