"""Checkpoints that cannot lie: what a training is made of, kept in memory or in a folder, and put back exactly."""

from __future__ import annotations

from trimtab.checkpoint.state import Captured, Restored, TrainingState
from trimtab.checkpoint.tree import Plain, flatten, unflatten

__all__ = ["Captured", "Plain", "Restored", "TrainingState", "flatten", "unflatten"]
