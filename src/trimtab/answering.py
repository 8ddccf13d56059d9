"""Answering inside the loop: which finding is answered at which update, with what levers.

Everything that changes a training happens just before an update: what is found there is answered at once, and what was
found in between waits for the next update of its stream.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from trimtab import discover
from trimtab.checkpoint import TrainingState
from trimtab.checkpoint.snapshots import Ring, Snapshots
from trimtab.judge import Judge
from trimtab.levers import Levers
from trimtab.live import Live, fill
from trimtab.measure import Measure
from trimtab.patience import Patience
from trimtab.records import Finding, Severity
from trimtab.respond import Answer, Policy, Respond
from trimtab.trace import Trace

TROUBLE = (
    "gradient-exploding", "gradient-not-finite", "loss-diverging", "loss-not-finite", "loss-spike", "moments-poisoned",
    "oscillating", "representation-collapsed", "update-too-large", "weights-lost-after-load",
)  # fmt: skip
"""Codes that say that the numbers of a training went wrong: at error or above, none of what was seen since then is a
moment to go back to, whether they are answered or not."""

OF_A_METRIC = ("metric-dropped", "past-its-peak")
"""Codes that say that a recorded metric has fallen: where they are answered by going back, its best moment is kept."""


class Answering:
    """The responses of one training.

    Args:
        policy: which action answers which finding.
        known: the codes that exist.
        measure: what is measured; told when the training goes back.
        judge: asked what is open.
        traces: stream -> its Trace.
        parts: further parts of the training, by name.
        ring: how snapshots are taken; None: not at all.
        on_failure: takes (part, error) of what failed and is left out from now on.
    """

    def __init__(
        self,
        policy: Policy,
        known: Iterable[str],
        measure: Measure,
        judge: Judge,
        traces: Mapping[str, Trace],
        *,
        parts: Mapping[str, Any],
        ring: Ring | None,
        on_failure: Callable[[str, Exception], None],
    ):
        self.respond = Respond(policy, known)
        self._measure, self._judge = measure, judge
        state = TrainingState({}, {}, parts)
        wants = any(getattr(action, "goes_back", False) for action in self.respond.actions)
        snapshots = Snapshots(state, ring.every, ring.keep, ring.clean) if ring is not None and wants else None
        self.levers = Levers(state, snapshots, traces.get)
        self.levers.escalations = [
            part for part in parts.values() if hasattr(part, "pause") and hasattr(part, "back_off")
        ]
        self.levers.find_parts = self._look_once_more
        if any(getattr(action, "each_update", False) for action in self.respond.actions):
            judge.going_on = []
        self._unanswered: list[Finding] = []
        measure.let_go_by(self._let_go)
        self._keeps_evaluations = any(
            getattr(action, "goes_back", False) for code in OF_A_METRIC for action in self.respond.policy.get(code, ())
        )
        self._of_namings = -1
        self._found: set[str] = set()
        self._looked_again = False
        self.on_failure = self.levers.on_failure = on_failure

    # -- what was found --------------------------------------------------------------------------------------------

    def hear(self, event: Finding) -> None:
        """Take in an event of the Judge, to be answered before the next update of its stream."""
        if event.event == "resolved":
            return
        self._unanswered.append(event)
        if self.levers.snapshots is not None and self._troubles(event):
            self.levers.snapshots.trouble(event.stream, event.since_step)

    def record(self, values: Mapping[str, object], better: Mapping[str, str]) -> None:
        """Take in recorded metrics, and what is better where that is known: the moments of best ones are kept."""
        if self.levers.snapshots is not None:
            if self._keeps_evaluations:
                self.levers.snapshots.evaluated(values, better)
            self._refresh()
            if self.levers.state.models:  # what is found among the living objects is not known before the first update
                self._snapshot(self.levers.snapshots.recorded, values, self._measure.streams)

    def keep_best(self, patience: Patience) -> None:
        """Keep the moment at which the metric of a patience was best."""
        if self.levers.snapshots is not None:
            self.levers.snapshots.watch_best(patience.metric, patience.better, patience.min_delta)

    def answers(self, live: Live | None) -> Iterator[Answer]:
        """Answer what is due at this update; without one, everything that waits.

        When the training has gone back, the other findings are those of a way that was abandoned: only the actions
        that change nothing answer them.
        """
        self._take_what_goes_on()
        if not self._unanswered:
            return
        due = [one for one in self._unanswered if live is None or self._is_due(one.stream, live.stream)]
        self._unanswered = [one for one in self._unanswered if one not in due]
        gone_back = False
        for finding in due:
            for answer in self.respond.answers(finding, live, only_harmless=gone_back):
                outcome = answer.outcome
                if outcome.result == "done" and outcome.to_step is not None:
                    gone_back = True
                    self._measure.rewind(outcome.to_steps)
                    due += self._unanswered
                    self._unanswered = []
                yield answer
                if outcome.stops:
                    return

    # -- around an update ------------------------------------------------------------------------------------------

    def ready(self, live: Live) -> None:
        """Get ready to act at this update; before the first one a snapshot is taken."""
        fill(live, levers=self.levers)
        if live.optimizer is not None:
            self.levers.settle(live.optimizer)
        if not live.skipped:
            self._refresh()
            if self.levers.snapshots is not None:
                self._snapshot(self.levers.snapshots.begin, self._measure.streams)

    def begin(self, live: Live) -> None:
        """Let the effects that stand change this update."""
        if live.optimizer is not None and not live.skipped:
            self.levers.begin(live.optimizer, live.stream, live)

    def passes_over(self, optimizer: torch.optim.Optimizer) -> bool:
        """Say whether this update is left out because the training is on its way back, and do so."""
        if not self.levers.is_on_the_way or not self._stream_of(optimizer):
            return False
        self.levers.passes_over(optimizer)
        self._measure.pass_over()
        return True

    def ended(self, optimizer: torch.optim.Optimizer) -> tuple[bool, bool]:
        """Put back what was changed for this update only; say whether it was left out, and whether passed over."""
        stream = self._stream_of(optimizer)
        if not stream:
            return False, False
        passed_over = self.levers.is_on_the_way and not self._measure.went_back
        left_out = self.levers.end(optimizer)
        self.levers.arrive(stream)
        return left_out, passed_over

    def updated(self, optimizer: torch.optim.Optimizer) -> None:
        """Take in that an update was taken: snapshots are confirmed and taken after it."""
        stream = self._stream_of(optimizer)
        if self.levers.snapshots is not None and stream:
            self._snapshot(self.levers.snapshots.updated, stream, self._measure.streams, self._troubled)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _take_what_goes_on(self) -> None:
        going_on = self._judge.going_on
        if going_on:
            known = {one.id for one in self._unanswered}
            self._unanswered += {one.id: one for one in going_on if one.id not in known}.values()
            going_on.clear()

    def _is_due(self, stream: str, now: str) -> bool:
        return stream == now or stream not in self._measure.streams

    def _stream_of(self, optimizer: torch.optim.Optimizer) -> str:
        return next((name for name, one in self._measure.optimizers.items() if one is optimizer), "")

    def _troubles(self, finding: Finding) -> bool:
        if finding.severity >= Severity.ERROR and finding.code in TROUBLE:
            return True
        return self.respond.changes(finding)

    def _troubled(self) -> bool:
        return any(self._troubles(finding) for finding in self._judge.open())

    def _refresh(self) -> None:
        """See what the training consists of, when anything in it was named anew."""
        if self._of_namings == self._measure.namings:
            return
        self._of_namings = self._measure.namings
        state, models = self.levers.state, self._measure.models
        state.optimizers = dict(self._measure.optimizers)
        state.models = _named(models)
        known = {id(tensor) for model in models for tensor in (*model.parameters(), *model.buffers())}
        loose = nn.Module()
        for name, optimizer in state.optimizers.items():
            tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
            for place, tensor in enumerate(tensors):
                if id(tensor) not in known:
                    known.add(id(tensor))
                    loose.register_buffer(f"{name.replace('.', '_')}-{place}", tensor)
        if any(True for _ in loose.buffers()):
            state.models["tensors"] = loose
        self._find_parts(self._measure.parts)

    def _let_go(self) -> None:
        """Keep nothing alive that nobody handed over: an optimizer that is made anew takes the place of one."""
        state = self.levers.state
        state.optimizers, state.models = {}, {}
        for name in self._found:
            state.parts.pop(name, None)
        self._found.clear()
        self._of_namings = -1

    def _find_parts(self, living: Iterable[weakref.ref[Any]]) -> None:
        """Take in schedulers and scalers that nobody handed over."""
        if self.levers.snapshots is None:
            return
        parts = self.levers.state.parts
        known = {id(part) for part in parts.values()}
        for name, part in discover.parts_of(living, self.levers.state.optimizers.values()).items():
            if id(part) not in known:
                while name in parts:
                    name += "'"
                parts[name] = part
                self._found.add(name)

    def _look_once_more(self) -> None:
        """Before the first rollback: a part that is found only now was in no snapshot, and the outcome says so."""
        if not self._looked_again:
            self._looked_again = True
            self._find_parts(discover.look_around().parts)

    def _snapshot(self, call: Callable[..., Any], *args: Any) -> None:
        """Do something with snapshots; a training that cannot be captured is told so once and goes on without."""
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001 - fail open: the training goes on, and a rollback says why it cannot
            self.levers.snapshots = None
            self.levers.no_snapshots = f"{type(error).__name__}: {error}"
            self.on_failure("snapshots", error)


def _named(models: list[nn.Module]) -> dict[str, nn.Module]:
    if len(models) == 1:
        return {"model": models[0]}
    named: dict[str, nn.Module] = {}
    for model in models:
        name, number = type(model).__name__, 2
        while name in named:
            name, number = f"{type(model).__name__}-{number}", number + 1
        named[name] = model
    return named
