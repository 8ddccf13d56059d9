"""The Guard: joins measuring, judging and responding inside the user's loop, and holds no opinions.

    guard = Guard("runs/a", model, optimizer)
    for batch in loader:
        loss = loss_of(model, batch); loss.backward()
        if guard.allows(batch=batch):
            optimizer.step()
        optimizer.zero_grad()

Nothing that goes wrong in here reaches the loop: a part that fails is switched off, noted and reported as a finding.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from trimtab import attach, console, discover
from trimtab.actions import EarlyStop, safe
from trimtab.answering import Answering
from trimtab.checkpoint.snapshots import Ring
from trimtab.config import project_of
from trimtab.detectors import DETECTORS, MilestoneMissed, PatienceSpent
from trimtab.errors import TrainingStopped, UserError, nearest
from trimtab.folder import Again, Folder, ending
from trimtab.handed_over import early_stop_of, fields_of, models_of, optimizers_of, parts_of, ring_of, value_of
from trimtab.judge import MAIN, Detector, Event, History, Ignore, Judge, failed
from trimtab.live import Live, Sensor
from trimtab.measure import Measure
from trimtab.milestone import Milestone
from trimtab.overhear import EVALUATION, Overheard
from trimtab.patience import Patience
from trimtab.records import Finding, Note, Outcome, Severity, Signal, Value
from trimtab.respond import Answer, Policy, actions_of
from trimtab.run.shown import check_panel
from trimtab.sensors import SENSORS
from trimtab.sensors._examined import KINDS, Kind, examined

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trimtab.panels import Panel

log = logging.getLogger("trimtab")

ASSURE_AFTER = 50
"""After so many updates one line says what was judged and that nothing is wrong, or what is."""

RESERVED = ("ignore", "metric", "weights-loaded", "trimtab-failed", "response-budget-spent")
"""Kinds of notes that Trimtab writes itself."""

EVERY = 8
OVERHEAD = 0.01
"""The cadence and the share of the run's time that measuring may take, where nobody says otherwise."""

RING = Ring()
"""How snapshots are taken where nobody says otherwise."""

Better = Literal["higher", "lower"]


class Guard:
    """Watches one training and writes a run folder.

    Args:
        run: the run's folder, which must be new (an existing one is left alone and a numbered neighbour is made), or
            None for a fresh folder `<date>-<time>-<name>-<4 hex>` under `root`.
        model: the module that is trained, several, or None to find them among the living objects.
        optimizer: one optimizer, or stream name -> optimizer; None takes every optimizer that steps.
        root: where fresh run folders go; TRIMTAB_RUNS or ./runs when None.
        name, project, description, tags, system, seed, config: stored with the run.
        settings: further facts by which runs are compared (command-line arguments, for instance), or a function that
            returns them once the training has begun.
        respond: finding code (or "*") -> an Action, or several that are done in order. Nothing acts unasked: the
            default only observes. "safe" is the table in `trimtab.actions.safe`.
        state: further parts of the training that a rollback puts back, by name: anything with `state_dict` and
            `load_state_dict`, generators, and the position in the data. Schedulers and a GradScaler are found.
        snapshots: how often moments to go back to are kept, and how many; only where an action goes back.
        early_stop: stop when a metric was not better for so long, with the weights of its best step; without a
            patience of its own the rule `patience-spent` judges nothing.
        detectors, sensors: the rules and quantities to use; the catalogues when None.
        milestones: declared checks, judged by `milestone-missed`.
        ignore: finding codes ("code" or "code@subject") to leave out; counted and listed in the report.
        every: one row in so many is measured in full, after the first 32; None takes the project's, or 8.
        overhead: share of the run's time that measuring may take, kept by measuring less often; None keeps `every`,
            "default" takes the project's, or 0.01.
        pyproject: whose table `[tool.trimtab]` holds where nothing is given here: of the file that is found upwards
            from the working directory or the script (True), of this file, or of none (False).
        lazily: make the run folder only when the first update or record comes.
        opened: called with the run folder once it was made.
        clock: seconds; a benchmark hands in one that stands still while something else runs.
        again: a run that has ended and is gone on with, instead of `run`; the training stands as `again` says already.

    Raises:
        UserError: an unknown code in `respond` or `ignore`, or a model, an optimizer, an action or a part of `state`
            of the wrong kind.
    """

    def __init__(
        self,
        run: str | Path | None = None,
        model: nn.Module | Sequence[nn.Module] | None = None,
        optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None = None,
        *,
        root: str | Path | None = None,
        name: str = "run",
        project: str = "",
        description: str = "",
        tags: Sequence[str] = (),
        system: str = "",
        seed: int | None = None,
        config: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        respond: Policy | Literal["safe"] | None = None,
        state: Mapping[str, Any] | None = None,
        snapshots: Ring | None = RING,
        early_stop: Patience | None = None,
        detectors: Sequence[Detector] | None = None,
        sensors: Sequence[Sensor] | None = None,
        milestones: Iterable[Milestone] = (),
        ignore: Iterable[str | Ignore] = (),
        every: int | None = None,
        overhead: float | Literal["default"] | None = "default",
        pyproject: str | Path | bool = True,
        lazily: bool = False,
        opened: Callable[[Path], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        again: Again | None = None,
    ):
        known = [rule.code for rule in DETECTORS]
        project_says = project_of(pyproject)
        rules = project_says.thresholds(DETECTORS if detectors is None else detectors, known)
        every = every or project_says.every or EVERY
        if overhead == "default":
            overhead = OVERHEAD if project_says.overhead is None else project_says.overhead
        wanted = tuple(milestones)
        if wanted:
            rules = tuple(replace(d, milestones=wanted) if isinstance(d, MilestoneMissed) else d for d in rules)
        self._early_stop = early_stop = early_stop_of(early_stop)
        if early_stop is not None:
            rules = tuple(replace(d, patience=early_stop) if isinstance(d, PatienceSpent) else d for d in rules)
        self._codes = [rule.code for rule in rules]
        respond, rules = _answered(respond, rules, early_stop)
        parts, snapshots = parts_of(state), ring_of(snapshots)
        ignores = [self._checked(Ignore.parse(one) if isinstance(one, str) else one) for one in ignore]
        project_says.check({*known, *self._codes})
        ignores += [Ignore(code=r.code, subject=r.subject, because=r.because) for r in project_says.ignore]
        self.judge = Judge(rules, ignores)
        self.history = History(self.judge)
        self.events: list[Event] = []
        self.outcomes: list[Outcome] = []
        self._pid = os.getpid()
        self._settings = settings or {}
        self._settings_of = -1
        facts = {
            "name": name, "project": project, "description": description, "tags": tuple(tags), "system": system,
            "seed": seed,
            "config": {
                "config": dict(config or {}),
                "trimtab": {
                    "detectors": {rule.code: fields_of(rule) for rule in rules},
                    "every": every,
                    "overhead": overhead,
                    "respond": {code: _described(given) for code, given in respond.items()},
                    "ignore": [{"rule": str(r), "because": r.because} if r.because else str(r) for r in ignores],
                    "pyproject": project_says.path,
                },
            },
        }  # fmt: skip
        if not isinstance(run, (str, os.PathLike, NoneType)):
            raise UserError(
                f"Guard: the first argument is the run's folder, got a {type(run).__name__}; "
                "write Guard(None, model, optimizer) or Guard(model=model, optimizer=optimizer)"
            )
        self._folder = Folder(None if run is None else Path(run), root, facts, opened, self._not_written)
        self._stopping: TrainingStopped | None = None
        self._metrics: dict[str, str] = {}
        self._recorded: Counter[str] = Counter()
        self._waited = False
        self._kept: dict[str, int] = {}
        self._examined: dict[str, int] = {}
        self._failures = 0
        self._rows = 0
        self._assured = self._closed = self._closing = self._broken = False
        self._last_value = getattr(sys, "last_value", None)
        self.measure = Measure(
            SENSORS if sensors is None else sensors,
            self._on_row,
            self._on_failure,
            models=models_of(model),
            optimizers=optimizers_of(optimizer),
            every=every,
            overhead=overhead,
            act=self._act if respond else None,
            clock=clock,
        )
        self._answering = None
        if respond:
            self._answering = Answering(
                respond, self._codes, self.measure, self.judge, self.history.traces, parts=parts, ring=snapshots,
                on_failure=lambda part, error: self._on_failure(part, error, self._step()),
            )  # fmt: skip
            if early_stop is not None:
                self._answering.keep_best(early_stop)
        self.backward_begins = self.measure.backward_begins
        self.backward_ended = self.measure.backward_ended
        self.clipping = self.measure.clipping
        self.unscaled = self.measure.unscaled
        console.speak()
        self._supersede()
        if again is not None:
            self._go_on(again)
        if not lazily:
            self._folder.open()
        attach.attach(self)
        self._overheard = Overheard()
        self._overheard.start()
        atexit.register(self._at_exit)

    # -- the user's calls ----------------------------------------------------------------------------------------

    @property
    def run_path(self) -> Path | None:
        """The run folder; None while none was made."""
        return self._folder.path

    @property
    def findings(self) -> list[Finding]:
        """The findings that are open now."""
        return self.judge.open()

    def allows(self, batch: Any = None) -> bool:
        """Say that the update may be taken; hand over the batch so that a stuck loader can be seen.

        It is always True: an update that shall not happen is left out inside the step, whether this is asked or not.

        Raises:
            TrainingStopped: a response has asked for a stop.
        """
        if self._stopping is not None:
            raise self._stopping
        self.measure.batch = batch
        return True

    def record(
        self,
        *,
        split: str | None = None,
        better: Better | Mapping[str, Better] | None = None,
        **metrics: Any,
    ) -> None:
        """Record quantities of your own at the current step, such as `accuracy=0.93, split="validation"`.

        `better` says which direction is good ("higher" or "lower", or a mapping by metric); without it no rule
        guesses. A metric is stored as `split/name`.

        Raises:
            UserError: a value is not a number or a flat sequence of numbers.
        """
        values: dict[str, Value] = {}
        for name, value in metrics.items():
            key = f"{split}/{name}" if split else name
            values[key] = value_of(key, value)
            direction = better.get(name) if isinstance(better, Mapping) else better
            if direction is not None and self._metrics.get(key) != direction:
                if direction not in ("higher", "lower"):
                    raise UserError(f"record: better={direction!r} for {key!r}; expected 'higher' or 'lower'")
                stop = self._early_stop
                if stop is not None and key == stop.metric and direction != stop.better:
                    raise UserError(f"record: better={direction!r} for {key!r}, but early_stop says {stop.better!r}")
                self._metrics[key] = direction
                self._tell(Note(kind="metric", step=self._step(), text=key, facts={"better": direction}))
        if values:
            self._safely("record", self._own_row, values)
            self._recorded.update(values.keys())
            self._wait_in_vain()
            if self._answering is not None:
                self._safely("record", self._answering.record, values, self._metrics)

    def _wait_in_vain(self, ended: bool = False) -> None:
        """Say once that the metric of `early_stop` does not come: at the end, or when one much like it came thrice."""
        stop = self._early_stop
        if stop is None or self._waited or stop.metric in self._recorded:
            return
        alike = [
            name for name, count in self._recorded.items()
            if count >= 3 and name.split("/")[-1] == stop.metric.split("/")[-1] and not name.startswith("train")
        ]  # fmt: skip
        if ended or alike:
            self._waited = True
            came = ", ".join(map(repr, alike or sorted(self._recorded))) or "nothing"
            self._say(
                f"early_stop: {stop.metric!r} was never recorded, so nothing ends this training; recorded: {came}"
            )

    def examine(self, *, kind: Kind, every: int | None = None, **tensors: torch.Tensor) -> None:
        """Measure tensors of your own now and then, such as `kind="representation", encoder=features`.

        A "representation" (N, D) gives `<name>/rank`, in how many directions the examples differ, and `<name>/spread`,
        how much; a "latent" (N, D), the means of a latent distribution, also `<name>/active_units`; an "attention"
        (..., L, S), probabilities over keys, `<name>/entropy`, 1 when all keys are looked at alike and 0 when one is,
        and `<name>/peak`, the largest times the number of keys. Rules judge them by these names.

        Call it at each step: the work is done on the first 8 steps and then seldom, or at each `every`-th step. The
        tensors are only read.

        Raises:
            UserError: an unknown kind, or something that is no tensor.
        """
        if kind not in KINDS:
            raise UserError(f"examine: kind={kind!r}; expected one of {', '.join(map(repr, KINDS))}")
        wrong = next((name for name, tensor in tensors.items() if not hasattr(tensor, "detach")), None)
        if wrong is not None:
            raise UserError(f"examine: {wrong!r} must be a tensor, got {type(tensors[wrong]).__name__}")
        if not self.measure.is_due("layers", every):
            return
        self._safely("examine", self._examine, kind, tensors)

    def _examine(self, kind: Kind, tensors: Mapping[str, torch.Tensor]) -> None:
        values: dict[str, Value] = {}
        for name, tensor in tensors.items():
            if self._examined.get(name) != self.measure.coming and tensor.numel():
                self._examined[name] = self.measure.coming
                values.update({f"{name}/{what}": value for what, value in examined(kind, tensor).items()})
        if values:
            self._own_row(values)

    def note(self, kind: str, *, steps: int | None = None, text: str = "", **facts: float | str) -> None:
        """Announce something that is intended, such as `note("data-change", steps=200)`.

        A rule that declares this kind as an excuse lowers its findings to info for `steps` updates, or for the rest
        of the run when `steps` is None.
        """
        if kind in RESERVED:
            raise UserError(f"note: {kind!r} is a kind that Trimtab writes itself; choose another word")
        step = self._step()
        until = None if steps is None else step + steps
        self._tell(Note(kind=kind, step=step, until=until, text=text, facts=facts))

    def ignore(self, code: str, subject: str = "*", *, because: str) -> None:
        """Leave out findings with this code and subject pattern from now on; the report lists it with the reason."""
        self._checked(Ignore(code=code, subject=subject, because=because))
        self._tell(Note(kind="ignore", step=self._step(), text=because, facts={"code": code, "subject": subject}))

    def keep(self, name: str, tensor: torch.Tensor, *, every: int = 1) -> None:
        """Store a tensor in the run's `samples/` folder, each `every`-th time it is called for this name."""
        count = self._kept[name] = self._kept.get(name, -1) + 1
        if count % every == 0 and self._folder.path is not None:
            self._safely("keep", self._keep, str(name), tensor)

    def _keep(self, name: str, tensor: torch.Tensor) -> None:
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point() and str(tensor.dtype) not in ("torch.float16", "torch.float32", "torch.float64"):
            tensor = tensor.float()  # numpy has no bfloat16 and nothing smaller than float16
        self._folder.write("keep", name, self._step(), tensor.numpy())

    def show(self, name: str, panel: Panel) -> None:
        """Put a Table, a Map or a Scatter into the run; the report draws it. A later one of the name replaces it.

        Call it as often as there is something new to see, such as after each evaluation: each call writes one small
        file. A table with `closing=True` is also printed at the end of `trimtab train`.

        Raises:
            UserError: a name with other than small letters, digits and hyphens, or something that is no panel.
        """
        check_panel(name, panel)
        self._safely("show", self._show, name, panel)

    def _show(self, name: str, panel: Panel) -> None:
        self.measure.flush()
        self._folder.write("panel", name, self._step(), panel)

    def close(self, status: str = "finished", how: Mapping[str, Any] | None = None) -> None:
        """End the run: hand on what is still waiting, say how it ended, restore torch. Safe to call twice."""
        if self._closed or os.getpid() != self._pid:  # a forked child inherits the object but not the run
            return
        if self._stopping is not None and status == "finished":  # the loop has caught it
            status, how = ending(self._stopping)
        if self.measure.update:
            self._safely("close", self._hear)
        self._safely("close", self.measure.flush)
        if self._rows:
            self._safely("close", self._wait_in_vain, True)
        self._closing = True
        attach.detach(self)
        self._overheard.stop()
        self._closed = True
        atexit.unregister(self._at_exit)
        elapsed = self.measure.seconds()
        if self._rows:
            self._safely("close", self._own_row, {"trimtab_seconds": self.measure.cost})
            self._safely("close", self._answer, None)
        if self._answering is not None:
            self._safely("close", self._answering.levers.release)
        updates = self.measure.update
        self.measure.release()
        if self._folder.path is None:
            return
        coverage = self.judge.coverage()
        self._folder.write(
            "update",
            judged=coverage.judged,
            not_judged=coverage.unknown,
            ignored=dict(self.judge.ignored),
            cost={"seconds": self.measure.cost, "share": self.measure.cost / elapsed if elapsed > 0 else 0.0},
            updates=updates,
        )
        self._folder.write("close", status, dict(how or {}))

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*ending(error))

    # -- what `attach` tells and measuring does not do alone ---------------------------------------------------------

    def step_begins(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """Measure, and stop the training here when a response has asked for it."""
        heard = self._overheard.take(self.measure.update)
        if heard:
            self._safely("overhear", self._write_heard, heard)
        if self._stopping is not None:
            raise self._stopping
        if self._answering is not None and self._answering.passes_over(optimizer):
            return
        self.measure.step_begins(optimizer, closure)

    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """Measure; put back what was changed for this update only."""
        if self._answering is None:
            self.measure.step_ended(optimizer)
            return
        left_out, passed_over = self._answering.ended(optimizer)
        if not passed_over:
            self.measure.step_ended(optimizer, left_out=left_out)
            self._answering.updated(optimizer)

    def step_skipped(self, optimizer: torch.optim.Optimizer) -> None:
        """Measure that a GradScaler left an update out; responses may act on that too."""
        if self._answering is not None and self._answering.passes_over(optimizer):
            self._answering.ended(optimizer)
            return
        self.measure.step_skipped(optimizer)

    def weights_loaded(
        self, module: nn.Module, missing: Sequence[str], unexpected: Sequence[str], changed: int | None
    ) -> None:
        """Note that weights were loaded, how many names did not fit, and how many tensors are others than before."""
        facts: dict[str, float | str] = {
            "module": type(module).__name__,
            "tensors": float(sum(1 for _ in module.parameters())),
            "missing": float(len(missing)),
            "unexpected": float(len(unexpected)),
        }
        if changed is not None:
            facts["changed"] = float(changed)
        moved = attach.moved_names(missing, unexpected)
        if moved:
            facts["moved"] = float(len(moved))
            facts["moved_names"] = ", ".join(f"{stored} -> {present}" for present, stored in [*moved.items()][:4])
        self._tell(Note(kind="weights-loaded", step=self._step(), facts=facts))

    def _hear(self) -> None:
        self._write_heard(self._overheard.take(self.measure.update))

    def _write_heard(self, heard: dict[str, Value]) -> None:
        """Write what was overheard since the last update; only of the loss function is it known what is better."""
        if EVALUATION in heard and EVALUATION not in self._metrics:
            self._metrics[EVALUATION] = "lower"
            self._tell(Note(kind="metric", step=self._step(), text=EVALUATION, facts={"better": "lower"}))
        if heard:
            self._own_row(heard)
            self._recorded.update(heard.keys())
            if self._answering is not None:
                self._answering.record(heard, self._metrics)

    def broke(self, where: str, error: Exception) -> None:
        """Take in that Trimtab itself failed; `attach` has already let go of the training."""
        self._broken = True
        self._overheard.stop()
        if self._answering is not None:
            self._answering.levers.release()
        log.warning(
            "Trimtab failed in %s (%s: %s) and is switched off; the training goes on",
            where, type(error).__name__, error,
        )  # fmt: skip
        self._announce(failed("trimtab", error, self._step()))

    # -- rows, events, answers -------------------------------------------------------------------------------------

    def _on_row(self, row: Signal) -> None:
        self._rows += 1
        self._folder.write("row", row)
        for event in self.history.add(row):
            self._on_event(event)
        if self.judge.failures:
            failures, self.judge.failures = self.judge.failures, []
            for note in failures:
                self._announce(note)
        updates = row.update + 1
        if self._settings_of != self.measure.namings:
            self._describe()
        if not self._assured and updates >= ASSURE_AFTER:
            self._assured = True
            self._say(self._assurance(updates))

    def _go_on(self, again: Again) -> None:
        """Take in the past of a run, then say that the training went back to where its checkpoint was made."""
        run, seconds = again.run, 0.0

        def stored() -> Iterator[Signal]:
            nonlocal seconds
            for row in run.rows():
                self._rows, seconds = self._rows + 1, max(seconds, row.time)
                yield row

        notes, self.outcomes = run.notes(), run.outcomes()
        self.history.retell(stored(), notes, self.outcomes)
        self.judge.failures = []  # noted then
        if self.judge.going_on:
            self.judge.going_on.clear()
        because, answered = again.because, set[str]()
        if self._answering is not None:
            self._answering.respond.remember(self.outcomes)
            answered = set(self._answering.respond.policy)
        if answered != set(run.config().get("trimtab", {}).get("respond", ())):
            because += "; findings are answered otherwise than before"
        self.events = run.events()
        self._metrics = {note.text: str(note.facts["better"]) for note in notes if note.kind == "metric"}
        self._folder.go_on(run.path, self._rows)
        traces = self.history.traces
        main = again.steps.get(MAIN, max(again.steps.values(), default=-1))
        outcome = Outcome(
            action="resume", code="", attempt=self.history.attempt,
            step=max((trace.step for trace in traces.values()), default=main), after_rows=self._rows, result="done",
            changes="weights", because=because, to_step=main, to_steps={MAIN: main, **again.steps},
        )  # fmt: skip
        self.outcomes.append(outcome)
        self._folder.write("outcome", outcome)
        self.history.tell(outcome)
        self.measure.go_on(attempt=self.history.attempt, steps=again.steps, update=again.update, seconds=seconds)
        self._say(f"resume: {because}")

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        self._folder.write("event", event)
        if not isinstance(event, Finding):
            return
        if self._answering is not None:
            self._answering.hear(event)
        if event.severity >= Severity.WARNING:
            where = f" [{event.stream}]" if event.stream != MAIN else ""
            self._say(f"{event.event} {event.severity} {event.code}{where}: {event.summary}")

    def _own_row(self, values: dict[str, Value]) -> None:
        """Write a row of our own or of the user's, at the current step of the main stream."""
        self.measure.flush()
        row = Signal(
            attempt=self.measure.attempt, step=self._step(), update=self.measure.update, time=self.measure.seconds(),
            values=values,
        )  # fmt: skip
        self._on_row(row)

    def _step(self) -> int:
        """Return the step of the main stream now: never before the last row that it wrote."""
        trace = self.history.traces.get(MAIN)
        steps = self.measure.streams
        latest = steps.get(MAIN, max(steps.values(), default=self.measure.update - 1))
        return max(latest, trace.step if trace is not None else 0, 0)

    def _act(self, live: Live) -> None:
        assert self._answering is not None
        self._answering.ready(live)
        self._answer(live)
        if self._stopping is not None:
            self._answering.levers.release()
            raise self._stopping
        self._answering.begin(live)

    def _answer(self, live: Live | None) -> None:
        if self._answering is not None and self._stopping is None:
            for answer in self._answering.answers(live):
                self._take(answer)

    def _take(self, answer: Answer) -> None:
        outcome = replace(answer.outcome, after_rows=self._rows)
        if self._closing and outcome.stops:
            outcome = replace(outcome, result="declined", stops=False, because="the run had ended")
        self.outcomes.append(outcome)
        self._folder.write("outcome", outcome)
        self.history.tell(outcome)
        self._say(f"{outcome.action} {outcome.result}: {outcome.because}")
        if answer.note is not None:
            self._tell(answer.note)
            self._own_row({"responses_spent": 1.0})
        if outcome.stops:
            self._stopping = TrainingStopped(f"{outcome.code} at step {outcome.step}: {outcome.because}")

    def _tell(self, note: Note) -> None:
        self._safely("note", self.measure.flush)  # what happened before it is written before it
        note = replace(note, after_rows=self._rows)
        self._folder.write("note", note)
        self.history.tell(note)

    # -- failing open ----------------------------------------------------------------------------------------------

    def _on_failure(self, part: str, error: Exception, step: int) -> None:
        log.warning("%s failed (%s: %s) and is left out", part, type(error).__name__, error)
        self._announce(failed(part, error, step))

    def _announce(self, note: Note) -> None:
        """Note that a part of Trimtab failed, and let the rule about it judge."""
        self._failures += 1
        if self._failures > 100:  # something fails at every turn; it has been said often enough
            return
        self._tell(note)
        self._safely("judge", self._own_row, {"trimtab_failures": float(self._failures)})

    def _not_written(self, error: Exception) -> None:
        self._announce(failed("writer", error, self._step()))

    def _safely(self, where: str, call: Any, *args: Any) -> None:
        try:
            call(*args)
        except TrainingStopped:
            raise
        except Exception as error:
            if self._broken:
                log.debug("trimtab failed again in %s", where, exc_info=True)
                return
            attach.detach(self)
            self.broke(where, error)

    # -- the run folder --------------------------------------------------------------------------------------------

    def _supersede(self) -> None:
        """Close a Guard that was left open and watches the same training: a cell run twice, a loop that makes one."""
        mine = {id(o) for o in self.measure.optimizers.values()} | {id(m) for m in self.measure.models}
        for other in attach.listeners():
            if isinstance(other, Guard):
                theirs = {id(o) for o in other.measure.optimizers.values()} | {id(m) for m in other.measure.models}
                if mine & theirs or (not mine and other.measure.takes_all):
                    log.warning("the Guard of %s was still open and is closed: another one watches now", other.run_path)
                    other.close("finished", {"reason": "another Guard took over"})

    def _describe(self) -> None:
        self._settings_of = self.measure.namings
        settings = self._settings() if callable(self._settings) else self._settings
        facts = {**settings, **discover.describe(self.measure.models, self.measure.optimizers)}
        self._folder.write("settings", facts)

    def _say(self, text: str) -> None:
        log.info("%s", text)
        self._folder.write("say", text)

    def _assurance(self, updates: int) -> str:
        grave = sorted({f.code for f in self.findings if f.severity >= Severity.WARNING})
        verdict = "no wiring fault" if not grave else f"open findings: {', '.join(grave)}"
        return f"step {updates}: {verdict}; {self.judge.coverage()}"

    def _checked(self, rule: Ignore) -> Ignore:
        if rule.code not in self._codes:
            raise UserError(f"ignore: no detector has the code {rule.code!r}.{nearest(rule.code, self._codes)}")
        return rule

    def _at_exit(self) -> None:
        error = getattr(sys, "last_value", None)
        self.close(*ending(error if error is not self._last_value else None))


def _answered(
    respond: Policy | Literal["safe"] | None, rules: Sequence[Detector], early_stop: Patience | None
) -> tuple[Policy, tuple[Detector, ...]]:
    """Return the policy, and the rules with as many confirmations as the safe table asks for where it answers."""
    if isinstance(respond, str):
        if respond != "safe":
            raise UserError(f"respond={respond!r}; expected 'safe', or a mapping from finding codes to actions")
        there = {rule.code for rule in rules}
        respond = {code: actions for code, actions in safe.policy().items() if code in there}
    respond = actions_of(respond or {})
    if early_stop is not None:
        respond = {PatienceSpent.code: (EarlyStop(),), **respond}
    elif PatienceSpent.code in respond and any(isinstance(d, PatienceSpent) and d.patience is None for d in rules):
        raise UserError(
            f"respond: {PatienceSpent.code!r} never opens without a patience; give "
            "early_stop=Patience(metric='validation/loss', better='lower', patience=5)"
        )
    confirm = safe.confirmations(respond)
    return respond, tuple(
        replace(rule, confirm=confirm[rule.code]) if rule.code in confirm else rule  # type: ignore[type-var]  # a protocol cannot say "dataclass"
        for rule in rules
    )


def _described(given: Any) -> Any:
    """Return an answer of the policy as it is stored with the run."""
    if isinstance(given, tuple):
        return [_described(one) for one in given] if len(given) > 1 else _described(given[0])
    return {"action": given.name, **fields_of(given)}
