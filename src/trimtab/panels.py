"""What a training shows of itself in its report: a table, a map or a scatter, as plain values.

A Guard puts one into the run folder (`guard.show(name, panel)`), and the report draws it. Lists, arrays and tensors may
be handed over; what is kept are tuples of texts and numbers. A number may be NaN or infinite.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trimtab.errors import UserError

MOST_VALUES = 100_000
"""A panel holds at most so many cells or points: it is for looking at, and numbers to compute with go to `keep`."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts and numbers under named columns, such as accuracy by kind of example.

    Attributes:
        title: what it shows, in a few words.
        caption: what one must know to read it.
        columns: the headings.
        rows: one tuple for each row, as long as `columns`; numbers are set to the right.
        closing: also printed at the end of `trimtab train`.

    Raises:
        UserError: a row of another length, a cell that is neither text nor number, or too many cells.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    closing: bool = False

    def __post_init__(self) -> None:
        where = _named("Table", self)
        _set(self, columns=_texts(where, "columns", self.columns))
        if not self.columns:
            raise UserError(f"{where}: it has no columns; name at least one")
        rows = [tuple(_plain(row)) for row in _several(where, "rows", self.rows)]
        for place, row in enumerate(rows):
            if len(row) != len(self.columns):
                raise UserError(
                    f"{where}: row {place} has {len(row)} cells, and there are {len(self.columns)} columns "
                    f"({', '.join(self.columns)})"
                )
        _few(where, len(rows) * len(self.columns), "cells")
        _set(self, rows=tuple(tuple(_cell(where, cell) for cell in row) for row in rows), closing=bool(self.closing))


@dataclass(frozen=True, slots=True)
class Map:
    """Numbers over two named axes, such as how often each class was taken for each other.

    Attributes:
        title: what it shows, in a few words.
        caption: what one must know to read it.
        rows: the names of the rows, from the top.
        columns: the names of the columns.
        values: one tuple for each row, as long as `columns`; the report joins neighbours of more than 60.
        low, high: the numbers of the palest and the darkest colour; the smallest and the largest value when None.

    Raises:
        UserError: values of another shape than the names, something that is no number, or too many values.
    """

    title: str
    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        where = _named("Map", self)
        _set(self, rows=_texts(where, "rows", self.rows), columns=_texts(where, "columns", self.columns))
        values = [tuple(_plain(row)) for row in _several(where, "values", self.values)]
        lengths = sorted({len(row) for row in values})
        if not self.rows or not self.columns or len(values) != len(self.rows) or lengths != [len(self.columns)]:
            shape = f"{len(values)} rows of {' or '.join(map(str, lengths)) or 'no'} values"
            raise UserError(
                f"{where}: values has {shape}, and there are {len(self.rows)} names of rows and {len(self.columns)} "
                "of columns; give one row for each name, and one value in it for each column, at least one of each"
            )
        _few(where, len(self.rows) * len(self.columns), "values")
        _set(self, values=tuple(tuple(_number(where, "values", one) for one in row) for row in values))
        for name in ("low", "high"):
            limit = getattr(self, name)
            _set(self, **{name: None if limit is None else _number(where, name, limit)})


@dataclass(frozen=True, slots=True)
class Scatter:
    """Points in a plane, such as examples after t-SNE.

    Attributes:
        title: what it shows, in a few words.
        caption: what one must know to read it; what the axes are, too.
        points: x, y, a label (it may be empty) and the group, by which colour and marker are chosen.

    Raises:
        UserError: a point of another form, or too many points.
    """

    title: str
    caption: str
    points: tuple[tuple[float, float, str, str], ...]

    def __post_init__(self) -> None:
        where = _named("Scatter", self)
        points = [tuple(point) for point in _several(where, "points", self.points)]
        _few(where, len(points), "points")
        for place, point in enumerate(points):
            if len(point) != 4:
                raise UserError(f"{where}: point {place} is {point!r}; expected (x, y, label, group)")
        _set(
            self,
            points=tuple(
                (_number(where, "points", x), _number(where, "points", y), str(label), str(group))
                for x, y, label, group in points
            ),
        )


Panel = Table | Map | Scatter
"""What a Guard can show."""


def _set(panel: Panel, **values: Any) -> None:
    """Put plain values in the place of those that were handed over."""
    for name, value in values.items():
        object.__setattr__(panel, name, value)


def _named(kind: str, panel: Panel) -> str:
    _set(panel, title=str(panel.title), caption=str(panel.caption))
    if not panel.title.strip():
        raise UserError(f"{kind}: the title is empty; say in a few words what it shows")
    return f"{kind} {panel.title!r}"


def _few(where: str, count: int, what: str) -> None:
    if count > MOST_VALUES:
        raise UserError(
            f"{where}: {count:,} {what}, and a panel holds at most {MOST_VALUES:,}; show fewer of them, or store the "
            "whole with guard.keep"
        )


def _several(where: str, field: str, value: Any) -> list[Any]:
    """Return what was handed over as a list of sequences."""
    value = _plain(value)
    found = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    wrong = next((one for one in found if isinstance(one, str) or not isinstance(_plain(one), Iterable)), found)
    if wrong is not found:
        raise UserError(f"{where}: {field} must be a sequence of sequences; one of them is {wrong!r:.60}")
    return found


def _texts(where: str, field: str, value: Any) -> tuple[str, ...]:
    value = _plain(value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UserError(f"{where}: {field} must be a sequence of texts, got {value!r:.60}")
    return tuple(str(one) for one in value)


def _plain(value: Any) -> Any:
    """Return an array or a tensor as lists and numbers, anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _cell(where: str, value: Any) -> str | float:
    value = _plain(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return str(value)
    return value if type(value) is int else _number(where, "rows", value, "texts and numbers")


def _number(where: str, field: str, value: Any, expected: str = "numbers") -> float:
    if not isinstance(value, str):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise UserError(f"{where}: {field} must hold {expected}, got {value!r:.60} of type {type(value).__name__}")
