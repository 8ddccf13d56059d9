"""The loss scale is handled wrongly, so that updates are left out again and again.

How it shows. Long after its search the scaler still leaves out updates, many in a row or at short intervals
(`scaler-skips-too-often`), while the loss stays finite: the scale grows too often, is not lowered, or `update()` is not
called.

Why the weights. A scaler that works skips one update in hundreds: +22. With a scale that is known and large: +5, for
the overflow is then of the scale's making; below 1 the gradients overflow by themselves: -20. No updates left out: -25.
A loss that is not finite before any scaling comes from elsewhere: -18.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="loss-scale-schedule-wrong",
    summary="The loss scale is handled wrongly, so that updates are left out again and again.",
    gate=Gate.INTEGRITY,
    prior=-10.0,
    evidence=(
        Weight(
            "scaler-skips-too-often", 22.0, when=shared.GRAVE, why="a scaler that works skips one update in hundreds"
        ),
        Weight(
            "scaler-skips-too-often", 5.0, when=(Condition("loss_scale", ">=", 2.0**17),),
            why="the scale is far above where a scaler begins",
        ),
        Weight(
            "scaler-skips-too-often", -20.0, when=(Condition("loss_scale", "<", 1.0),),
            why="the gradients overflow at any scale",
        ),
        Weight("scaler-skips-too-often", -25.0, absent=True, why="few updates were left out"),
        Weight("loss-not-finite", -18.0, when=shared.GRAVE, why="the loss is not finite before it is scaled"),
    ),
    probe="default-scaler-settles",
    remedies=(
        Remedy(
            kind="text",
            text="use the scaler as it comes (`growth_interval=2000`, `backoff_factor=0.5`), and call "
            "`scaler.update()` once after each `scaler.step`",
        ),
        Remedy(kind="config", text="use bfloat16, which needs no scale: `dtype`", change={"dtype": "bf16"}),
    ),
    settings=("*loss_scale*", "*growth_interval*", "*backoff*", "*scaler*"),
)  # fmt: skip
