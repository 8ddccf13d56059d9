"""A sweep: a System or a training script over phases, arms and seeds, as a folder of runs and a store of results.

The names below are imported when they are first asked for: the process of every trial imports this package, and needs
neither the database nor the search.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Arm": "plan",
    "Condition": "plan",
    "Found": "plan",
    "LocalEngine": "engine",
    "Phase": "plan",
    "Plan": "plan",
    "Search": "plan",
    "Store": "store",
    "StoredSweep": "folder",
    "Sweep": "sweep",
    "facts_of": "folder",
    "find_sweep": "folder",
    "grid": "plan",
    "is_sweep": "folder",
    "read_phases": "written",
    "read_sweep": "folder",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'trimtab.sweep' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(f"trimtab.sweep.{_HOME[name]}"), name)


if TYPE_CHECKING:
    from trimtab.sweep.engine import LocalEngine as LocalEngine
    from trimtab.sweep.folder import StoredSweep as StoredSweep
    from trimtab.sweep.folder import facts_of as facts_of
    from trimtab.sweep.folder import find_sweep as find_sweep
    from trimtab.sweep.folder import is_sweep as is_sweep
    from trimtab.sweep.folder import read_sweep as read_sweep
    from trimtab.sweep.plan import Arm as Arm
    from trimtab.sweep.plan import Condition as Condition
    from trimtab.sweep.plan import Found as Found
    from trimtab.sweep.plan import Phase as Phase
    from trimtab.sweep.plan import Plan as Plan
    from trimtab.sweep.plan import Search as Search
    from trimtab.sweep.plan import grid as grid
    from trimtab.sweep.store import Store as Store
    from trimtab.sweep.sweep import Sweep as Sweep
    from trimtab.sweep.written import read_phases as read_phases
