"""The initial weights, or the inputs, are far too large.

How it shows. Before anything is learned the loss is many times that of a guess that knows nothing
(`loss-far-from-chance`), or, where no chance level is known, the first gradient is huge. The network is confidently
wrong; it may overflow at once, or spend its training on unlearning.

Why the weights. The loss before the first update depends on weights and inputs alone, neither on the optimizer nor on
its rate: ten times chance or more +24, three times (margin losses and tied embeddings start there too) +12. A first
gradient of a million +22, of a thousand +18, as both need a loss in unusual units otherwise. These say one thing (one
family). A first loss that was judged and in order refutes it: -25. Inputs that were measured and are large explain the
start by themselves: -20. A loss that is a sum has large gradients with good weights: -15.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="initial-weights-too-large",
    summary="The initial weights, or the inputs, are far too large: the loss is high before anything is learned.",
    gate=Gate.SETTINGS,
    prior=-11.0,
    evidence=(
        Weight(
            "loss-far-from-chance", 24.0, when=(Condition("measured", ">=", 10.0),), family="start",
            why="the first loss is ten times that of a guess or more",
        ),
        Weight(
            "loss-far-from-chance", 12.0, when=(Condition("measured", ">=", 3.0),), family="start",
            why="the first loss is several times that of a guess",
        ),
        Weight(
            "gradient-exploding", 22.0, when=shared.ABSURD_FIRST, family="start",
            why="the gradient was absurd before the first update",
        ),
        Weight(
            "gradient-exploding", 18.0, when=shared.STEEP_FIRST, family="start",
            why="the gradient was far too large before the first update",
        ),
        Weight(
            "loss-far-from-chance", -25.0, when=(Condition("measured", ">=", 3.0),), absent=True,
            why="the first loss is in order",
        ),
        Weight(
            "inputs-unscaled", -20.0, when=shared.GRAVE, why="the inputs are large, which explains the start by itself"
        ),
        Weight(
            "gradient-exploding", -15.0, when=shared.A_SUM, why="a loss that is a sum has large gradients anyway"
        ),
    ),
    probe="first-loss-is-at-chance",
    remedies=(
        Remedy(
            kind="text",
            text="scale the initial weights by the width: torch's own initialisation, or deviation 1 / sqrt(fan in)",
        ),
        Remedy(kind="text", text="standardise the inputs, and in a regression the targets: mean 0, deviation 1"),
    ),
    settings=("*.init", "*.init_*", "*_init", "*initiali[sz]er*", "*.gain", "*.std", "*normali[sz]e*", "*standardi*"),
)  # fmt: skip
