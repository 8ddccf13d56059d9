"""The actions: the only things that change a training, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.actions._action import Action
from trimtab.actions.back_off import BackOff
from trimtab.actions.clip import Clip
from trimtab.actions.early_stop import EarlyStop
from trimtab.actions.lower_learning_rate import LowerLearningRate
from trimtab.actions.notify import Notify
from trimtab.actions.reset_moments import ResetMoments
from trimtab.actions.roll_back import RollBack
from trimtab.actions.skip_step import SkipStep
from trimtab.actions.stop import Stop

ACTIONS: tuple[type[Action], ...] = (
    SkipStep, Clip, LowerLearningRate, ResetMoments, RollBack, BackOff, EarlyStop, Notify, Stop,
)  # fmt: skip

__all__ = [
    "ACTIONS",
    "Action",
    "BackOff",
    "Clip",
    "EarlyStop",
    "LowerLearningRate",
    "Notify",
    "ResetMoments",
    "RollBack",
    "SkipStep",
    "Stop",
]
