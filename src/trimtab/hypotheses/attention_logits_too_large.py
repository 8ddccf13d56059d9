"""Queries and keys are too large: the logits of attentions are so far apart that each looks at one key.

How it shows. The softmax of an attention is one-hot and its logits are in the hundreds (`attention-saturated`), from
the first step on, or after the largest logit has grown for a long time (`attention-logits-growing`). The first loss is
in order, for a wrong place to look at costs nothing before anything is learned.

Why the weights. Saturated attentions with huge logits from the start are the mark of it: +22; later ones, or logits
that grow, nearly as good: +18, one family, as they say the same. What makes logits large by the way speaks against it,
the strongest once: updates that replace a tenth of the weights (-22), a first loss far above chance, where all weights
are too large (-22), inputs that are not scaled (-22). Attentions that were judged and are not saturated: -15.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="attention-logits-too-large",
    summary="Queries and keys are too large: the logits of attentions are so far apart that each looks at one key.",
    gate=Gate.SETTINGS,
    prior=-9.0,
    evidence=(
        Weight(
            "attention-saturated", 22.0, when=(Condition("at_start", "==", 1.0), *shared.GRAVE), family="logits",
            why="the attentions look at one key each from the start, before anything could be learned",
        ),
        Weight(
            "attention-saturated", 18.0, when=shared.GRAVE, family="logits",
            why="the attentions look at one key each, with huge logits",
        ),
        Weight(
            "attention-logits-growing", 18.0, when=shared.GRAVE, family="logits",
            why="the largest logit of an attention grows beyond what a softmax can use",
        ),
        Weight("attention-saturated", -15.0, absent=True, family="calm", why="the attentions are not saturated"),
        Weight(
            "gradient-exploding", -22.0, when=shared.LONG_STEP, family="large by the way",
            why="updates that replace a tenth of the weights make every logit large",
        ),
        Weight(
            "loss-far-from-chance", -22.0, when=(Condition("measured", ">=", 3.0), *shared.GRAVE),
            family="large by the way", why="the first loss says that all weights are too large",
        ),
        Weight(
            "inputs-unscaled", -22.0, when=shared.GRAVE, family="large by the way",
            why="inputs that are not scaled make every logit large",
        ),
    ),
    probe="smaller-queries-and-keys-train",
    remedies=(
        Remedy(kind="text", text="divide the products of queries and keys by the root of a head's width"),
        Remedy(kind="text", text="normalise queries and keys (`qk_norm`), or cap the logits"),
        Remedy(kind="text", text="initialise the two projections as other layers are, and lower their learning rate"),
    ),
    settings=("*qk*", "*attention*scale*", "*logit_cap*", "*softcap*"),
)  # fmt: skip
