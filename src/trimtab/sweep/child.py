"""The process of one trial: train a System or run a script under a Guard, and write what came of it.

    python -m trimtab.sweep.child JOB.json

The result goes beside the job's file. The exit code is 0 for a trial that ended, 1 for one that failed, 130 for one
that was interrupted.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import UserError
from trimtab.run import Run
from trimtab.sweep.job import Job, checkpoint_hash, result_path, write_json
from trimtab.trial import Better, Point, Status, TrialResult

if TYPE_CHECKING:
    from trimtab.checkpoint import Captured, TrainingState
    from trimtab.system import Training

BEST = "best"
"""Folder of the best weights in the run folder."""
AGAIN = 2
"""So often the best weights are evaluated anew: two show whether an evaluation repeats."""
INTERRUPTED = 130

EVERY_SECONDS = 1.0
"""So often at most the file of the progress is written between two evaluations."""

SPLITS = ("validation", "val", "valid", "test", "eval", "evaluation", "dev")
"""What a script records under one of these is a metric of other data, also where it named no direction."""

_begun = time.perf_counter()


def main(words: Sequence[str]) -> int:
    """Run the job whose file is named; return the exit code."""
    job_file, *more = words
    if more:
        die_with(int(more[0]))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is said is in the log also when it is killed
    return run(Path(job_file))


def run(job_file: Path) -> int:
    """Run the job of a file, and write its result beside it."""
    job = Job.read(job_file)
    print(f"trial {job.trial.key}: {job.trial.phase} {job.trial.arm}, seed {job.trial.seed}", flush=True)  # noqa: T201 - the first line of its own log
    trial: _OfSystem | _OfScript = _OfScript(job) if job.trial.target.endswith(".py") else _OfSystem(job)
    code = 0
    try:
        result = trial.run()
    except KeyboardInterrupt:
        result, code = trial.so_far("interrupted"), INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever a training raises is a result: it failed
        traceback.print_exc()
        result = trial.so_far(f"{type(error).__name__}: {error}".splitlines()[0][:500])
    if result.status == "failed":
        code = code or 1
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = replace(
        result,
        cpu_seconds=sum(one.ru_utime + one.ru_stime for one in spent),
        wall_seconds=time.perf_counter() - _begun,
    )
    write_json(result_path(job_file), result.as_dict())
    return code


def begin() -> None:
    """Begin to count the time of this process: called where it was forked and not started."""
    global _begun
    _begun = time.perf_counter()


def die_with(pipe: int) -> None:
    """End this process, and all that it started, as soon as nobody holds the other end of `pipe` any more.

    So no trial outlives its sweep, however that ended: another worker may run it again.
    """

    def wait() -> None:
        while os.read(pipe, 1):
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    os.set_inheritable(pipe, False)
    threading.Thread(target=wait, name="trimtab-life", daemon=True).start()


_WARDEN = "import os, sys; os.read(int(sys.argv[1]), 1); os.killpg(0, 9)"


def _leave_nothing_behind() -> None:
    """Start a process that kills this process group when this process is gone, even by SIGKILL.

    A script is a grandchild: it would go on without anybody who reads what it does.
    """
    if os.getpgrp() != os.getpid():
        return  # started by hand: the group is the shell's
    watched, _ = os.pipe()  # the other end is open as long as this process is
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: what ends the others must not end it
    try:
        subprocess.Popen([sys.executable, "-I", "-S", "-c", _WARDEN, str(watched)], pass_fds=[watched])
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(watched)


class _OfSystem:
    """Trains a System; keeps the best weights in memory while it does."""

    def __init__(self, job: Job):
        self.job = job
        self.metric = job.metric
        self.better: Better = job.better
        self.points: list[Point] = []
        self.others: dict[str, list[Point]] = {}
        self.folder: Path | None = None
        self.training: Training | None = None
        self._losses = hashlib.sha256()
        self._steps = 0
        self._built_at = math.nan
        self._best: Captured | None = None
        self._best_value = math.nan
        self._state: TrainingState | None = None
        self._progress = _Progress(job)
        self._guard = _condition(job)

    def run(self) -> TrialResult:
        from trimtab.config import as_dict
        from trimtab.sweep.plan import overrides_of
        from trimtab.sweep.settle import system_of
        from trimtab.train import resolve, train

        job = self.job
        system, preset = system_of(job.trial.target), job.trial.preset or None
        overrides = overrides_of(job.settings())
        config = as_dict(resolve(system, preset=preset, overrides=overrides))
        run = train(
            system,
            preset=preset,
            overrides=overrides,
            seed=job.trial.seed,
            root=job.runs,
            name=name_of(job),
            progress=self._updated,
            evaluated=self._evaluated,
            built=self._built,
            guard_options={**job.options.get("guard_options", {}), "opened": self._opened},
            checkpoint_every=job.options.get("checkpoint_every", 0),
        )
        train_cpu_seconds = time.process_time() - self._built_at
        self._progress.write(self._steps, self.points, now=True)
        result = _told_by(run, self.so_far(""))
        result = replace(result, train_cpu_seconds=train_cpu_seconds, config_hash=hash_of(config))
        if job.metric and not self.points and result.status != "failed":
            return replace(result, status="failed", error=_missing(job.metric, self.others))
        return replace(result, **self._keep_best(run, result, config))

    def so_far(self, error: str) -> TrialResult:
        return TrialResult(
            trial=self.job.trial,
            status="failed",
            metric=self.metric,
            better=self.better,
            points=tuple(self.points),
            others={name: tuple(points) for name, points in self.others.items()},
            run="" if self.folder is None else self.folder.name,
            losses_hash=self._losses.hexdigest()[:16] if self._steps else "",
            steps=self._steps,
            error=error,
        )

    def _opened(self, folder: Path) -> None:
        self.folder = folder

    def _built(self, training: Training) -> None:
        self.training = training
        self._progress.planned = training.steps
        self._built_at = time.process_time()

    def _updated(self, done: int, planned: int, loss: float) -> None:
        self._losses.update(struct.pack("<qd", done, loss if not math.isnan(loss) else math.nan))
        self._steps = done
        self._progress.write(done, self.points)

    def _evaluated(self, done: int, metrics: Mapping[str, float]) -> None:
        named = {f"validation/{name}": float(value) for name, value in metrics.items()}
        if self.metric not in named and f"validation/{self.metric}" in named:
            self.metric = f"validation/{self.metric}"
        for name, value in named.items():
            points = self.points if name == self.metric else self.others.setdefault(name, [])
            points.append((done, value))
        self._progress.write(done, self.points, now=True)
        value = named.get(self.metric, math.nan)
        if self._is_best(value) and (self._guard is None or self._guard.holds(named)):
            self._best_value = value
            self._remember()

    def _is_best(self, value: float) -> bool:
        if math.isnan(self._best_value) or not math.isfinite(value):
            return math.isfinite(value)
        return value < self._best_value if self.better == "lower" else value > self._best_value

    def _remember(self) -> None:
        """Copy the weights, and what else changes with them, as they are now."""
        from trimtab.checkpoint import TrainingState

        assert self.training is not None
        if self._state is None:
            self._state = TrainingState({"model": self.training.model}, None, self.training.parts)
        self._best = self._state.capture(self._best)

    def _keep_best(self, run: Run, result: TrialResult, config: Mapping[str, Any]) -> dict[str, Any]:
        """Put the best weights back, evaluate them anew and store them; return what the result says of it."""
        training, state, best = self.training, self._state, self._best
        if training is None or state is None or best is None:
            return {}
        from trimtab.checkpoint import Measured, save
        from trimtab.resume import own_random_numbers

        with own_random_numbers(self.job.trial.seed):
            state.restore(best, data=False)
            name = self.metric.removeprefix("validation/")
            again = tuple(float(training.evaluate()[name]) for _ in range(int(self.job.options.get("again", AGAIN))))
        facts: dict[str, Any] = {
            "metrics": {self.metric: Measured(value=self._best_value, noise=_noise((self._best_value, *again)))},
            "config": config, "seed": self.job.trial.seed, "step": result.best_step,
        }  # fmt: skip
        path = run.path / BEST
        try:
            save(path, state, captured=best, **facts)
        except UserError:  # a part that cannot be stored: the weights can
            save(path, training.model, **facts)
        return {"evaluations_again": again, "checkpoint": BEST, "checkpoint_hash": checkpoint_hash(path)}


class _OfScript:
    """Runs a training script under `trimtab watch`, and reads its run."""

    def __init__(self, job: Job):
        self.job = job
        self._before = self._folders()
        self._progress = _Progress(job)

    def run(self) -> TrialResult:
        job = self.job
        _leave_nothing_behind()
        words = [sys.executable, "-m", "trimtab", "watch", "--quiet", "--fail-on", "never", "--root", str(job.runs)]
        process = subprocess.Popen([*words, "--name", name_of(job), job.trial.target, *arguments_of(job)])
        try:
            code = self._wait(process)
        except KeyboardInterrupt:  # it was sent to the script as well
            process.wait()
            raise
        folder = self._folder()
        if folder is None:
            raise UserError(
                f"{job.trial.target} ended with code {code} and no training was seen: no optimizer of torch took a step"
            )
        result = self._read(folder)
        if code and result.status != "failed":
            return replace(result, status="failed", error=f"the script ended with code {code}")
        return result

    def so_far(self, error: str) -> TrialResult:
        failed = TrialResult(
            trial=self.job.trial, status="failed", metric=self.job.metric, better=self.job.better, error=error
        )
        folder = self._folder()
        if folder is None:
            return failed
        try:
            return replace(self._read(folder), status="failed", error=error)
        except UserError:
            return replace(failed, run=folder.name)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        pause = 0.02  # at first, for scripts that end at once
        while True:
            try:
                return process.wait(pause)
            except subprocess.TimeoutExpired:
                pause = min(2 * pause, EVERY_SECONDS) if not self._progress.wanted else EVERY_SECONDS
            if self._progress.wanted and (folder := self._folder()) is not None:
                read = _Metrics.of(Run(folder), self.job)
                self._progress.write(read.updates, read.points, now=True)

    def _folders(self) -> set[str]:
        try:
            return {path.name for path in self.job.runs.iterdir()}
        except FileNotFoundError:
            return set()

    def _folder(self) -> Path | None:
        """Return the run of this trial: the first that came since it began and bears its name."""
        for name in sorted(self._folders() - self._before):
            path = self.job.runs / name
            try:
                if Run(path).facts.name == name_of(self.job):
                    return path
            except UserError:
                continue
        return None

    def _read(self, folder: Path) -> TrialResult:
        run, job = Run(folder), self.job
        read = _Metrics.of(run, job)
        settings = run.settings()
        arguments = settings.get("arguments") or dict(job.trial.settings)
        result = TrialResult(
            trial=job.trial,
            status="failed",
            metric=read.metric or job.metric,
            better=read.better,
            points=tuple(read.points),
            others={name: tuple(points) for name, points in read.others.items()},
            run=folder.name,
            losses_hash=read.losses_hash,
            steps=read.updates,
            config_hash=hash_of({name: value for name, value in arguments.items() if name != "seed"}),
        )
        result = _told_by(run, result)
        if not result.points and result.status != "failed":
            return replace(result, status="failed", error=_missing(job.metric, read.seen))
        return result


class _Metrics:
    """What the rows of a run say about its metrics and its losses."""

    def __init__(self, metric: str, better: Better):
        self.metric, self.better = metric, better
        self.points: list[Point] = []
        self.others: dict[str, list[Point]] = {}
        self.seen: dict[str, list[Point]] = {}
        self.updates = 0
        self.losses_hash = ""

    @classmethod
    def of(cls, run: Run, job: Job) -> _Metrics:
        """Read them. A row's `update` is how many updates had been taken when its values were measured."""
        directions: dict[str, Better] = {}
        for note in run.notes():
            if note.kind == "metric" and note.facts.get("better") in ("higher", "lower"):
                directions[note.text] = "lower" if note.facts["better"] == "lower" else "higher"
        losses = hashlib.sha256()
        seen: dict[str, list[Point]] = {}
        updates = 0
        for row in run.rows():
            values = row.values
            if "backward_calls" in values:
                updates = row.update + 1
            if "backward_calls" in values and isinstance(loss := values.get("loss"), float):
                losses.update(struct.pack("<qd", updates, math.nan if math.isnan(loss) else loss))
            for name, value in values.items():
                if "/" in name and isinstance(value, float):
                    seen.setdefault(name, []).append((row.update, value))
        found = cls(_meant(job.metric, directions, seen), job.better)
        if found.metric and not job.metric:
            found.better = directions[found.metric]
        found.seen, found.updates = seen, updates
        found.points = seen.get(found.metric, [])
        found.others = {
            name: points
            for name, points in seen.items()
            if name != found.metric and (name in directions or name.partition("/")[0] in SPLITS)
        }
        found.losses_hash = losses.hexdigest()[:16] if updates else ""
        return found


class _Progress:
    """Writes how far a trial is, where somebody wants to know."""

    def __init__(self, job: Job):
        where = job.options.get("progress")
        self._path = Path(where) if where else None
        self._next = 0.0
        self.planned: int | None = None

    @property
    def wanted(self) -> bool:
        return self._path is not None

    def write(self, updates: int, points: Sequence[Point], *, now: bool = False) -> None:
        if self._path is None or (not now and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + EVERY_SECONDS
        try:
            write_json(self._path, {"updates": updates, "planned": self.planned, "points": list(points)})
        except OSError:  # a full disk costs the live table its numbers, and the trial nothing
            self._path = None


def name_of(job: Job) -> str:
    """Return the name of a trial's run: phase, arm and seed."""
    return "-".join(part for part in (job.trial.phase, job.trial.arm, f"seed {job.trial.seed}") if part)


def arguments_of(job: Job) -> list[str]:
    """Return the words that follow a script.

    A setting becomes `--key value`; true becomes `--key` and false `--no-key`, as `argparse.BooleanOptionalAction`
    wants them; null is left out; a list becomes `--key one two`. `--seed N` comes last. The option "argv" of the job
    replaces all of it.
    """
    given = job.options.get("argv")
    if given is not None:
        return [str(word) for word in given]
    words = []
    for key, value in {**job.settings(), "seed": job.trial.seed}.items():
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        elif isinstance(value, list | tuple):
            words += [f"--{key}", *map(_word, value)]
        else:
            words += [f"--{key}", _word(value)]
    return words


def hash_of(config: Mapping[str, Any]) -> str:
    """Return the hash of a resolved configuration, 16 hexadecimal digits."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _told_by(run: Run, result: TrialResult) -> TrialResult:
    """Add what the run folder says: how it ended, what was found, which code it was."""
    facts = run.facts
    worst: dict[str, Any] = {}
    from trimtab.records import Severity

    for finding in run.findings():
        if finding.severity >= Severity.WARNING:
            worst[finding.code] = max(finding.severity, worst.get(finding.code, finding.severity))
    reason = str((facts.how or {}).get("reason", ""))
    status: Status = "finished" if facts.status == "finished" else "stopped" if facts.status == "stopped" else "failed"
    return replace(
        result,
        status=status,
        findings=tuple((code, str(worst[code])) for code in sorted(worst, key=lambda code: (-worst[code], code))),
        stop_reason=reason if status == "stopped" else "",
        error=(reason or f"its run is {facts.status!r}") if status == "failed" else "",
        code="" if facts.git is None else facts.git.commit + ("+" if facts.git.dirty else ""),
    )


def _meant(metric: str, directions: Mapping[str, Better], seen: Mapping[str, Any]) -> str:
    """Return the recorded name of the metric that is meant; empty if there is none, or more than one could be."""
    if metric:
        if metric in seen:
            return metric
        alike = [name for name in seen if name.partition("/")[2] == metric]
        return alike[0] if len(alike) == 1 else ""
    return next(iter(directions)) if len(directions) == 1 else ""


def _missing(metric: str, seen: Mapping[str, Any]) -> str:
    wanted = f"the metric {metric!r} was never recorded" if metric else "no metric, or more than one, has a direction"
    return f"{wanted}; recorded: {', '.join(sorted(seen)) or 'nothing'}"


def _condition(job: Job) -> Any:
    text = job.options.get("guard")
    if not text:
        return None
    from trimtab.sweep.plan import Condition

    return Condition.parse(text)


def _noise(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return max(finite) - min(finite)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
