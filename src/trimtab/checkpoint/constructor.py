"""How a model was made: its class and all arguments, defaults included, as something that JSON can say."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from trimtab.checkpoint.tree import Plain, flatten, unflatten
from trimtab.errors import CheckpointError, UserError

MADE_BY = "_trimtab_constructor"
"""Attribute of a module that `Constructor.build` made: the Constructor, so that `save` finds it."""

Allowed = Iterable["str | type"]
"""Classes, or names of modules or classes, that may be imported and called when a model is rebuilt."""


@dataclass(frozen=True, kw_only=True)
class Constructor:
    """A class and all arguments of one call of it, after defaults.

    Make it with `Constructor.of(Net, 64, dropout=0.1)`, the model with `.build()`. Arguments may be plain values,
    tensors excepted, dataclasses of plain values, further Constructors, and classes of modules.

    `class_name` is 'module:Qualified.Name'. `arguments` are by name; `spread` are those of `*args`.
    """

    class_name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    spread: tuple[Any, ...] = ()
    kind: type[nn.Module] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, kind: type[nn.Module], /, *args: Any, **kwargs: Any) -> Constructor:
        """Bind arguments to a class of modules as a call of it would.

        Raises:
            UserError: it is no class of modules, the arguments do not fit, or one has no form in JSON.
        """
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise UserError(f"Constructor.of: expected a subclass of torch.nn.Module, got {kind!r}")
        try:
            bound = inspect.signature(kind).bind(*args, **kwargs)
        except TypeError as error:
            raise UserError(f"Constructor.of({kind.__name__}): {error}") from None
        bound.apply_defaults()
        arguments, spread = dict(bound.arguments), ()
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                spread = tuple(arguments.pop(name))
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(name))
        made = cls(class_name=full_name(kind), arguments=arguments, spread=spread, kind=kind)
        made.plain()  # so that what cannot be stored is told here, and not when the first checkpoint is due
        return made

    @property
    def code(self) -> str:
        """The line that makes the model: `Net(hidden=64, dropout=0.1)`."""
        given = [_code(value) for value in self.spread]
        given += [f"{name}={_code(value)}" for name, value in self.arguments.items()]
        return f"{self.class_name.rpartition(':')[2]}({', '.join(given)})"

    def build(self, allow: Allowed = ()) -> nn.Module:
        """Make the model, which remembers how it was made.

        Raises:
            CheckpointError: the class is not known here and not allowed; or it does not take these arguments.
        """
        kind = self.kind or _module_class(self.class_name, allow)
        parameters = inspect.signature(kind).parameters
        try:
            first: list[Any] = []
            named = {name: _made(value, allow) for name, value in self.arguments.items()}
            for name, parameter in parameters.items():
                by_place = parameter.kind is inspect.Parameter.POSITIONAL_ONLY or self.spread
                if parameter.kind is inspect.Parameter.VAR_POSITIONAL or not by_place:
                    break
                first.append(named.pop(name))
            model = kind(*first, *(_made(value, allow) for value in self.spread), **named)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"{self.code} could not be made: {type(error).__name__}: {error}") from error
        model.__dict__[MADE_BY] = self
        return model

    def plain(self) -> Plain:
        """Return this as JSON, for `from_plain`.

        Raises:
            UserError: an argument has no form in JSON.
        """
        return {
            "class": self.class_name,
            "arguments": {name: _stored(value, f"{self.class_name}: {name}") for name, value in self.arguments.items()},
            "spread": [_stored(value, f"{self.class_name}: *{i}") for i, value in enumerate(self.spread)],
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Constructor:
        """Return what `plain` wrote; classes are looked up only by `build`.

        Raises:
            UserError: it is malformed.
        """
        if (
            not isinstance(plain, dict)
            or plain.keys() != {"class", "arguments", "spread"}
            or not isinstance(plain["class"], str)
            or not isinstance(plain["arguments"], dict)
            or not isinstance(plain["spread"], list)
        ):
            raise UserError("a stored constructor is malformed")
        return cls(
            class_name=plain["class"],
            arguments={name: _read(value) for name, value in plain["arguments"].items()},
            spread=tuple(_read(value) for value in plain["spread"]),
        )


@dataclass(frozen=True, kw_only=True)
class _Object:
    """A dataclass among the arguments, as it was read: its class is looked up when the model is built."""

    class_name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Class:
    """A class of modules among the arguments."""

    class_name: str


def constructor_of(model: nn.Module) -> Constructor | None:
    """Return how a model was made, if `Constructor.build` made it."""
    made = model.__dict__.get(MADE_BY)
    return made if isinstance(made, Constructor) else None


def full_name(kind: type) -> str:
    """Return 'module:Qualified.Name' of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def settings_of(made: Constructor) -> dict[str, Any]:
    """Return the arguments by dotted name, dataclasses and nested constructors taken apart, to compare them."""
    found: dict[str, Any] = {}
    _spread(dict(made.arguments), "", found)
    for index, value in enumerate(made.spread):
        _spread({f"*{index}": value}, "", found)
    return found


def _spread(values: Mapping[str, Any], below: str, found: dict[str, Any]) -> None:
    for name, value in values.items():
        at = f"{below}{name}"
        if isinstance(value, Constructor):
            found[at] = value.class_name.rpartition(":")[2]
            _spread(value.arguments, f"{at}.", found)
        elif isinstance(value, _Object):
            _spread(value.fields, f"{at}.", found)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            _spread(_fields(value), f"{at}.", found)
        elif isinstance(value, type):
            found[at] = value.__qualname__
        elif isinstance(value, _Class):
            found[at] = value.class_name.rpartition(":")[2]
        elif isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
            _spread(value, f"{at}.", found)
        else:
            found[at] = value


def _fields(value: Any) -> dict[str, Any]:
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}


def _stored(value: Any, at: str) -> Plain:
    if isinstance(value, Constructor):
        return {"~build": value.plain()}
    if isinstance(value, _Object):
        return {"~object": [value.class_name, {key: _stored(held, at) for key, held in value.fields.items()}]}
    if isinstance(value, _Class):
        return {"~class": value.class_name}
    if isinstance(value, type) and issubclass(value, nn.Module):
        return {"~class": full_name(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {key: _stored(held, f"{at}.{key}") for key, held in _fields(value).items()}
        return {"~object": [full_name(type(value)), fields]}
    if type(value) is list:
        return [_stored(held, at) for held in value]
    if type(value) is tuple:
        return {"~tuple": [_stored(held, at) for held in value]}
    if type(value) is dict and all(type(key) is str and not key.startswith("~") for key in value):
        return {key: _stored(held, f"{at}.{key}") for key, held in value.items()}
    tensors, plain = flatten(value, at)
    if tensors:
        raise UserError(
            f"{at}: a tensor or an array cannot be stored as an argument; let the class take numbers and make it itself"
        )
    return plain


def _read(plain: Plain) -> Any:
    if isinstance(plain, list):
        return [_read(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if len(plain) == 1:
        tag, held = next(iter(plain.items()))
        if tag == "~build":
            return Constructor.from_plain(held)
        if tag == "~class" and isinstance(held, str):
            return _Class(class_name=held)
        if tag == "~tuple" and isinstance(held, list):
            return tuple(_read(item) for item in held)
        if tag == "~object":
            if not (isinstance(held, list) and len(held) == 2 and isinstance(held[1], dict)):
                raise UserError("a stored dataclass is malformed")
            return _Object(class_name=str(held[0]), fields={name: _read(item) for name, item in held[1].items()})
        if tag.startswith("~"):
            return unflatten(plain, {})
    return {name: _read(item) for name, item in plain.items()}


def _made(value: Any, allow: Allowed) -> Any:
    if isinstance(value, Constructor):
        return value.build(allow)
    if isinstance(value, _Class):
        return _module_class(value.class_name, allow)
    if isinstance(value, _Object):
        kind = _look_up(value.class_name, allow)
        if not dataclasses.is_dataclass(kind):
            raise CheckpointError(f"{value.class_name!r} is no dataclass; the checkpoint says that it is one")
        return kind(**{name: _made(held, allow) for name, held in value.fields.items()})
    if type(value) in (list, tuple):
        return type(value)(_made(held, allow) for held in value)
    if type(value) is dict:
        return {name: _made(held, allow) for name, held in value.items()}
    return value


def _module_class(class_name: str, allow: Allowed) -> type[nn.Module]:
    kind = _look_up(class_name, allow)
    inside_torch = class_name.startswith("torch.") and not class_name.startswith("torch.nn.")
    if not issubclass(kind, nn.Module) or inside_torch:
        raise CheckpointError(f"{class_name!r} is no class of modules that a checkpoint may call")
    return kind


def _look_up(class_name: str, allow: Allowed) -> type:
    """Return a class by its name, from modules that are imported already or allowed; nothing else is imported."""
    module_name, _, path = class_name.partition(":")
    names = []
    for one in allow:
        if isinstance(one, type):
            if full_name(one) == class_name or (module_name == "__main__" and one.__qualname__ == path):
                return one
        else:
            names.append(one)
    advice = f"import {module_name!r} first, or pass allow=[TheClass] or allow=[{module_name!r}]"
    module = sys.modules.get(module_name)
    if module is None:
        if module_name not in names and class_name not in names:
            raise CheckpointError(f"the class {class_name!r} is in a module that is not imported; {advice}")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise CheckpointError(f"the class {class_name!r} cannot be imported: {error}") from None
    found: Any = module
    for part in path.split("."):
        found = vars(found).get(part) if isinstance(found, type) or found is module else None
    if not isinstance(found, type):
        raise CheckpointError(f"there is no class {path!r} in the module {module_name!r} as it is imported; {advice}")
    return found


def _code(value: Any) -> str:
    if isinstance(value, Constructor):
        return value.code
    if isinstance(value, _Object):
        inner = ", ".join(f"{name}={_code(held)}" for name, held in value.fields.items())
        return f"{value.class_name.rpartition(':')[2]}({inner})"
    if isinstance(value, _Class):
        return value.class_name.rpartition(":")[2]
    return value.__qualname__ if isinstance(value, type) else repr(value)
