"""Measuring: at the four points, read the sensors that are due, move the numbers to the host once, hand on a row.

Sensors return device scalars and vectors. On a CPU they are read where they arise. On an accelerator they are stacked
and copied without waiting, and the row is handed on one step later under its own step; only a response that must act
before the update waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from trimtab import discover, graph
from trimtab.cadence import CENSUSES, Budget, Burst
from trimtab.live import UNSCALED, Live, Point, Root, Sensor, fill
from trimtab.records import Signal, Value

ARREARS = 32
"""At most so many rows of a calm run are handed on together, later; together they cost a fraction of what each costs
alone between two steps that have emptied the processor's caches."""
IMPATIENT = 64
"""The rows of the first so many updates are handed on at once."""
PATIENCE = 0.5
"""No row waits longer than so many seconds for the next step."""
ACCOUNT_EVERY = 64
"""The cost of measuring is held against the time that passed every so many updates."""

Numbers = dict[str, Any]
_NOTHING: Numbers = {}


@dataclass(slots=True)
class _Pass:
    """One backward pass: its loss, and what the sensors read at its root."""

    value: float | torch.Tensor
    numbers: Numbers
    scaler: Any = None


@dataclass(slots=True)
class _Grad:
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
class _Stream:
    """What is remembered of one optimizer between its updates."""

    name: str
    optimizer: torch.optim.Optimizer
    parameters: list[torch.Tensor] = field(default_factory=list)
    group_of: list[int] = field(default_factory=list)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    signature: tuple[int, int] = (0, 0)
    grad: _Grad | None = None
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


@dataclass(slots=True)
class _Thin:
    """A step of which only the loss and the learning rates were noted; its row is made later."""

    stream: _Stream
    step: int
    update: int
    passes: list[_Pass]
    rates: tuple[float, ...]
    time: float


@dataclass(slots=True)
class _Waiting:
    """A row whose numbers are still on their way from the device."""

    row: Signal
    layout: list[tuple[str, int]]
    host: torch.Tensor
    event: Any
    sparse: tuple[str, ...]
    burst: Burst


class Measure:
    """Turns what `attach` tells into rows.

    Args:
        sensors: what to measure.
        on_row: takes each finished row.
        on_failure: takes (part, error, step) of a sensor that failed; the sensor is not read again.
        models: root modules, or None to look them up among the living objects.
        optimizers: stream name -> optimizer, or None to take every one that steps.
        every: one full row in so many steps, after the first 32.
        overhead: share of the run's time that measuring may take; None keeps `every` fixed.
        act: called with (live, row) before the update when responses want to act; makes every read wait.
        clock: seconds, for the time of rows and the account of the cost.
    """

    def __init__(
        self,
        sensors: Iterable[Sensor],
        on_row: Callable[[Signal], None],
        on_failure: Callable[[str, Exception, int], None],
        *,
        models: Sequence[nn.Module] | None = None,
        optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
        every: int = 8,
        overhead: float | None = 0.01,
        act: Callable[[Live, Signal], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._at: dict[Point, list[Sensor]] = {"backward": [], "gradients": [], "before": [], "after": []}
        self._trouble: list[Sensor] = []
        self._axis: dict[str, str] = {}
        self._sparse: tuple[str, ...] = ()
        self._copies = False
        for sensor in sensors:
            self._axis.update(sensor.axes)
            self._sparse += sensor.sparse
            self._copies |= sensor.copies_weights
            if sensor.tier == "trouble":
                self._trouble.append(sensor)
            else:
                for point in sensor.points:
                    self._at[point].append(sensor)
        self._on_row, self._on_failure, self._act = on_row, on_failure, act
        self.models: list[nn.Module] = list(models or ())
        self._find_models = models is None
        self._only = {id(optimizer): name for name, optimizer in (optimizers or {}).items()}
        self._streams: dict[int, _Stream] = {}
        self._stream_of: dict[int, list[_Stream]] = {}
        self.budget = Budget(every, overhead if act is None else None)
        self._clock = clock
        self._began = self._account = clock()
        self.cost = self._cost_before = 0.0
        self.attempt = self.update = 0
        self.batch: Any = None
        self._passes = self.namings = 0
        self._ends: set[tuple[str, ...]] = set()
        self._fresh: list[_Pass] = []
        self._used: list[_Pass] = []
        self._used_by: set[str] = set()
        self._named: dict[int, tuple[str, torch.Tensor]] = {}
        self._everything: tuple[list[torch.Tensor], tuple[str, ...]] = ([], ())
        self._held: frozenset[int] = frozenset()
        self._loaders: tuple[tuple[int, int], ...] = ()
        self._waiting: list[_Waiting] = []
        self._arrears: list[_Thin | Signal] = []
        self._step_sensors = [s for s in self._at["before"] if s.tier == "step"]
        self._any_kept = self._all_thin = False
        self._explored = False
        for optimizer in (optimizers or {}).values():
            self._stream(optimizer)

    # -- facts for the Guard -------------------------------------------------------------------------------------

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimizers seen so far, by stream."""
        return {stream.name: stream.optimizer for stream in self._streams.values()}

    @property
    def streams(self) -> dict[str, int]:
        """The index of the latest attempted update of each stream, -1 before the first."""
        return {stream.name: stream.step - 1 for stream in self._streams.values()}

    def seconds(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._began

    # -- the four points -----------------------------------------------------------------------------------------

    def backward_begins(self, roots: Sequence[torch.Tensor]) -> None:
        """Take the loss and look at the graph while it is whole."""
        start = self._clock()
        if self._all_thin:
            first = roots[0]
            if first.is_cpu and first.numel() == 1 and UNSCALED not in first.__dict__:
                number = first.item()
                if math.isfinite(number):
                    self._passes += 1
                    self._fresh.append(_Pass(number, _NOTHING))
                    self.cost += self._clock() - start
                    return
        if self._waiting:
            self._deliver(wait=False)
        root, scaler = _root_of(roots)
        if not self._explored:
            self._explore(root.node)
        streams = self._streams.values()
        if self._any_kept:
            self._look()
        self._passes += 1
        broken = isinstance(root.value, float) and not math.isfinite(root.value)
        numbers: Numbers = {}
        thin = not broken and bool(self._streams)
        for stream in streams:
            stream.norms = None
            if broken:
                stream.thin = self._all_thin = False
            thin = thin and stream.thin
        if not thin:
            every = self.budget.every
            full = broken or not self._streams or any(s.burst.due("norms", s.step, every) for s in streams)
            census = full and self._census_is_due(root.node)
            if census:
                self._order(root.node)
            parameters, names = self._everything
            live = Live(
                stream="", step=self.update, update=self.update, roots=(root,), thorough=full,
                axes={"everything": names}, model_parameters=parameters, models=self.models, loaders=self._loaders,
            )  # fmt: skip
            for sensor in self._at["backward"]:
                if sensor.tier != "census" or census:
                    self._read(sensor, live, numbers)
        # The graph must not live longer than backward, so its node is not kept.
        self._fresh.append(_Pass(root.value, numbers, scaler))
        if len(self._fresh) > 4096:  # backward passes that no optimizer ever uses must not pile up
            del self._fresh[:2048]
        self.cost += self._clock() - start

    def backward_ended(self) -> None:
        """Remember the sampled gradients, to see later whether they were zeroed."""
        scaler = self._fresh[-1].scaler if self._fresh else None
        if not self._any_kept and scaler is None:
            return
        start = self._clock()
        for stream in self._streams.values():
            if stream.grad is not None and stream.grad.kept:
                stream.grad.remember()
            if scaler is not None:
                stream.scaler = scaler
        self.cost += self._clock() - start

    def clipping(self, parameters: Sequence[torch.Tensor]) -> None:
        """Measure the gradients of the streams that are about to be clipped."""
        start = self._clock()
        touched = {stream.name: stream for p in parameters for stream in self._stream_of.get(id(p), ())}
        for stream in touched.values():
            if stream.norms is None and not stream.thin:
                self._gradients(stream, self._live(stream, ()))
            stream.clipped = True
        self.cost += self._clock() - start

    def unscaled(self, optimizer: torch.optim.Optimizer) -> None:
        """Note that a GradScaler has divided these gradients by its scale."""
        stream = self._streams.get(id(optimizer))
        if stream is not None:
            stream.scaler = None

    def step_begins(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """Read what is known before the update; let responses act on it."""
        start = self._clock()
        stream = self._stream(optimizer)
        if stream is None:
            self._fresh = []
            return
        if stream.thin and self._fresh and stream.scaler is None:
            passes, rates = self._take(stream), _rates(optimizer)
            self._arrears.append(_Thin(stream, stream.step, self.update, passes, rates, start - self._began))
        elif closure and not self._fresh:
            # The closure runs inside the step: losses and gradients are there only afterwards.
            stream.live = self._live(stream, ())
        else:
            row = self._before(stream, skipped=False)
            if self._act is not None and row is not None and stream.live is not None:
                self.cost += self._clock() - start
                self._act(stream.live, row)
                start = self._clock()
        if stream.live is not None and self._copies and stream.burst.due("norms", stream.step, self.budget.every):
            fill(stream.live, weights_before=stream.copies())
        self.cost += self._clock() - start

    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """Read what is known after the update and hand on the row."""
        start = self._clock()
        stream = self._streams.get(id(optimizer))
        if stream is None:
            return
        if stream.live is not None:
            if self._fresh:  # a closure ran
                self._before(stream, skipped=False)
            for sensor in self._at["after"]:
                if stream.burst.due(sensor.tier, stream.step, self.budget.every):
                    self._read(sensor, stream.live, stream.numbers)
        self._finish(stream)
        self.cost += self._clock() - start

    def step_skipped(self, optimizer: torch.optim.Optimizer) -> None:
        """Hand on the row of an update that a GradScaler left out."""
        start = self._clock()
        stream = self._stream(optimizer)
        if stream is not None:
            self._before(stream, skipped=True)
            self._finish(stream)
        self.cost += self._clock() - start

    # -- reading -------------------------------------------------------------------------------------------------

    def _before(self, stream: _Stream, *, skipped: bool) -> Signal | None:
        """Read everything that is known before an update; return the row so far when responses act on it."""
        passes = self._take(stream)
        step, burst, every, numbers = stream.step, stream.burst, self.budget.every, stream.numbers
        weights = stream.live.weights_before if stream.live is not None else None
        live = self._live(stream, tuple(Root(value=one.value) for one in passes), weights)
        if stream.norms is None and burst.due("often", step, every):
            self._gradients(stream, live)
        fill(live, gradient_norms=stream.norms, clipped=stream.clipped)
        for one in passes:
            numbers.update(one.numbers)
        if skipped:
            numbers["update_skipped"] = 1.0
        found_inf = getattr(stream.optimizer, "found_inf", None)
        if isinstance(found_inf, torch.Tensor):
            numbers["update_skipped"] = found_inf.reshape(())
        for sensor in self._at["before"]:
            if burst.due(sensor.tier, step, every):
                self._read(sensor, live, numbers)
        stream.live = live
        if self._waits(stream):
            return None
        values = _to_host(numbers)
        stream.trouble = burst.saw(step, _number(values, "loss"), _number(values, "gradient_norm"))
        if stream.trouble:
            if "gradient_norm" not in values:
                stream.numbers = {}
                self._gradients(stream, live)
                values.update(_to_host(stream.numbers))
            more: Numbers = {}
            for sensor in self._trouble:
                self._read(sensor, live, more)
            values.update(_to_host(more))
        stream.numbers = values
        if self._act is None:
            return None
        row = self._row(stream, values, stream.trouble)
        self._on_row(row)
        stream.numbers = {}
        return row

    def _finish(self, stream: _Stream) -> None:
        """Hand on the row of this update and get ready for the next one."""
        numbers, step = stream.numbers, stream.step
        if numbers:
            if self._waits(stream):
                self._send(stream, numbers)
            else:
                row = self._row(stream, _to_host(numbers), stream.trouble)
                if self._act is None and self._patient and not stream.trouble:
                    self._arrears.append(row)
                else:
                    self._settle()
                    self._on_row(row)
        was_thin = stream.thin
        if not was_thin:
            stream.numbers, stream.norms, stream.live, stream.trouble = {}, None, None, False
        stream.clipped, stream.scaler, stream.step = False, None, step + 1
        calm = self._act is None and not self._waits(stream)
        stream.thin = calm and not stream.burst.due("often", step + 1, self.budget.every)
        grad = stream.grad
        if grad is not None and not stream.thin:  # a thin step does not look, so there is nothing to remember for it
            grad.remember()
            if grad.version < 0 and not was_thin:  # this parameter took no part; another one tells more
                grad = stream.grad = next((_Grad(p) for p in stream.parameters if p.grad is not None), grad)
                grad.remember()
            grad.kept = grad.version >= 0
            self._any_kept = self._any_kept or grad.kept
        self._all_thin = stream.thin and (len(self._streams) == 1 or all(s.thin for s in self._streams.values()))
        self.batch = None
        self.update += 1
        now = self._clock()
        if self._arrears and (len(self._arrears) >= ARREARS or now - self._began - self._arrears[0].time > PATIENCE):
            self._settle()
        if self.update % ACCOUNT_EVERY == 0:
            self.budget.spent(self.cost - self._cost_before, now - self._account)
            self._account, self._cost_before = now, self.cost

    @property
    def _patient(self) -> bool:
        """Whether rows may wait: not among the first, where a person waits for the first word."""
        return self.update >= IMPATIENT

    def _settle(self) -> None:
        """Make and hand on the rows of the thin steps, in their order."""
        arrears, self._arrears = self._arrears, []
        for thin in arrears:
            if isinstance(thin, Signal):
                self._on_row(thin)
                continue
            stream = thin.stream
            live = Live(
                stream=stream.name, step=thin.step, update=thin.update, learning_rates=thin.rates,
                roots=tuple([Root(value=one.value) for one in thin.passes]),
            )  # fmt: skip
            numbers: Numbers = {}
            for sensor in self._step_sensors:
                self._read(sensor, live, numbers)
            values = _to_host(numbers)
            stream.burst.saw(thin.step, _number(values, "loss"), 0.0)
            row = Signal(
                attempt=self.attempt, step=thin.step, update=thin.update, stream=stream.name, time=thin.time,
                values=values, labels=stream.labels,
            )  # fmt: skip
            self._on_row(row)

    def _look(self) -> None:
        """See whether the sampled gradients were zeroed since they were last written to."""
        kept = False
        for stream in self._streams.values():
            if stream.grad is not None and stream.grad.kept:
                stream.grad.look()
                kept = kept or stream.grad.kept
        self._any_kept = kept

    def _gradients(self, stream: _Stream, live: Live) -> None:
        scaler = stream.scaler
        if scaler is not None:
            fill(live, scale=float(scaler.get_scale()))
        fused = getattr(stream.optimizer, "grad_scale", None)
        if isinstance(fused, torch.Tensor):
            fill(live, scale=fused)
        for sensor in self._at["gradients"]:
            if stream.burst.due(sensor.tier, stream.step, self.budget.every):
                self._read(sensor, live, stream.numbers)
        norms = stream.numbers.get("gradient_norms")
        stream.norms = norms if isinstance(norms, torch.Tensor) else None

    def _read(self, sensor: Sensor, live: Live, into: Numbers) -> None:
        try:
            into.update(sensor.read(live))
        except Exception as error:  # noqa: BLE001 - fail open: a sensor that fails is left out from now on
            for point in self._at.values():
                if sensor in point:
                    point.remove(sensor)
            if sensor in self._trouble:
                self._trouble.remove(sensor)
            self._on_failure(f"sensor {sensor.name}", error, live.step)

    def _live(
        self, stream: _Stream, roots: tuple[Root, ...], weights_before: Sequence[torch.Tensor] | None = None
    ) -> Live:
        return Live(
            stream=stream.name, step=stream.step, update=self.update, optimizer=stream.optimizer,
            parameters=stream.parameters, axes=stream.axes, group_of=stream.group_of,
            model_parameters=self._everything[0], held=self._held, models=self.models, roots=roots, batch=self.batch,
            carried=stream.carried(), learning_rates=_rates(stream.optimizer), loaders=self._loaders,
            gradient_norms=stream.norms, clipped=stream.clipped, weights_before=weights_before,
        )  # fmt: skip

    def _take(self, stream: _Stream) -> list[_Pass]:
        """Return the backward passes since the last update; one that several optimizers share counts for each."""
        if self._fresh:
            self._used, self._fresh, self._used_by = self._fresh, [], {stream.name}
            return self._used
        if stream.name not in self._used_by:
            self._used_by.add(stream.name)
            return self._used
        return []

    # -- rows ----------------------------------------------------------------------------------------------------

    def _row(self, stream: _Stream, values: Mapping[str, Value], trouble: bool) -> Signal:
        if self._sparse and not trouble and not stream.burst.due("norms", stream.step, self.budget.every):
            values = {name: value for name, value in values.items() if name not in self._sparse}
        return Signal(
            attempt=self.attempt, step=stream.step, update=self.update, stream=stream.name, time=self.seconds(),
            values=values, labels=stream.labels,
        )  # fmt: skip

    def _waits(self, stream: _Stream) -> bool:
        """Say whether the numbers of this stream come later: on an accelerator, while nothing acts on them."""
        return self._act is None and bool(stream.parameters) and stream.parameters[0].is_cuda

    def _send(self, stream: _Stream, numbers: Numbers) -> None:
        tensors = [(name, value) for name, value in numbers.items() if isinstance(value, torch.Tensor)]
        ready = {name: value for name, value in numbers.items() if not isinstance(value, torch.Tensor)}
        device = stream.parameters[0].device
        row = self._row(stream, ready, trouble=True)
        flat = [v.detach().reshape(-1).to(device, torch.float64) for _, v in tensors]
        on_device = torch.cat(flat) if flat else torch.zeros(0, device=device, dtype=torch.float64)
        host, event = _start_copy(on_device)
        full = stream.burst.due("norms", stream.step, self.budget.every)
        layout = [(name, -1 if value.dim() == 0 else value.numel()) for name, value in tensors]
        self._waiting.append(_Waiting(row, layout, host, event, () if full else self._sparse, stream.burst))

    def _deliver(self, *, wait: bool) -> None:
        """Hand on the rows whose numbers have arrived; never leave more than one behind."""
        while self._waiting and (wait or len(self._waiting) > 1 or _arrived(self._waiting[0].event)):
            one = self._waiting.pop(0)
            if one.event is not None:
                one.event.synchronize()
            arrived, place = one.host.tolist(), 0
            values: dict[str, Value] = dict(one.row.values)
            for name, length in one.layout:
                values[name] = arrived[place] if length < 0 else tuple(arrived[place : place + length])
                place += abs(length)
            if not one.burst.saw(one.row.step, _number(values, "loss"), _number(values, "gradient_norm")):
                values = {name: value for name, value in values.items() if name not in one.sparse}
            self._on_row(replace(one.row, values=values))

    def flush(self) -> None:
        """Hand on every row that is not yet: those of thin steps, and those that wait for the device."""
        self._deliver(wait=True)
        self._settle()

    # -- who is who ----------------------------------------------------------------------------------------------

    def _stream(self, optimizer: torch.optim.Optimizer) -> _Stream | None:
        stream = self._streams.get(id(optimizer))
        if stream is None:
            if self._only and id(optimizer) not in self._only:
                return None
            number = len(self._streams)
            default = "main" if number == 0 else f"optimizer-{number + 1}"
            stream = _Stream(self._only.get(id(optimizer), default), optimizer)
            self._streams[id(optimizer)] = stream
            self._explored = False
        groups = optimizer.param_groups
        signature = (len(groups), sum(len(group["params"]) for group in groups))
        if signature != stream.signature:
            stream.signature = signature
            self._name(stream)
        return stream

    def _explore(self, node: Any) -> None:
        """Look up models, optimizers and loaders before the first update, and when a new optimizer has appeared."""
        if node is None:
            return
        living = discover.look_around()
        reached = graph.forward_order(node).keys()
        if not self._only:
            for optimizer in discover.outermost(living):
                held_by_it = discover.held_parameters(optimizer)
                if id(optimizer) not in self._streams and any(id(p) in reached for p, _ in held_by_it):
                    self._stream(optimizer)
        self._explored = True
        held = {id(p) for stream in self._streams.values() for p in stream.parameters}
        if self._find_models:
            self.models = discover.models_of(living, held | reached)
        self._loaders = living.loaders
        self._named = discover.names_of(self.models)
        self._held = frozenset(held)
        self._everything = ([p for _, p in self._named.values()], tuple(name for name, _ in self._named.values()))
        for stream in self._streams.values():
            self._name(stream)

    def _order(self, node: Any) -> None:
        """Put the parameters of the streams that this graph reaches into forward order, once for each stream."""
        if all(stream.ordered for stream in self._streams.values()):
            return
        rank = graph.forward_order(node)
        for stream in self._streams.values():
            if not stream.ordered and any(id(p) in rank for p in stream.parameters):
                stream.ordered = True
                self._name(stream, rank)

    def _name(self, stream: _Stream, rank: Mapping[int, int] | None = None) -> None:
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
            "everything": self._everything[1],
        }
        stream.labels = {name: stream.axes[axis] for name, axis in self._axis.items() if axis in stream.axes}
        if stream.grad is None and held:
            stream.grad = _Grad(stream.parameters[len(held) // 2])
        self._held = frozenset(id(p) for one in self._streams.values() for p in one.parameters)
        self._stream_of = {}
        for one in self._streams.values():
            for p in one.parameters:
                self._stream_of.setdefault(id(p), []).append(one)

    def _census_is_due(self, node: Any) -> bool:
        if node is None:
            return False
        end: list[str] = []
        while node is not None and len(end) < 4:
            end.append(graph.name_of(node))
            node = next(iter(graph.parents(node)), None)
        if tuple(end) not in self._ends and len(self._ends) < 4 * CENSUSES:
            self._ends.add(tuple(end))
            return True
        return self._passes <= CENSUSES


def _root_of(roots: Sequence[torch.Tensor]) -> tuple[Root, Any]:
    """Return the loss without its scale, and the GradScaler that scaled it; read at once where nothing has to wait."""
    first = roots[0]
    scaler = None
    value = first
    if UNSCALED in first.__dict__:
        value, scaler = first.__dict__[UNSCALED]
    if not first.is_cpu:
        return Root(value=value.detach().clone(), node=first.grad_fn), scaler
    number = value.item() if value.numel() == 1 else value.detach().mean().item()
    return Root(value=number, node=first.grad_fn), scaler


def _rates(optimizer: torch.optim.Optimizer) -> tuple[float, ...]:
    return tuple([float(group.get("lr", math.nan)) for group in optimizer.param_groups])


def _start_copy(on_device: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Begin to copy numbers to the host without waiting; return where they will be, and the event that says when."""
    if not on_device.is_cuda:
        return on_device, None
    host = torch.empty(on_device.shape, dtype=on_device.dtype, pin_memory=True)
    host.copy_(on_device, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


def _arrived(event: Any) -> bool:
    return event is not None and bool(event.query())


def _to_host(numbers: Mapping[str, Any]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, value in numbers.items():
        if isinstance(value, torch.Tensor):
            values[name] = float(value.item()) if value.dim() == 0 else tuple(value.tolist())
        elif isinstance(value, tuple):
            values[name] = value
        elif isinstance(value, Sequence):
            values[name] = tuple(float(part) for part in value)
        else:
            values[name] = float(value)
    return values


def _number(values: Mapping[str, Value], name: str) -> float:
    value = values.get(name)
    return value if isinstance(value, float) else 0.0
