"""Fresh copies of a training: made, driven and compared while everything of the user's stays as it was."""

from __future__ import annotations

import inspect
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from trimtab.checkpoint import generators, loading
from trimtab.errors import UserError
from trimtab.probes._probe import Subject
from trimtab.system import Training

MOST_MAKING = 3.0
"""Making the copies is free up to so many times the budget, and counts from there on."""
_making = [0.0]
"""CPU seconds that this process has spent on making copies."""


class Clock:
    """CPU seconds of the process since it was made, against a budget that making the copies does not count for."""

    def __init__(self, budget: float):
        self.budget = budget
        self._began, self._made = time.process_time(), _making[0]

    @property
    def whole(self) -> float:
        """CPU seconds since then, with making the copies."""
        return time.process_time() - self._began

    @property
    def spent(self) -> float:
        """CPU seconds since then that count."""
        making = _making[0] - self._made
        return self.whole - min(making, MOST_MAKING * self.budget)

    @property
    def left(self) -> float:
        """CPU seconds until the budget is spent; never negative."""
        return max(self.budget - self.spent, 0.0)


@contextmanager
def apart() -> Iterator[None]:
    """Let a probe draw random numbers and switch gradients on; afterwards both, and the threads, are as before.

    Warnings that the copies raise are not shown: they are about an experiment and not about the user's training.
    """
    states, threads, dtype = generators.everywhere(), torch.get_num_threads(), torch.get_default_dtype()
    exact = torch.are_deterministic_algorithms_enabled()
    exact_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        generators.put_back_everywhere(states)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != exact:
            torch.use_deterministic_algorithms(exact, warn_only=exact_warns)


def copy_of(subject: Subject, seed: int | None = None, config: Any = None) -> Training:
    """Return a fresh training in training mode; every global generator begins with its seed, as `train` does it.

    Args:
        subject: what is probed.
        seed: its own by default.
        config: its own by default.
    """
    seed = subject.seed if seed is None else seed
    _seed_everything(seed)
    began = time.process_time()
    try:
        training = subject.make(subject.config if config is None else config, seed)
    finally:
        _making[0] += time.process_time() - began
    if not isinstance(training, Training):
        raise UserError(f"{subject.name} returned a {type(training).__name__}; expected a trimtab.Training")
    training.model.train()
    return training


def _seed_everything(seed: int) -> None:
    """Let the global generators begin with a seed; `torch.manual_seed` would keep a note for a GPU used later."""
    if torch.cuda.is_initialized() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def updates(
    training: Training, count: int, after_backward: Callable[[int], None] | None = None, first: int = 0
) -> Iterator[float]:
    """Take `count` updates as the loop of `train` takes them, and yield the loss of each before the next one.

    An optimizer that cannot step without a closure, such as LBFGS, gets one that computes the loss of the batch again.

    Args:
        training: a copy.
        count: how many; fewer where the batches end.
        after_backward: called with the index of the update when its gradients are there.
        first: index of the first one.
    """
    model, optimizers = training.model, training.optimizers.values()
    for step in range(first, first + count):
        try:
            batch = next(training.batches)
        except StopIteration:
            return
        loss = training.loss(model, batch)
        loss.backward()
        if after_backward is not None:
            after_backward(step)
        if training.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        for optimizer in optimizers:
            if _needs_closure(optimizer):
                optimizer.step(_closure(training, optimizer, batch))
            else:
                optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        if training.schedule is not None:
            training.schedule(step)
        yield loss.item()


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    parameter = inspect.signature(type(optimizer).step).parameters.get("closure")
    return parameter is not None and parameter.default is parameter.empty


def _closure(training: Training, optimizer: torch.optim.Optimizer, batch: Any) -> Callable[[], float]:
    def again() -> float:
        optimizer.zero_grad()
        loss = training.loss(training.model, batch)
        loss.backward()
        if training.clip is not None:
            nn.utils.clip_grad_norm_(training.model.parameters(), training.clip)
        return loss.item()

    return again


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the parameters and of the buffers that belong to the state, by name."""
    return {
        name: value.detach().clone() for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)
    }


def identical(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors have the same shape, type and numbers; NaN is the same as NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = one.detach(), other.detach()
    if torch.equal(one, other):
        return True
    if not (one.is_floating_point() or one.is_complex()):
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def differing(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors that are not identical, or that only one of them has."""
    names = dict.fromkeys((*one, *other))
    return [name for name in names if name not in one or name not in other or not identical(one[name], other[name])]


def same_numbers(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Say whether two evaluations gave exactly the same; NaN is the same as NaN."""
    return {name: repr(float(value)) for name, value in one.items()} == {
        name: repr(float(value)) for name, value in other.items()
    }


def spread(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return for each metric the greatest value less the smallest one, of those that are numbers."""
    names = dict.fromkeys(name for one in values for name in one)
    found = {}
    for name in names:
        finite = [float(one[name]) for one in values if name in one and np.isfinite(one[name])]
        found[name] = max(finite) - min(finite) if finite else float("nan")
    return found


def put_into(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors over those of a model with the same names and shapes."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if isinstance(value, torch.Tensor) and name in tensors:
                value.copy_(tensors[name])


@dataclass(frozen=True, slots=True)
class Load:
    """One load of weights that was seen while a training was built.

    Attributes:
        module: what was loaded into; held so that its tensors keep their identity.
        filled: ids of the tensors that the load wrote.
        missing: names in the module that it left as they were.
        unexpected: names that the module does not have.
    """

    module: nn.Module
    filled: frozenset[int]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@dataclass(slots=True)
class Loads:
    """What was loaded while a block ran."""

    seen: list[Load] = field(default_factory=list)

    def add(self, module: nn.Module, missing: Sequence[str], unexpected: Sequence[str]) -> None:
        """Note one load."""
        left = set(missing)
        filled = frozenset(id(value) for name, value in _live(module) if name not in left)
        self.seen.append(Load(module, filled, tuple(missing), tuple(unexpected)))

    def filled(self, model: nn.Module) -> set[str]:
        """Return the names of a model's tensors that some load wrote."""
        written = {key for load in self.seen for key in load.filled}
        return {name for name, value in _live(model) if id(value) in written}

    def covered(self, model: nn.Module) -> set[str]:
        """Return the names of a model's tensors that stand in a module which something was loaded into."""
        inside = {id(value) for load in self.seen for _, value in _live(load.module)}
        return {name for name, value in _live(model) if id(value) in inside}


def _live(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


@contextmanager
def loads() -> Iterator[Loads]:
    """Note every load of weights while the block runs: by `load_state_dict`, or from a checkpoint of Trimtab."""
    found, original = Loads(), nn.Module.load_state_dict

    def load_state_dict(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        found.add(self, getattr(result, "missing_keys", ()), getattr(result, "unexpected_keys", ()))
        return result

    nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign]  # put back below
    try:
        with loading.told(lambda done: found.add(done.model, done.left_at_initialisation, done.left_out)):
            yield found
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]  # as it was
