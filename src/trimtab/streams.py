"""Who is who in a training: the streams (one an optimizer), their parameters by name and in forward order.

The models, optimizers and loaders are handed over, or looked up among the living objects before the first update and
whenever an optimizer appears that is not known.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trimtab import discover, graph
from trimtab.cadence import FIRST, Burst
from trimtab.live import Live

Numbers = dict[str, Any]

MOST_LABELS = 512
"""An axis that grows beyond so many labels has names that change from step to step; what comes later is left out."""


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
        elif gradient.is_cpu and not gradient.is_sparse and not gradient.any():
            self.kept = False  # zeroed through `.data`, which no version tells


def _place(tensor: torch.Tensor) -> int:
    return id(tensor) if tensor.is_sparse else tensor.data_ptr()


@dataclass(slots=True)
class Stream:
    """What is remembered of one optimizer between its updates."""

    name: str
    holder: weakref.ref[torch.optim.Optimizer]
    parameters: list[torch.Tensor] = field(default_factory=list)
    group_of: list[int] = field(default_factory=list)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    signature: tuple[int, ...] = ()
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
    mark: tuple[int, int] = (0, -1)
    memory: dict[str, Any] = field(default_factory=dict)
    axis_of: Mapping[str, str] = field(default_factory=dict)
    met: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The stream's optimizer, which lives as long as one of its steps is looked at."""
        optimizer = self.holder()
        assert optimizer is not None
        return optimizer

    def where(self) -> tuple[int, int]:
        """Return where the sampled gradient stands and how often it was written to: a backward pass changes it."""
        gradient = self.grad.parameter.grad if self.grad is not None else None
        return (0, -1) if gradient is None else (_place(gradient), gradient._version)

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

    def align(self, numbers: Numbers) -> None:
        """Turn what is named by a growing axis into vectors, and put what is new at the end of its labels."""
        named = [(name, value) for name, value in numbers.items() if isinstance(value, Mapping)]
        if not named:
            return
        grown = False
        for name, value in named:
            places = self.met.setdefault(self.axis_of[name], {})
            for label in value:
                if label not in places and len(places) < MOST_LABELS:
                    places[label] = len(places)
                    grown = True
        if grown:
            self.axes = {**self.axes, **{axis: tuple(places) for axis, places in self.met.items()}}
            self.label()
        for name, value in named:
            numbers[name] = _vector(value, self.met[self.axis_of[name]])

    def label(self) -> None:
        """Set which labels name the entries of which signal; rows that were made before keep theirs."""
        self.labels = {name: self.axes[axis] for name, axis in self.axis_of.items() if axis in self.axes}

    def carried(self) -> float:
        """Return 1.0 if a sampled gradient was not zeroed since the last update, 0.0 if all were, NaN if unknown."""
        return math.nan if self.step == 0 or self.grad is None else float(self.grad.kept)

    def forget_update(self) -> None:
        """Forget what was read of the update that is running: it is left out for a rollback."""
        self.numbers, self.norms, self.live, self.trouble = {}, None, None, False
        self.clipped, self.scaler, self.thin = False, None, False
        if self.grad is not None:
            self.grad.kept, self.grad.version = False, -1

    def look_again(self, was_thin: bool) -> None:
        """Remember the sampled gradient after an update; sample another one when this parameter took no part."""
        if self.grad is None:
            return
        self.grad.remember()
        if self.grad.version < 0 and not was_thin:
            self.grad = next((Grad(p) for p in self.parameters if p.grad is not None), self.grad)
            self.grad.remember()
        self.grad.kept = self.grad.version >= 0


def _vector(value: Mapping[str, Any], places: Mapping[str, int]) -> tuple[float, ...] | torch.Tensor:
    """Return the numbers in their places, NaN in the others: floats where no device must be waited for."""
    known = {label: number for label, number in value.items() if label in places}
    tensors = [number.detach() for number in known.values() if isinstance(number, torch.Tensor)]
    on_device = next((number.device for number in tensors if not number.is_cpu), None)
    if on_device is not None:
        holes = torch.full((len(places),), math.nan, device=on_device)
        row = list(holes.unbind())
        for label, number in known.items():
            row[places[label]] = torch.as_tensor(number).detach().to(on_device, torch.float32).reshape(())
        return torch.stack(row)
    numbers = iter(torch.stack([number.double().reshape(()) for number in tensors]).tolist() if tensors else ())
    floats = [math.nan] * len(places)
    for label, number in known.items():
        floats[places[label]] = next(numbers) if isinstance(number, torch.Tensor) else float(number)
    return tuple(floats)


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
        parts: the schedulers and GradScalers of the process.
        let_go: called when an optimizer appears, for whoever keeps others alive: it may take the place of one.
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
        self.parts: tuple[weakref.ref[Any], ...] = ()
        self.let_go: Callable[[], None] = lambda: None
        self.namings = 0
        self.explored = False
        for optimizer in (optimizers or {}).values():
            self.of(optimizer)

    def __len__(self) -> int:
        return len(self._by_optimizer)

    def all(self) -> Sequence[Stream]:
        """Return the streams in the order in which they were met."""
        return tuple([stream for stream in self._by_optimizer.values() if stream.holder() is not None])

    def known(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        """Return the stream of an optimizer that was met before."""
        stream = self._by_optimizer.get(id(optimizer))
        return stream if stream is not None and stream.holder() is optimizer else None

    @property
    def takes_all(self) -> bool:
        """Whether no optimizer was handed over."""
        return not self._only

    @property
    def named(self) -> Mapping[int, tuple[str, torch.Tensor]]:
        """The name of each known parameter, by its id."""
        return self._named

    def forget(self) -> None:
        """Let go of every optimizer, model and tensor."""
        self._by_optimizer, self._of_parameter, self._named = {}, {}, {}
        self.models, self.everything, self.held = [], ([], ()), frozenset()

    def holding(self, parameters: Sequence[torch.Tensor]) -> list[Stream]:
        """Return the streams that hold at least one of these parameters."""
        found = {stream.name: stream for p in parameters for stream in self._of_parameter.get(id(p), ())}
        return list(found.values())

    def of(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        """Return the stream of an optimizer, made if it is new; None for one that was not handed over."""
        stream = self.known(optimizer)
        if stream is None:
            stream = self._met(optimizer)
            if stream is None:
                return None
            self.explored = False
        groups = optimizer.param_groups
        signature: tuple[int, ...]
        if stream.thin:  # on a thin step it is enough to see that none was added or taken away
            count = sum([len(group["params"]) for group in groups])
            changed = stream.signature[:2] != (len(groups), count)
        else:
            signature = tuple([id(p) for group in groups for p in group["params"]])
            signature = (len(groups), len(signature), *signature)
            changed = signature != stream.signature
            stream.signature = signature
        if changed:
            stream.grad, stream.ordered, stream.buffers, stream.thin = None, False, [], False
            self._name(stream)
            self.explored = False
        return stream

    def _met(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        """Return the stream of an optimizer that is new: its own, or that of one which it takes the place of.

        A script that makes its optimizer anew goes on in the same stream. Of optimizers that were handed over, one
        that holds some of the same parameters is the successor; where none was, one is whose predecessor is gone.
        """
        mine = {id(p) for p, _ in discover.held_parameters(optimizer)}
        if self._only:
            if id(optimizer) in self._only and id(optimizer) not in self._by_optimizer:
                stream = Stream(self._only[id(optimizer)], weakref.ref(optimizer))
                self._by_optimizer[id(optimizer)] = stream
                return stream
            heirs = [
                s for s in self._by_optimizer.values() if s.holder() is None or mine & {id(p) for p in s.parameters}
            ]
        else:
            if any(stream.holder() is not None for stream in self._by_optimizer.values()):
                self.let_go()
                gc.collect()  # an optimizer that a scheduler points back to dies only here
            heirs = [stream for stream in self._by_optimizer.values() if stream.holder() is None]
        if heirs:
            stream = max(heirs, key=lambda s: len(mine & {id(p) for p in s.parameters}))
            self._by_optimizer = {key: one for key, one in self._by_optimizer.items() if one is not stream}
            stream.holder, stream.signature = weakref.ref(optimizer), ()
            stream.burst.until = stream.step + FIRST  # what is new is looked at in full, as at the beginning
        elif self._only:
            return None
        else:
            names = {stream.name for stream in self._by_optimizer.values()}
            number = len(names) + 1
            stream = Stream("main" if "main" not in names else f"optimizer-{number}", weakref.ref(optimizer))
        self._by_optimizer[id(optimizer)] = stream
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
                if self.known(optimizer) is None and any(id(p) in reached for p, _ in held_by_it):
                    self.of(optimizer)
        self.explored = True
        held = {id(p) for stream in self.all() for p in stream.parameters}
        if self._find_models:
            self.models = discover.models_of(living, held | reached)
        self.loaders, self.parts = living.loaders, living.parts
        self._named = discover.names_of(self.models)
        self.held = frozenset(held)
        self.everything = ([p for _, p in self._named.values()], tuple(name for name, _ in self._named.values()))
        for stream in self.all():
            self._name(stream)

    def order(self, node: Any) -> None:
        """Put the parameters of the streams that this graph reaches into forward order, once for each stream."""
        if all(stream.ordered for stream in self.all()):
            return
        rank = graph.forward_order(node)
        for stream in self.all():
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
            **{axis: tuple(places) for axis, places in stream.met.items()},
        }
        stream.axis_of = self._axes
        stream.label()
        if stream.grad is None and held:
            stream.grad = Grad(stream.parameters[len(held) // 2])
        self.held = frozenset(id(p) for one in self.all() for p in one.parameters)
        self._of_parameter = {}
        for one in self.all():
            for p in one.parameters:
                self._of_parameter.setdefault(id(p), []).append(one)
