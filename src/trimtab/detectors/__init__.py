"""The detectors: the ways in which a training goes wrong, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.detectors._detector import Detector
from trimtab.detectors.attention_logits_growing import AttentionLogitsGrowing
from trimtab.detectors.attention_saturated import AttentionSaturated
from trimtab.detectors.attention_uniform import AttentionUniform
from trimtab.detectors.better_than_possible import BetterThanPossible
from trimtab.detectors.clipping_always_active import ClippingAlwaysActive
from trimtab.detectors.clipping_starves import ClippingStarves
from trimtab.detectors.dead_units import DeadUnits
from trimtab.detectors.double_softmax import DoubleSoftmax
from trimtab.detectors.gradient_exploding import GradientExploding
from trimtab.detectors.gradient_not_finite import GradientNotFinite
from trimtab.detectors.gradient_vanishing import GradientVanishing
from trimtab.detectors.gradients_accumulate import GradientsAccumulate
from trimtab.detectors.graph_detached import GraphDetached
from trimtab.detectors.inputs_unscaled import InputsUnscaled
from trimtab.detectors.labels_sorted import LabelsSorted
from trimtab.detectors.labels_unrelated import LabelsUnrelated
from trimtab.detectors.latent_unused import LatentUnused
from trimtab.detectors.learning_rate_zero import LearningRateZero
from trimtab.detectors.logged_loss_not_finite import LoggedLossNotFinite
from trimtab.detectors.loss_at_chance import LossAtChance
from trimtab.detectors.loss_diverging import LossDiverging
from trimtab.detectors.loss_does_not_fit_targets import LossDoesNotFitTargets
from trimtab.detectors.loss_far_from_chance import LossFarFromChance
from trimtab.detectors.loss_not_finite import LossNotFinite
from trimtab.detectors.loss_not_moving import LossNotMoving
from trimtab.detectors.loss_scale_changed import LossScaleChanged
from trimtab.detectors.loss_spike import LossSpike
from trimtab.detectors.memory_growing import MemoryGrowing
from trimtab.detectors.metric_dropped import MetricDropped
from trimtab.detectors.metric_stuck_below_target import MetricStuckBelowTarget
from trimtab.detectors.milestone_missed import MilestoneMissed
from trimtab.detectors.modules_in_wrong_mode import ModulesInWrongMode
from trimtab.detectors.moments_poisoned import MomentsPoisoned
from trimtab.detectors.never_better_than_start import NeverBetterThanStart
from trimtab.detectors.norm_growing import NormGrowing
from trimtab.detectors.optimizer_state_reset import OptimizerStateReset
from trimtab.detectors.oscillating import Oscillating
from trimtab.detectors.parameters_never_changed import ParametersNeverChanged
from trimtab.detectors.parameters_outside_optimizer import ParametersOutsideOptimizer
from trimtab.detectors.past_its_peak import PastItsPeak
from trimtab.detectors.patience_spent import PatienceSpent
from trimtab.detectors.precision_underflow import PrecisionUnderflow
from trimtab.detectors.random_and_frozen import RandomAndFrozen
from trimtab.detectors.representation_collapsed import RepresentationCollapsed
from trimtab.detectors.response_budget_spent import ResponseBudgetSpent
from trimtab.detectors.same_batch_repeated import SameBatchRepeated
from trimtab.detectors.saturated_units import SaturatedUnits
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
    LoggedLossNotFinite(),
    LossScaleChanged(),
    LossDiverging(),
    LossSpike(),
    LossNotMoving(),
    LossAtChance(),
    NeverBetterThanStart(),
    Oscillating(),
    BetterThanPossible(),
    PastItsPeak(),
    MetricDropped(),
    MetricStuckBelowTarget(),
    PatienceSpent(),
    TrimtabFailed(),
    ResponseBudgetSpent(),
    AttentionLogitsGrowing(),
    AttentionSaturated(),
    AttentionUniform(),
    LatentUnused(),
    RepresentationCollapsed(),
    DeadUnits(),
    SaturatedUnits(),
    RandomAndFrozen(),
    OptimizerStateReset(),
)

__all__ = [
    "DETECTORS",
    "AttentionLogitsGrowing",
    "AttentionSaturated",
    "AttentionUniform",
    "BetterThanPossible",
    "ClippingAlwaysActive",
    "ClippingStarves",
    "DeadUnits",
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
    "LatentUnused",
    "LearningRateZero",
    "LoggedLossNotFinite",
    "LossAtChance",
    "LossDiverging",
    "LossDoesNotFitTargets",
    "LossFarFromChance",
    "LossNotFinite",
    "LossNotMoving",
    "LossScaleChanged",
    "LossSpike",
    "MemoryGrowing",
    "MetricDropped",
    "MetricStuckBelowTarget",
    "MilestoneMissed",
    "ModulesInWrongMode",
    "MomentsPoisoned",
    "NeverBetterThanStart",
    "NormGrowing",
    "OptimizerStateReset",
    "Oscillating",
    "ParametersNeverChanged",
    "ParametersOutsideOptimizer",
    "PastItsPeak",
    "PatienceSpent",
    "PrecisionUnderflow",
    "RandomAndFrozen",
    "RepresentationCollapsed",
    "ResponseBudgetSpent",
    "SameBatchRepeated",
    "SaturatedUnits",
    "ScalerSkipsTooOften",
    "StepSlowing",
    "TrimtabFailed",
    "UpdateTooLarge",
    "UpdateTooSmall",
    "WeightDecayDominates",
    "WeightsLostAfterLoad",
]
