"""The probes: experiments on a copy, one claim in each file. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.probes._probe import Probe, Result, Subject, Verdict
from trimtab.probes.checkpoint_loads_identically import CheckpointLoadsIdentically
from trimtab.probes.evaluation_repeats_exactly import EvaluationRepeatsExactly
from trimtab.probes.every_parameter_on_the_loss_path_is_trained_or_loaded import (
    EveryParameterOnTheLossPathIsTrainedOrLoaded,
)
from trimtab.probes.representation_ignores_position import RepresentationIgnoresPosition
from trimtab.probes.same_seed_repeats_exactly import SameSeedRepeatsExactly
from trimtab.probes.settings_have_effect import SettingsHaveEffect
from trimtab.probes.start_is_good_enough import GoodStart, StartIsGoodEnough, Try, first_good_start

PROBES: tuple[Probe, ...] = (
    SameSeedRepeatsExactly(), EvaluationRepeatsExactly(), EveryParameterOnTheLossPathIsTrainedOrLoaded(),
    CheckpointLoadsIdentically(), StartIsGoodEnough(), SettingsHaveEffect(),
    RepresentationIgnoresPosition(),
)  # fmt: skip

__all__ = [
    "PROBES",
    "CheckpointLoadsIdentically",
    "EvaluationRepeatsExactly",
    "EveryParameterOnTheLossPathIsTrainedOrLoaded",
    "GoodStart",
    "Probe",
    "RepresentationIgnoresPosition",
    "Result",
    "SameSeedRepeatsExactly",
    "SettingsHaveEffect",
    "StartIsGoodEnough",
    "Subject",
    "Try",
    "Verdict",
    "first_good_start",
]
