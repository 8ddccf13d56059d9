"""The settings of a frozen dataclass: which are there, which were read, and what else they could be."""

from __future__ import annotations

import dataclasses
import enum
import math
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

WHOLE = ("dataclasses", "copy", "copyreg", "pickle", "_pickle", "trimtab.config.plain")
"""Modules that read every field of a dataclass, whether it is used or not."""
MOST_OPTIONS = 4
"""So many other options of a choice are tried as what may switch others on."""
_GENERATED = {"__eq__", "__hash__", "__repr__", "__lt__", "__getstate__", "_dataclass_getstate"}


@dataclass(slots=True)
class Reads:
    """What was read of a traced configuration.

    Attributes:
        used: dotted names of the fields that were read one at a time.
        whole: whether something read all fields at once (`replace`, `asdict`, a comparison, a copy): then a field that
            is not in `used` may have been used all the same.
    """

    used: set[str] = field(default_factory=set)
    whole: bool = False


def settings_of(config: Any, above: str = "") -> Iterator[str]:
    """Yield the dotted names of the settings, those of nested dataclasses too."""
    for one in dataclasses.fields(config):
        if not one.init:
            continue
        value = getattr(config, one.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from settings_of(value, f"{above}{one.name}.")
        else:
            yield above + one.name


def value_of(config: Any, name: str) -> Any:
    """Return the value of a setting by its dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def changed(config: Any, name: str, value: Any) -> Any:
    """Return the configuration with one setting replaced; whatever its own checks raise, this raises."""
    first, _, rest = name.partition(".")
    if rest:
        value = changed(getattr(config, first), rest, value)
    return dataclasses.replace(config, **{first: value})


def traced(config: Any, reads: Reads, above: str = "") -> Any:
    """Return a twin of a configuration that notes which fields are read.

    It is an instance of a subclass with the same values, made without running any of its checks again. It does not
    compare equal to the original, as no instance of a subclass does.
    """
    kind = type(config)
    fields = {one.name for one in dataclasses.fields(config)}

    def noted(self: Any, name: str) -> Any:
        if name in fields:
            frame = sys._getframe(1)
            code = frame.f_code
            if frame.f_globals.get("__name__") in WHOLE or code.co_name in _GENERATED:
                reads.whole = True
            elif code.co_name != "__post_init__":
                reads.used.add(above + name)
        elif name == "__dict__":
            reads.whole = True
        return object.__getattribute__(self, name)

    twin_kind: Any = type(
        kind.__name__, (kind,), {"__getattribute__": noted, "__slots__": (), "__module__": kind.__module__}
    )
    twin = object.__new__(twin_kind)
    for key, value in getattr(config, "__dict__", {}).items():
        object.__setattr__(twin, key, value)
    for name in fields:
        if not hasattr(config, name):
            continue
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = traced(value, reads, f"{above}{name}.")
        object.__setattr__(twin, name, value)
    return twin


def annotation_of(config: Any, name: str) -> Any:
    """Return the type that a setting is declared with, Any where that cannot be resolved."""
    *parents, last = name.split(".")
    for parent in parents:
        config = getattr(config, parent)
    try:
        return typing.get_type_hints(type(config)).get(last, Any)
    except NameError:
        return Any


def neighbours(annotation: Any, value: Any, elsewhere: Sequence[Any] = ()) -> list[Any]:
    """Return other values that a setting could sensibly have, the nearest first.

    Args:
        annotation: its declared type; a Literal names all its values.
        value: its value now.
        elsewhere: its values in other presets.

    Returns:
        Other options of a Literal, an Enum or a yes-or-no; numbers twice and half as large, a little apart, and those
        that are no counts a hundredth and a hundred times as large; tuples with all their numbers changed so; then what
        other presets have.
    """
    options: list[Any] = []
    if isinstance(value, bool):
        options = [not value]
    elif isinstance(value, enum.Enum):
        options = [one for one in type(value) if one is not value]
    elif _literal(annotation):
        options = [one for one in _literal(annotation) if one != value]
    elif isinstance(value, int):
        options = [2 * value, value // 2, value + 1, value - 1] if value else [1, 2, 10]
    elif isinstance(value, float):
        options = _around(value)
    elif isinstance(value, tuple) and value and all(_is_number(one) for one in value):
        options = [tuple(one * factor if isinstance(one, float) else int(one * factor) for one in value)
                   for factor in (2, 0.5)]  # fmt: skip
        options += [tuple(one * 0.99 if isinstance(one, float) else one + 1 for one in value)]
    elif value is None:
        options = [one for kind in _kinds(annotation) for one in _PRESENT.get(kind, ())]
    options += [one for one in elsewhere if one != value]
    found: list[Any] = []
    for one in options:
        if one not in found and not (one == value and type(one) is type(value)):
            found.append(one)
    return found


def gates(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings that may switch others off now, each with a value that may switch them on.

    First yes-or-no settings, then choices among words, then missing ones, numbers at zero and factors at one. A seed
    switches nothing.
    """
    kinds: tuple[list[str], ...] = ([], [], [])
    for name in settings_of(config):
        value = value_of(config, name)
        if isinstance(value, bool):
            kinds[0].append(name)
        elif _literal(annotation_of(config, name)):
            kinds[1].append(name)
        elif "seed" not in name and (value is None or value == 0 or (isinstance(value, float) and value == 1.0)):
            kinds[2].append(name)
    for name in (name for kind in kinds for name in kind):
        for other in neighbours(annotation_of(config, name), value_of(config, name))[:MOST_OPTIONS]:
            yield name, other


_PRESENT: dict[Any, tuple[Any, ...]] = {int: (1, 8), float: (1.0, 0.1), bool: (True,)}
"""What a setting may be that is None now."""


def _around(value: float) -> list[float]:
    if value == 0.0:
        return [0.1, 1.0, 0.001]
    if not math.isfinite(value):
        return [1.0, 100.0]
    return [2 * value, value / 2, value * 0.9, value * 1.01, value / 100, value * 100]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _literal(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    return tuple(one for kind in _kinds(annotation) if kind is not annotation for one in _literal(kind))


def _kinds(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)
