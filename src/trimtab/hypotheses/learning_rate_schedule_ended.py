"""The schedule took the learning rate to zero before the training was over.

How it shows. `learning-rate-zero` for a rate that had been positive. The usual mistake is a horizon counted in other
units than the steps: epochs and updates, one device and eight, a decay factor of 0.

Why the weights. The rate is read from the optimizer; that it was positive and stays at zero while updates go on is the
cause itself: +30. A rate that was never positive is another mistake: -14. Judged and silent, the rate is not zero: -30.
"""

from __future__ import annotations

from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="learning-rate-schedule-ended",
    summary="The schedule took the learning rate to zero before the training was over.",
    gate=Gate.SETTINGS,
    prior=-12.0,
    evidence=(
        Weight(
            "learning-rate-zero", 30.0, when=(Condition("was_positive", "==", 1.0),),
            why="the rate was positive and stays at zero",
        ),
        Weight(
            "learning-rate-zero", -14.0, when=(Condition("was_positive", "==", 0.0),),
            why="the rate was never positive",
        ),
        Weight("learning-rate-zero", -30.0, absent=True, why="the rate is not zero"),
    ),
    probe="schedule-lasts-as-long-as-the-run",
    remedies=(
        Remedy(
            kind="config",
            text="give the schedule the number of updates that the run takes: `total_steps`, `T_max`, `max_steps`",
            change={"total_steps": "updates of the whole run"},
        ),
        Remedy(
            kind="text",
            text="step the schedule in the unit in which it was built: once for each update, or for each epoch",
        ),
    ),
    settings=("*total_steps", "*total_iters", "*max_steps", "*[tT]_max", "*epochs", "*schedule*", "*warmup*", "*gamma"),
)  # fmt: skip
