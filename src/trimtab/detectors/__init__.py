"""The detectors: the ways in which a training goes wrong, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.detectors._detector import Detector
from trimtab.detectors.clipping_always_active import ClippingAlwaysActive
from trimtab.detectors.clipping_starves import ClippingStarves
from trimtab.detectors.double_softmax import DoubleSoftmax
from trimtab.detectors.gradient_exploding import GradientExploding
from trimtab.detectors.gradient_not_finite import GradientNotFinite
from trimtab.detectors.gradient_vanishing import GradientVanishing
from trimtab.detectors.gradients_accumulate import GradientsAccumulate
from trimtab.detectors.graph_detached import GraphDetached
from trimtab.detectors.inputs_unscaled import InputsUnscaled
from trimtab.detectors.labels_sorted import LabelsSorted
from trimtab.detectors.labels_unrelated import LabelsUnrelated
from trimtab.detectors.learning_rate_zero import LearningRateZero
from trimtab.detectors.loss_does_not_fit_targets import LossDoesNotFitTargets
from trimtab.detectors.loss_far_from_chance import LossFarFromChance
from trimtab.detectors.loss_not_finite import LossNotFinite
from trimtab.detectors.memory_growing import MemoryGrowing
from trimtab.detectors.milestone_missed import MilestoneMissed
from trimtab.detectors.modules_in_wrong_mode import ModulesInWrongMode
from trimtab.detectors.moments_poisoned import MomentsPoisoned
from trimtab.detectors.norm_growing import NormGrowing
from trimtab.detectors.parameters_never_changed import ParametersNeverChanged
from trimtab.detectors.parameters_outside_optimizer import ParametersOutsideOptimizer
from trimtab.detectors.precision_underflow import PrecisionUnderflow
from trimtab.detectors.response_budget_spent import ResponseBudgetSpent
from trimtab.detectors.same_batch_repeated import SameBatchRepeated
from trimtab.detectors.scaler_skips_too_often import ScalerSkipsTooOften
from trimtab.detectors.step_slowing import StepSlowing
from trimtab.detectors.trimtab_failed import TrimtabFailed
from trimtab.detectors.update_too_large import UpdateTooLarge
from trimtab.detectors.update_too_small import UpdateTooSmall
from trimtab.detectors.weight_decay_dominates import WeightDecayDominates
from trimtab.detectors.weights_lost_after_load import WeightsLostAfterLoad

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
    GradientVanishing(),
    GraphDetached(),
    UpdateTooLarge(),
    UpdateTooSmall(),
    ClippingStarves(),
    ClippingAlwaysActive(),
    MomentsPoisoned(),
    WeightDecayDominates(),
    PrecisionUnderflow(),
    ScalerSkipsTooOften(),
    NormGrowing(),
    LabelsSorted(),
    LabelsUnrelated(),
    InputsUnscaled(),
    LossDoesNotFitTargets(),
    ModulesInWrongMode(),
    WeightsLostAfterLoad(),
    StepSlowing(),
    MemoryGrowing(),
    TrimtabFailed(),
    ResponseBudgetSpent(),
)

__all__ = [
    "DETECTORS",
    "ClippingAlwaysActive",
    "ClippingStarves",
    "Detector",
    "DoubleSoftmax",
    "GradientExploding",
    "GradientNotFinite",
    "GradientVanishing",
    "GradientsAccumulate",
    "GraphDetached",
    "InputsUnscaled",
    "LabelsSorted",
    "LabelsUnrelated",
    "LearningRateZero",
    "LossDoesNotFitTargets",
    "LossFarFromChance",
    "LossNotFinite",
    "MemoryGrowing",
    "MilestoneMissed",
    "ModulesInWrongMode",
    "MomentsPoisoned",
    "NormGrowing",
    "ParametersNeverChanged",
    "ParametersOutsideOptimizer",
    "PrecisionUnderflow",
    "ResponseBudgetSpent",
    "SameBatchRepeated",
    "ScalerSkipsTooOften",
    "StepSlowing",
    "TrimtabFailed",
    "UpdateTooLarge",
    "UpdateTooSmall",
    "WeightDecayDominates",
    "WeightsLostAfterLoad",
]
