"""What several detectors read from rows of tensors and groups: which are weights, the middle of a few, steady rates."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from trimtab.records import Value
from trimtab.trace import HEAD, Trace

_EMBEDDING = ("emb", "wte", "wpe", "lookup")


@functools.lru_cache(maxsize=64)
def weights_of(names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the places of the weights among tensors in forward order: no biases and, as far as names tell, no tables.

    An embedding gets gradients in the few rows that a batch asked for, which says nothing about its depth.
    """
    return tuple(
        index
        for index, name in enumerate(names)
        if "bias" not in name.lower() and not any(part in name.lower() for part in _EMBEDDING)
    )


def middle(values: Sequence[Value]) -> float:
    """Return the upper median of the finite ones among a few values, NaN for none."""
    finite = sorted(value for value in values if not isinstance(value, tuple) and math.isfinite(value))
    return finite[len(finite) // 2] if finite else math.nan


def largest(row: Value) -> float:
    """Return the largest finite entry of a vector, 0 for none."""
    entries = row if isinstance(row, tuple) else (row,)
    return max((entry for entry in entries if math.isfinite(entry)), default=0.0)


def rate_is_steady(trace: Trace, since: int) -> bool:
    """Say whether the learning rate is what it was since a step, within a factor of two, and near its usual height.

    False while it warms up, while it is annealed to nothing and just after a restart: what updates do then says
    nothing about the rate that was chosen. False where no rate was measured.
    """
    rows = trace.window("learning_rate", trace.step - since + 1)[1]
    rates = [largest(row) for row in rows]
    if not rates or min(rates) <= 0.0:
        return False
    highest = max((largest(row) for row in trace.first("learning_rate", HEAD)[1]), default=0.0)
    return max(rates) <= 2.0 * min(rates) and rates[-1] >= 0.2 * max(highest, *rates)
