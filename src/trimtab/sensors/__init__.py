"""The sensors: quantities that Trimtab can measure, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.live import Sensor
from trimtab.sensors.activation_stats import ActivationStats
from trimtab.sensors.attention_stats import AttentionStats
from trimtab.sensors.batch_fingerprint import BatchFingerprint
from trimtab.sensors.batch_statistics import BatchStatistics
from trimtab.sensors.evaluated_in_training import EvaluatedInTraining
from trimtab.sensors.first_nonfinite import FirstNonfinite
from trimtab.sensors.frozen_values import FrozenValues
from trimtab.sensors.gradient_noise import GradientNoise
from trimtab.sensors.gradient_norm import GradientNorm
from trimtab.sensors.gradient_norm_applied import GradientNormApplied
from trimtab.sensors.gradients_carried import GradientsCarried
from trimtab.sensors.graph_census import GraphCensus
from trimtab.sensors.learning_rate import LearningRate
from trimtab.sensors.loss import Loss
from trimtab.sensors.loss_components import LossComponents
from trimtab.sensors.loss_scale import LossScale
from trimtab.sensors.module_modes import ModuleModes
from trimtab.sensors.moments import Moments
from trimtab.sensors.optimizer_coverage import OptimizerCoverage
from trimtab.sensors.precision import Precision
from trimtab.sensors.representation import Representation
from trimtab.sensors.resources import Resources
from trimtab.sensors.update_ratio import UpdateRatio

SENSORS: tuple[Sensor, ...] = (
    Loss(),
    LearningRate(),
    GradientNorm(),
    GradientNormApplied(),
    GradientsCarried(),
    FirstNonfinite(),
    UpdateRatio(),
    OptimizerCoverage(),
    BatchFingerprint(),
    GraphCensus(),
    Moments(),
    LossScale(),
    Precision(),
    GradientNoise(),
    BatchStatistics(),
    Resources(),
    ModuleModes(),
    EvaluatedInTraining(),
    AttentionStats(),
    Representation(),
    ActivationStats(),
    LossComponents(),
    FrozenValues(),
)

__all__ = [
    "SENSORS",
    "ActivationStats",
    "AttentionStats",
    "BatchFingerprint",
    "BatchStatistics",
    "EvaluatedInTraining",
    "FirstNonfinite",
    "FrozenValues",
    "GradientNoise",
    "GradientNorm",
    "GradientNormApplied",
    "GradientsCarried",
    "GraphCensus",
    "LearningRate",
    "Loss",
    "LossComponents",
    "LossScale",
    "ModuleModes",
    "Moments",
    "OptimizerCoverage",
    "Precision",
    "Representation",
    "Resources",
    "UpdateRatio",
]
