"""The gradient fades from layer to layer, so the first layers of a deep network learn nothing.

How it shows. The gradient of the first third of the weights, relative to their size, is a tiny fraction of that of the
last third (`gradient-vanishing`) from the first steps on. The loss is flat or falls as that of a shallow network.

Why the weights. The fading is measured layer by layer, from the first step on: +24; when it began later, something else
has driven the units there: +10 (one family). No fading where it was judged: -22. A blow-up before it saturates the
units: -15. Weights that decay has shrunk pass nothing on either: -18, nor do units that are dead, or saturated from the
first look on: -18. Exact zeros in every tensor are a matter of the number format: -14.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="gradients-vanish-with-depth",
    summary="The gradient fades from layer to layer, so the first layers of a deep network learn nothing.",
    gate=Gate.SETTINGS,
    prior=-9.0,
    evidence=(
        Weight(
            "gradient-vanishing", 24.0, when=(Condition("since_step", "<", 16.0), *shared.GRAVE), family="fading",
            why="the relative gradient of the first layers is a tiny fraction of that of the last, from the start",
        ),
        Weight(
            "gradient-vanishing", 10.0, when=shared.GRAVE, family="fading",
            why="the relative gradient of the first layers is a tiny fraction of that of the last",
        ),
        Weight("gradient-vanishing", -22.0, absent=True, why="the first layers get a gradient"),
        Weight(
            "gradient-exploding", -15.0, when=shared.GRAVE, why="a blow-up drives units into their flat parts by itself"
        ),
        Weight(
            "weight-decay-dominates", -18.0, when=shared.GRAVE, why="weights that have shrunk pass no gradient on"
        ),
        Weight("dead-units", -18.0, when=shared.GRAVE, family="flat", why="dead units pass no gradient on"),
        Weight(
            "saturated-units", -18.0, when=(Condition("from_start", "==", 1.0), *shared.GRAVE), family="flat",
            why="units that begin saturated pass no gradient on",
        ),
        Weight(
            "precision-underflow", -14.0, when=shared.GRAVE, why="the gradients are lost in the number format"
        ),
    ),
    probe="first-layers-get-a-gradient",
    remedies=(
        Remedy(kind="text", text="use ReLU, GELU or SiLU where sigmoid or tanh stand between the layers"),
        Remedy(kind="text", text="add residual connections, or a normalisation before each layer"),
        Remedy(kind="text", text="initialise each layer by the number of its inputs (`kaiming_normal_`)"),
    ),
    settings=("*activation*", "*depth*", "*num_layers*", "*n_layers*"),
)  # fmt: skip
