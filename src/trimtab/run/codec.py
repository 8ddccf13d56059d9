"""Records as JSON, and back, with every float intact.

JSON has no NaN and no infinity, and in this product NaN is the most important number there is. So a number that is
not finite is written as one of the three words "NaN", "Infinity", "-Infinity". Where a number or a text may stand, a
text that reads like such a word gets a backslash in front, so that both come back as what they were.

This module uses the standard library alone: it lies on the write path of signals.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from trimtab.errors import RunError
from trimtab.records import Finding, Note, Outcome, Severity, Signal, Unknown

FORMAT = 1
"""The number of the format that is written; a reader refuses a greater one."""

COLUMNS = ("attempt", "step", "update", "stream", "time", "values")
"""What the places of a signal row mean, in order; stored in the header of every part."""

Record = Finding | Unknown | Note | Outcome

_NAMES: dict[type, str] = {Finding: "finding", Unknown: "unknown", Note: "note", Outcome: "outcome"}
_FIELDS = {kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in _NAMES}
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WORDLIKE = re.compile(r"\\*(?:NaN|-?Infinity)")
_MOST_TEXT = 2000
_NO_LABELS: Mapping[str, tuple[str, ...]] = {}
_SETS_KEPT = 8


def number(value: float) -> float | str:
    """Return a finite number as it is, any other as its word."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def encode(value: Any) -> Any:
    """Return `value` as what strict JSON can hold: the slow, general way.

    Records and other dataclasses become objects, enums their word, paths and any other object a text. `decode` turns
    numbers and texts back into what they were; containers come back as lists and dicts.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return str(value) if isinstance(value, Severity) else encode(value.value)
    if isinstance(value, str):
        return _escaped(str(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return number(float(value))
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((encode(item) for item in value), key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, PurePath):
        return _escaped(str(value))
    return _foreign(value)


def decode(value: Any) -> Any:
    """Return what `encode` was given: words become numbers again, escaped texts lose their backslash."""
    if isinstance(value, str):
        if value in _WORDS:
            return _WORDS[value]
        return value[1:] if value.startswith("\\") and _WORDLIKE.fullmatch(value) else value
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    return value


def safe_json(value: Any, *, indent: int | None = 2) -> str:
    """Return any value as the text of strict JSON; records, NaN and paths included."""
    return json.dumps(encode(value), indent=indent, allow_nan=False)


def record_line(record: Record) -> bytes:
    """Return the JSON line of a record, newline included."""
    try:
        kind = _NAMES[type(record)]
    except KeyError:
        known = ", ".join(kind.__name__ for kind in _NAMES)
        raise TypeError(f"expected one of {known}, got {type(record).__name__}") from None
    line: dict[str, Any] = {"record": kind}
    for name in _FIELDS[type(record)]:
        value = getattr(record, name)
        if isinstance(value, str):
            line[name] = str(value)  # a field that holds nothing but text needs no escape
        else:
            line[name] = encode(value)
    return _compact(line).encode() + b"\n"


def signal_line(row: Signal) -> bytes:
    """Return the JSON line of a measurement row, newline included."""
    try:
        text = _compact([row.attempt, row.step, row.update, row.stream, row.time, row.values])
    except ValueError:  # a number that is not finite: the slow way
        values: dict[str, Any] = {
            name: [number(item) for item in value] if isinstance(value, tuple | list) else number(value)
            for name, value in row.values.items()
        }
        text = _compact([row.attempt, row.step, row.update, row.stream, number(row.time), values])
    return text.encode() + b"\n"


class LabelSets:
    """Which labels the rows of a JSONL part have; says what must be written before the next row.

    Each set of labels is written once with a number; when a stream returns to one of the latest sets, the number alone
    is written.
    """

    def __init__(self) -> None:
        self._now: dict[str, Mapping[str, tuple[str, ...]] | None] = {}
        self._before: Mapping[str, tuple[str, ...]] | None = _NO_LABELS
        self._sets: list[tuple[int, Mapping[str, tuple[str, ...]]]] = []
        self._count = 0

    def announce(self, stream: str, labels: Mapping[str, tuple[str, ...]]) -> bytes:
        """Return the line that must precede a row of `stream` with these labels: nothing if they are the last ones."""
        now = self._now.get(stream, self._before)
        if labels is now:
            return b""
        self._now[stream] = labels
        if labels == now:
            return b""
        line: dict[str, Any]
        known = next((number for number, entry in self._sets if entry is labels or entry == labels), None)
        if known is not None:
            line = {"labels": {stream: known}}
        else:
            line = {"labels": {stream: {name: list(names) for name, names in labels.items()}}, "set": self._count}
            self._sets = [*self._sets[1 - _SETS_KEPT :], (self._count, labels)]
            self._count += 1
        return _compact(line).encode() + b"\n"

    def forget(self) -> None:
        """Write every set anew: it is not known what of the last lines came to the disk."""
        self._now, self._before, self._sets = {}, None, []


def header_line(kind: str, **facts: Any) -> bytes:
    """Return the first line of a JSONL file: the format number and what the file holds."""
    return _compact({"format": FORMAT, "kind": kind, **facts}).encode() + b"\n"


def check_format(found: Any, where: str) -> None:
    """Raise RunError unless `found` is a format number that this version reads."""
    if type(found) is not int or found < 1:
        raise RunError(f"{where}: expected a format number from 1 to {FORMAT}, got {found!r}; the file is no run's")
    if found > FORMAT:
        raise RunError(
            f"{where} has format {found}, this Trimtab reads formats up to {FORMAT}; "
            "upgrade Trimtab to open it (pip install --upgrade trimtab)"
        )


def signal_of(line: Any, labels: Mapping[str, Mapping[str, tuple[str, ...]]], places: tuple[int, ...]) -> Signal:
    """Return the row that a parsed line holds.

    Args:
        line: the parsed JSON array.
        labels: stream -> labels, as last announced.
        places: where in the line each of `COLUMNS` stands.

    Raises:
        ValueError: the line has another shape than the columns promise.
    """
    try:
        attempt, step, update, stream, time, values = [line[place] for place in places]
        read = {
            name: tuple([float(item) for item in value]) if type(value) is list else float(value)
            for name, value in values.items()
        }
        if not (type(attempt) is type(step) is type(update) is int and type(stream) is str):
            raise TypeError("attempt, step and update must be whole numbers, stream a text")
        return Signal(
            attempt=attempt,
            step=step,
            update=update,
            stream=stream,
            time=float(time),
            values=read,
            labels=labels.get(stream, _NO_LABELS),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected a row of {', '.join(COLUMNS)}: {error}") from None


def places_of(columns: Any) -> tuple[int, ...]:
    """Return where each of `COLUMNS` stands in a header's columns; raise ValueError that names what is missing."""
    names = columns if isinstance(columns, list) else []
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ValueError(f"the header lacks the columns {', '.join(missing)}")
    return tuple(names.index(name) for name in COLUMNS)


def _escaped(text: str) -> str:
    return "\\" + text if _WORDLIKE.fullmatch(text) else text


def _foreign(value: Any) -> Any:
    """Return what can be said of an object of another package, without reading a tensor."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and hasattr(value, "dtype"):
        kind = type(value)
        if kind.__module__ == "numpy" and not shape:  # a numpy scalar
            return encode(value.item())
        return f"<{kind.__module__}.{kind.__qualname__} of shape {tuple(shape)}, {value.dtype}>"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - somebody else's repr must not cost a run its settings
        text = f"<{type(value).__module__}.{type(value).__qualname__}>"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)  # the same object has another address in each process
    return _escaped(text[:_MOST_TEXT])


def _plain(value: Any) -> Any:
    """Turn numpy scalars into numbers where the encoder meets them; anything else is a mistake of the caller."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    raise TypeError(f"a record holds a {type(value).__module__}.{type(value).__qualname__}; expected numbers and texts")


_compact = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=False, default=_plain).encode
"""The one encoder of the write path, made once: making one costs as much as a row."""
