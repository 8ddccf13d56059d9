"""Building a configuration out of its dataclass and of what was given for it."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trimtab.config.given import Given, flat, read_file, read_override
from trimtab.config.plain import plain_of
from trimtab.errors import ConfigError, UserError, nearest

C = TypeVar("C")

_MISSING: Any = dataclasses.MISSING
_Path = tuple[list[str], Given]


@typing.overload
def load(config: type[C], file: Path | str | None = None, overrides: Sequence[str] = ()) -> C: ...
@typing.overload
def load(config: C, file: Path | str | None = None, overrides: Sequence[str] = ()) -> C: ...
def load(config: Any, file: Path | str | None = None, overrides: Sequence[str] = ()) -> Any:
    """Return a configuration with the values of a file and of overrides in place of the defaults.

    Args:
        config: a frozen dataclass, or an instance of one whose values are the defaults.
        file: a YAML file that holds a mapping, nested like the dataclass.
        overrides: texts such as "model.width=128"; applied after the file, later ones win.

    Raises:
        ConfigError: an unknown key, a wrong type, a missing value, or a file that cannot be read. The message says
            where it stands.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     rate: float = 0.1
        >>> load(Config, overrides=["rate=1e-3"])
        Config(rate=0.001)
    """
    kind = config if isinstance(config, type) else type(config)
    if not dataclasses.is_dataclass(kind):
        raise ConfigError(f"expected a dataclass or an instance of one as configuration, got {config!r:.100}")
    given = list(read_file(Path(file))) if file is not None else []
    for text in overrides:
        given += read_override(text)
    now = None if isinstance(config, type) else config
    return build(kind, now, [(one.key.split("."), one) for one in given], "")


def of_dict(config: Any, values: Mapping[str, Any], where: str) -> Any:
    """Return a configuration with plain values, as `as_dict` gave them, in place of those of `config`.

    Args:
        config: an instance of a frozen dataclass.
        values: nested like the dataclass.
        where: where they stand, for messages.

    Raises:
        ConfigError: an unknown key or a wrong type.
    """
    given = [one for name, value in values.items() for one in flat(name, value, where)]
    return build(type(config), config, [(one.key.split("."), one) for one in given], "")


def build(kind: Any, now: Any, given: Sequence[_Path], above: str) -> Any:
    """Return an instance of the dataclass `kind`: the values of `now` (or the defaults) and what was given for it."""
    types_of = _types_of(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    by_name: dict[str, list[_Path]] = {}
    for (name, *rest), one in given:
        if name not in fields:
            hint = _suggest(kind, above, name, one.key)
            raise ConfigError(f"{one.where}: there is no setting {above + name!r}.{hint}")
        by_name.setdefault(name, []).append((rest, one))
    changed = {
        name: _set(types_of[name], _current(fields[name], now), above + name, its) for name, its in by_name.items()
    }
    if now is not None and not changed:
        return now
    missing = [
        above + name
        for name, field in fields.items()
        if now is None and name not in changed and field.default is _MISSING and field.default_factory is _MISSING
    ]
    if missing:
        raise ConfigError(f"no value was given for {', '.join(missing)}; set it in the file or as {missing[0]}=...")
    try:
        return kind(**changed) if now is None else dataclasses.replace(now, **changed)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        places = ", ".join(dict.fromkeys(one.where for _, one in given)) or "the defaults"
        raise ConfigError(f"{above.rstrip('.') or kind.__name__} with {places}: {error}") from error


def _types_of(kind: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"{kind.__module__}.{kind.__qualname__}: an annotation names something that is not there when the "
            f"program runs ({error}); import it outside TYPE_CHECKING"
        ) from None


def _current(field: Any, now: Any) -> Any:
    if now is not None:
        return getattr(now, field.name)
    if field.default_factory is not _MISSING:
        return field.default_factory()
    return None if field.default is _MISSING else field.default


def _set(annotation: Any, now: Any, key: str, given: Sequence[_Path]) -> Any:
    """Return the new value of one setting; what was given later wins."""
    nested = _dataclass_in(annotation)
    value = now
    deeper: list[_Path] = []
    for rest, one in given:
        if rest:
            deeper.append((rest, one))
        elif nested is not None and one.values[0] == {}:
            value = value if isinstance(value, nested) else build(nested, None, [], f"{key}.")
        else:
            value, deeper = _checked(annotation, key, one), []
    if not deeper:
        return value
    if nested is not None:
        return build(nested, value if isinstance(value, nested) else None, deeper, f"{key}.")
    of = _values_of_mapping(annotation)
    if of is None:
        one = deeper[0][1]
        raise ConfigError(f"{one.where}: {key!r} is a {_named(annotation)} and has no settings of its own")
    entries = dict(value) if isinstance(value, Mapping) else {}
    for name in dict.fromkeys(rest[0] for rest, _ in deeper):
        its = [(rest[1:], one) for rest, one in deeper if rest[0] == name]
        entries[name] = _set(of, entries.get(name), f"{key}.{name}", its)
    return entries


def _checked(annotation: Any, key: str, one: Given) -> Any:
    """Return the first of the values that the annotation accepts."""
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        raise ConfigError(
            f"{one.where}: {key!r} is a {_named(annotation)}, which cannot be written as text; set it in Python"
        ) from None
    problem = ""
    for value in one.values:
        try:
            read = adapter.validate_python(_instances(annotation, value, key, one.where))
        except ValidationError as error:
            problem = problem or "; ".join(dict.fromkeys(_problem(item) for item in error.errors()))
            continue
        if _choices(value) > _choices(read):
            problem = problem or "a yes-or-no is no number"
            continue
        return read
    raise ConfigError(f"{one.where}: {key!r} expects {_named(annotation)}, got {_said(one.values[0])}: {problem}")


def _instances(annotation: Any, value: Any, key: str, where: str) -> Any:
    """Make the dataclasses inside a list, for pydantic passes over keys that a dataclass does not have."""
    if isinstance(value, dict) and (nested := _dataclass_in(annotation)) is not None:
        given = [one for name, item in value.items() for one in flat(str(name), item, where)]
        return build(nested, None, [(one.key.split("."), one) for one in given], f"{key}.")
    if isinstance(value, list):
        kinds = next((typing.get_args(option) for option in _options(annotation) if typing.get_args(option)), ())
        each = kinds[:1] * len(value) if len(kinds) == 1 or kinds[1:] == (...,) else kinds
        if len(each) == len(value):
            return [_instances(each[i], item, f"{key}.{i}", where) for i, item in enumerate(value)]
    return value


def _choices(value: Any) -> int:
    """Return how many values are True or False; pydantic would take them for 1 and 0."""
    if isinstance(value, Mapping):
        return sum(_choices(item) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return sum(_choices(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _choices(plain_of(value))
    return int(isinstance(value, bool))


def _problem(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"])
    return f"at {place}: {message}" if place and isinstance(item["loc"][0], int) else message


def _dataclass_in(annotation: Any) -> Any:
    """Return the dataclass that a setting is, also as one side of a union with None."""
    for option in _options(annotation):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return option
    return None


def _values_of_mapping(annotation: Any) -> Any:
    """Return the type of the values of a setting that is a mapping with free keys, else None."""
    for option in _options(annotation):
        if option is Any:
            return Any
        origin = typing.get_origin(option) or option
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return (*typing.get_args(option), Any, Any)[1]
    return None


def _options(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for option in typing.get_args(annotation) for inner in _options(option)]
    return [annotation]


def _keys(kind: Any, above: str = "") -> Iterator[str]:
    """Yield the dotted keys of a dataclass and of those inside it."""
    types_of = _types_of(kind)
    for field in dataclasses.fields(kind):
        if field.init:
            yield above + field.name
            nested = _dataclass_in(types_of[field.name])
            if nested is not None and nested is not kind:
                yield from _keys(nested, f"{above}{field.name}.")


def _suggest(kind: Any, above: str, name: str, key: str) -> str:
    """Return the nearest known key, and what is known at this place."""
    known = list(_keys(kind, above))
    same = [entry for entry in known if entry.rpartition(".")[2] == name]
    here = [entry for entry in known if "." not in entry.removeprefix(above)]
    hint = f" Did you mean {same[0]!r}?" if same else nearest(above + name, here) or nearest(key, known)
    return f"{hint} Known: {', '.join(here) or 'none'}"


def _named(annotation: Any) -> str:
    """Return a type as a person writes it."""
    text = annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
    text = re.sub(r"(?<![\w'\"])(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)
    return "a yes or no (true or false)" if text == "bool" else text


def _said(value: Any) -> str:
    return f"{value!r:.80} ({type(value).__name__})"
