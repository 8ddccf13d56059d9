"""Checkpoints that cannot lie: what a training is made of, kept in memory or in a folder, and put back exactly."""

from __future__ import annotations

from trimtab.checkpoint.constructor import Constructor
from trimtab.checkpoint.foreign import read_plain
from trimtab.checkpoint.inspection import Difference, Inspection, Verified, diff, inspect, verify
from trimtab.checkpoint.loading import Loaded, load, rebuild, resume
from trimtab.checkpoint.planning import Plan, plan
from trimtab.checkpoint.rotation import Checkpoints
from trimtab.checkpoint.saving import Measured, save
from trimtab.checkpoint.snapshots import Ring
from trimtab.checkpoint.state import Captured, Restored, TrainingState
from trimtab.checkpoint.tree import Plain, flatten, unflatten

__all__ = [
    "Captured",
    "Checkpoints",
    "Constructor",
    "Difference",
    "Inspection",
    "Loaded",
    "Measured",
    "Plain",
    "Plan",
    "Restored",
    "Ring",
    "TrainingState",
    "Verified",
    "diff",
    "flatten",
    "inspect",
    "load",
    "plan",
    "read_plain",
    "rebuild",
    "resume",
    "save",
    "unflatten",
    "verify",
]
