"""Load a checkpoint: plan, refuse or apply, and say what was done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trimtab.checkpoint import generators
from trimtab.checkpoint.constructor import Allowed, Constructor
from trimtab.checkpoint.description import DescribedModel, describe
from trimtab.checkpoint.planning import Plan, check, compare, matches, plan
from trimtab.checkpoint.reading import Contents, metrics_of
from trimtab.checkpoint.settings import modules_here
from trimtab.checkpoint.source import Source, open_source
from trimtab.checkpoint.state import (
    Captured,
    Restored,
    TrainingState,
    model_tensors,
    overlaps,
    put_extra_state,
    unwrapped,
)
from trimtab.checkpoint.tree import place, unflatten
from trimtab.errors import CheckpointError, UserError

Evaluate = Callable[[nn.Module], float]
"""A metric of a model, computed as it was when it was stored."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a load did.

    Attributes:
        model: the model, which is the one that was given.
        loaded: names of the tensors that were filled.
        renamed: those with another name: name in the model -> stored name.
        left_at_initialisation: names that the checkpoint does not have, as it was allowed.
        left_out: stored names that the model does not have, as it was allowed.
        overridden: settings that differ and were accepted, in words.
        not_compared: what could not be compared.
        step, metrics, config, facts: as they were stored.
        plan: all that was compared.
    """

    model: nn.Module
    loaded: tuple[str, ...]
    renamed: Mapping[str, str]
    left_at_initialisation: tuple[str, ...]
    left_out: tuple[str, ...]
    overridden: tuple[str, ...]
    not_compared: tuple[str, ...]
    step: int | None
    metrics: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    plan: Plan


def load(
    path: Path | str | Source,
    model: nn.Module,
    *,
    name: str | None = None,
    build: Constructor | None = None,
    config: Mapping[str, Any] | None = None,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    override: Mapping[str, Any] | None = None,
    verify: Evaluate | Mapping[str, Evaluate] | None = None,
) -> Loaded:
    """Load weights into a model that agrees with the checkpoint in every respect, or was said not to.

    Args: as in `plan`, and
        verify: computes the stored metric, or metrics by name; a value that differs by more than the stored noise
            refuses the load. The model's mode is as it was, and the function sets the one that it needs; what it
            changes in the model, its mode and the random numbers is put back.

    Raises:
        CheckpointError: there is any difference that was not allowed; the message lists all of them and what to do.
            The model is as it was.
    """
    made = plan(
        path, model, name=name, build=build, config=config, allow_missing=allow_missing,
        allow_unexpected=allow_unexpected, rename=rename, override=override,
    )  # fmt: skip
    check(made)
    stored, tensors = made.source.model(name)
    live = model_tensors(model, ties=True)
    contents = made.source.contents
    metrics = {} if contents is None else metrics_of(contents)
    extra, dropped = _extra_of(made, stored, model)
    with _as_it_was(model) if extra or verify is not None else nullcontext():
        _fill(live, {new: tensors[stored.tensors[old].tied_to or old] for new, old in made.copies.items()})
        _give_extra(str(made.path), model, extra)
        if verify is not None:
            _verify(str(made.path), model, metrics, verify)
    done = Loaded(
        model=model, loaded=tuple(made.copies), renamed=dict(made.renamed),
        left_at_initialisation=made.left_at_initialisation, left_out=made.left_out,
        overridden=tuple(one.words for one in made.overridden), not_compared=(*made.not_compared, *dropped),
        step=None if contents is None else contents.state["step"],
        metrics=metrics, config=_stored(contents, "config"), facts=_stored(contents, "facts"), plan=made,
    )  # fmt: skip
    for listener in _listeners:
        listener(done)
    return done


_listeners: list[Callable[[Loaded], None]] = []


@contextmanager
def told(listener: Callable[[Loaded], None]) -> Iterator[None]:
    """Tell `listener` of every load of this process while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def rebuild(
    path: Path | str,
    *,
    name: str | None = None,
    allow: Allowed = (),
    verify: Evaluate | Mapping[str, Evaluate] | None = None,
) -> nn.Module:
    """Make the model of a checkpoint from its stored constructor and load it.

    Args:
        path: a checkpoint that was saved with `build=`, or from a model that `Constructor.build` made.
        name: which of several stored models.
        allow: classes, or names of modules, that may be used although they are not imported yet.
        verify: as in `load`.

    Returns:
        The model, in training mode as a new one is, on the CPU.

    Raises:
        CheckpointError: no constructor was stored, its class is not known here, it gives another model now, or the
            metric is not what it was.
    """
    source = open_source(path)
    stored, _ = source.model(name)
    if stored.build is None:
        raise CheckpointError(
            f"{path}: no constructor was stored; save with build=Constructor.of(Model, ...), or make the model "
            f"({stored.class_name or 'of an unknown class'}) yourself and use load"
        )
    wanted = {one: (held.shape, held.dtype) for one, held in stored.tensors.items() if held.persistent}
    made = _without_memory(stored.build, allow)
    if made is not None and made != wanted:
        odd = sorted(one for one in made.keys() | wanted.keys() if made.get(one) != wanted.get(one))
        raise CheckpointError(
            f"{path}: {stored.build.code} gives other tensors than were stored: {', '.join(odd[:10])}; "
            f"the class has changed since; use the code of then, or load with the differences named"
        )
    model = stored.build.build(allow)
    return load(source, model, name=name, verify=verify).model


def resume(
    path: Path | str,
    state: TrainingState,
    *,
    build: Constructor | Mapping[str, Constructor] | None = None,
    config: Mapping[str, Any] | None = None,
    override: Mapping[str, Any] | None = None,
    data: bool = True,
    allow_left: Sequence[str] = (),
) -> Restored:
    """Put a whole training back as it was saved: weights, all buffers, optimizers, parts, random numbers.

    Args:
        path: a checkpoint folder.
        state: the training as it was set up anew: the same models, optimizers and parts by the same names.
        build, config: how the models are made and set up now; compared.
        override: as in `plan`.
        data: False leaves the position in the data and random numbers where they are.
        allow_left: patterns of the names of optimizers and parts that may stay as they are.

    Returns:
        What was put back and what was not.

    Raises:
        CheckpointError: anything differs, or anything that was saved is not here, or the other way round. Nothing was
            changed.
    """
    source = open_source(path)
    contents = source.contents
    if contents is None or contents.state["training"] is None:
        raise CheckpointError(f"{path}: these are weights alone, nothing of a training; load them with load")
    if set(contents.models) != set(state.models):
        raise CheckpointError(
            f"{path}: it holds the models {sorted(contents.models)}, the training has {sorted(state.models)}"
        )
    override, used = dict(override or {}), set[str]()
    tensors = {key: tensor for key, tensor in contents.training.items() if not key.startswith("model/")}
    for name, model in state.models.items():
        how = build.get(name) if isinstance(build, Mapping) else build
        # Buffers change while it trains, those of one element and those that are not persistent too; all are put back.
        made = compare(source, model, name=name, build=how, config=config, constants=False)
        keys = [one.key for one in made.settings]
        mine = {pattern: value for pattern, value in override.items() if any(matches(key, pattern) for key in keys)}
        used |= mine.keys()
        if mine:
            made = compare(source, model, name=name, build=how, config=config, override=mine, constants=False)
        check(made)
        stored, weights = source.model(name)
        for called in model_tensors(model):
            held = stored.tensors.get(called)
            if held is None:
                raise CheckpointError(f"{path}: model {name!r} has a buffer {called!r} that was not saved")
            tensors[place("model", name, called)] = weights[held.tied_to or called]
    if override.keys() - used:
        raise CheckpointError(f"{path}: override: {sorted(override.keys() - used)} match no difference; take them out")
    training = contents.state["training"]
    extra = {name: model.extra for name, model in contents.models.items()}
    captured = Captured(tensors=tensors, plain={**training, "models": extra})
    try:
        _check_names(str(path), captured, state, allow_left)
        if data:
            generators.rehearse(unflatten(training["random"], tensors))
        return state.restore(captured, data=data, named=True)
    except CheckpointError:
        raise
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path}: the state of the training is damaged: {why}") from error


def _check_names(path: str, captured: Captured, state: TrainingState, allow_left: Sequence[str]) -> None:
    """Raise unless optimizers and parts are the same on both sides, or may differ."""
    for what, here in (("optimizers", state.optimizers), ("parts", state.parts)):
        there = captured.plain[what]
        odd = [name for name in [*there, *here] if (name in there) != (name in here)]
        odd = [name for name in dict.fromkeys(odd) if not any(matches(name, one) for one in allow_left)]
        if odd:
            raise CheckpointError(
                f"{path}: the {what} differ: saved were {sorted(there)}, here are {sorted(here)}; "
                f"give the same, or pass allow_left={odd!r}"
            )


def _fill(live: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into a model; all of them are on its devices before the first is written."""
    ready = []
    for name, value in values.items():
        there = value.to(live[name].device, live[name].dtype)
        if not overlaps(live[name]):
            ready.append((live[name], there))
        elif not torch.equal(live[name], there):
            raise CheckpointError(
                f"{name!r} is expanded, several of its elements are one number in memory, and other values are stored; "
                f"give the module a tensor of its own (clone it); nothing was loaded"
            )
    with torch.no_grad():
        for target, value in ready:
            target.data.copy_(value)


def _stored(contents: Contents | None, key: str) -> dict[str, Any]:
    if contents is None:
        return {}
    found = unflatten(contents.state[key], {})
    if not isinstance(found, dict):
        raise CheckpointError(f"{contents.path}: {key!r} is no mapping; use another checkpoint")
    return found


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Put a model, its modes and all random numbers back when the block fails."""
    state, modes = TrainingState({"model": model}), [(module, module.training) for module in model.modules()]
    before = state.capture()
    try:
        yield
    except BaseException:
        state.restore(before)
        raise
    finally:
        for module, mode in modes:
            module.training = mode


def _extra_of(made: Plan, stored: DescribedModel, model: nn.Module) -> tuple[dict[str, Any], list[str]]:
    """Return what modules here get beside their tensors, by their name here, and what has no module here, in words."""
    contents = made.source.contents
    if not stored.extra or contents is None:
        return {}, []
    own = {key: tensor.clone() for key, tensor in contents.training.items() if key.startswith("extra/")}
    try:
        found = dict(unflatten(stored.extra, own))
    except (UserError, TypeError, ValueError) as error:
        raise CheckpointError(f"{made.path}: what modules kept beside their tensors is damaged: {error}") from None
    there = modules_here(stored, describe(model), {new: old for new, old in made.copies.items() if new in made.renamed})
    modules = dict(unwrapped(model).named_modules())
    takes = {
        old: new for old, new in there.items()
        if old in found and new in modules and type(modules[new]).set_extra_state is not nn.Module.set_extra_state
    }  # fmt: skip
    dropped = [
        f"what {old!r} kept beside its tensors (get_extra_state): no module here takes it"
        for old in found if old not in takes
    ]  # fmt: skip
    return {new: found[old] for old, new in takes.items()}, dropped


def _give_extra(path: str, model: nn.Module, extra: Mapping[str, Any]) -> None:
    try:
        put_extra_state(model, extra)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path}: set_extra_state of this model refuses: {why}; nothing was loaded") from error


def _verify(path: str, model: nn.Module, metrics: Mapping[str, Any], verify: Any) -> None:
    if not isinstance(verify, Mapping):
        if len(metrics) != 1:
            raise CheckpointError(
                f"{path}: verify: {len(metrics)} metrics are stored ({', '.join(metrics) or 'none'}); "
                f"give verify={{name: function}}"
            )
        verify = {next(iter(metrics)): verify}
    state = TrainingState({"model": model})
    loaded = state.capture()
    for name, evaluate in verify.items():
        if name not in metrics:
            there = ", ".join(metrics) or "none"
            raise CheckpointError(f"{path}: verify: no metric {name!r} is stored; there are {there}")
        stored, noise = metrics[name]["value"], metrics[name]["noise"]
        measured = evaluate(model)
        state.restore(loaded)  # in training mode it moves statistics, and may draw random numbers
        try:
            now = float(measured)
        except (TypeError, ValueError, RuntimeError):
            raise CheckpointError(f"{path}: verify: expected a number for {name!r}, got {measured!r:.80}") from None
        # Six digits: another number of threads adds up in another order.
        if not abs(now - stored) <= noise + 1e-6 * max(abs(stored), abs(now)) and not (
            math.isnan(now) and math.isnan(stored)
        ):
            raise CheckpointError(
                f"{path}: {name!r} does not come out again: stored {stored:.6g} (noise {noise:.2g}, mode "
                f"{metrics[name]['mode']}), now {now:.6g}; the weights or what stands around them are not those that "
                f"were measured; nothing was loaded"
            )


def _without_memory(build: Constructor, allow: Allowed) -> dict[str, Any] | None:
    """Return names, shapes and dtypes of what a constructor gives, without making it; None where that is impossible."""
    before = generators.everywhere()
    try:
        with torch.device("meta"):
            tensors = describe(build.build(allow)).tensors
    except CheckpointError as error:
        if error.__cause__ is None:
            raise
        return None
    except Exception:  # noqa: BLE001 - the class of a user, made in a way it was not meant for
        return None
    finally:
        generators.put_back_everywhere(before)
    return {name: (one.shape, one.dtype) for name, one in tensors.items() if one.persistent}
