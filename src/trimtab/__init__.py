"""Trimtab keeps the training of neural networks on course: record, detect, act, explain, prove."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Action": "trimtab.actions",
    "BackOff": "trimtab.actions",
    "Batches": "trimtab.batches",
    "Clip": "trimtab.actions",
    "Detector": "trimtab.detectors",
    "Diagnosis": "trimtab.records",
    "EarlyStop": "trimtab.actions",
    "Finding": "trimtab.records",
    "Guard": "trimtab.guard",
    "Hypothesis": "trimtab.hypotheses",
    "Judge": "trimtab.judge",
    "Live": "trimtab.live",
    "LowerLearningRate": "trimtab.actions",
    "Map": "trimtab.panels",
    "Milestone": "trimtab.milestone",
    "Note": "trimtab.records",
    "Notify": "trimtab.actions",
    "Outcome": "trimtab.records",
    "Patience": "trimtab.patience",
    "ResetMoments": "trimtab.actions",
    "RollBack": "trimtab.actions",
    "Ring": "trimtab.checkpoint",
    "Run": "trimtab.run",
    "Scatter": "trimtab.panels",
    "Severity": "trimtab.records",
    "Signal": "trimtab.records",
    "SkipStep": "trimtab.actions",
    "Stop": "trimtab.actions",
    "Sweep": "trimtab.sweep",
    "System": "trimtab.system",
    "Table": "trimtab.panels",
    "Trace": "trimtab.trace",
    "Training": "trimtab.system",
    "TrainingStopped": "trimtab.errors",
    "Unknown": "trimtab.records",
    "UserError": "trimtab.errors",
    "check": "trimtab.experiment",
    "compare": "trimtab.compare",
    "diagnose": "trimtab.diagnose",
    "tap": "trimtab.tap",
    "train": "trimtab.train",
    "watch": "trimtab.watch",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import trimtab` costs nothing and needs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """This package: `trimtab.watch` stays the function, also after the module of the same name was imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if TYPE_CHECKING:
    from trimtab.actions import Action as Action
    from trimtab.actions import BackOff as BackOff
    from trimtab.actions import Clip as Clip
    from trimtab.actions import EarlyStop as EarlyStop
    from trimtab.actions import LowerLearningRate as LowerLearningRate
    from trimtab.actions import Notify as Notify
    from trimtab.actions import ResetMoments as ResetMoments
    from trimtab.actions import RollBack as RollBack
    from trimtab.actions import SkipStep as SkipStep
    from trimtab.actions import Stop as Stop
    from trimtab.batches import Batches as Batches
    from trimtab.checkpoint import Ring as Ring
    from trimtab.compare import compare as compare
    from trimtab.detectors import Detector as Detector
    from trimtab.diagnose import diagnose as diagnose
    from trimtab.errors import TrainingStopped as TrainingStopped
    from trimtab.errors import UserError as UserError
    from trimtab.experiment import check as check
    from trimtab.guard import Guard as Guard
    from trimtab.hypotheses import Hypothesis as Hypothesis
    from trimtab.judge import Judge as Judge
    from trimtab.live import Live as Live
    from trimtab.milestone import Milestone as Milestone
    from trimtab.panels import Map as Map
    from trimtab.panels import Scatter as Scatter
    from trimtab.panels import Table as Table
    from trimtab.patience import Patience as Patience
    from trimtab.records import Diagnosis as Diagnosis
    from trimtab.records import Finding as Finding
    from trimtab.records import Note as Note
    from trimtab.records import Outcome as Outcome
    from trimtab.records import Severity as Severity
    from trimtab.records import Signal as Signal
    from trimtab.records import Unknown as Unknown
    from trimtab.run import Run as Run
    from trimtab.sweep import Sweep as Sweep
    from trimtab.system import System as System
    from trimtab.system import Training as Training
    from trimtab.tap import tap as tap
    from trimtab.trace import Trace as Trace
    from trimtab.train import train as train
    from trimtab.watch import watch as watch
