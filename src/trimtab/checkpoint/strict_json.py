"""JSON as it is read from a file that nobody vouches for: no duplicate keys, no NaN, bounded in size and depth."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from trimtab.errors import CheckpointError

DEEPEST = 500
"""Lists and objects may be nested so deep."""

_BRACKETS = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""Brackets and whole strings, so that a bracket in a string is none."""


def dumps(value: Any, *, indent: int | None = 1) -> bytes:
    """Return strict JSON in ASCII: what `loads` reads back to the same value.

    Raises:
        ValueError: a float is not finite; `flatten` writes those as texts.
    """
    separators = None if indent is not None else (",", ":")
    return json.dumps(value, allow_nan=False, indent=indent, separators=separators).encode("ascii")


def loads(raw: bytes, where: str) -> Any:
    """Return what stands in a JSON text.

    Args:
        raw: the text in UTF-8.
        where: the file, for the message.

    Raises:
        CheckpointError: this is not strict JSON: damaged, too deep, a key twice, NaN or an infinite number.
    """

    def refused(why: object) -> CheckpointError:
        return CheckpointError(f"{where}: this is not the JSON that a checkpoint has: {why}; use another checkpoint")

    def constant(name: str) -> NoReturn:
        raise ValueError(f"the number {name}")

    try:
        text = raw.decode("utf-8")
        _check_depth(text)
        return json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=constant, parse_float=_finite, parse_int=_short
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise refused(error) from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in names if names.count(key) > 1)!r} stands there twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is too large")
    return number


def _short(text: str) -> int:
    if len(text) > 1_000:
        raise ValueError(f"a number with {len(text)} digits")
    return int(text)


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKETS.findall(text):
        if bracket in ("[", "{"):
            depth += 1
            if depth > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} deep")
        elif bracket in ("]", "}"):
            depth -= 1
