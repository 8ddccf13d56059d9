"""Reading what somebody set: the entries of a YAML file and overrides such as "model.width=128"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.config.plain import yaml_loader
from trimtab.errors import ConfigError

if TYPE_CHECKING:
    import yaml


@dataclass(frozen=True, slots=True)
class Given:
    """One value that somebody set: the dotted key, the candidates that its text may mean, and where it stands."""

    key: str
    values: tuple[Any, ...]
    where: str


def read_override(text: str) -> list[Given]:
    """Return the settings that one override gives; more than one if its value is a mapping."""
    import yaml

    key, equals, value = text.partition("=")
    key, where = key.strip(), f"override {text!r}"
    if not equals or not key:
        raise ConfigError(f"{where}: expected key=value, such as model.width=128")
    candidates: list[Any] = []
    for form in (value, f"[{value}]"):  # the second for tuples: layers=64,64
        try:
            candidates.append(yaml.load(form, Loader=yaml_loader()))
        except yaml.YAMLError:
            continue
    if candidates and isinstance(candidates[0], dict) and candidates[0]:
        return list(flat(key, candidates[0], where))
    return [Given(key, (*candidates[:1], value, *candidates[1:]), where)]


def flat(key: str, value: Any, where: str) -> Iterator[Given]:
    """Yield every value inside nested mappings with its dotted key."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from flat(f"{key}.{name}", item, where)
    else:
        yield Given(key, (value,), where)


def read_file(path: Path) -> Iterator[Given]:
    """Yield the settings that a YAML file gives, each with its line."""
    import yaml

    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml_loader())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected a YAML file") from None
    except yaml.YAMLError as error:
        raise _no_yaml(path, error) from None
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        came = "a list" if isinstance(root, yaml.SequenceNode) else repr(root.value)
        raise ConfigError(f"{path}: expected a mapping of settings, got {came:.80}")
    yield from _walk(root, "", path)


def _walk(node: yaml.MappingNode, above: str, path: Path) -> Iterator[Given]:
    """Yield every value of a YAML mapping with its dotted key and its line."""
    import yaml

    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        name = _value_of(key_node, path)
        if not isinstance(name, str) or not name or "." in name:
            raise ConfigError(f"{path} line {line}: expected the name of one setting, got {name!r}; nest the mappings")
        if name in seen:
            raise ConfigError(f"{path} line {line}: {above + name!r} stands in line {seen[name]} already; keep one")
        seen[name] = line
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            yield from _walk(value_node, f"{above}{name}.", path)
            continue
        value = _value_of(value_node, path)
        raw = (value_node.value,) if isinstance(value_node, yaml.ScalarNode) and value is not None else ()
        yield Given(above + name, (value, *raw), f"{path} line {line}")


def _value_of(node: Any, path: Path) -> Any:
    import yaml

    loader = yaml_loader()("")
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise _no_yaml(path, error) from None
    finally:
        loader.dispose()


def _no_yaml(path: Path, error: Any) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    line = f" line {mark.line + 1}" if mark is not None else ""
    return ConfigError(f"{path}{line} is no plain YAML: {getattr(error, 'problem', None) or error}")
