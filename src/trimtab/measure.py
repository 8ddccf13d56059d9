"""Measuring: at the four points, read the sensors that are due and make rows of what they return.

Who is who is kept by `streams`, when a row is handed on by `delivery`, how often what is measured by `cadence`.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from trimtab import graph
from trimtab.cadence import BURST, CENSUSES, FIRST, Budget, Tier
from trimtab.delivery import IMPATIENT, Delivery, number, to_host
from trimtab.evaluations import Evaluations
from trimtab.live import UNSCALED, Live, Point, Root, Sensor, fill
from trimtab.records import Signal, Value
from trimtab.streams import Numbers, Stream, Streams

ACCOUNT_EVERY = 64
"""The cost of measuring is held against the time that passed every so many updates."""

_NOTHING: Numbers = {}


@dataclass(slots=True)
class _Pass:
    """One backward pass: its loss, and what the sensors read at its root."""

    value: float | torch.Tensor
    numbers: Numbers
    scaler: Any = None
    touched: frozenset[str] | None = None

    def reaches(self, stream: str) -> bool:
        """Say whether this pass gave a gradient to a stream; one of which that is not known counts for all."""
        return self.touched is None or stream in self.touched


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
        act: called with the Live before the update when responses want to act, once the row so far was handed on; makes
            every read wait.
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
        act: Callable[[Live], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._at: dict[Point, list[Sensor]] = {"backward": [], "gradients": [], "before": [], "after": []}
        self._trouble: list[Sensor] = []
        axes: dict[str, str] = {}
        self._sparse: tuple[str, ...] = ()
        self._copies = False
        for sensor in sensors:
            axes.update(sensor.axes)
            self._sparse += sensor.sparse
            self._copies |= sensor.copies_weights
            if sensor.tier == "trouble":
                self._trouble.append(sensor)
            else:
                for point in sensor.points:
                    self._at[point].append(sensor)
        self._on_failure, self._act = on_failure, act
        self._streams = Streams(axes, models, optimizers)
        self._delivery = Delivery(on_row)
        self.budget = Budget(every, overhead if act is None else None)
        self._clock = clock
        self._began = self._account = clock()
        self.cost = self._cost_before = 0.0
        self.attempt = self.update = 0
        self.batch: Any = None
        self._passes = 0
        self._ends: set[tuple[str, ...]] = set()
        self._fresh: list[_Pass] = []
        self._used: list[_Pass] = []
        self._used_by: set[str] = set()
        self._step_sensors = [s for s in self._at["before"] if s.tier == "step"]
        self._looks_into_layers = any(s.tier == "layers" for s in self._at["backward"])
        self._memory: dict[str, Any] = {}
        self._evaluations = Evaluations()
        self._any_kept = self._all_thin = self._foreign = self._went_back = False

    # -- facts for the Guard -------------------------------------------------------------------------------------

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimizers seen so far, by stream."""
        return {stream.name: stream.optimizer for stream in self._streams.all()}

    @property
    def models(self) -> list[nn.Module]:
        """The root modules."""
        return self._streams.models

    @property
    def takes_all(self) -> bool:
        """Whether nothing was handed over, so that every optimizer of the process is watched."""
        return self._streams.takes_all

    @property
    def namings(self) -> int:
        """How often anything got a name so far."""
        return self._streams.namings

    @property
    def parts(self) -> tuple[weakref.ref[Any], ...]:
        """The schedulers and GradScalers of the process, as far as they were found."""
        return self._streams.parts

    @property
    def streams(self) -> dict[str, int]:
        """The index of the latest attempted update of each stream, -1 before the first."""
        return {stream.name: stream.step - 1 for stream in self._streams.all()}

    @property
    def coming(self) -> int:
        """The index of the next update of the first stream."""
        return next((stream.step for stream in self._streams.all()), 0)

    def is_due(self, tier: Tier, every: int | None = None) -> bool:
        """Say whether a tier is due at the next update of the first stream, or this is an `every`-th one."""
        if every is not None:
            return self.coming % max(every, 1) == 0
        return _any_due(tier, self._streams.all()[:1], self.budget.every)

    @property
    def went_back(self) -> bool:
        """Whether a rollback takes the place of the update that is running."""
        return self._went_back

    def seconds(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._began

    def go_on(self, *, attempt: int, steps: Mapping[str, int], update: int, seconds: float) -> None:
        """Stand where a training stands that was put back from a checkpoint, before anything is measured.

        Args:
            attempt: the attempt that begins.
            steps: stream -> its latest update, -1 for none.
            update: how many updates were attempted over all streams.
            seconds: the time of the run so far.
        """
        self.attempt, self.update = attempt, update
        self._began = self._clock() - seconds
        for stream in self._streams.all():
            stream.step = steps.get(stream.name, -1) + 1
            stream.burst.until = stream.step + FIRST

    # -- the four points -----------------------------------------------------------------------------------------

    def backward_begins(self, roots: Sequence[torch.Tensor]) -> None:
        """Take the loss and look at the graph while it is whole."""
        start = self._clock()
        if self._all_thin:
            first = roots[0]
            if len(roots) == 1 and first.is_cpu and first.numel() == 1 and UNSCALED not in first.__dict__:
                number = first.item()
                if math.isfinite(number):
                    self._passes += 1
                    self._fresh.append(_Pass(number, _NOTHING))
                    self.cost += self._clock() - start
                    return
        self._delivery.deliver(wait=False)
        root, scaler = _root_of(roots)
        if not self._streams.explored:
            self._streams.explore(root.node)
            self._evaluations.watch(self.models)
            self._passes = 0
        streams = self._streams.all()
        if self._any_kept:
            self._look()
        self._passes += 1
        broken = isinstance(root.value, float) and not math.isfinite(root.value)
        numbers: Numbers = {}
        thin = not broken and len(streams) > 0
        for stream in streams:
            stream.norms = None
            if broken:
                stream.thin = self._all_thin = False
            thin = thin and stream.thin
        if not thin:
            every = self.budget.every
            full = broken or _any_due("norms", streams, every)
            due = {
                "norms": full,
                "layers": _any_due("layers", streams, every),
                "pairs": _any_due("pairs", streams, every),
                "census": full and self._census_is_due(root.node),
            }
            if due["census"]:
                self._streams.order(root.node)
            layers, compiled = self._layers(root.node) if due["layers"] else ([], False)
            parameters, names = self._streams.everything
            live = Live(
                stream="", step=self.update, update=self.update, roots=(root,), thorough=full,
                axes={"everything": names}, model_parameters=parameters, models=self.models,
                loaders=self._streams.loaders, memory=self._memory, layers=layers, compiled=compiled,
            )  # fmt: skip
            for sensor in self._at["backward"]:
                if due.get(sensor.tier, True):
                    self._read(sensor, live, numbers)
        if self._several():
            for stream in streams:
                stream.mark = stream.where()
        # The graph must not live longer than backward, so its node is not kept.
        self._fresh.append(_Pass(root.value, numbers, scaler))
        if len(self._fresh) > 4096:  # backward passes that no optimizer ever uses must not pile up
            del self._fresh[:2048]
        self.cost += self._clock() - start

    def backward_ended(self) -> None:
        """Remember the sampled gradients, to see later whether they were zeroed."""
        scaler = self._fresh[-1].scaler if self._fresh else None
        several = self._several()
        if not self._any_kept and scaler is None and not several:
            return
        start = self._clock()
        streams = self._streams.all()
        if several and self._fresh:
            touched = frozenset(stream.name for stream in streams if stream.where() != stream.mark)
            if touched:
                self._fresh[-1].touched = touched
            elif self._foreign:  # the loss of an optimizer that is none of ours
                self._fresh.pop()
        for stream in streams:
            if stream.grad is not None and stream.grad.kept:
                stream.grad.remember()
            if scaler is not None and self._fresh and self._fresh[-1].reaches(stream.name):
                stream.scaler = scaler
        self.cost += self._clock() - start

    def clipping(self, parameters: Sequence[torch.Tensor]) -> None:
        """Measure the gradients of the streams that are about to be clipped."""
        start = self._clock()
        for stream in self._streams.holding(parameters):
            if stream.norms is None and not stream.thin:
                self._gradients(stream, self._live(stream, ()))
            stream.clipped = True
        self.cost += self._clock() - start

    def unscaled(self, optimizer: torch.optim.Optimizer) -> None:
        """Note that a GradScaler has divided these gradients by its scale."""
        stream = self._streams.known(optimizer)
        if stream is not None:
            if stream.scaler is not None:
                stream.memory["loss_scale"] = stream.scaler
            stream.scaler = None

    def step_begins(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """Read what is known before the update; let responses act on it."""
        start = self._clock()
        self._went_back = False
        stream = self._streams.of(optimizer)
        if stream is None:
            if not self._foreign:  # from now on each pass is asked whom it reached; for the past ones it is too late
                self._foreign, self._all_thin, self._fresh = True, False, []
            return
        if stream.thin and self._fresh and stream.scaler is None:
            time = start - self._began
            make = partial(
                self._thin_row, stream, stream.step, self.update, self._take(stream), _rates(optimizer), time
            )
            self._delivery.later(time, make)
        elif closure and not self._fresh:
            # The closure runs inside the step: losses and gradients are there only afterwards.
            stream.live = fill(self._live(stream, ()), closure=True)
            start = self._let_act(stream, start)
        else:
            self._before(stream, skipped=False)
            if stream.live is not None:
                fill(stream.live, closure=closure)
            start = self._let_act(stream, start)
        if stream.live is not None and self._copies and stream.burst.due("norms", stream.step, self.budget.every):
            fill(stream.live, weights_before=stream.copies())
        self.cost += self._clock() - start

    def _let_act(self, stream: Stream, start: float) -> float:
        """Let responses act on what was read; return the time, for theirs is not the cost of measuring."""
        if self._act is None or stream.live is None:
            return start
        self.cost += self._clock() - start
        self._act(stream.live)
        return self._clock()

    def rewind(self, to_steps: Mapping[str, int]) -> None:
        """Follow a rollback: this update counts for nothing, and each stream goes on after its update in `to_steps`."""
        self._delivery.flush()
        self.attempt += 1
        for stream in self._streams.all():
            stream.step = to_steps.get(stream.name, -1) + 1
            stream.burst.until = stream.step + BURST
            stream.forget_update()
        self._fresh, self._used, self._used_by = [], [], set()
        self._all_thin, self._went_back = False, True

    def let_go_by(self, call: Callable[[], None]) -> None:
        """Have `call` let go of optimizers when a new one appears: it may take the place of one that is gone."""
        self._streams.let_go = call

    def pass_over(self) -> None:
        """Forget the backward passes of an update that is left out on the way back."""
        self._fresh, self._used, self._used_by = [], [], set()

    def step_ended(self, optimizer: torch.optim.Optimizer, *, left_out: bool = False) -> None:
        """Read what is known after the update, which is nothing for one that was left out, and hand on the row."""
        start = self._clock()
        stream = self._streams.known(optimizer)
        if stream is None:
            return
        if self._went_back:
            self._end_of_the_way(stream)
            return
        if left_out:
            stream.numbers["update_left_out"] = 1.0
        elif stream.live is not None:
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
        stream = self._streams.of(optimizer)
        if stream is not None:
            self._before(stream, skipped=True)
            if stream.live is not None:
                fill(stream.live, skipped=True)
            start = self._let_act(stream, start)
            if self._went_back:
                self._end_of_the_way(stream)
            else:
                self._finish(stream)
        self.cost += self._clock() - start

    # -- reading -------------------------------------------------------------------------------------------------

    def _end_of_the_way(self, stream: Stream) -> None:
        """Get ready for the update after a rollback."""
        self._went_back = False
        self.pass_over()
        stream.forget_update()
        self.batch = None
        self.update += 1

    def _before(self, stream: Stream, *, skipped: bool) -> None:
        """Read everything that is known before an update, and hand on the row so far when responses act on it."""
        passes = self._take(stream)
        step, burst, every, numbers = stream.step, stream.burst, self.budget.every, stream.numbers
        weights = stream.live.weights_before if stream.live is not None else None
        live = self._live(stream, tuple(Root(value=one.value) for one in passes), weights)
        if stream.norms is None and self._is_read("often", stream):
            self._gradients(stream, live)
        fill(live, gradient_norms=stream.norms, clipped=stream.clipped)
        if burst.due("norms", step, every):
            fill(live, evaluations=self._evaluations.take())
        for one in passes:
            _merge(numbers, one.numbers)
        if skipped:
            numbers["update_skipped"] = 1.0
        found_inf = getattr(stream.optimizer, "found_inf", None)
        if isinstance(found_inf, torch.Tensor):
            numbers["update_skipped"] = found_inf.reshape(())
        for sensor in self._at["before"]:
            if self._is_read(sensor.tier, stream):
                self._read(sensor, live, numbers)
        stream.live = live
        if self._waits(stream):
            return
        stream.align(numbers)
        values = to_host(numbers)
        stream.trouble = burst.saw(step, number(values, "loss"), number(values, "gradient_norm"))
        if stream.trouble:
            if "gradient_norm" not in values:
                stream.numbers = {}
                self._gradients(stream, live)
                values.update(to_host(stream.numbers))
            more: Numbers = {}
            for sensor in self._trouble:
                self._read(sensor, live, more)
            values.update(to_host(more))
        stream.numbers = values
        if self._act is not None:
            self._delivery.now(self._row(stream, values, stream.trouble))
            stream.numbers = {}

    def _finish(self, stream: Stream) -> None:
        """Hand on the row of this update and get ready for the next one."""
        numbers, step = stream.numbers, stream.step
        if numbers:
            stream.align(numbers)
            if self._waits(stream):
                sparse = () if stream.burst.due("norms", step, self.budget.every) else self._sparse
                row = self._row(stream, {}, trouble=True)
                self._delivery.send(row, numbers, stream.parameters[0].device, sparse, stream.burst)
            else:
                row = self._row(stream, to_host(numbers), stream.trouble)
                if self._act is None and self.update >= IMPATIENT and not stream.trouble:
                    self._delivery.later(row.time, partial(_itself, row))
                else:
                    self._delivery.now(row)
        was_thin = stream.thin
        stream.numbers, stream.norms, stream.live, stream.trouble = {}, None, None, False
        stream.clipped, stream.scaler, stream.step = False, None, step + 1
        calm = self._act is None and not self._waits(stream)
        every = self.budget.every
        # The next step is thin unless something is due at it; "layers" never is without "often", "pairs" may be.
        stream.thin = calm and not (
            stream.burst.due("often", step + 1, every) or stream.burst.due("layers", step, every)
        )
        if not stream.thin:  # a thin step does not look, so there is nothing to remember for it
            stream.look_again(was_thin)
            self._any_kept = self._any_kept or (stream.grad is not None and stream.grad.kept)
        self._all_thin = stream.thin and not self._several()
        self.batch = None
        self.update += 1
        now = self._clock()
        self._delivery.settle_if_due(now - self._began)
        if self.update % ACCOUNT_EVERY == 0:
            self.budget.spent(self.cost - self._cost_before, now - self._account)
            self._account, self._cost_before = now, self.cost

    def _thin_row(
        self, stream: Stream, step: int, update: int, passes: list[_Pass], rates: tuple[float, ...], time: float
    ) -> Signal:
        """Make the row of a step of which only the loss and the learning rates were noted."""
        live = Live(
            stream=stream.name, step=step, update=update, learning_rates=rates,
            roots=tuple([Root(value=one.value) for one in passes]),
        )  # fmt: skip
        numbers: Numbers = {}
        for sensor in self._step_sensors:
            self._read(sensor, live, numbers)
        values = to_host(numbers)
        stream.burst.saw(step, number(values, "loss"), 0.0)
        return Signal(
            attempt=self.attempt, step=step, update=update, stream=stream.name, time=time, values=values,
            labels=stream.labels,
        )  # fmt: skip

    def _look(self) -> None:
        """See whether the sampled gradients were zeroed since they were last written to."""
        kept = False
        for stream in self._streams.all():
            if stream.grad is not None and stream.grad.kept:
                stream.grad.look()
                kept = kept or stream.grad.kept
        self._any_kept = kept

    def _gradients(self, stream: Stream, live: Live) -> None:
        scaler = stream.scaler
        if scaler is not None:
            fill(live, scale=float(scaler.get_scale()))
        fused = getattr(stream.optimizer, "grad_scale", None)
        if isinstance(fused, torch.Tensor):
            fill(live, scale=fused)
        for sensor in self._at["gradients"]:
            if self._is_read(sensor.tier, stream):
                self._read(sensor, live, stream.numbers)
        norms = stream.numbers.get("gradient_norms")
        stream.norms = norms if isinstance(norms, torch.Tensor) else None

    def _is_read(self, tier: Tier, stream: Stream) -> bool:
        """Say whether a tier is read at this update; what a response decides by is known before each one."""
        return (tier == "often" and self._act is not None) or stream.burst.due(tier, stream.step, self.budget.every)

    def _read(self, sensor: Sensor, live: Live, into: Numbers) -> None:
        try:
            _merge(into, sensor.read(live))
        except Exception as error:  # noqa: BLE001 - fail open: a sensor that fails is left out from now on
            for point in self._at.values():
                if sensor in point:
                    point.remove(sensor)
            if sensor in self._trouble:
                self._trouble.remove(sensor)
            self._on_failure(f"sensor {sensor.name}", error, live.step)

    def _live(
        self, stream: Stream, roots: tuple[Root, ...], weights_before: Sequence[torch.Tensor] | None = None
    ) -> Live:
        return Live(
            stream=stream.name, step=stream.step, update=self.update, optimizer=stream.optimizer,
            parameters=stream.parameters, axes=stream.axes, group_of=stream.group_of,
            model_parameters=self._streams.everything[0], held=self._streams.held, models=self.models, roots=roots,
            batch=self.batch,
            carried=stream.carried(), learning_rates=_rates(stream.optimizer), loaders=self._streams.loaders,
            gradient_norms=stream.norms, clipped=stream.clipped, weights_before=weights_before, memory=stream.memory,
        )  # fmt: skip

    def _layers(self, node: Any) -> tuple[list[graph.Layer], bool]:
        """Read the layers from the graph, once between two updates while there is one stream: passes are alike."""
        if node is None or not self._looks_into_layers or (self._fresh and not self._several()):
            return [], False
        try:
            return graph.layers(node, self._streams.named)
        except Exception as error:  # noqa: BLE001 - fail open: the layers are not looked into from now on
            self._looks_into_layers = False
            self._on_failure("reading the layers", error, self.update)
            return [], False

    def _take(self, stream: Stream) -> list[_Pass]:
        """Return the backward passes since the last update; one that several optimizers share counts for each."""
        mine = [one for one in self._fresh if one.reaches(stream.name)]
        if mine:
            self._fresh = [one for one in self._fresh if not one.reaches(stream.name)]
            self._used, self._used_by = mine, {stream.name}
            return mine
        if stream.name not in self._used_by:
            self._used_by.add(stream.name)
            return [one for one in self._used if one.reaches(stream.name)]
        return []

    def _several(self) -> bool:
        """Whether a backward pass may be for somebody else: several streams, or an optimizer that is none of ours."""
        return self._foreign or len(self._streams) > 1

    # -- rows ----------------------------------------------------------------------------------------------------

    def _row(self, stream: Stream, values: Mapping[str, Value], trouble: bool) -> Signal:
        if self._sparse and not trouble and not stream.burst.due("norms", stream.step, self.budget.every):
            values = {name: value for name, value in values.items() if name not in self._sparse}
        return Signal(
            attempt=self.attempt, step=stream.step, update=self.update, stream=stream.name, time=self.seconds(),
            values=values, labels=stream.labels,
        )  # fmt: skip

    def _waits(self, stream: Stream) -> bool:
        """Say whether the numbers of this stream come later: on an accelerator, while nothing acts on them."""
        return self._act is None and bool(stream.parameters) and stream.parameters[0].is_cuda

    def release(self) -> None:
        """Let go of the training: its optimizers, models and tensors."""
        self._evaluations.close()
        self._streams.forget()
        self._fresh, self._used, self.batch = [], [], None

    def flush(self) -> None:
        """Hand on every row that is not yet: those of calm steps, and those that wait for the device."""
        self._delivery.flush()

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
    scaler = None
    values = []
    for root in roots:
        unscaled, scaler = root.__dict__.get(UNSCALED, (root, scaler))
        values.append(unscaled.detach())
    node = next((_loss_node(root) for root in roots if root.grad_fn is not None), None)
    if not all(value.is_cpu for value in values):
        means = [value.float().mean() for value in values]
        return Root(value=means[0] if len(means) == 1 else torch.stack(means).mean(), node=node), scaler
    numbers = [value.item() if value.numel() == 1 else value.mean().item() for value in values]
    return Root(value=sum(numbers) / len(numbers), node=node), scaler


def _loss_node(root: torch.Tensor) -> Any:
    """Return the node of a root; of one that `GradScaler.scale` made, the node of the loss that it multiplied."""
    node = root.grad_fn
    if UNSCALED in root.__dict__ and graph.name_of(node) == "MulBackward0":
        before = graph.parents(node)
        if len(before) == 1 and graph.name_of(before[0]) != "AccumulateGrad":
            return before[0]
    return node


def _any_due(tier: Tier, streams: Sequence[Stream], every: int) -> bool:
    """Say whether a tier is due for some stream, or for the first one that will be met."""
    return not streams or any(stream.burst.due(tier, stream.step, every) for stream in streams)


def _merge(numbers: Numbers, more: Mapping[str, Any]) -> None:
    """Add what was read; of what is named label by label, each label counts alone."""
    for name, value in more.items():
        known = numbers.get(name)
        numbers[name] = {**known, **value} if isinstance(known, Mapping) and isinstance(value, Mapping) else value


def _rates(optimizer: torch.optim.Optimizer) -> tuple[float, ...]:
    return tuple([float(group.get("lr", math.nan)) for group in optimizer.param_groups])


def _itself(row: Signal) -> Signal:
    return row
