"""The divergence from the prior weighs too much: a latent code that carries nothing is the cheapest one.

How it shows. The units of the code are the same for every input, or the divergence is almost zero (`latent-unused`),
from the first updates on, while the reconstruction stays at the mean of the data.

Why the weights. A code that was never used is the mark of it: +20, also when only the divergence says so; one that
was used once and then lost says the same less surely, as a strong decoder does that too: +14, one family, and so does
one that carries less than it must to tell the items apart: +22. A decoder that is frozen at random asks nothing of the
code: -15, once, as for those below. A latent
that was judged and is used: -25. A blow-up, weights that decay and weights that hardly move leave a code empty by
themselves: -15, once.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="kl-weight-too-strong",
    summary="The divergence from the prior weighs too much: a latent code that carries nothing is the cheapest one.",
    gate=Gate.SETTINGS,
    prior=-8.0,
    evidence=(
        Weight(
            "latent-unused", 20.0, when=(Condition("active_units_ever", "<", 1.0), *shared.GRAVE), family="empty",
            why="no unit of the code was ever active",
        ),
        Weight(
            "latent-unused", 20.0, when=(Condition("share_of_loss", "<", 1.0), *shared.GRAVE), family="empty",
            why="the divergence was pressed to almost nothing",
        ),
        Weight(
            "latent-unused", 22.0, when=(Condition("nats_needed", ">", 0.0), *shared.GRAVE), family="empty",
            why="the code carries less than it must to tell the items apart",
        ),
        Weight("latent-unused", 14.0, when=shared.GRAVE, family="empty", why="no unit of the code is active any more"),
        Weight("latent-unused", -25.0, absent=True, why="the code is used"),
        Weight(
            "random-and-frozen", -15.0, when=shared.GRAVE, family="lost",
            why="a random decoder asks nothing of the code",
        ),
        Weight("gradient-exploding", -15.0, when=shared.GRAVE, family="lost", why="a blow-up empties a code by itself"),
        Weight(
            "loss-not-finite", -15.0, when=shared.GRAVE, family="lost", why="a blow-up empties a code by itself"
        ),
        Weight(
            "update-too-small", -15.0, when=shared.GRAVE, family="lost",
            why="weights that hardly move have no code yet",
        ),
        Weight(
            "weight-decay-dominates", -15.0, when=shared.GRAVE, family="lost",
            why="weights that decay empty a code by themselves",
        ),
    ),
    probe="smaller-divergence-weight-fills-the-code",
    remedies=(
        Remedy(kind="text", text="divide the weight of the divergence by ten, or raise it slowly from 0"),
        Remedy(kind="text", text="leave each unit some free nats: count only what exceeds 0.1 to 0.5"),
        Remedy(kind="text", text="add up or average reconstruction and divergence in the same way: both by example"),
    ),
    settings=("*kl*weight*", "*weight*kl*", "*kl_coef*", "*beta_kl*", "*free_bits*", "*kl_anneal*"),
)  # fmt: skip
