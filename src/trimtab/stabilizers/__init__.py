"""The stabilizers: mechanisms that keep a model or a schedule in range. This tuple is the whole catalogue.

Each is a function, or a class with `state_dict` and `load_state_dict`; a file may hold several that belong together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trimtab.stabilizers._heads import Layout
from trimtab.stabilizers.activation_clamp import ActivationClamp, Baseline, VarianceClamp
from trimtab.stabilizers.anti_collapse import (
    entropy_floor,
    free_bits,
    normalised_entropy,
    orthogonality_penalty,
    orthogonality_projection,
    saturation_hinge,
    sparsity_target,
    spread_across_tasks,
    usage_weighted_cosine,
)
from trimtab.stabilizers.curriculum import Competence, Curriculum, Stage
from trimtab.stabilizers.freeze_heads import FreezeHeads
from trimtab.stabilizers.learning_rate import LearningRate
from trimtab.stabilizers.module_schedule import ModuleSchedule, NoEffect, Phase, parameter_groups
from trimtab.stabilizers.noise import Noise
from trimtab.stabilizers.rescale_norm import NormStats, NormSummary, norm_excess_penalty, rescale_norm
from trimtab.stabilizers.shift_invariant_logits import shift_invariant_logits
from trimtab.stabilizers.soft_clamp import soft_clamp
from trimtab.stabilizers.staged_escalation import HealthGate, Knob, Look, StagedEscalation

STABILIZERS: tuple[Callable[..., Any], ...] = (
    rescale_norm,
    norm_excess_penalty,
    NormStats,
    soft_clamp,
    shift_invariant_logits,
    entropy_floor,
    usage_weighted_cosine,
    sparsity_target,
    orthogonality_projection,
    orthogonality_penalty,
    saturation_hinge,
    spread_across_tasks,
    free_bits,
    ActivationClamp,
    VarianceClamp,
    FreezeHeads,
    Noise,
    StagedEscalation,
    LearningRate,
    ModuleSchedule,
    Curriculum,
)

__all__ = [
    "STABILIZERS",
    "ActivationClamp",
    "Baseline",
    "Competence",
    "Curriculum",
    "FreezeHeads",
    "HealthGate",
    "Knob",
    "Layout",
    "LearningRate",
    "Look",
    "ModuleSchedule",
    "NoEffect",
    "Noise",
    "NormStats",
    "NormSummary",
    "Phase",
    "Stage",
    "StagedEscalation",
    "VarianceClamp",
    "entropy_floor",
    "free_bits",
    "norm_excess_penalty",
    "normalised_entropy",
    "orthogonality_penalty",
    "orthogonality_projection",
    "parameter_groups",
    "rescale_norm",
    "saturation_hinge",
    "shift_invariant_logits",
    "soft_clamp",
    "sparsity_target",
    "spread_across_tasks",
    "usage_weighted_cosine",
]
