"""Running a sweep: claim a trial, start it, see that it goes on, keep what came of it; phase after phase.

Everything that must survive is in the store and in the folder; a Sweep itself holds only what it runs at the moment.
Hence the same call goes on after a pause or a crash, and a second process, here or on another machine, joins in by the
same name and store. What a trial gives depends on nothing but the trial.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from trimtab.errors import UserError
from trimtab.run.codec import decode
from trimtab.run.facts import host
from trimtab.sweep import folder as folders
from trimtab.sweep.alive import alive, has_ended
from trimtab.sweep.job import JOBS, RUNS, Ended, Engine, Handle, Job
from trimtab.sweep.plan import Condition, Found, Phase, Plan
from trimtab.sweep.search import Searching, storage_beside
from trimtab.sweep.settle import PREFIX, settle
from trimtab.sweep.store import Claim, Store
from trimtab.trial import ENDED, Point, Trial, TrialResult

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

log = logging.getLogger("trimtab")

POLL_SECONDS = 0.02
"""Between two looks at the running processes; a look costs microseconds, and a slot stays empty no longer."""
WATCH_SECONDS = 0.5
"""Between two looks at how far a running trial is."""
BEAT_SECONDS = 5.0
"""Between two beats of a claim."""
STALE_SECONDS = 60.0
"""A claim without a beat for so long is taken from its worker: 12 beats, and more than a server takes to restart. That
of a worker which is known to have ended (`alive.py`) is taken at once."""
LOOK_SECONDS = 1.0
"""Between two looks at what other workers have done, where that is waited for."""


class Progress(Protocol):
    """What a sweep tells while it runs."""

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins: it has `total` trials, of which `done` had ended before."""

    def began(self, trial: Trial, worker: str = "") -> None:
        """A trial was started by `worker`."""

    def moved(self, trial: Trial, updates: int, planned: int | None = None, value: float | None = None) -> None:
        """A running trial has taken `updates` of `planned`; `value` is the newest one of the metric."""

    def ended(self, result: TrialResult) -> None:
        """A trial has ended, or goes back to waiting: its status says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """One phase before it runs: how many trials it has, and how they stand.

    Attributes:
        phase: of the plan.
        trials: how many it has; the most it can have where arms are searched.
        counts: status -> trials, for those that are stored.
        ended: those that have ended and are not run again.
        open: whether its trials can be named only when earlier phases have ended, or are searched.
    """

    phase: Phase
    trials: int
    counts: Mapping[str, int]
    ended: tuple[TrialResult, ...]
    open: bool

    @property
    def skipped(self) -> int:
        """How many have ended and are not run again."""
        return len(self.ended)


class Sweep:
    """A plan, a folder and a store; `run()` runs what is not done yet.

    Args:
        plan: what to do. It is proved at once (`settle`).
        root: where the folder of the sweep goes.
        name: of the folder, and of the sweep in its store; by default the target and the hash of the plan.
        store: as `Store.open` takes it; a SQLite file in the folder by default.
        engine: what runs the trials; by default processes of this machine.
        workers: how many at once; what the engine offers by default.
        progress: told what happens.
        retry_failed: run failed trials again.
        extend: let this plan take the place of a different one of the same name.
        command: how it was started, for the report.
        stale_seconds: a claim without a beat for so long is taken from its worker.
        options: further options of each job (`trimtab.sweep.job.Job`).

    Raises:
        UserError: the plan cannot be run, or another one has its folder.

    Example:
        >>> plan = Plan(target="separability", phases=(Phase(arms=grid({"lr": [1e-3, 1e-2]})),))
        >>> results = Sweep(plan, workers=2).run()  # doctest: +SKIP
    """

    def __init__(
        self,
        plan: Plan,
        *,
        root: Path | str = folders.ROOT,
        name: str | None = None,
        store: str = "",
        engine: Engine | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
        retry_failed: bool = False,
        extend: bool = False,
        command: str = "",
        stale_seconds: float = STALE_SECONDS,
        options: Mapping[str, Any] | None = None,
    ):
        if workers is not None and workers < 1:
            raise UserError(f"workers={workers}; expected at least 1")
        settled = settle(plan)
        self.plan = settled.plan
        self.name = folders.check_name(name or folders.default_name(self.plan))
        self.path = (Path(root) / self.name).absolute()
        self.worker = f"{host()}-{os.getpid()}"
        self.progress = progress
        self._store_given = store
        self._engine, self._workers = engine, workers
        self._retry_failed, self._extend, self._command = retry_failed, extend, command
        self._stale_seconds = stale_seconds
        self._options = dict(options or {})
        self._paths = dict(settled.paths)

    @property
    def script_changed(self) -> bool:
        """Whether the script is no longer what it was when this sweep was made."""
        return folders.script_changed(self.path, self.plan)

    def use(self, engine: Engine | None) -> None:
        """Run the trials on this engine; None for processes of this machine. Whoever made it closes it."""
        self._engine = engine

    def outline(self) -> list[Outline]:
        """Say what `run` would do, phase by phase; nothing is made, and nothing run."""
        stored = self._stored()
        found: dict[str, Found] = {}
        lines = []
        for phase in self.plan.phases:
            its = [result for result in stored.values() if result.trial.phase == phase.name]
            ready = all(name in found for name in self.plan.needs(phase))
            known = phase.search is None and ready
            if known:
                keys = {trial.key for trial in self.plan.trials(phase, found)}
                its = [result for result in its if result.trial.key in keys]
            counts: dict[str, int] = {}
            for result in its:
                counts[result.status] = counts.get(result.status, 0) + 1
            total = self.plan.count(phase)
            lines.append(
                Outline(
                    phase=phase,
                    trials=total,
                    counts=counts,
                    ended=tuple(
                        one
                        for one in its
                        if one.status in ENDED and not (self._retry_failed and one.status == "failed")
                    ),
                    open=not known,
                )
            )
            if known and len(its) == total and all(result.status in ENDED for result in its):
                best = self.plan.best_arm(phase, its)
                if best is not None:
                    found[phase.name] = self._found(phase, *best)
        return lines

    def run(self) -> list[TrialResult]:
        """Run every trial that has not ended, and return all results in the order of the plan.

        SIGINT and SIGTERM end it: what runs is stopped and waits again, what has ended stays.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM, when everything is put back.
            UserError: the folder, the store or the engine refuses, or a phase has nothing that a later one can use.
        """
        folders.open_folder(
            self.path, self.plan, store=self._store_given, command=self._command, paths=self._paths,
            extend=self._extend,
        )  # fmt: skip
        where = folders.store_of(self.path, self._store_given)
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(Store.open(where))
            engine = self._engine
            if engine is None:
                from trimtab.sweep.engine import LocalEngine

                engine = LocalEngine(slots=self._workers)
                stack.callback(engine.close)
            interrupted = stack.enter_context(_interrupts())
            storage = None
            if any(phase.search is not None for phase in self.plan.phases):
                storage = stack.enter_context(storage_beside(where))
            slots = min(self._workers or engine.slots, engine.slots)
            stack.enter_context(alive(self.path / JOBS, self.worker))
            going = _Going(self, store, storage, engine, slots, interrupted)
            try:
                going.to_the_end()
            finally:
                going.put_back()
            if interrupted():
                raise KeyboardInterrupt
            return self.plan.in_order(store.results(self.name))

    def _stored(self) -> dict[str, TrialResult]:
        """Return every stored trial by key; none where nothing is stored yet."""
        if not folders.is_sweep(self.path) and not self._store_given:
            return {}
        where = folders.store_of(self.path, self._store_given)
        if "://" not in where and not Path(where).is_file():
            return {}
        with Store.open(where, create=False) as store:
            return {result.trial.key: result for result in store.results(self.name)}

    def _found(self, phase: Phase, arm: str, best: TrialResult) -> Found:
        """Return what a phase gives to later ones."""
        if phase.search is not None:
            settings = {key: best.trial.settings[key] for key in phase.search.space}
        else:
            settings = next(dict(one.settings) for one in phase.arms if one.name == arm)
        checkpoint = PREFIX + best.checkpoint_hash[:16] if best.checkpoint and best.checkpoint_hash else ""
        path = str(self.path / RUNS / best.run / best.checkpoint) if checkpoint else ""
        return Found(arm=arm, settings=settings, checkpoint=checkpoint, path=path)


@dataclass(slots=True)
class _Stage:
    """A phase that has begun: what it needs was found."""

    phase: Phase
    found: Mapping[str, Found]
    keys: set[str] = field(default_factory=set)
    searching: Searching | None = None
    searched: bool = False


@dataclass(slots=True)
class _Running:
    """A trial that this process runs."""

    claim: Claim
    job: Job
    handle: Handle
    beat: float
    watched: float = 0.0
    progress_read: int = 0
    taken_away: bool = False
    pruned: tuple[int, tuple[Point, ...]] | None = None


class _Going:
    """One call of `Sweep.run`."""

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        storage: BaseStorage | None,
        engine: Engine,
        slots: int,
        interrupted: Callable[[], bool],
    ):
        self._sweep, self._plan, self._name = sweep, sweep.plan, sweep.name
        self._store, self._storage, self._engine, self._slots = store, storage, engine, slots
        self._interrupted = interrupted
        self._stages: dict[str, _Stage] = {}
        self._found: dict[str, Found] = {}
        self._running: list[_Running] = []
        self._results: dict[str, TrialResult] = {}
        self._looked = self._freed = -1e9
        self._changed = True

    def to_the_end(self) -> None:
        """Return when every trial of every phase has ended, or when it was interrupted."""
        while not self._interrupted():
            self._look()
            if self._changed:
                self._changed = False
                if self._begin_phases():
                    return
            self._fill()
            self._see_after()
            time.sleep(POLL_SECONDS if self._running else min(LOOK_SECONDS, 10 * POLL_SECONDS))

    def put_back(self) -> None:
        """Stop what still runs, and let it wait again."""
        for one in self._running:
            one.handle.stop()
        while self._running:
            for one in list(self._running):
                ended = one.handle.poll()
                if ended is not None:
                    self._running.remove(one)
                    self._put_back(one, ended)
            time.sleep(POLL_SECONDS)

    def _put_back(self, one: _Running, ended: Ended) -> None:
        if ended.result is not None and ended.result.status in ("finished", "stopped"):
            self._finish(one, ended)  # it came to its end before it was asked
        elif self._store.release(one.claim):
            self._tell("ended", TrialResult(trial=one.claim.trial, status="waiting", attempts=one.claim.attempt))

    # -- what is to do -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read what is stored: at first, and then as often as others may have changed it."""
        now = time.monotonic()
        if now - self._freed >= min(BEAT_SECONDS, self._sweep._stale_seconds / 2):
            self._freed = now
            for trial in self._store.free_stale(self._name, self._sweep._stale_seconds):
                log.warning("%s, seed %d: its worker is gone; it is run again", trial.arm, trial.seed)
                self._looked = -1e9
        busy = len(self._running) >= self._slots or self._waiting()
        if now - self._looked >= (BEAT_SECONDS if busy else LOOK_SECONDS):
            self._looked = now
            results = {result.trial.key: result for result in self._store.results(self._name)}
            if results != self._results:
                before, self._results, self._changed = self._results, results, True
                if before:
                    self._tell_of_others(before)
            self._free_the_dead()

    def _free_the_dead(self) -> None:
        """Let the trials wait again whose workers are known to have ended, such as one that was killed."""
        others = {one.worker for one in self._results.values() if one.status == "running"}
        for worker in sorted(others - {self._sweep.worker, ""}):
            if has_ended(self._sweep.path / JOBS, worker):
                for trial in self._store.free_worker(self._name, worker):
                    log.warning("%s, seed %d: its worker %s has ended; it is run again", trial.arm, trial.seed, worker)
                    self._looked = -1e9

    def _tell_of_others(self, before: Mapping[str, TrialResult]) -> None:
        """Tell of the trials that other workers have ended since the last look."""
        for key, result in self._results.items():
            if result.status in ENDED and not (key in before and before[key].status in ENDED):
                self._tell("ended", result)

    def _waiting(self) -> list[str]:
        """Return the keys of the trials that may run and, as far as is known, wait."""
        return [
            key
            for stage in self._stages.values()
            for key in stage.keys
            if key not in self._results or self._results[key].status == "waiting"
        ]

    def _begin_phases(self) -> bool:
        """Begin every phase whose needs are met, go on with searches, and say whether all is done."""
        done = True
        for phase in self._plan.phases:
            if phase.name not in self._stages:
                if not all(name in self._found for name in self._plan.needs(phase)):
                    done = False
                    continue
                self._begin(phase)
            stage = self._stages[phase.name]
            if stage.searching is not None:
                self._search_on(stage, stage.searching)
            if not self._has_ended(stage):
                done = False
            elif phase.name not in self._found and self._is_needed(phase):
                self._found[phase.name] = self._find(stage)
                self._changed = True
        return done and not self._changed

    def _begin(self, phase: Phase) -> None:
        found = {name: self._found[name] for name in self._plan.needs(phase)}
        stage = self._stages[phase.name] = _Stage(phase, found)
        if phase.search is not None and self._storage is not None:
            study = f"{self._name}/{phase.name}" if phase.name else self._name
            stage.searching = Searching(self._plan, phase, found, self._storage, study)
        else:
            self._add(stage, self._plan.trials(phase, found))
        if self._sweep._retry_failed and self._store.reset(self._name, stage.keys):
            self._results = {result.trial.key: result for result in self._store.results(self._name)}
        ended = sum(self._results[key].status in ENDED for key in stage.keys if key in self._results)
        self._tell("phase", phase.name, self._plan.count(phase), ended)

    def _add(self, stage: _Stage, trials: list[Trial]) -> None:
        fresh = [trial for trial in trials if trial.key not in stage.keys]
        if fresh:
            self._store.add(self._name, fresh)
            stage.keys.update(trial.key for trial in fresh)

    def _search_on(self, stage: _Stage, searching: Searching) -> None:
        if not stage.searched:
            its = {key: result for key, result in self._results.items() if result.trial.phase == stage.phase.name}
            self._add(stage, searching.advance(its))
            stage.searched = searching.done

    def _has_ended(self, stage: _Stage) -> bool:
        if stage.searching is not None and not stage.searched:
            return False
        return all(key in self._results and self._results[key].status in ENDED for key in stage.keys)

    def _is_needed(self, phase: Phase) -> bool:
        return any(phase.name in self._plan.needs(later) for later in self._plan.phases)

    def _find(self, stage: _Stage) -> Found:
        """Return what an ended phase found; raise UserError where there is nothing for those that need it."""
        its = self._plan.in_order([self._results[key] for key in stage.keys])
        best = self._plan.best_arm(stage.phase, its)
        if best is None:
            errors = sorted({result.error for result in its if result.error})
            raise UserError(
                f"phase {stage.phase.name!r}: none of its {len(its)} trials has a result, and later phases need one"
                + (f"; the first error: {errors[0]}" if errors else "")
                + ". Mend that, then give the same command with --retry-failed"
            )
        found = self._sweep._found(stage.phase, *best)
        if any(stage.phase.name in later.use.values() for later in self._plan.phases) and found.checkpoint:
            if not Path(found.path).is_dir():
                raise UserError(
                    f"phase {stage.phase.name!r}: its best checkpoint is not at {found.path}; where several machines "
                    "share a sweep, they must share its folder too (--root on a common disk)"
                )
            self._sweep._paths[found.checkpoint] = found.path
        return found

    # -- what runs ---------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start trials while there are slots and some wait."""
        while len(self._running) < self._slots and not self._interrupted():
            waiting = self._waiting()
            claim = self._store.claim(self._name, self._sweep.worker, waiting) if waiting else None
            if claim is None:
                if waiting:  # others were faster
                    self._looked = min(self._looked, time.monotonic() - LOOK_SECONDS)
                return
            self._results[claim.trial.key] = TrialResult(
                trial=claim.trial, status="running", attempts=claim.attempt, worker=self._sweep.worker
            )
            try:
                job = self._job(claim.trial)
                handle = self._engine.start(job)
            except BaseException:
                self._store.release(claim)
                raise
            self._running.append(_Running(claim, job, handle, beat=time.monotonic()))
            self._tell("began", claim.trial, self._sweep.worker)

    def _job(self, trial: Trial) -> Job:
        plan = self._plan
        progress = self._sweep.path / JOBS / f"{trial.key}.progress.json"
        progress.parent.mkdir(exist_ok=True)
        progress.unlink(missing_ok=True)
        paths = self._sweep._paths
        options = {
            "paths": {
                value: paths[value] for value in trial.settings.values() if isinstance(value, str) and value in paths
            },
            "guard": plan.guard_of(plan.phase(trial.phase)),
            "progress": str(progress),
            **self._sweep._options,
        }
        return Job(
            trial=trial, root=self._sweep.path, metric=plan.metric, better=plan.better or "higher", options=options
        )

    def _see_after(self) -> None:
        """Look at every running trial: has it ended, how far is it, is it still ours?"""
        for one in list(self._running):
            ended = one.handle.poll()
            if ended is not None:
                self._running.remove(one)
                self._end(one, ended)
                continue
            now = time.monotonic()
            if now - one.watched >= WATCH_SECONDS:
                one.watched = now
                self._watch(one)
            if now - one.beat >= min(BEAT_SECONDS, self._sweep._stale_seconds / 4) and not one.taken_away:
                one.beat = now
                if not self._store.beat(one.claim):
                    one.taken_away = True
                    one.handle.stop()

    def _watch(self, one: _Running) -> None:
        """Tell how far a trial is, and stop it when the pruner gives it up."""
        try:
            told = decode(json.loads(Path(one.job.options["progress"]).read_bytes()))
            updates, planned = int(told["updates"]), told.get("planned")
            points = _points(told["points"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # not begun, or not written just now
        self._tell("moved", one.claim.trial, updates, planned, points[-1][1] if points else None)
        if one.pruned is None and len(points) > one.progress_read:
            one.progress_read = len(points)
            self._prune(one, points)
            if one.pruned is not None:
                one.handle.stop()

    def _prune(self, one: _Running, points: tuple[Point, ...]) -> None:
        stage = self._stages[one.claim.trial.phase]
        if stage.searching is not None:
            at = stage.searching.watch(one.claim.trial, points)
            if at is not None:
                one.pruned = (at, tuple(point for point in points if point[0] <= at))

    def _end(self, one: _Running, ended: Ended) -> None:
        trial = one.claim.trial
        if one.taken_away:
            self._results[trial.key] = TrialResult(trial=trial, status="running")
            self._looked = -1e9
        elif ended.lost:
            self._store.lose(one.claim, ended.error)
            self._looked = -1e9
            self._tell("ended", TrialResult(trial=trial, status="waiting", error=ended.error))
        else:
            self._finish(one, ended)
        self._changed = True

    def _finish(self, one: _Running, ended: Ended) -> None:
        """Store what came of a trial, unless somebody else runs it by now."""
        trial = one.claim.trial
        result = ended.result or TrialResult(
            trial=trial, status="failed", error=ended.error or f"its process left with code {ended.returncode}"
        )
        if one.pruned is None and result.complete:
            self._prune(one, result.points)  # it may have been faster than the looks at it
        if one.pruned is not None:
            result = _pruned(result, *one.pruned)
        guard = self._plan.guard_of(self._plan.phase(trial.phase))
        if guard and result.points:
            result = dataclasses.replace(result, barred=Condition.parse(guard).barred(result))
        result = dataclasses.replace(result, attempts=one.claim.attempt, worker=self._sweep.worker)
        if self._store.finish(one.claim, result):
            self._results[trial.key] = result
            self._tell("ended", result)
        else:
            self._looked = -1e9

    def _tell(self, what: str, *about: Any) -> None:
        if self._sweep.progress is not None:
            getattr(self._sweep.progress, what)(*about)


def _pruned(result: TrialResult, at: int, points: tuple[Point, ...]) -> TrialResult:
    """Return a trial as one that was given up after `at` updates, however far it really came."""
    return dataclasses.replace(
        result,
        status="pruned",
        points=points,
        others={name: tuple(one for one in its if one[0] <= at) for name, its in result.others.items()},
        evaluations_again=(),
        stop_reason=f"pruned after {at} updates: arms before it were better there",
        error="",
    )


def _points(plain: Any) -> tuple[Point, ...]:
    return tuple((int(step), float(value)) for step, value in plain)


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Take SIGINT and SIGTERM as a wish to end while the block runs; a second SIGINT ends at once.

    In another thread than the main one signals are not ours; there nothing is taken.
    """
    wished: list[int] = []

    def wish(number: int, frame: FrameType | None) -> None:
        if wished and number == signal.SIGINT:
            raise KeyboardInterrupt
        wished.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, wish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(wished)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
