"""Conditions that several hypotheses read alike, each number once with its reason."""

from __future__ import annotations

import math

from trimtab.hypotheses._hypothesis import NONFINITE, Condition, Weight
from trimtab.records import Severity

GRAVE = (Condition("severity", ">=", Severity.WARNING),)
"""At warning or above: what is excused or harmless by design is only info."""

LONG_STEP = (Condition("update_ratio", ">=", 0.1),)
"""The update replaced a tenth of the weights or more: of a finding about NaN, the update before it. Sensible updates
replace about a thousandth."""
SHORT_STEP = (Condition("update_ratio", "<", 0.1),)

INPUT_BROKEN = (Condition("input_nonfinite", ">", 0.0),)
INPUT_WHOLE = (Condition("input_nonfinite", "==", 0.0),)
WEIGHTS_LOST = (Condition("nonfinite_weights", ">", 0.0),)

GRADIENT_BROKEN = (Condition("gradient_norm", "is", NONFINITE),)

LOSS_WHOLE = Condition("loss", "<", math.inf)
PART_BROKEN = (LOSS_WHOLE, Condition("tensors_broken", "<", 1.0, of="tensors"))
"""The loss is finite, and so are some gradients: those nearest to it ..."""
PART_SURELY_BROKEN = (*PART_BROKEN, Condition("first_share", ">", 0.0))
"""... and elements of the others are not, where that was looked at; 0 would be an overflow of their norm alone."""
ALL_BROKEN = (Condition("tensors_broken", ">=", 1.0, of="tensors"),)

A_SUM = (
    Condition("loss_terms", ">", 1.0),
    Condition("loss_first", ">=", 0.1, of="loss_terms"),
    Condition("loss_first", "<=", 10.0, of="loss_terms"),
)
"""The loss adds up many terms, and so far as its first value tells nothing divides them again: each counts about 1."""

STEEP_FIRST = (Condition("gradient_norm_first", ">=", 1e3),)
"""The first gradient of a loss in units of about 1 is near 1; sums over a batch reach hundreds."""
ABSURD_FIRST = (Condition("gradient_norm_first", ">=", 1e6),)

IMPROVING = Condition("improving", "==", 1.0)
AT_REST = Condition("improving", "==", 0.0)
ON_ITS_WAY = Condition("progress", ">=", 0.3)
"""The metric had covered three tenths of the way from its first value to the milestone; noise does not."""
NOT_ON_ITS_WAY = Condition("progress", "<", 0.3)
HARDLY_MOVED = Condition("travelled", "<", 0.2)
"""The typical update, as a share of the weights, times the number of updates: healthy trainings of the tuning families
had gone 0.5 to 2.4 when their milestones fell due, those with a fiftieth of the rate 0.03 to 0.14."""
MOVED = Condition("travelled", ">=", 0.2)

_OTHER_FAULTS = (
    "loss-not-finite",
    "gradient-not-finite",
    "gradient-exploding",
    "gradients-accumulate",
    "parameters-outside-optimizer",
    "parameters-never-changed",
    "learning-rate-zero",
    "double-softmax",
    "same-batch-repeated",
    "loss-far-from-chance",
    "labels-sorted",
    "labels-unrelated",
    "inputs-unscaled",
    "loss-does-not-fit-targets",
    "modules-in-wrong-mode",
    "weights-lost-after-load",
    "gradient-vanishing",
    "graph-detached",
    "update-too-large",
    "clipping-starves",
    "moments-poisoned",
    "weight-decay-dominates",
    "precision-underflow",
    "scaler-skips-too-often",
    "norm-growing",
    "random-and-frozen",
)


def other_faults(decibans: float) -> tuple[Weight, ...]:
    """Return weights of one family for a cause that is left when nothing else is wrong: of other faults one counts."""
    why = "this fault explains a poor result by itself"
    return tuple(Weight(code, decibans, when=GRAVE, family="other fault", why=why) for code in _OTHER_FAULTS)
