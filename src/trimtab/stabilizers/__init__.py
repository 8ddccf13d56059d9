"""The stabilizers: mechanisms that keep a model or a schedule in range. This tuple is the whole catalogue.

Each is a function, or a class with `state_dict` and `load_state_dict`; a file may hold several that belong together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STABILIZERS: tuple[Callable[..., Any], ...] = ()

__all__ = ["STABILIZERS"]
