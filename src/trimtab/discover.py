"""Finding the models, optimizers and loaders of a process, and naming what they hold.

A watched script hands nothing over, so its objects are looked up among those that Python's collector tracks: once
before the first update, and again when an optimizer appears that is not known. Nothing is changed or called on them
except reading their parameters.
"""

from __future__ import annotations

import gc
import hashlib
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Living:
    """What one look over the living objects found; `loaders` are (batch size, rows of the data set).

    `parts` are schedulers and GradScalers, of whatever optimizer; they are not kept alive.
    """

    modules: tuple[nn.Module, ...]
    optimizers: tuple[torch.optim.Optimizer, ...]
    loaders: tuple[tuple[int, int], ...]
    parts: tuple[weakref.ref[Any], ...] = ()


def look_around() -> Living:
    """Find the living modules, optimizers and loaders in one pass over the collector's objects."""
    data = sys.modules.get("torch.utils.data")
    schedulers, scalers, modules, optimizers, *loaders = _of_kinds(
        torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler, nn.Module, torch.optim.Optimizer,
        *([data.DataLoader] if data is not None else []),
    )  # fmt: skip
    return Living(
        modules=tuple(modules),
        optimizers=tuple(optimizers),
        loaders=tuple(sorted(set(_sizes(loaders[0] if loaders else ())))),
        parts=tuple(weakref.ref(part) for part in (*schedulers, *scalers)),
    )


def _of_kinds(*kinds: type) -> tuple[list[Any], ...]:
    """Return the living objects of each of these classes, those of their subclasses included."""
    found: tuple[list[Any], ...] = tuple([] for _ in kinds)
    kind_of: dict[type, int] = {}
    for thing in gc.get_objects():
        # `type(...)` and not `isinstance`: the latter asks lazy proxies for their class and may wake them up.
        its_type = type(thing)
        kind = kind_of.get(its_type)
        if kind is None:
            kind = kind_of[its_type] = next((i for i, one in enumerate(kinds) if issubclass(its_type, one)), -1)
        if kind >= 0:
            found[kind].append(thing)
    return found


def _sizes(loaders: Iterable[Any]) -> Iterator[tuple[int, int]]:
    for loader in loaders:
        try:
            yield int(loader.batch_size or 0), len(loader.dataset)
        except (TypeError, AttributeError, NotImplementedError):
            continue  # an iterable data set has no length; that is no fault


def parts_of(living: Iterable[weakref.ref[Any]], optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, Any]:
    """Return of the living parts the schedulers of these optimizers and the GradScalers, by name.

    Of a scheduler that is made of others only the outer one counts: its state holds theirs.
    """
    mine = {id(optimizer) for optimizer in optimizers}
    there = [part for part in (reference() for reference in living) if part is not None]
    scalers = [part for part in there if isinstance(part, torch.amp.GradScaler) and part.is_enabled()]
    schedulers = [part for part in there if id(getattr(part, "optimizer", None)) in mine]
    inner = {id(one) for scheduler in schedulers for one in getattr(scheduler, "_schedulers", ())}
    found: dict[str, Any] = {}
    for part in (*(one for one in schedulers if id(one) not in inner), *scalers):
        name, number = type(part).__name__, 2
        while name in found:
            name, number = f"{type(part).__name__}-{number}", number + 1
        found[name] = part
    return found


def models_of(living: Living, parameter_ids: set[int]) -> list[nn.Module]:
    """Return the outermost living modules that own at least one of these parameters, largest first."""
    inner = {id(child) for module in living.modules for child in module._modules.values() if child is not None}
    outer = [module for module in living.modules if id(module) not in inner]
    found = [m for m in outer if any(id(parameter) in parameter_ids for parameter in m.parameters())]
    return sorted(found, key=lambda module: -sum(1 for _ in module.parameters()))


def outermost(living: Living) -> list[torch.optim.Optimizer]:
    """Return the living optimizers that hold parameters; of one that wraps another only the outer one."""
    holding = [o for o in living.optimizers if getattr(o, "param_groups", None)]
    wrapped = {id(value) for o in holding for value in vars(o).values() if isinstance(value, torch.optim.Optimizer)}
    return [optimizer for optimizer in holding if id(optimizer) not in wrapped]


def held_parameters(optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, int]]:
    """Return (parameter, index of its group) in the optimizer's own order."""
    return [(p, index) for index, group in enumerate(optimizer.param_groups) for p in group["params"]]


def names_of(models: Sequence[nn.Module]) -> dict[int, tuple[str, torch.Tensor]]:
    """Return id(parameter) -> (name, parameter) over all models; with several models the class name comes first.

    A tied parameter has the first of its names.
    """
    named: dict[int, tuple[str, torch.Tensor]] = {}
    taken: dict[str, int] = {}
    for model in models:
        prefix = ""
        if len(models) > 1:
            kind = type(model).__name__
            taken[kind] = taken.get(kind, 0) + 1
            prefix = f"{kind}." if taken[kind] == 1 else f"{kind}{taken[kind]}."
        for name, parameter in model.named_parameters():
            named.setdefault(id(parameter), (prefix + name, parameter))
    return named


def group_names(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """Return the name of each parameter group: its own `name`, else its number."""
    return tuple(str(group.get("name", index)) for index, group in enumerate(optimizer.param_groups))


def describe(models: Iterable[nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
    """Return what two runs can be compared by: optimizer settings, and the shape of the models."""
    return {
        "optimizers": {name: _describe_optimizer(optimizer) for name, optimizer in optimizers.items()},
        "models": [_describe_model(model) for model in models],
    }


def _describe_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    groups = []
    for group in optimizer.param_groups:
        settings = {key: _plain(value) for key, value in group.items() if key != "params"}
        groups.append({**settings, "tensors": len(group["params"])})
    return {"class": type(optimizer).__name__, "groups": groups}


def _describe_model(model: nn.Module) -> dict[str, Any]:
    shapes = [(name, tuple(p.shape), str(p.dtype), p.requires_grad) for name, p in model.named_parameters()]
    digest = hashlib.sha256(repr([shape[:3] for shape in shapes]).encode()).hexdigest()[:16]
    return {
        "class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "tensors": len(shapes),
        "fingerprint": digest,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return float(value) if value.numel() == 1 else f"tensor{tuple(value.shape)}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(type(value).__name__)
