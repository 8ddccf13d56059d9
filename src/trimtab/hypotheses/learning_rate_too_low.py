"""The learning rate is too low: updates change next to nothing, and the loss stays where it began.

How it shows. `update-too-small` from the first steps on, `loss-not-moving` with weights that have hardly moved, while
the gradients are healthy and nothing holds the updates back.

Why the weights. Updates of next to nothing: +18; a loss that rests while the weights have hardly moved: +12 (another
view of the same, one family). Whatever else makes updates small explains it better, the strongest of them once: -22
for clipping that starves, gradients that vanish on their way or in half precision, moments that one step has
poisoned, a learning rate that is exactly zero, decay that is the whole update, updates that have stopped altogether,
parameters that nobody holds or nothing reaches. A training that blows up was not slow: -12.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

_HELD_BACK = {
    "clipping-starves": "clipping leaves next to nothing of the gradient",
    "gradient-vanishing": "the gradient vanishes on its way",
    "precision-underflow": "the gradient underflows in half precision",
    "moments-poisoned": "one step has poisoned the optimizer's memory",
    "scaler-skips-too-often": "updates are skipped",
    "learning-rate-zero": "the learning rate is exactly zero",
    "weight-decay-dominates": "the updates are those of weight decay",
    "parameters-outside-optimizer": "no optimizer holds these parameters",
    "graph-detached": "the graph is cut",
}

HYPOTHESIS = Hypothesis(
    cause="learning-rate-too-low",
    summary="The learning rate is too low: updates change next to nothing.",
    gate=Gate.SETTINGS,
    prior=-8.0,
    evidence=(
        Weight(
            "update-too-small", 18.0, when=shared.GRAVE, family="movement",
            why="an update changes next to nothing of the weights",
        ),
        Weight(
            "loss-not-moving", 12.0, when=(shared.HARDLY_MOVED,), family="movement",
            why="the loss rests, and the weights have hardly moved",
        ),
        *(Weight(code, -22.0, when=shared.GRAVE, family="held back", why=why) for code, why in _HELD_BACK.items()),
        Weight(
            "parameters-never-changed", -22.0, when=(Condition("no_gradient", ">=", 1.0),), family="held back",
            why="some parameters have no gradient",
        ),
        Weight("gradient-exploding", -12.0, when=shared.GRAVE, why="the training blows up"),
        Weight(
            "update-too-small", -22.0, when=(Condition("measured", "==", 0.0),), family="held back",
            why="the updates are exactly zero, which no rate above zero makes them",
        ),
    ),
    probe="larger-learning-rate-trains-faster",
    remedies=(
        Remedy(
            kind="config",
            text="multiply the learning rate by 10 until an update changes about a thousandth of the weights: `lr`",
            change={"lr": "x 10"},
        ),
        Remedy(kind="text", text="run a short sweep of rates, and see at which one the first loss falls fastest"),
    ),
    settings=("*lr", "*learning_rate*", "*learning-rate*", "*warmup*"),
)  # fmt: skip
