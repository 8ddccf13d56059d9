"""The detectors: the ways in which a training goes wrong, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.detectors._detector import Detector
from trimtab.detectors.double_softmax import DoubleSoftmax
from trimtab.detectors.gradient_exploding import GradientExploding
from trimtab.detectors.gradient_not_finite import GradientNotFinite
from trimtab.detectors.gradients_accumulate import GradientsAccumulate
from trimtab.detectors.learning_rate_zero import LearningRateZero
from trimtab.detectors.loss_far_from_chance import LossFarFromChance
from trimtab.detectors.loss_not_finite import LossNotFinite
from trimtab.detectors.milestone_missed import MilestoneMissed
from trimtab.detectors.parameters_never_changed import ParametersNeverChanged
from trimtab.detectors.parameters_outside_optimizer import ParametersOutsideOptimizer
from trimtab.detectors.response_budget_spent import ResponseBudgetSpent
from trimtab.detectors.same_batch_repeated import SameBatchRepeated
from trimtab.detectors.trimtab_failed import TrimtabFailed

DETECTORS: tuple[Detector, ...] = (
    LossNotFinite(),
    GradientNotFinite(),
    GradientExploding(),
    GradientsAccumulate(),
    ParametersOutsideOptimizer(),
    ParametersNeverChanged(),
    LearningRateZero(),
    DoubleSoftmax(),
    LossFarFromChance(),
    SameBatchRepeated(),
    MilestoneMissed(),
    TrimtabFailed(),
    ResponseBudgetSpent(),
)

__all__ = [
    "DETECTORS",
    "Detector",
    "DoubleSoftmax",
    "GradientExploding",
    "GradientNotFinite",
    "GradientsAccumulate",
    "LearningRateZero",
    "LossFarFromChance",
    "LossNotFinite",
    "MilestoneMissed",
    "ParametersNeverChanged",
    "ParametersOutsideOptimizer",
    "ResponseBudgetSpent",
    "SameBatchRepeated",
    "TrimtabFailed",
]
