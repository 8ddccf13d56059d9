"""The state of an optimizer: its moments by parameter, the settings of its groups, and parameters of no model.

A parameter that is in no model, such as the temperature of a loss, would be lost if the optimizer did not bring it.
State is matched by the position of a parameter in the groups, as torch does, and the names that stand there are
compared, because a changed order gives each parameter the moments of another one without any error.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from trimtab.checkpoint.tree import Plain, flatten, place, unflatten
from trimtab.errors import UserError

Names = Mapping[int, str]
"""id of a parameter -> its name."""


def take(optimizer: Optimizer, at: str, names: Names) -> tuple[dict[str, torch.Tensor], Plain]:
    """Return the tensors of an optimizer by key, uncopied, and the rest of its state as JSON.

    Args:
        optimizer: anything with `param_groups` and `state`; one that writes its own `state_dict` is asked for it.
        at: begins every key: '<at>/<parameter name>/<state key>'.
        names: what the parameters are called; one that is not there is called by its place in the groups.

    Raises:
        UserError: something in the state cannot be stored without pickle.
    """
    tensors: dict[str, torch.Tensor] = {}
    loose = _take_loose(optimizer, at, names, tensors)
    if type(optimizer).state_dict is not Optimizer.state_dict:
        whole = _flat(optimizer.state_dict(), at, tensors)
        return tensors, {"class": class_name(optimizer), "whole": whole, "loose": loose}
    groups: list[Plain] = []
    states: list[Plain] = []
    known = set()
    position = 0
    for index, group in enumerate(optimizer.param_groups):
        called = []
        for number, parameter in enumerate(group["params"]):
            known.add(parameter)
            name = names.get(id(parameter), f"groups.{index}.{number}")
            called.append([name, list(parameter.shape)])
            held = optimizer.state.get(parameter)
            if held:
                states.append([position, _flat(dict(held), f"{at}/{place(name)}", tensors)])
            position += 1
        values = {key: value for key, value in group.items() if key != "params"}
        groups.append({"parameters": called, "values": _flat(values, f"{at}/{place('groups', index)}", tensors)})
    others = {key: value for key, value in optimizer.state.items() if not isinstance(key, torch.Tensor)}
    strays = [key for key in optimizer.state if isinstance(key, torch.Tensor) and key not in known]
    if strays:
        raise UserError(f"{at!r} has state for {len(strays)} tensors that are in none of its groups")
    return tensors, {
        "class": class_name(optimizer), "groups": groups, "state": states, "others": _flat(others, f"{at}/~", tensors),
        "loose": loose,
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How an optimizer gets its state back; nothing is changed until `apply` is called.

    `whole` is not None for an optimizer that reads its own state: it is to be given this, which may fail.
    """

    copies: list[tuple[torch.Tensor, torch.Tensor]]
    apply: Callable[[], None]
    whole: Any = None


def plan(
    optimizer: Optimizer, plain: Plain, tensors: Mapping[str, torch.Tensor], at: str, names: Names, *, named: bool
) -> Plan:
    """Return how the state goes back, after everything that could be wrong was looked at.

    Args:
        optimizer, at, names: as in `take`.
        plain, tensors: what `take` returned.
        named: compare the names too: right for a state of another process, whose objects are others.

    Raises:
        UserError: another class of optimizer, other groups, other parameters, or a state that is malformed.
    """
    if plain["class"] != class_name(optimizer):
        raise UserError(f"{at!r}: it is a {class_name(optimizer)} and the state is that of a {plain['class']}")
    parameters = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    if "whole" in plain:
        whole = copy.deepcopy(unflatten(plain["whole"], tensors))  # the optimizer may keep what it is given
        return Plan(copies=_loose(parameters, plain, tensors, at), apply=lambda: None, whole=whole)
    _check_groups(optimizer, plain["groups"], at, names, named=named)
    copies = _loose(parameters, plain, tensors, at)
    states: dict[Any, dict[str, Any]] = {}
    for position, held in plain["state"]:
        parameter, group = parameters[position]
        now = optimizer.state.get(parameter, {})
        mine = states[parameter] = {}
        for key, value in _own(held, tensors).items():
            if named:  # it comes from a file, where everything lies on the CPU
                value = _each(value, partial(_at_home, key, parameter=parameter, group=group))
            mine[key] = _kept(now.get(key), value, copies)
    others = _each(unflatten(plain["others"], tensors), torch.Tensor.clone)
    values = [_own(group["values"], tensors) for group in plain["groups"]]
    kept = [
        {key: _kept(group.get(key), value, copies) for key, value in held.items()}
        for group, held in zip(optimizer.param_groups, values, strict=True)
    ]

    def apply() -> None:
        for key in [key for key in optimizer.state if key not in states]:
            del optimizer.state[key]
        for parameter, state in states.items():
            mine = optimizer.state[parameter]
            if list(mine) != list(state):
                mine.clear()
            mine.update(state)
        optimizer.state.update(others)
        for group, held in zip(optimizer.param_groups, kept, strict=True):
            group.update(held)

    return Plan(copies=copies, apply=apply)


def class_name(value: object) -> str:
    """Return module and name of the class of an object, for a state that must be given to the same class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def home(key: str, value: torch.Tensor, parameter: torch.Tensor, group: Mapping[str, Any]) -> torch.device:
    """Return the device where a tensor of an optimizer's state belongs, as `Optimizer.load_state_dict` decides it.

    Counters of steps lie on the CPU, but for the optimizers that count on the device; all else lies beside the
    parameter.
    """
    if key == "step" and value.dim() == 0 and not (group.get("capturable") or group.get("fused")):
        return torch.device("cpu")
    return parameter.device


def _at_home(key: str, value: torch.Tensor, parameter: torch.Tensor, group: Mapping[str, Any]) -> torch.Tensor:
    return value.to(home(key, value, parameter, group))


def _take_loose(optimizer: Optimizer, at: str, names: Names, tensors: dict[str, torch.Tensor]) -> Plain:
    """Add the values of the parameters that are in no model; return [position, value] of each."""
    loose = []
    position = 0
    for index, group in enumerate(optimizer.param_groups):
        for number, parameter in enumerate(group["params"]):
            if id(parameter) not in names:
                where = f"{at}/{place(f'groups.{index}.{number}')}/~value"
                loose.append([position, _flat(parameter, where, tensors)])
            position += 1
    return loose


def _loose(
    parameters: list[tuple[torch.Tensor, Any]], plain: Plain, tensors: Mapping[str, torch.Tensor], at: str
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (parameter, its value then) for those that are in no model."""
    copies = []
    for position, held in plain.get("loose", ()):
        value = unflatten(held, tensors)
        now = parameters[position][0] if position < len(parameters) else None
        if now is None or (now.shape, now.dtype) != (value.shape, value.dtype):
            there = "none" if now is None else f"{now.dtype} of shape {tuple(now.shape)}"
            raise UserError(
                f"{at!r}: parameter {position}, which is in no model, was {value.dtype} of shape {tuple(value.shape)} "
                f"then and is {there} now; give the optimizer the same parameters"
            )
        copies.append((now, value))
    return copies


def _own(plain: Plain, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return a dict of a state; tensors inside its lists are copies, for the memory of snapshots is used again."""
    found: dict[str, Any] = unflatten(plain, tensors)
    return {
        key: value if isinstance(value, torch.Tensor) else _each(value, torch.Tensor.clone)
        for key, value in found.items()
    }


def _each(tree: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a nest with every tensor changed."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if type(tree) in (list, tuple, deque):
        made = [_each(one, change) for one in tree]
        return deque(made, tree.maxlen) if type(tree) is deque else type(tree)(made)
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, _each(one, change)) for key, one in tree.items())
    return tree


def _flat(tree: Any, at: str, tensors: dict[str, torch.Tensor]) -> Plain:
    if type(tree) is dict and all(type(value) is torch.Tensor and type(key) is str for key, value in tree.items()):
        plain = {}
        for key, value in tree.items():  # Adam and its kin: nothing but tensors, many times
            path = f"{at}/{place(key)}"
            if path in tensors or key.startswith("~") or value.layout != torch.strided or value.is_meta:
                break
            tensors[path] = value.detach()
            plain[key] = {"~tensor": path}
        else:
            return plain
    found, nest = flatten(tree, at)
    tensors.update(found)
    return nest


def _kept(now: Any, value: Any, copies: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """Return the tensor that stands there now, to be filled, where it fits; else a copy of the kept one."""
    if not isinstance(value, torch.Tensor):
        return value
    if (
        isinstance(now, torch.Tensor)
        and now.layout == torch.strided
        and (now.shape, now.dtype) == (value.shape, value.dtype)
    ):
        copies.append((now, value))
        return now
    return value.clone()


def _check_groups(optimizer: Optimizer, groups: list[Plain], at: str, names: Names, *, named: bool) -> None:
    if len(groups) != len(optimizer.param_groups):
        raise UserError(f"{at!r} has {len(optimizer.param_groups)} groups of parameters, the state has {len(groups)}")
    for index, (group, kept) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        there = [
            [names.get(id(parameter), f"groups.{index}.{number}"), list(parameter.shape)]
            for number, parameter in enumerate(group["params"])
        ]
        kept_there = kept["parameters"]
        if len(there) != len(kept_there):
            raise UserError(
                f"{at!r}, group {index}: {len(there)} parameters here, {len(kept_there)} in the state; "
                f"make the optimizer with the same parameters"
            )
        for (name, shape), (kept_name, kept_shape) in zip(there, kept_there, strict=True):
            if shape != kept_shape or (named and name != kept_name):
                raise UserError(
                    f"{at!r}, group {index}: {name!r} of shape {tuple(shape)} stands where the state has {kept_name!r} "
                    f"of shape {tuple(kept_shape)}; give the optimizer its parameters in the same order"
                )
