"""What a model is, beside the values of its tensors: names, shapes, ties, classes of its modules, plain attributes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from trimtab.checkpoint.constructor import Constructor, full_name
from trimtab.checkpoint.state import model_tensors, plain_name, unwrapped
from trimtab.checkpoint.tree import DTYPES, Plain, flatten, unflatten
from trimtab.errors import UserError

NOT_SETTINGS = ("training", "device")
"""Attributes of a module that say how it is used and not what it is."""


@dataclass(frozen=True, kw_only=True)
class DescribedTensor:
    """One name of a tensor.

    Attributes:
        kind: "parameter" or "buffer".
        persistent: False for a buffer that `state_dict` leaves out.
        trained: it takes gradients.
        tied_to: another name of the same memory, under which it is stored; None for most.
        sha256: of its content; "" where it was not computed.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: str
    persistent: bool = True
    trained: bool = True
    tied_to: str | None = None
    sha256: str = ""

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class DescribedModel:
    """A model as a checkpoint knows it.

    Attributes:
        class_name: of its class; None for tensors that came without a model.
        prefix: stands before its tensors' names in the file.
        tensors: by name, in the model's order.
        modules: name -> class, 'module:Name', for every module; None without a model.
        attributes: '<module>.<attribute>' -> plain value: `Dropout.p`, `eps`, `max_radius`.
        build: how it was made, if that is known.
        extra: what its modules keep beside their tensors (`get_extra_state`), as JSON.
    """

    class_name: str | None = None
    prefix: str = ""
    tensors: Mapping[str, DescribedTensor]
    modules: Mapping[str, str] | None = None
    attributes: Mapping[str, Any] | None = None
    build: Constructor | None = None
    extra: Plain = None

    @property
    def parameters(self) -> int:
        """How many numbers its parameters have, ties once."""
        return sum(one.elements for one in self.tensors.values() if one.kind == "parameter" and one.tied_to is None)


def describe(model: nn.Module, build: Constructor | None = None) -> DescribedModel:
    """Return what a living model is; hashes are left out."""
    inner = unwrapped(model)
    return DescribedModel(
        class_name=full_name(type(inner)),
        tensors=_tensors(inner),
        modules={plain_name(name): full_name(type(module)) for name, module in _modules(inner).items()},
        attributes=_attributes(inner),
        build=build,
    )


def describe_tensors(tensors: Mapping[str, torch.Tensor]) -> DescribedModel:
    """Return what is known of tensors that come without a model."""
    described = {
        name: DescribedTensor(shape=tuple(tensor.shape), dtype=tensor.dtype, kind="parameter", trained=False)
        for name, tensor in tensors.items()
    }
    return DescribedModel(tensors=described)


def with_hashes(model: DescribedModel, hashes: Mapping[str, str], extra: Plain, prefix: str) -> DescribedModel:
    """Return the description as it is stored: with the hash of every tensor, `hashes` by name."""
    tensors = {name: replace(one, sha256=hashes[one.tied_to or name]) for name, one in model.tensors.items()}
    return replace(model, tensors=tensors, extra=extra, prefix=prefix)


def plain_of(model: DescribedModel) -> Plain:
    """Return a description as JSON."""
    return {
        "class": model.class_name,
        "prefix": model.prefix,
        "tensors": {
            name: {
                "shape": list(one.shape), "dtype": str(one.dtype).removeprefix("torch."), "kind": one.kind,
                "persistent": one.persistent, "trained": one.trained, "tied_to": one.tied_to, "sha256": one.sha256,
            }
            for name, one in model.tensors.items()
        },
        "modules": None if model.modules is None else dict(model.modules),
        "attributes": None if model.attributes is None else flatten(dict(model.attributes))[1],
        "build": None if model.build is None else model.build.plain(),
        "extra": model.extra,
    }  # fmt: skip


def described_models(plain: Plain) -> dict[str, DescribedModel]:
    """Return the descriptions that `plain_of` wrote, by the names of the models.

    Raises:
        UserError, KeyError, TypeError, ValueError, AttributeError: it is malformed.
    """
    models = {}
    for name, one in plain.items():
        tensors = {called: _tensor(held) for called, held in one["tensors"].items()}
        for called, held in tensors.items():
            other = tensors.get(held.tied_to) if held.tied_to is not None else None
            if held.tied_to is not None and (other is None or other.tied_to is not None or other.shape != held.shape):
                raise UserError(f"{called!r} is tied to {held.tied_to!r}, which is not a tensor like it")
        attributes = None if one["attributes"] is None else unflatten(one["attributes"], {})
        modules = one["modules"]
        for nest in (attributes, modules):
            if nest is not None and not isinstance(nest, dict):
                raise UserError("modules and attributes must be objects")
        models[name] = DescribedModel(
            class_name=_text(one["class"], or_none=True), prefix=str(_text(one["prefix"])), tensors=tensors,
            modules=modules, attributes=attributes, extra=one["extra"],
            build=None if one["build"] is None else Constructor.from_plain(one["build"]),
        )  # fmt: skip
    return models


def _tensor(held: Any) -> DescribedTensor:
    shape = held["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise UserError(f"a shape is {shape!r}")
    if held["kind"] not in ("parameter", "buffer"):
        raise UserError(f"a tensor is of the kind {held['kind']!r}")
    return DescribedTensor(
        shape=tuple(shape), dtype=DTYPES[held["dtype"]], kind=held["kind"], persistent=held["persistent"] is True,
        trained=held["trained"] is True, tied_to=_text(held["tied_to"], or_none=True), sha256=str(held["sha256"]),
    )  # fmt: skip


def _text(value: Any, *, or_none: bool = False) -> str | None:
    if isinstance(value, str) or (value is None and or_none):
        return value
    raise UserError(f"expected a text, got {value!r}")


def _tensors(model: nn.Module) -> dict[str, DescribedTensor]:
    found: dict[str, DescribedTensor] = {}
    first: dict[Any, str] = {}
    hidden = {
        plain_name(f"{path}.{name}" if path else name)
        for path, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }
    for name, tensor in model_tensors(model, ties=True).items():
        if nn.parameter.is_lazy(tensor):
            raise UserError(f"{name!r} is a lazy parameter that has no shape yet; run the model once before")
        key = _memory(tensor)
        tied_to = first.setdefault(key, name) if key is not None else name
        found[name] = DescribedTensor(
            shape=tuple(tensor.shape),
            dtype=tensor.dtype,
            kind="parameter" if isinstance(tensor, nn.Parameter) else "buffer",
            persistent=name not in hidden,
            trained=tensor.requires_grad,
            tied_to=None if tied_to == name else tied_to,
        )
    return found


def _memory(tensor: torch.Tensor) -> Any:
    """Return what is equal for tensors that are the same numbers in memory; None where that cannot be told."""
    if tensor.is_meta or not tensor.numel():
        return id(tensor)
    return (
        tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape),
        tensor.stride(), tensor.dtype,
    )  # fmt: skip


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module by every one of its names, compiled wrappers left out."""
    return {
        name: unwrapped(module)
        for name, module in model.named_modules(remove_duplicate=False)
        if not name.endswith("_orig_mod")
    }


def _attributes(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, module in _modules(model).items():
        below = f"{plain_name(path)}." if path else ""
        for name, value in vars(module).items():
            if name.startswith("_") or name in NOT_SETTINGS:
                continue
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                for one in dataclasses.fields(value):
                    held = getattr(value, one.name, None)
                    if _is_plain(held):
                        found[f"{below}{name}.{one.name}"] = held
            elif _is_plain(value):
                found[below + name] = value
    return found


def _is_plain(value: Any, depth: int = 0) -> bool:
    if value is None or type(value) in (bool, int, float, str):
        return True
    return type(value) in (tuple, list) and depth < 8 and all(_is_plain(held, depth + 1) for held in value)
