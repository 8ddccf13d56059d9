"""Running summaries that several detectors share, beside those of `trimtab.trace`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class Run(NamedTuple):
    """How long a signal has kept its latest value.

    Attributes:
        value: the latest value.
        length: so many measurements in a row had it; 0 before the first.
        since: the step at which the first of them was taken, -1 before the first.
        longest_before: length of the longest earlier run.
        runs: how many earlier runs there were; 0 while the value never changed.
    """

    value: float = math.nan
    length: int = 0
    since: int = -1
    longest_before: int = 0
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Repeats:
    """How long a signal has been exactly the same; NaN equals nothing."""

    reads: str

    def start(self) -> Run:
        """Return the empty run."""
        return Run()

    def advance(self, state: Run, step: int, value: float) -> Run:
        """Return the run that ends with this value."""
        if value == state.value:
            return Run(value, state.length + 1, state.since, state.longest_before, state.runs)
        if state.length == 0:
            return Run(value, 1, step, 0, 0)
        return Run(value, 1, step, max(state.longest_before, state.length), state.runs + 1)


class Broken(NamedTuple):
    """How long a signal has not been finite, and what it was before.

    Attributes:
        length: so many measurements in a row were not finite; 0 while it is finite.
        since: the step of the first of them, -1 while it is finite.
        last: the latest finite value, NaN before the first.
        last_step: the step of that value, -1 before the first.
    """

    length: int = 0
    since: int = -1
    last: float = math.nan
    last_step: int = -1


@dataclass(frozen=True, slots=True)
class Nonfinite:
    """How long a signal has been NaN or infinite."""

    reads: str

    def start(self) -> Broken:
        """Return the state of a signal that was never measured."""
        return Broken()

    def advance(self, state: Broken, step: int, value: float) -> Broken:
        """Return the state after one more value."""
        if math.isfinite(value):
            return Broken(0, -1, value, step)
        return Broken(state.length + 1, step if state.length == 0 else state.since, state.last, state.last_step)
