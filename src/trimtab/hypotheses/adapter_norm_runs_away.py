"""An adapter, a gain or a delta grows without bound and takes the network over.

How it shows. The norm of one tensor, or one that the user records, grows faster and faster while the other weights keep
theirs (`norm-growing`); or the updates of one parameter group replace a good part of it and those of the others do not
(`update-too-large`).

Why the weights. One tensor that runs away beside others that do not: +24. Long updates in one of several groups: +16,
since a rate that is too high everywhere would show in all (one family). Long updates in all groups: -12. No tensor that
runs away, where norms were judged: -4, for a rate that is too high comes before the growth.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

ONE_GROUP = (Condition("groups", ">", 1.0), Condition("other_groups", "<", 0.3))
"""The other groups' updates are less than a third as long, each relative to its weights."""
ALL_GROUPS = (Condition("other_groups", ">=", 0.3),)

HYPOTHESIS = Hypothesis(
    cause="adapter-norm-runs-away",
    summary="An adapter, a gain or a delta grows without bound and takes the network over.",
    gate=Gate.SETTINGS,
    prior=-11.0,
    evidence=(
        Weight(
            "norm-growing", 24.0, when=shared.GRAVE, family="one alone",
            why="the norm of one tensor runs away while the others keep theirs",
        ),
        Weight(
            "update-too-large", 16.0, when=(*ONE_GROUP, *shared.GRAVE), family="one alone",
            why="the updates of one group are long, those of the others are not",
        ),
        Weight("update-too-large", -12.0, when=ALL_GROUPS, why="the updates of every group are long"),
        Weight("norm-growing", -4.0, absent=True, why="no tensor runs away"),
    ),
    probe="bounded-adapter-keeps-the-result",
    remedies=(
        Remedy(kind="text", text="divide the learning rate of its parameter group by ten"),
        Remedy(kind="text", text="normalise what it adds, bound its norm, or give it weight decay"),
    ),
    settings=("*adapter*", "*lora*", "*alpha"),
)  # fmt: skip
