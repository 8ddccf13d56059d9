"""Both views of a similarity are trained towards each other: the easiest way is to make everything alike.

How it shows. The loss compares two outputs of the model and no targets. It is almost perfect after a short time, while
the representation has lost most of its directions or of its spread (`representation-collapsed`).

Why the weights. A loss that looks like a reached similarity over a collapsed representation is the mark of it: +24. A
named representation that has collapsed without targets says nearly as much: +18, one family. Where the loss has
targets there are no two views (-20). A collapse that was judged and not found: -20. What kills a representation by
itself speaks against it, the strongest once: a blow-up, weights that decay, units that died (-15).
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="missing-stop-gradient",
    summary="Both views of a similarity are trained towards each other: the easiest way is to make everything alike.",
    gate=Gate.INTEGRITY,
    prior=-9.0,
    evidence=(
        Weight(
            "representation-collapsed", 24.0, when=(Condition("similarity", "==", 1.0), *shared.GRAVE),
            family="collapse", why="a similarity is reached, and the representation is left with few directions",
        ),
        Weight(
            "representation-collapsed", 18.0, when=(Condition("supervised", "==", 0.0), *shared.GRAVE),
            family="collapse", why="the representation has collapsed under a loss without targets",
        ),
        Weight(
            "representation-collapsed", -20.0, when=(Condition("supervised", "==", 1.0),), family="targets",
            why="the loss compares with targets",
        ),
        Weight("representation-collapsed", -20.0, absent=True, why="the representation has not collapsed"),
        Weight("gradient-exploding", -15.0, when=shared.GRAVE, family="killed", why="a blow-up loses it by itself"),
        Weight(
            "weight-decay-dominates", -15.0, when=shared.GRAVE, family="killed",
            why="weights that decay make everything alike by themselves",
        ),
        Weight("dead-units", -15.0, when=shared.GRAVE, family="killed", why="dead units tell nothing apart"),
    ),
    probe="one-view-detached-keeps-the-rank",
    remedies=(
        Remedy(kind="text", text="detach one of the two views in the loss: `similarity(predict(one), two.detach())`"),
        Remedy(kind="text", text="let a slow average of the model make the targets, without a gradient"),
        Remedy(kind="text", text="add a term that keeps variances up, or one that contrasts with other inputs"),
    ),
    settings=("*stop_grad*", "*stopgrad*", "*detach*"),
)  # fmt: skip
