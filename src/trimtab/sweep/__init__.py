"""A sweep: a System or a training script over phases, arms and seeds, as a folder of runs and a store of results."""

from __future__ import annotations

from trimtab.sweep.plan import Arm, Condition, Found, Phase, Plan, Search, grid

__all__ = ["Arm", "Condition", "Found", "Phase", "Plan", "Search", "grid"]
