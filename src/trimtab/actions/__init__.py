"""The actions: the only things that change a training, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.actions._action import Action
from trimtab.actions.back_off import BackOff
from trimtab.actions.clip import Clip
from trimtab.actions.early_stop import EarlyStop
from trimtab.actions.lower_learning_rate import LowerLearningRate
from trimtab.actions.notify import Notify
from trimtab.actions.reset_moments import ResetMoments
from trimtab.actions.stop import Stop

ACTIONS: tuple[type[Action], ...] = (Clip, LowerLearningRate, ResetMoments, BackOff, EarlyStop, Notify, Stop)

__all__ = [
    "ACTIONS",
    "Action",
    "BackOff",
    "Clip",
    "EarlyStop",
    "LowerLearningRate",
    "Notify",
    "ResetMoments",
    "Stop",
]
