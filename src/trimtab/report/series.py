"""What the report draws: the signals of a run as thinned lines and a heat map, gathered in one pass over its rows."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trimtab.records import Signal, Value

MOST_POINTS = 1500
"""A line of the report has at most so many points."""
MOST_COLUMNS = 120
"""A heat map has at most so many columns."""
MEDIANS = 60
"""A long line is smoothed by the medians of so many bins."""
MOST_LABELS = 6
"""So many entries of a vector are drawn as lines of their own."""

LINES = ("loss", "gradient_norm", "gradient_norm_applied", "learning_rate", "update_ratio")
"""The signals that the report draws as lines; vectors get one line for each entry."""
NOISY = ("loss", "gradient_norm", "gradient_norm_applied")
"""The signals whose trend the eye finds only when they are smoothed."""
HEAT = "gradient_norms"
"""The vector signal that the report draws as a heat map."""

_MEASURED = frozenset({"loss", "backward_calls", "learning_rate", "gradient_norm", "update_skipped"})
"""A row with one of these was measured by Trimtab; any other row was recorded by the user."""
_OURS = ("trimtab_", "responses_")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One signal of one stream during one attempt.

    Attributes:
        name, label, stream, attempt: what it is; the label names the entry of a vector.
        faint: the training went back from it later.
        steps, values: the measurements, thinned.
        smooth: steps and medians of the bins of a long line, None for a short one.
    """

    name: str
    label: str = ""
    stream: str = "main"
    attempt: int = 0
    faint: bool = False
    steps: Floats
    values: Floats
    smooth: tuple[Floats, Floats] | None = None


class Heat:
    """The largest norm of each tensor in each bin of steps; the bins double when the run outgrows them.

    Attributes:
        labels: the tensors, in the order in which they were first seen.
        first: the first step.
        width: how many steps a bin holds.
        columns: how many bins there are.
    """

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.first = 0
        self.width = 1
        self.columns = 0
        self._cells = np.empty((0, MOST_COLUMNS))
        self._of: tuple[tuple[str, ...], list[int]] = ((), [])

    @property
    def cells(self) -> Floats:
        """The norms by tensor and bin, shape (labels, columns); -1 where a tensor was not measured with the others.

        A bin in which nothing at all was measured shows the one before.
        """
        cells = self._cells[:, : self.columns]
        measured = (cells != -1).any(axis=0)
        filled: Floats = cells[:, np.maximum.accumulate(np.where(measured, np.arange(self.columns), 0))]
        return filled

    def add(self, step: int, labels: tuple[str, ...], norms: tuple[float, ...]) -> None:
        """Take in one vector; a norm that is not a number outweighs every other."""
        if not self.columns:
            self.first = step
        place = max(step - self.first, 0) // self.width
        while place >= MOST_COLUMNS:
            self._double()
            place = (step - self.first) // self.width
        self.columns = max(self.columns, place + 1)
        rows = self._rows(labels)
        self._cells[rows, place] = np.maximum(self._cells[rows, place], norms)

    def _rows(self, labels: tuple[str, ...]) -> list[int]:
        known, rows = self._of
        if labels is known or labels == known:
            return rows
        new = [label for label in labels if label not in self.labels]
        self.labels += new
        self._cells = np.vstack([self._cells, np.full((len(new), MOST_COLUMNS), -1.0)])
        rows = [self.labels.index(label) for label in labels]
        self._of = (labels, rows)
        return rows

    def _double(self) -> None:
        half = np.maximum(self._cells[:, 0::2], self._cells[:, 1::2])
        self._cells = np.hstack([half, np.full_like(half, -1.0)])
        self.width *= 2
        self.columns = (self.columns + 1) // 2


@dataclass(slots=True, kw_only=True)
class Signals:
    """Everything that the report draws of a run.

    Attributes:
        lines: signal name -> its lines, thinned.
        metrics: name of a quantity that the user recorded -> its lines, thinned.
        heat: stream -> its heat map of gradient norms.
        rows: how many rows there were.
        last: stream -> its last step.
        left_out: signal name -> how many further entries it has.
    """

    lines: dict[str, list[Line]] = field(default_factory=dict)
    metrics: dict[str, list[Line]] = field(default_factory=dict)
    heat: dict[str, Heat] = field(default_factory=dict)
    rows: int = 0
    last: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


_Key = tuple[str, str, str, int]
_Points = tuple["array[float]", "array[float]"]


def gather(rows: Iterable[Signal]) -> Signals:
    """Read every row once and return what is drawn."""
    found = Signals()
    points: dict[bool, dict[_Key, _Points]] = {False: {}, True: {}}
    for row in rows:
        found.rows += 1
        found.last[row.stream] = max(found.last.get(row.stream, 0), row.step)
        if _MEASURED.isdisjoint(row.values):
            for name, value in row.values.items():
                if not name.startswith(_OURS):
                    _put(points[True], row, name, value, found.left_out)
            continue
        for name in LINES:
            if name in row.values:
                _put(points[False], row, name, row.values[name], found.left_out)
        norms = row.values.get(HEAT)
        if isinstance(norms, tuple) and norms:
            found.heat.setdefault(row.stream, Heat()).add(row.step, _labels(row, HEAT, len(norms)), norms)
    found.lines, found.metrics = _lines(points[False]), _lines(points[True])
    return found


def thin(steps: Floats, values: Floats, most: int = MOST_POINTS) -> tuple[Floats, Floats]:
    """Return at most `most` points that keep each bin's smallest, largest and first non-finite value, in order."""
    if len(steps) <= most:
        return steps, values
    kept = {0, len(steps) - 1}
    edges = np.linspace(0, len(steps), (most - 2) // 3 + 1).astype(int)
    for begin, end in itertools.pairwise(edges):
        part = values[begin:end]
        finite = np.flatnonzero(np.isfinite(part))
        if len(finite):
            kept |= {begin + finite[np.argmin(part[finite])], begin + finite[np.argmax(part[finite])]}
        if len(finite) < len(part):
            kept.add(begin + int(np.argmin(np.isfinite(part))))
    places = np.array(sorted(kept))
    return steps[places], values[places]


def medians(steps: Floats, values: Floats, bins: int = MEDIANS) -> tuple[Floats, Floats] | None:
    """Return the middle step and the median of each bin's finite values; None for a line that is short anyway."""
    if len(steps) < 4 * bins:
        return None
    edges = np.linspace(0, len(steps), bins + 1).astype(int)
    parts = [(steps[a:b].mean(), values[a:b][np.isfinite(values[a:b])]) for a, b in itertools.pairwise(edges)]
    return np.array([step for step, _ in parts]), np.array([np.median(p) if len(p) else np.nan for _, p in parts])


def _put(points: dict[_Key, _Points], row: Signal, name: str, value: Value, left_out: dict[str, int]) -> None:
    entries: Mapping[str, float]
    if isinstance(value, tuple):
        labels = _labels(row, name, len(value))
        entries = dict(zip(labels[:MOST_LABELS], value, strict=False))
        if len(labels) > MOST_LABELS:
            left_out[name] = len(labels) - MOST_LABELS
    else:
        entries = {"": value}
    for label, number in entries.items():
        steps, values = points.setdefault((name, label, row.stream, row.attempt), (array("d"), array("d")))
        steps.append(row.step)
        values.append(number)


def _labels(row: Signal, name: str, size: int) -> tuple[str, ...]:
    labels = row.labels.get(name, ())
    return labels if len(labels) == size else tuple(str(place) for place in range(size))


def _lines(points: Mapping[_Key, _Points]) -> dict[str, list[Line]]:
    latest: dict[str, int] = {}
    for _, _, stream, attempt in points:
        latest[stream] = max(latest.get(stream, 0), attempt)
    lines: dict[str, list[Line]] = {}
    for (name, label, stream, attempt), (steps, values) in points.items():
        whole = np.array(steps), np.array(values)
        thinned = thin(*whole)
        lines.setdefault(name, []).append(
            Line(
                name=name,
                label=label,
                stream=stream,
                attempt=attempt,
                faint=attempt < latest[stream],
                steps=thinned[0],
                values=thinned[1],
                smooth=medians(*whole) if name in NOISY else None,
            )
        )
    return lines
