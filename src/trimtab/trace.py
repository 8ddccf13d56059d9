"""The past of a training: a read-only history of one stream's signals along the current attempt.

A Trace knows nothing of torch and does no judging. Detectors ask it for series, windows and folds; only the Guard and
the replay append to it. The same appends and rewinds always give the same Trace, which is why replay equals live.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from trimtab.records import Note, Signal, Value

HEAD = 256
"""How many of the first entries of each series are kept for ever."""
RING = 4096
"""How many of the latest entries of each series are kept."""
SNAPSHOT_EVERY = 32
"""Fold states are remembered about every so many rows, so that a rewind need not start from the beginning."""

S = TypeVar("S")


class Fold(Protocol[S]):
    """A running summary of one scalar signal: a hashable value object with a pure update."""

    @property
    def reads(self) -> str:
        """The name of the signal."""

    def start(self) -> S:
        """Return the state before any row."""

    def advance(self, state: S, step: int, value: float) -> S:
        """Return the state after one more row; `state` itself must not change."""


@dataclass(frozen=True, slots=True)
class Ema:
    """Exponential moving average without start bias; non-finite values are passed over.

    The state is (weighted sum, sum of weights); `Ema.value(state)` is their quotient, NaN before the first value.
    """

    reads: str
    half_life: float = 20.0

    def start(self) -> tuple[float, float]:
        """Return (0, 0)."""
        return (0.0, 0.0)

    def advance(self, state: tuple[float, float], step: int, value: float) -> tuple[float, float]:
        """Return the state after one more value."""
        if not math.isfinite(value):
            return state
        keep = 0.5 ** (1.0 / self.half_life)
        return (keep * state[0] + (1 - keep) * value, keep * state[1] + (1 - keep))

    @staticmethod
    def value(state: tuple[float, float]) -> float:
        """Return the average, NaN before the first value."""
        return state[0] / state[1] if state[1] > 0 else math.nan


@dataclass(frozen=True, slots=True)
class Best:
    """The best finite value so far and its step; the state is (step, value), (-1, NaN) before the first."""

    reads: str
    better: str = "lower"

    def start(self) -> tuple[int, float]:
        """Return (-1, NaN)."""
        return (-1, math.nan)

    def advance(self, state: tuple[int, float], step: int, value: float) -> tuple[int, float]:
        """Return the state after one more value; of equal values the earlier one stays the best."""
        if not math.isfinite(value):
            return state
        if state[0] < 0 or (value < state[1] if self.better == "lower" else value > state[1]):
            return (step, value)
        return state


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last `size` finite values, in arrival order; median, MAD and quantiles are read from the state."""

    reads: str
    size: int = 64

    def start(self) -> tuple[float, ...]:
        """Return the empty tuple."""
        return ()

    def advance(self, state: tuple[float, ...], step: int, value: float) -> tuple[float, ...]:
        """Return the state after one more value."""
        if not math.isfinite(value):
            return state
        return (*state[-(self.size - 1) :], value) if self.size > 1 else (value,)

    @staticmethod
    def quantile(state: tuple[float, ...], q: float) -> float:
        """Return the `q`-quantile (0..1, linear interpolation), NaN for an empty state."""
        if not state:
            return math.nan
        ordered = sorted(state)
        place = q * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    @classmethod
    def median(cls, state: tuple[float, ...]) -> float:
        """Return the median, NaN for an empty state."""
        return cls.quantile(state, 0.5)

    @classmethod
    def mad(cls, state: tuple[float, ...]) -> float:
        """Return the median absolute deviation, NaN for an empty state."""
        middle = cls.median(state)
        return cls.median(tuple(abs(value - middle) for value in state))


@dataclass(frozen=True, slots=True)
class Last:
    """How often and where a signal was last seen; the state is (count, step, value)."""

    reads: str

    def start(self) -> tuple[int, int, float]:
        """Return (0, -1, NaN)."""
        return (0, -1, math.nan)

    def advance(self, state: tuple[int, int, float], step: int, value: float) -> tuple[int, int, float]:
        """Return the state after one more value."""
        return (state[0] + 1, step, value)


class Series:
    """The kept entries of one signal: the first `HEAD`, then the latest `RING`, as parallel lists.

    `forgotten` counts the entries between the two that are no longer kept; they lie before the step `gap_end`.
    """

    __slots__ = ("forgotten", "gap_end", "labels", "steps", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[Value] = []
        self.labels: tuple[str, ...] = ()
        self.forgotten = 0
        self.gap_end = -1

    @property
    def count(self) -> int:
        """How many entries there were, forgotten ones included."""
        return len(self.steps) + self.forgotten

    def append(self, step: int, value: Value, labels: tuple[str, ...]) -> None:
        """Add one entry; a vector whose entries now mean something else starts a new history."""
        if labels is not self.labels and labels != self.labels:
            self.steps, self.values, self.forgotten = [], [], 0
        self.labels = labels
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > HEAD + 2 * RING:
            self.forgotten += len(self.steps) - HEAD - RING
            del self.steps[HEAD:-RING]
            del self.values[HEAD:-RING]
            self.gap_end = self.steps[HEAD]

    def window(self, first_step: int) -> tuple[list[int], list[Value]]:
        """Return the entries whose step is at least `first_step`."""
        place = bisect.bisect_left(self.steps, first_step)
        return self.steps[place:], self.values[place:]

    def cut(self, to_step: int) -> None:
        """Forget every entry later than `to_step`.

        Where this reaches back among the entries that are no longer kept, their number is estimated from the steps
        on both sides.
        """
        place = bisect.bisect_right(self.steps, to_step)
        if self.forgotten and to_step < self.gap_end:
            gap_begin = self.steps[HEAD - 1]
            share = max(to_step - gap_begin, 0) / max(self.gap_end - gap_begin, 1)
            self.forgotten, self.gap_end = int(self.forgotten * share), to_step
        del self.steps[place:]
        del self.values[place:]


class _Kept:
    """A fold and its state after the latest row; a cell, for looking folds up by their value at each row is dear."""

    __slots__ = ("advance", "state")

    def __init__(self, fold: Fold[Any], state: Any):
        self.advance = fold.advance
        self.state = state


class Trace:
    """The history of one stream, along the current attempt.

    Args:
        stream: the optimizer whose signals these are.
        folds: summaries to keep from the first row on; a fold asked for later is built from the kept entries.
        notes: the announcements of the run, shared between streams and in order of their step.
        attempt: the attempt that the training is in when this stream first appears.
    """

    def __init__(
        self,
        stream: str = "main",
        *,
        folds: Iterable[Fold[Any]] = (),
        notes: list[Note] | None = None,
        attempt: int = 0,
    ):
        self.stream = stream
        self.attempt = attempt
        self.step = -1
        self.rows = 0
        self.row: Signal | None = None
        self.notes: list[Note] = notes if notes is not None else []
        self._series: dict[str, Series] = {}
        self._folds: dict[Fold[Any], _Kept] = {}
        self._by_signal: dict[str, list[_Kept]] = {}
        self._snapshots: list[tuple[int, dict[Fold[Any], Any]]] = []
        self._since_snapshot = SNAPSHOT_EVERY
        for fold in dict.fromkeys(folds):
            self._register(fold)

    # -- writing: the Guard and the replay only ------------------------------------------------------------------

    def append(self, row: Signal) -> None:
        """Add one row; its step must not lie before the last one and its attempt must be the current one."""
        if row.stream != self.stream:
            raise ValueError(f"the trace of stream {self.stream!r} was given a row of stream {row.stream!r}")
        if row.attempt != self.attempt or row.step < self.step:
            raise ValueError(
                f"stream {self.stream!r}: expected a row of attempt {self.attempt} at step {self.step} or later, "
                f"got attempt {row.attempt} step {row.step}; call rewind() first when the training went back"
            )
        if self._since_snapshot >= SNAPSHOT_EVERY and row.step > self.step:
            self._remember()
        self.row, self.step = row, row.step
        self.rows += 1
        self._since_snapshot += 1
        series = self._series
        for name, value in row.values.items():
            entry = series.get(name)
            if entry is None:
                entry = series[name] = Series()
            if isinstance(value, tuple):
                entry.append(row.step, value, row.labels.get(name, ()))
                continue
            entry.append(row.step, value, ())
            for kept in self._by_signal.get(name, ()):
                kept.state = kept.advance(kept.state, row.step, value)

    def rewind(self, to_step: int) -> None:
        """Follow a rollback: forget every row later than `to_step` and begin the next attempt."""
        for series in self._series.values():
            series.cut(to_step)
        while self._snapshots and self._snapshots[-1][0] > to_step:
            self._snapshots.pop()
        since, states = self._snapshots[-1] if self._snapshots else (-1, {})
        for fold, kept in self._folds.items():
            kept.state = self._refold(fold, states.get(fold), since)
        self._since_snapshot = SNAPSHOT_EVERY
        self.attempt += 1
        self.step = min(self.step, to_step)
        self.row = None

    def _remember(self) -> None:
        """Keep the state of every fold after all rows up to the current step; thin out the older half when many."""
        self._snapshots.append((self.step, {fold: kept.state for fold, kept in self._folds.items()}))
        self._since_snapshot = 0
        most = 2 * max(RING // SNAPSHOT_EVERY, 1)
        if len(self._snapshots) > most:
            del self._snapshots[1 : most // 2 : 2]

    def _register(self, fold: Fold[Any]) -> _Kept:
        kept = self._folds[fold] = _Kept(fold, self._refold(fold, None, -1))
        self._by_signal.setdefault(fold.reads, []).append(kept)
        return kept

    def _refold(self, fold: Fold[Any], state: Any, since: int) -> Any:
        if state is None:
            state, since = fold.start(), -1
        series = self._series.get(fold.reads)
        if series is not None:
            for step, value in zip(*series.window(since + 1), strict=True):
                if not isinstance(value, tuple):
                    state = fold.advance(state, step, value)
        return state

    # -- reading: detectors --------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Say whether `name` was measured at least once."""
        series = self._series.get(name)
        return series is not None and bool(series.steps)

    def count(self, name: str) -> int:
        """Return how many measurements of `name` lie on the current attempt's path."""
        series = self._series.get(name)
        return series.count if series is not None else 0

    def scalar(self, name: str) -> float | None:
        """Return the latest value of a scalar signal, or None if it was never measured."""
        series = self._series.get(name)
        if series is None or not series.values:
            return None
        value = series.values[-1]
        if isinstance(value, tuple):
            raise TypeError(f"signal {name!r} is a vector; read it with vector()")
        return value

    def vector(self, name: str) -> Mapping[str, float] | None:
        """Return the latest value of a vector signal as label -> number, or None if it was never measured."""
        series = self._series.get(name)
        if series is None or not series.values:
            return None
        value = series.values[-1]
        if not isinstance(value, tuple):
            raise TypeError(f"signal {name!r} is a scalar; read it with scalar()")
        return dict(zip(series.labels, value, strict=False))

    def labels(self, name: str) -> tuple[str, ...]:
        """Return the names of the entries of a vector signal, in forward order for per-tensor signals."""
        series = self._series.get(name)
        return series.labels if series is not None else ()

    def window(self, name: str, steps: int) -> tuple[Sequence[int], Sequence[Value]]:
        """Return steps and values of `name` measured within the last `steps` steps, the current one included."""
        series = self._series.get(name)
        return series.window(self.step - steps + 1) if series is not None else ((), ())

    def first(self, name: str, count: int) -> tuple[Sequence[int], Sequence[Value]]:
        """Return the first `count` (at most `HEAD`) measurements of `name`."""
        series = self._series.get(name)
        return (series.steps[: min(count, HEAD)], series.values[: min(count, HEAD)]) if series is not None else ((), ())

    def last(self, name: str, count: int) -> tuple[Sequence[int], Sequence[Value]]:
        """Return the latest `count` (at most `RING`) measurements of `name`."""
        series = self._series.get(name)
        place = min(count, RING)
        return (series.steps[-place:], series.values[-place:]) if series is not None and place > 0 else ((), ())

    def last_step(self, name: str) -> int:
        """Return the step at which `name` was last measured, -1 if never."""
        series = self._series.get(name)
        return series.steps[-1] if series is not None and series.steps else -1

    def names(self) -> tuple[str, ...]:
        """Return the names of all signals on the current path."""
        return tuple(name for name, series in self._series.items() if series.steps)

    def fold(self, fold: Fold[S]) -> S:
        """Return the state of a fold, shared by all who ask for an equal one."""
        try:
            kept = self._folds[fold]
        except KeyError:
            kept = self._register(fold)
        state: S = kept.state
        return state

    def noted(self, kinds: Iterable[str]) -> Note | None:
        """Return the first Note of one of `kinds` that holds at the current step."""
        if not self.notes:
            return None
        wanted = set(kinds)
        return next((note for note in self.notes if note.kind in wanted and note.covers(self.step)), None)
