"""What a training is made of: capture it, and put all of it back in place.

    state = TrainingState({"model": model}, {"main": optimizer}, {"schedule": scheduler, "batches": batches})
    then = state.capture()
    ...                                             # something goes wrong
    state.restore(then)                             # weights, buffers, moments, schedule, data, random numbers

Nothing is replaced: parameters and buffers stay the objects that they are, so that optimizers and schedulers that refer
to them go on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trimtab.checkpoint import generators, moments
from trimtab.checkpoint.tree import flatten, place, strided, unflatten
from trimtab.errors import UserError

DATA_GOES_ON = "the training goes on with other data than it had then"
"""Why positions in the data and random numbers are left where they are with `data=False`."""

RANDOM = "random"
"""The name of all global random number generators together, in `Restored`."""


@dataclass(kw_only=True)
class Captured:
    """One moment of a training.

    `tensors` are copies on the devices where they were, by key: model/<name>/<tensor>, optimizer/<stream>/<parameter
    name>/<state key>, part/<name>/..., random/... . `plain` is the rest as strict JSON, and names the tensors.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)

    @property
    def left_out(self) -> Mapping[str, str]:
        """Part -> why it could not be captured."""
        return dict(self.plain["left"])

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was put back, and part -> why it was left as it is."""

    restored: tuple[str, ...]
    left: Mapping[str, str]


class TrainingState:
    """The models, optimizers and further parts of a training, by name.

    Args:
        models: modules; all their parameters and buffers count, those that are not persistent too.
        optimizers: by stream.
        parts: what else changes while it trains: anything with `state_dict` and `load_state_dict` (schedulers,
            scalers, samplers, averages), `torch.Generator`, `numpy.random.Generator`, `random.Random`. A part that
            says `is_data = True`, and any loader or sampler of torch, is the position in the data.

    The three mappings are copied into dicts of the same name, which may grow.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer] | None = None,
        parts: Mapping[str, Any] | None = None,
    ):
        self.models: dict[str, nn.Module] = dict(models)
        self.optimizers: dict[str, Optimizer] = dict(optimizers or {})
        self.parts: dict[str, Any] = dict(parts or {})

    def capture(self, into: Captured | None = None) -> Captured:
        """Return a copy of everything.

        Args:
            into: an older one that is no longer needed: its memory is used again where shapes fit.

        A part that cannot be captured is named in `left_out`; the others are captured all the same.

        Raises:
            UserError: a model or an optimizer holds something that cannot be stored; say which and what.
        """
        tensors: dict[str, torch.Tensor] = {}
        plain: dict[str, Any] = {"models": {}, "optimizers": {}, "parts": {}, "left": {}}
        for name, model in self.models.items():
            tensors.update(_of_model(name, model))
            extra, plain["models"][name] = flatten(_extra_state(model), place("extra", name))
            tensors.update(extra)
        names = self.parameter_names()
        for name, optimizer in self.optimizers.items():
            found, plain["optimizers"][name] = moments.take(optimizer, place("optimizer", name), names)
            tensors.update(found)
        for name, part in self.parts.items():
            try:
                found, state = flatten(_state_of(part), place("part", name))
            except UserError as error:
                plain["left"][name] = str(error)
                continue
            except Exception as error:  # noqa: BLE001 - the state_dict of a part is somebody else's code
                plain["left"][name] = f"its state could not be read: {type(error).__name__}: {error}"
                continue
            plain["parts"][name] = {"class": moments.class_name(part), "state": state}
            tensors.update(found)
        fresh, plain["random"] = flatten(generators.everywhere(), RANDOM)
        copies = _copied(tensors, {} if into is None else into.tensors)
        return Captured(tensors={**copies, **fresh}, plain=plain)

    def restore(self, captured: Captured, *, data: bool = True, named: bool = False) -> Restored:
        """Put everything back as it was, in place, after looking at all of it first.

        Values are written through `Tensor.data`, which autograd does not see: a graph that was made before and is
        still wanted goes on.

        Args:
            captured: what `capture` returned.
            data: False leaves the position in the data, generators and random numbers where they are.
            named: parameters of optimizers must have the same names too: for a state of another process.

        Returns:
            What was put back and what was not. Models, optimizers and parts that are new since then are left.

        Raises:
            UserError: something does not fit, or a part refuses its state. Nothing was changed then, as far as the
                parts can take back what they were given.
        """
        copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        actions: list[Callable[[], None]] = []
        refusing: list[tuple[str, Any, Any]] = []
        restored: list[str] = []
        left: dict[str, str] = dict(captured.plain["left"])
        for name, model in self.models.items():
            if name not in captured.plain["models"]:
                left[name] = "it was not there then"
                continue
            onto = _onto_model(name, model, captured.tensors, same_process=not named)
            copies += onto[0]
            actions += onto[1]
            extra = unflatten(captured.plain["models"][name], _Clones(captured.tensors))
            if extra:
                refusing.append((f"model {name!r}", _Extra(model), extra))
            restored.append(name)
        names = self.parameter_names()
        for name, optimizer in self.optimizers.items():
            if name not in captured.plain["optimizers"]:
                left[name] = "it was not there then"
                continue
            kept = captured.plain["optimizers"][name]
            at = place("optimizer", name)
            plan = moments.plan(optimizer, kept, captured.tensors, at, names, named=named)
            copies += plan.copies
            actions.append(plan.apply)
            if plan.whole is not None:
                refusing.append((f"optimizer {name!r}", optimizer, plan.whole))
            restored.append(name)
        refusing += self._parts_to_restore(captured, restored, left, data=data)
        states = unflatten(captured.plain["random"], captured.tensors) if data else None
        # From here on things change. What runs the code of others comes first, for only that can refuse.
        _load_all(refusing)
        for act in actions:
            act()
        _write(copies)
        if states is None:
            left[RANDOM] = DATA_GOES_ON
        else:
            why = generators.check_everywhere(states)
            generators.put_back_everywhere(states)
            restored.append(RANDOM)
            if why is not None:
                left[RANDOM] = why
        return Restored(restored=tuple(restored), left=left)

    def parameter_names(self) -> dict[int, str]:
        """Return id of a parameter -> '<model>.<name>'; of a tensor with several names the first."""
        names: dict[int, str] = {}
        for model_name, model in self.models.items():
            for name, parameter in unwrapped(model).named_parameters():
                names.setdefault(id(parameter), f"{model_name}.{plain_name(name)}")
        return names

    def _parts_to_restore(
        self, captured: Captured, restored: list[str], left: dict[str, str], *, data: bool
    ) -> list[tuple[str, Any, Any]]:
        """Return (what it is, part, its state) of the parts that shall go back."""
        parts: list[tuple[str, Any, Any]] = []
        for name, part in self.parts.items():
            kept = captured.plain["parts"].get(name)
            if name in left:
                continue
            if kept is None:
                left[name] = "it was not there then"
            elif not data and (is_position(part) or isinstance(part, generators.Generator)):
                left[name] = DATA_GOES_ON
            elif kept["class"] != moments.class_name(part):
                raise UserError(
                    f"part {name!r} is a {moments.class_name(part)} and its state is that of a {kept['class']}; "
                    f"make the same kind of object"
                )
            else:
                parts.append((f"part {name!r}", part, unflatten(kept["state"], _Clones(captured.tensors))))
                restored.append(name)
        for name in captured.plain["parts"]:
            if name not in self.parts:
                left[name] = "it is not part of this training; name it among the parts"
        return parts


def model_tensors(model: nn.Module, *, ties: bool = False) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a model by name, those that are not persistent too.

    Args:
        model: wrappers of torch (`torch.compile`, parallel ones) are looked through.
        ties: a tensor with several names comes under each of them, not under the first one only.
    """
    inner = unwrapped(model)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in (
        *inner.named_parameters(remove_duplicate=not ties), *inner.named_buffers(remove_duplicate=not ties),
    ):  # fmt: skip
        tensors[plain_name(name)] = tensor
    return tensors


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers that torch puts around it."""
    while True:
        if "_orig_mod" in model._modules:
            inner = model._modules["_orig_mod"]
            assert inner is not None
            model = inner
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def plain_name(name: str) -> str:
    """Return the name of a tensor or module without what `torch.compile` puts into it."""
    return name.replace("_orig_mod.", "")


def _of_model(name: str, model: nn.Module) -> dict[str, torch.Tensor]:
    found = {}
    for called, tensor in model_tensors(model).items():
        why = strided(tensor)
        if why is not None:
            raise UserError(f"model {name!r}: {called!r} cannot be captured: it is {why}")
        found[place("model", name, called)] = tensor.detach()
    return found


def _onto_model(
    name: str, model: nn.Module, tensors: Mapping[str, torch.Tensor], *, same_process: bool
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[Callable[[], None]]]:
    """Return what is copied onto what, and what is done besides.

    In the process where it was captured, a buffer of another shape now (a table that grows with the longest input) is
    replaced by what it was, and one that is new since then is left.
    """
    copies = []
    there = {place("model", name, called): tensor for called, tensor in model_tensors(model).items()}
    prefix = place("model", name) + "/"
    kept = {key for key in tensors if key.startswith(prefix)}
    buffers: dict[str, tuple[nn.Module, str]] = {}
    for path, module in unwrapped(model).named_modules() if same_process else ():
        for leaf in module._buffers:
            buffers[place("model", name, plain_name(f"{path}.{leaf}" if path else leaf))] = module, leaf
    others = {key for key in kept & there.keys() if _kind(there[key]) != _kind(tensors[key])}
    replaced = sorted((others | (kept - there.keys())) & buffers.keys())
    missing = sorted(kept - there.keys() - buffers.keys())
    added = sorted(there.keys() - kept - buffers.keys())
    if missing or added:
        raise UserError(
            f"model {name!r} has other tensors than it had then; gone: {missing or 'none'}, new: {added or 'none'}"
        )
    for key in sorted((kept & there.keys()) - set(replaced)):
        tensor = there[key]
        if key in others:
            raise UserError(
                f"model {name!r}: {key.removeprefix(prefix)!r} is {tensor.dtype} of shape {tuple(tensor.shape)} now, "
                f"it was {tensors[key].dtype} of shape {tuple(tensors[key].shape)}"
            )
        if overlaps(tensor):
            if not torch.equal(tensor, tensors[key].to(tensor.device)):
                raise UserError(
                    f"model {name!r}: {key.removeprefix(prefix)!r} is expanded, several of its elements are one number "
                    f"in memory, and it has changed; give the module a tensor of its own (clone it)"
                )
            continue
        copies.append((tensor, tensors[key]))
    return copies, [partial(_replace, *buffers[key], tensors[key]) for key in replaced]


def _kind(tensor: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype


def _replace(module: nn.Module, leaf: str, kept: torch.Tensor) -> None:
    module._buffers[leaf] = kept.clone()


def overlaps(tensor: torch.Tensor) -> bool:
    """Return whether several elements are one number in memory, so that it cannot be written to."""
    return any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _extra_state(model: nn.Module) -> dict[str, Any]:
    """Return what modules keep beside their tensors (`get_extra_state`), by the name of the module."""
    return {
        name: module.get_extra_state()
        for name, module in unwrapped(model).named_modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    }


class _Clones(Mapping[str, torch.Tensor]):
    """Copies of tensors, made when asked for: a part may keep what it is given, and write to it."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self._tensors = tensors

    def __getitem__(self, key: str) -> torch.Tensor:
        return self._tensors[key].clone()

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class _Extra:
    """What the modules of one model keep beside their tensors, as a part."""

    def __init__(self, model: nn.Module):
        self.model = model

    def state_dict(self) -> dict[str, Any]:
        return _extra_state(self.model)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        put_extra_state(self.model, state)


def put_extra_state(model: nn.Module, extra: Mapping[str, Any]) -> None:
    """Give modules what they keep beside their tensors, by the name of the module."""
    modules = dict(unwrapped(model).named_modules())
    for name, state in extra.items():
        modules[name].set_extra_state(state)


def is_position(part: Any) -> bool:
    """Say whether a part is the position in the data: it says so itself, or is a loader or sampler of torch."""
    says = getattr(part, "is_data", None)
    data = sys.modules.get("torch.utils.data")
    if says is not None or data is None:
        return bool(says)
    return isinstance(part, (data.DataLoader, data.Sampler))


def is_restorable(part: Any) -> bool:
    """Say whether something can be a part: a generator, or what has `state_dict` and `load_state_dict`."""
    return isinstance(part, generators.Generator) or (
        callable(getattr(part, "state_dict", None)) and callable(getattr(part, "load_state_dict", None))
    )


def _state_of(part: Any) -> Any:
    if isinstance(part, generators.Generator):
        return generators.of_one(part)
    if is_restorable(part):
        return part.state_dict()
    raise UserError(f"a {type(part).__name__} has no state_dict and load_state_dict, so that it cannot be put back")


def _load(part: Any, state: Any) -> None:
    if isinstance(part, generators.Generator):
        generators.put_back_one(part, state)
    else:
        part.load_state_dict(state)


def _load_all(parts: list[tuple[str, Any, Any]]) -> None:
    """Give every part its state; when one refuses, give the others back what they had."""
    before: list[tuple[Any, Any]] = []
    for name, part, state in parts:
        try:
            tensors, plain = flatten(_state_of(part))
            before.append((part, unflatten(plain, {key: tensor.clone() for key, tensor in tensors.items()})))
            _load(part, state)
        except Exception as error:
            for earlier, had in reversed(before):
                with contextlib.suppress(Exception):  # the one that refused may refuse what it had, too
                    _load(earlier, had)
            raise UserError(
                f"{name} could not be put back: {type(error).__name__}: {error}; nothing was changed"
            ) from error


def _copied(tensors: Mapping[str, torch.Tensor], buffers: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies, made together; a buffer of the same key is used again where it fits."""
    copies: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        buffer = buffers.get(key)
        if buffer is None or (buffer.shape, buffer.dtype, buffer.device) != (tensor.shape, tensor.dtype, tensor.device):
            buffer = torch.empty_like(tensor, requires_grad=False)
        copies[key] = buffer
    _write([(copies[key], tensor) for key, tensor in tensors.items()])
    return copies


@torch.no_grad()
def _write(copies: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    if copies:
        torch._foreach_copy_([target.data for target, _ in copies], [source for _, source in copies])
