"""Quantities that are looked at seldom: vectors as one course for each label, and what a user had examined by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.records import Value
from trimtab.trace import Trace

Course = list[tuple[int, float]]
"""Steps and values in order, NaN left out."""


def first(trace: Trace, names: Sequence[str], count: int) -> dict[str, Course]:
    """Return the first `count` looks at signals, by label for a vector and by name for a number."""
    return _courses(trace, {name: trace.first(name, count) for name in names})


def last(trace: Trace, names: Sequence[str], count: int) -> dict[str, Course]:
    """Return the latest `count` looks."""
    return _courses(trace, {name: trace.last(name, count) for name in names})


def since(trace: Trace, names: Sequence[str], step: int) -> dict[str, Course]:
    """Return the looks from a step on."""
    return _courses(trace, {name: trace.window(name, trace.step - step + 1) for name in names})


def lasting(trace: Trace, names: Sequence[str], looks: int, steps: int) -> dict[str, Course]:
    """Return at least the latest `looks` looks, and all of the last `steps` steps; what has fewer is left out."""
    found: dict[str, Course] = {}
    for name in names:
        late = trace.last(name, looks)[0]
        if len(late) == looks:
            begin = min(late[0], late[-1] - steps)
            if trace.first(name, 1)[0][0] <= begin:
                found |= since(trace, (name,), begin)
    return {label: course for label, course in found.items() if len(course) >= looks}


def _courses(trace: Trace, series: dict[str, tuple[Sequence[int], Sequence[Value]]]) -> dict[str, Course]:
    found: dict[str, Course] = {}
    for name, (steps, rows) in series.items():
        labels = trace.labels(name)
        for step, row in zip(steps, rows, strict=True):
            for label, value in zip(labels, row, strict=False) if isinstance(row, tuple) else ((name, row),):
                if math.isfinite(value):
                    found.setdefault(label, []).append((step, value))
    return found


def examined(trace: Trace, what: str) -> tuple[str, ...]:
    """Return the signals of this kind ("rank", "entropy", ...) of tensors that the user named to be examined."""
    ending = f"/{what}"
    return tuple(name for name in trace.names() if name.endswith(ending))


def values(course: Course) -> list[float]:
    """Return the values alone."""
    return [value for _, value in course]


def middle(numbers: Sequence[float]) -> float:
    """Return the median, NaN of nothing."""
    ordered = sorted(numbers)
    half = len(ordered) // 2
    if not ordered:
        return math.nan
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
