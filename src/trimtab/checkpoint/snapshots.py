"""Snapshots in memory: moments of a training that it can go back to.

One is taken before the first update and after every `every`-th; it becomes good when `clean` more updates went by
without trouble and all its numbers are finite. The `keep` newest good ones are kept, and the last of them is never used
up. Memory of snapshots that are dropped is used again.

A metric is known to have dropped only evaluations later, when all of these may be from after the fall. So the moment of
its best evaluation is kept as well, where a fallen metric is answered by going back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from trimtab.checkpoint.state import Captured, TrainingState
from trimtab.errors import UserError

RETRIES = 2
"""After so many returns to one snapshot, without a newer one that became good, an older one is gone back to."""

METRICS = 2
"""The moment of the best evaluation is kept of so many metrics: each may cost one more copy of everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """How snapshots are taken: one in `every` updates, good after `clean` more without trouble, the newest `keep`."""

    every: int = 25
    keep: int = 3
    clean: int = 8

    def __post_init__(self) -> None:
        if self.every < 1 or self.keep < 1 or self.clean < 0:
            raise UserError(
                f"Ring: expected every >= 1, keep >= 1 and clean >= 0, got {self.every}, {self.keep} and {self.clean}"
            )


@dataclass(eq=False, slots=True, kw_only=True)
class Snapshot:
    """One moment: the latest update of each stream (-1: none yet), and everything that was captured after it.

    `stream` is the one after whose update it was taken, empty for one from before the first update. `returns` counts
    how often the training went back to it; `best_of` names the metric whose best evaluation came just before it.
    """

    steps: dict[str, int]
    stream: str = ""
    captured: Captured
    good: bool = False
    returns: int = 0
    best_of: str = ""


@dataclass(slots=True, kw_only=True)
class Best:
    """The best value of a metric so far and the moment at which it was recorded."""

    metric: str
    better: Literal["higher", "lower"]
    min_delta: float = 0.0
    value: float = math.nan
    steps: dict[str, int] = field(default_factory=dict)
    captured: Captured | None = None

    def improves(self, value: float) -> bool:
        """Say whether a value is better than the best by more than `min_delta`; one that is not finite never is."""
        if not math.isfinite(value):
            return False
        gain = value - self.value if self.better == "higher" else self.value - value
        return math.isnan(self.value) or gain > self.min_delta


class Snapshots:
    """The ring of snapshots of one training.

    Args:
        state: what is captured.
        every, keep, clean: as in `Ring`.

    Attributes:
        best: the moment with the best value of a metric, once `watch_best` was called.
        taken: how many were taken.
    """

    def __init__(self, state: TrainingState, every: int = 25, keep: int = 3, clean: int = 8):
        self.state = state
        self.ring = Ring(every=every, keep=keep, clean=clean)
        self.best: Best | None = None
        self.taken = 0
        self._good: list[Snapshot] = []
        self._pending: list[Snapshot] = []
        self._spare: list[Captured] = []
        self._never_finite: frozenset[str] | None = None
        self._last: dict[str, int] = {}
        self._made_of: tuple[object, ...] = ()
        self._evaluations: dict[str, tuple[Best, Snapshot]] = {}
        self._better: dict[str, Best] = {}

    # -- taking them -----------------------------------------------------------------------------------------------

    def take(self, steps: Mapping[str, int], stream: str = "", *, good: bool = False) -> Snapshot:
        """Take one now; `steps` is the index of the latest update of each stream.

        Raises:
            UserError: something in the training cannot be captured; the message names it.
        """
        into = self._spare.pop() if self._spare else None
        snapshot = Snapshot(steps=dict(steps), stream=stream, captured=self._captured(into))
        self.taken += 1
        self._last = dict(steps)
        while self._pending:
            self._drop(self._pending.pop())
        self._pending.append(snapshot)
        if self._never_finite is None:
            self._never_finite = frozenset(_broken(snapshot.captured.tensors))
        if good:
            self._confirm(snapshot)
        return snapshot

    def begin(self, steps: Mapping[str, int]) -> None:
        """Take one before the first update, and whenever the training consists of other things than before."""
        made_of = _identity(self.state)
        if made_of != self._made_of:
            self.forget()
            self._made_of = made_of
            self.take(steps, good=True)

    def updated(self, stream: str, steps: Mapping[str, int], troubled: Callable[[], bool] = lambda: False) -> None:
        """Take in that an update was taken: confirm what is due, and take another one.

        They are taken after the update of the last stream that steps, where a round of several is complete.

        Args:
            stream: whose update it was.
            steps: the index of the latest update of each stream.
            troubled: says whether something is wrong just now; asked only when it matters.
        """
        now = steps[stream]
        for snapshot in list(self._pending):
            if snapshot.stream == stream and now - snapshot.steps[stream] >= self.ring.clean:
                self._pending.remove(snapshot)
                if troubled():
                    self._drop(snapshot)
                else:
                    self._confirm(snapshot)
        moved = {name: step - self._last.get(name, -1) for name, step in steps.items()}
        is_last = next((name for name in reversed(list(steps)) if moved[name] > 0), stream) == stream
        if self._better and is_last:
            self._keep_evaluation(stream, steps, troubled)
        due = moved[stream] >= self.ring.every and (is_last or moved[stream] >= 2 * self.ring.every)
        if due and not self._pending and not troubled():
            self.take(steps, stream)

    # -- using them --------------------------------------------------------------------------------------------------

    def newest_good(self, stream: str = "", since: int = 0, metric: str = "") -> Snapshot | None:
        """Return the newest good snapshot, or an older one when that did not help; None while there is none.

        Args:
            stream, since: where the trouble began, when that is known.
            metric: what has fallen since then: where all good ones are from after that, the moment of its best
                evaluation is returned, if it was kept.
        """
        while len(self._good) > 1 and self._good[-1].returns >= RETRIES:
            self._drop(self._good.pop())
        newest = self._good[-1] if self._good else None
        if metric in self._evaluations:
            best = self._evaluations[metric][1]
            if newest is None or self._step_of(newest, stream) > max(since, self._step_of(best, stream)):
                return best
        return newest

    def trouble(self, stream: str, since: int) -> None:
        """Drop what was taken at or after step `since` of a stream, and whatever is not yet good; keep the oldest."""
        self._better = {}
        while self._pending:
            self._drop(self._pending.pop())
        while len(self._good) > 1 and self._step_of(self._good[-1], stream) >= max(since, 0):
            self._drop(self._good.pop())

    def went_back(self, snapshot: Snapshot) -> None:
        """Follow a rollback: count it, and drop what lies after it."""
        snapshot.returns += 1
        while self._pending:
            self._drop(self._pending.pop())
        if snapshot not in self._good:  # the moment of the best evaluation
            place = sum(self._step_of(one, "") < self._step_of(snapshot, "") for one in self._good)
            self._good.insert(place, snapshot)
        while self._good[-1] is not snapshot:
            self._drop(self._good.pop())
        self._last = dict(snapshot.steps)

    def forget(self) -> None:
        """Drop all of them: the training consists of other things now."""
        self._good, self._pending, self._spare, self._never_finite, self._last = [], [], [], None, {}
        self._evaluations, self._better = {}, {}

    def __len__(self) -> int:
        """Return how many good ones there are."""
        return len(self._good)

    # -- the best ----------------------------------------------------------------------------------------------------

    def watch_best(self, metric: str, better: Literal["higher", "lower"], min_delta: float = 0.0) -> None:
        """Keep the moment at which this recorded metric was best, in a place of its own."""
        self.best = Best(metric=metric, better=better, min_delta=min_delta)

    def recorded(self, values: Mapping[str, object], steps: Mapping[str, int]) -> None:
        """Take in recorded metrics: capture the training when the watched one has become better."""
        best = self.best
        value = values.get(best.metric) if best is not None else None
        if best is not None and isinstance(value, float) and best.improves(value):
            best.captured = self._captured(best.captured)
            best.value, best.steps = value, dict(steps)

    def evaluated(self, values: Mapping[str, object], better: Mapping[str, str]) -> None:
        """Take in recorded metrics and what is better, "higher" or "lower": the update after a best one is kept."""
        for metric, direction in better.items():
            value = values.get(metric)
            one = Best(metric=metric, better="higher" if direction == "higher" else "lower")
            known = self._evaluations[metric][0] if metric in self._evaluations else one
            if isinstance(value, float) and known.improves(value):
                self._better[metric] = replace(one, value=value)

    def _keep_evaluation(self, stream: str, steps: Mapping[str, int], troubled: Callable[[], bool]) -> None:
        better, self._better = self._better, {}
        there = [name for name in better if name in self._evaluations]
        names = there + [name for name in better if name not in there][: max(METRICS - len(self._evaluations), 0)]
        if not names or troubled():
            return
        into = self._spare.pop() if self._spare else None
        moment = Snapshot(steps=dict(steps), stream=stream, captured=self._captured(into), best_of=", ".join(names))
        if set(_broken(moment.captured.tensors)) - (self._never_finite or frozenset()):
            self._drop(moment)
            return
        moment.good = True
        for name in names:
            before = self._evaluations.get(name)
            self._evaluations[name] = better[name], moment
            if before is not None:
                self._drop(before[1])

    # -- inside ------------------------------------------------------------------------------------------------------

    def _captured(self, into: Captured | None) -> Captured:
        with torch.inference_mode(False):  # copies that an evaluation made could not be written to later
            return self.state.capture(into)

    @staticmethod
    def _step_of(snapshot: Snapshot, stream: str) -> int:
        return snapshot.steps.get(stream, max(snapshot.steps.values(), default=-1))

    def _confirm(self, snapshot: Snapshot) -> None:
        if snapshot in self._pending:
            self._pending.remove(snapshot)
        if set(_broken(snapshot.captured.tensors)) - (self._never_finite or frozenset()):
            self._drop(snapshot)
            return
        snapshot.good = True
        self._good.append(snapshot)
        while len(self._good) > self.ring.keep:
            self._drop(self._good.pop(0))

    def _drop(self, snapshot: Snapshot) -> None:
        if snapshot in self._good or any(snapshot is moment for _, moment in self._evaluations.values()):
            return
        if len(self._spare) < 2:
            self._spare.append(snapshot.captured)
        snapshot.captured = Captured()


def _broken(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors with an element that is not finite; this waits for the device once."""
    found: list[str] = []
    by_device: dict[torch.device, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.dtype.is_complex:
            tensor = torch.view_as_real(tensor.resolve_conj())
        if tensor.is_floating_point() and tensor.numel() and name.startswith(("model/", "optimizer/")):
            wide = tensor if tensor.element_size() > 1 else tensor.float()  # torch has no norm of eight bits
            by_device.setdefault(tensor.device, {})[name] = wide
    for names in by_device.values():
        norms = torch._foreach_norm(list(names.values()), math.inf)
        finite = torch.stack([norm.float() for norm in norms]).isfinite()
        if not bool(finite.all()):
            found += [name for name, fine in zip(names, finite.tolist(), strict=True) if not fine]
    return found


def _identity(state: TrainingState) -> tuple[object, ...]:
    """Return what tells whether a state still consists of the same objects."""
    parameters: Sequence[object] = [
        id(parameter)
        for optimizer in state.optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    return (*map(id, state.models.values()), "|", *map(id, state.optimizers.values()), "|", *parameters)
