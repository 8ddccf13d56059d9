"""The scores pass through a softmax or sigmoid before a loss that applies one itself.

How it shows. The wiring of the graph says it outright: `double-softmax`. The training goes on, only slowly, towards a
loss that it cannot fall below.

Why the weights. The finding reads the graph of two updates, so it is right about the wiring nearly always: +30. Where
the rule judged and stayed silent, there is no second softmax: -30. A missed milestone is a
consequence that many causes share, and counts nothing.
"""

from __future__ import annotations

from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="softmax-before-cross-entropy",
    summary="The model's scores pass through a softmax or sigmoid before a loss that applies one itself.",
    gate=Gate.METRIC,
    prior=-11.0,
    evidence=(
        Weight("double-softmax", 30.0, why="the graph shows one squashing function after the other"),
        Weight("double-softmax", -30.0, absent=True, why="the graph shows no second squashing function"),
    ),
    probe="loss-takes-raw-scores",
    remedies=(
        Remedy(kind="text", text="give the loss the raw scores: take the softmax or sigmoid out of the model's output"),
        Remedy(
            kind="text",
            text="where the model must give probabilities, take their logarithm and use `nll_loss`, "
            "or `binary_cross_entropy` for two classes",
        ),
    ),
)
