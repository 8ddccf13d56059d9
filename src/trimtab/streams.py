"""Who is who in a training: the streams (one an optimizer), their parameters by name and in forward order.

The models, optimizers and loaders are handed over, or looked up among the living objects before the first update and
whenever an optimizer appears that is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trimtab import discover, graph
from trimtab.cadence import Burst
from trimtab.live import Live

Numbers = dict[str, Any]


@dataclass(slots=True)
class Grad:
    """Where the gradient of one parameter was last seen, to tell whether it was zeroed or dropped since."""

    parameter: torch.Tensor
    place: int = 0
    version: int = -1
    kept: bool = False

    def remember(self) -> None:
        """Note where the gradient stands and how often it was written to."""
        gradient = self.parameter.grad
        if gradient is None:
            self.version = -1
        else:
            self.place, self.version = _place(gradient), gradient._version

    def look(self) -> None:
        """Take back that it was kept, when it is another tensor now or was written to outside a backward pass."""
        gradient = self.parameter.grad
        if gradient is None or gradient._version != self.version or _place(gradient) != self.place:
            self.kept = False


def _place(tensor: torch.Tensor) -> int:
    return id(tensor) if tensor.is_sparse else tensor.data_ptr()


@dataclass(slots=True)
class Stream:
    """What is remembered of one optimizer between its updates."""

    name: str
    optimizer: torch.optim.Optimizer
    parameters: list[torch.Tensor] = field(default_factory=list)
    group_of: list[int] = field(default_factory=list)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    signature: tuple[int, int] = (0, 0)
    grad: Grad | None = None
    step: int = 0
    ordered: bool = False
    burst: Burst = field(default_factory=Burst)
    clipped: bool = False
    scaler: Any = None
    numbers: Numbers = field(default_factory=dict)
    norms: torch.Tensor | None = None
    live: Live | None = None
    trouble: bool = False
    thin: bool = False
    buffers: list[torch.Tensor] = field(default_factory=list)

    def copies(self) -> list[torch.Tensor]:
        """Return copies of the parameters as they are now, in buffers that are used again each time."""
        now = [parameter.detach() for parameter in self.parameters]
        fits = len(self.buffers) == len(now) and all(
            a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
            for a, b in zip(self.buffers, now, strict=True)
        )
        if not fits:
            self.buffers = [parameter.clone() for parameter in now]
        else:
            torch._foreach_copy_(self.buffers, now)
        return self.buffers

    def carried(self) -> float:
        """Return 1.0 if a sampled gradient was not zeroed since the last update, 0.0 if all were, NaN if unknown."""
        return math.nan if self.step == 0 or self.grad is None else float(self.grad.kept)

    def look_again(self, was_thin: bool) -> None:
        """Remember the sampled gradient after an update; sample another one when this parameter took no part."""
        if self.grad is None:
            return
        self.grad.remember()
        if self.grad.version < 0 and not was_thin:
            self.grad = next((Grad(p) for p in self.parameters if p.grad is not None), self.grad)
            self.grad.remember()
        self.grad.kept = self.grad.version >= 0


class Streams:
    """The streams of a training, and what is known about its models.

    Args:
        axes: signal name -> the label list that names its entries.
        models: root modules, or None to look them up.
        optimizers: stream name -> optimizer, or None to take every one that steps.

    Attributes:
        models: the root modules.
        everything: every parameter of every model, and their names.
        held: ids of the parameters that some optimizer holds.
        loaders: (batch size, rows of the data set) of each DataLoader.
        namings: how often anything got a name; what was written about names is old when it has grown.
    """

    def __init__(
        self,
        axes: Mapping[str, str],
        models: Sequence[nn.Module] | None = None,
        optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    ):
        self._axes = dict(axes)
        self.models: list[nn.Module] = list(models or ())
        self._find_models = models is None
        self._only = {id(optimizer): name for name, optimizer in (optimizers or {}).items()}
        self._by_optimizer: dict[int, Stream] = {}
        self._of_parameter: dict[int, list[Stream]] = {}
        self._named: dict[int, tuple[str, torch.Tensor]] = {}
        self.everything: tuple[list[torch.Tensor], tuple[str, ...]] = ([], ())
        self.held: frozenset[int] = frozenset()
        self.loaders: tuple[tuple[int, int], ...] = ()
        self.namings = 0
        self.explored = False
        for optimizer in (optimizers or {}).values():
            self.of(optimizer)

    def __len__(self) -> int:
        return len(self._by_optimizer)

    def all(self) -> Sequence[Stream]:
        """Return the streams in the order in which they were met."""
        return tuple(self._by_optimizer.values())

    def known(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        """Return the stream of an optimizer that was met before."""
        return self._by_optimizer.get(id(optimizer))

    def holding(self, parameters: Sequence[torch.Tensor]) -> list[Stream]:
        """Return the streams that hold at least one of these parameters."""
        found = {stream.name: stream for p in parameters for stream in self._of_parameter.get(id(p), ())}
        return list(found.values())

    def of(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        """Return the stream of an optimizer, made if it is new; None for one that was not handed over."""
        stream = self._by_optimizer.get(id(optimizer))
        if stream is None:
            if self._only and id(optimizer) not in self._only:
                return None
            number = len(self._by_optimizer)
            default = "main" if number == 0 else f"optimizer-{number + 1}"
            stream = Stream(self._only.get(id(optimizer), default), optimizer)
            self._by_optimizer[id(optimizer)] = stream
            self.explored = False
        groups = optimizer.param_groups
        signature = (len(groups), sum(len(group["params"]) for group in groups))
        if signature != stream.signature:
            stream.signature = signature
            self._name(stream)
        return stream

    def explore(self, node: Any) -> None:
        """Look up models, optimizers and loaders before the first update, and when a new optimizer has appeared."""
        if node is None:
            return
        living = discover.look_around()
        reached = graph.forward_order(node).keys()
        if not self._only:
            for optimizer in discover.outermost(living):
                held_by_it = discover.held_parameters(optimizer)
                if id(optimizer) not in self._by_optimizer and any(id(p) in reached for p, _ in held_by_it):
                    self.of(optimizer)
        self.explored = True
        held = {id(p) for stream in self._by_optimizer.values() for p in stream.parameters}
        if self._find_models:
            self.models = discover.models_of(living, held | reached)
        self.loaders = living.loaders
        self._named = discover.names_of(self.models)
        self.held = frozenset(held)
        self.everything = ([p for _, p in self._named.values()], tuple(name for name, _ in self._named.values()))
        for stream in self._by_optimizer.values():
            self._name(stream)

    def order(self, node: Any) -> None:
        """Put the parameters of the streams that this graph reaches into forward order, once for each stream."""
        if all(stream.ordered for stream in self._by_optimizer.values()):
            return
        rank = graph.forward_order(node)
        for stream in self._by_optimizer.values():
            if not stream.ordered and any(id(p) in rank for p in stream.parameters):
                stream.ordered = True
                self._name(stream, rank)

    def _name(self, stream: Stream, rank: Mapping[int, int] | None = None) -> None:
        self.namings += 1
        held = discover.held_parameters(stream.optimizer)
        if rank is not None:
            held = sorted(held, key=lambda pair: rank.get(id(pair[0]), len(rank)))
        elif stream.ordered:
            place = {id(p): index for index, p in enumerate(stream.parameters)}
            held = sorted(held, key=lambda pair: place.get(id(pair[0]), len(place)))
        stream.parameters = [p for p, _ in held]
        stream.group_of = [group for _, group in held]
        names = tuple(
            self._named[id(p)][0] if id(p) in self._named else f"group{group}.tensor{index}"
            for index, (p, group) in enumerate(held)
        )
        stream.axes = {
            "parameters": names,
            "groups": discover.group_names(stream.optimizer),
            "everything": self.everything[1],
        }
        stream.labels = {name: stream.axes[axis] for name, axis in self._axes.items() if axis in stream.axes}
        if stream.grad is None and held:
            stream.grad = Grad(stream.parameters[len(held) // 2])
        self.held = frozenset(id(p) for one in self._by_optimizer.values() for p in one.parameters)
        self._of_parameter = {}
        for one in self._by_optimizer.values():
            for p in one.parameters:
                self._of_parameter.setdefault(id(p), []).append(one)
