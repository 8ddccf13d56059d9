"""A configuration as plain values and as YAML."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

_FLOAT = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


def as_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested plain values: mappings, lists, numbers, texts, None."""
    plain: dict[str, Any] = plain_of(config)
    return plain


def to_yaml(config: Any) -> str:
    """Return a configuration as YAML that `load` reads back."""
    import yaml

    text: str = yaml.dump(as_dict(config), Dumper=yaml_dumper(), sort_keys=False, allow_unicode=True)
    return text


def plain_of(value: Any) -> Any:
    """Return a value as nested mappings, lists, numbers and texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_of(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, Mapping):
        return {str(key): plain_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_of(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain_of(item) for item in value), key=repr)
    if isinstance(value, Enum):
        return plain_of(value.value)
    if isinstance(value, PurePath):
        return str(value)
    return value


@functools.cache
def yaml_loader() -> Any:
    """Return a YAML loader that takes 1e-3 for the number that everybody means; YAML 1.1 takes it for a text."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("+-.0123456789"))
    return Loader


@functools.cache
def yaml_dumper() -> Any:
    """Return the YAML writer that belongs to `yaml_loader`: it quotes a text that would be read as a number."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("+-.0123456789"))
    return Dumper
