"""What a sweep and an engine say to each other: the job of one trial, how it ended, and what an engine can do.

An engine runs jobs somewhere: in processes of this machine (`engine.py`) or on a cluster (`trimtab.integrations.ray`).
Whoever runs it, the process of a trial is `child.py`, which reads a job's file and writes its result beside it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trimtab.run.codec import decode, encode
from trimtab.trial import Better, Trial, TrialResult

RUNS, JOBS, LOGS = "runs", "jobs", "logs"
"""Folders of a sweep: run folders, job files with their results, output of the processes."""

GRACE = 10.0
"""Seconds that a trial gets to close its run after SIGINT, before SIGTERM."""
LAST_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

_TAIL = 4096


@dataclass(frozen=True, kw_only=True)
class Job:
    """One trial that shall be run.

    Attributes:
        trial: the plan.
        root: the folder of the sweep; the same on every machine that runs a part of it.
        metric: what is judged, as it is recorded ("validation/accuracy"); empty: the only one with a direction.
        better: which direction of it is good.
        options: how it is run, plain values of JSON:

            - "paths": value of a setting -> what stands for it on this machine, such as the folder of a checkpoint.
            - "guard": a condition such as "validation/coverage > 0.99": the best weights are chosen where it holds.
            - "progress": a file that is rewritten while it runs: `{"updates", "planned", "points"}`.
            - "argv": the words after a script, in place of those that the settings give.
            - "guard_options": keyword arguments of the Guard of a System.
            - "again": how often the best weights are evaluated anew; twice by default.
            - "checkpoint_every": updates between two checkpoints to go on from; by default none are made.
    """

    trial: Trial
    root: Path
    metric: str = ""
    better: Better = "higher"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        """Where run folders go."""
        return self.root / RUNS

    @property
    def log(self) -> Path:
        """Where the output of its process goes, one attempt after the other."""
        return self.root / LOGS / f"{self.trial.key}.txt"

    def settings(self) -> dict[str, Any]:
        """Return the settings of the trial with the paths of this machine in them."""
        paths = self.options.get("paths", {})
        return {
            key: paths.get(value, value) if isinstance(value, str) else value
            for key, value in self.trial.settings.items()
        }

    def write(self) -> Path:
        """Write the job's file, under a name that no other attempt has, and return its path."""
        for folder in (RUNS, JOBS, LOGS):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        path = self.root / JOBS / f"{self.trial.key}-{secrets.token_hex(3)}.json"
        plain = {
            "trial": self.trial.as_dict(), "root": str(self.root.absolute()), "metric": self.metric,
            "better": self.better, "options": dict(self.options),
        }  # fmt: skip
        write_json(path, plain)
        return path

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read a job's file."""
        plain = decode(json.loads(path.read_bytes()))
        return cls(**{**plain, "trial": Trial(**plain["trial"]), "root": Path(plain["root"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the process of a trial ended.

    Attributes:
        returncode: 0 for a result; negative for the signal that killed it.
        result: what came of the trial, a failure included; None if it was lost, or stopped before it could say.
        error: one line; empty if nothing went wrong.
        lost: it ended with its machine or its engine, so that nothing is known about the trial itself.
    """

    returncode: int
    result: TrialResult | None = None
    error: str = ""
    lost: bool = False


class Handle(Protocol):
    """A trial that was started."""

    def poll(self) -> Ended | None:
        """Return how it ended; None while it runs. It never waits."""
        ...

    def stop(self, grace: float = GRACE) -> None:
        """Ask it to end and return at once; `poll` goes on to SIGTERM after `grace` seconds, and then to SIGKILL."""
        ...


class Engine(Protocol):
    """Runs jobs, at most `slots` at once: to keep to that is the caller's part."""

    @property
    def slots(self) -> int:
        """How many trials may run at once."""
        ...

    def start(self, job: Job) -> Handle:
        """Start a job and return at once.

        Raises:
            UserError: it cannot be started.
        """
        ...

    def close(self) -> None:
        """Kill what still runs, and give everything back."""
        ...


def result_path(job_file: Path) -> Path:
    """Return where the result of a job's file goes."""
    return job_file.with_suffix(".result.json")


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    """Write plain values, whole or not at all; NaN and infinities as words."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(encode(plain), allow_nan=False), encoding="utf-8")
    os.replace(temporary, path)


def ended_as(job: Job, job_file: Path, returncode: int, *, stopped: bool, otherwise: str = "") -> Ended:
    """Return how a trial ended whose process has left, from what it wrote.

    Args:
        job: the job.
        job_file: its file.
        returncode: negative for a signal.
        stopped: it was asked to end.
        otherwise: what is known of the reason where it wrote no result; by default what its log says.
    """
    try:
        result = TrialResult.from_dict(decode(json.loads(result_path(job_file).read_bytes())))
    except FileNotFoundError:
        pass
    except (TypeError, ValueError, KeyError) as error:
        return _failed(job, returncode, f"its result cannot be read: {error}")
    else:
        return Ended(returncode=returncode, result=result, error=result.error)
    if stopped:
        return Ended(returncode=returncode, error="interrupted")
    if otherwise:
        return _failed(job, returncode, otherwise)
    last = last_line(job.log)
    if returncode < 0:
        how = f"killed by {_signal_name(-returncode)}"
    else:
        how = f"its process left with code {returncode} and without a result"
    return _failed(job, returncode, f"{how}; it said last: {last}" if last else how)


def checkpoint_hash(path: Path) -> str:
    """Return the content hash of the weights in a checkpoint."""
    files = json.loads((path / "manifest.json").read_bytes())["files"]
    return str(files["model.safetensors"]["sha256"])[:16]


def last_line(log: Path) -> str:
    """Return the last line of a process's output, at most 300 characters; empty if it said nothing."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _failed(job: Job, returncode: int, error: str) -> Ended:
    result = TrialResult(
        trial=job.trial, status="failed", metric=job.metric, better=job.better, error=error, points=_points_so_far(job)
    )
    return Ended(returncode=returncode, result=result, error=error)


def _points_so_far(job: Job) -> tuple[tuple[int, float], ...]:
    try:
        found = decode(json.loads(Path(job.options["progress"]).read_bytes()))["points"]
        return tuple((int(step), float(value)) for step, value in found)
    except (KeyError, OSError, TypeError, ValueError):
        return ()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
