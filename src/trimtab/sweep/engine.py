"""Trials as processes of this machine.

Each trial is a process of its own, in a process group of its own, with its output in a log. Where it can be, it is
forked from a server that has imported torch and the System already (`forks.py`), for these imports take seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trimtab.errors import UserError
from trimtab.sweep.job import GRACE as GRACE
from trimtab.sweep.job import LAST_GRACE, Ended, ended_as
from trimtab.sweep.job import Engine as Engine
from trimtab.sweep.job import Handle as Handle
from trimtab.sweep.job import Job as Job

if TYPE_CHECKING:
    from trimtab.sweep.forks import Server

THREADS = "OMP_NUM_THREADS"
CHILD = ("-m", "trimtab.sweep.child")
SERVER_LOG = "server.txt"
"""What the server of forks says, among the logs; as a rule nothing."""


class Process(Protocol):
    """A process that leads a process group."""

    @property
    def pid(self) -> int:
        """Its number, and that of its group."""
        ...

    def poll(self) -> int | None:
        """Return its code, negative for a signal; None while it runs."""
        ...

    @property
    def lost(self) -> bool:
        """Whether how it ended cannot be known."""
        ...


class LocalEngine:
    """Runs trials as processes of this machine.

    Args:
        slots: how many at once; the usable cores by default.
        fresh: start a Python interpreter for every trial, in place of forking one that has its imports done. The
            results are the same; by default only where forking is not to be trusted (not on Linux).

    A trial gets as many threads as there are cores for each slot, unless OMP_NUM_THREADS says otherwise. When the
    process that has this engine ends in whatever way, so do its trials.
    """

    def __init__(self, slots: int | None = None, *, fresh: bool | None = None):
        cores = usable_cores()
        if slots is not None and slots < 1:
            raise UserError(f"slots: expected how many trials may run at once, 1 or more, got {slots}")
        self.slots = cores if slots is None else slots
        self.fresh = sys.platform != "linux" if fresh is None else fresh
        self._threads = max(1, cores // self.slots)
        self._running: list[_Running] = []
        self._server: Server | None = None
        self._life: tuple[int, int] | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, job: Job) -> Handle:
        """Start a job and return at once; see `Engine`."""
        path = job.write()
        if self._life is None:
            self._life = os.pipe()
        begin_log(job)
        handle = _Running(job, path, self._spawn(job, path) if self.fresh else self._fork(job, path))
        self._running = [one for one in self._running if one.ended is None]
        self._running.append(handle)
        return handle

    def close(self) -> None:
        """Kill what still runs, wait for it, and end the server."""
        for handle in self._running:
            handle.kill()
        self._running = []
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._life is not None:
            for end in self._life:
                os.close(end)
            self._life = None

    def _spawn(self, job: Job, path: Path) -> Process:
        assert self._life is not None
        try:
            with open(job.log, "ab") as log:
                return Spawned(
                    [sys.executable, *CHILD, str(path), str(self._life[0])],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    pass_fds=[self._life[0]], env=environment_of(self._threads),
                )  # fmt: skip
        except OSError as error:
            raise UserError(f"trial {job.trial.key} cannot be started: {error.strerror or error}") from None

    def _fork(self, job: Job, path: Path) -> Process:
        from trimtab.sweep.forks import Server

        assert self._life is not None
        if self._server is None or not self._server.alive:
            if self._server is not None:
                self._server.close()
            self._server = Server(self._life[0], environment_of(self._threads), job.log.parent / SERVER_LOG)
        return self._server.start(job, path)


class Spawned(subprocess.Popen[bytes]):
    """A Python interpreter of its own."""

    lost = False


class _Running:
    """A trial in a process group of this machine."""

    def __init__(self, job: Job, job_file: Path, process: Process):
        self.job = job
        self.ended: Ended | None = None
        self._file, self._process = job_file, process
        self._escalation: list[tuple[float, int]] = []
        self._stopped = False

    def poll(self) -> Ended | None:
        """Return how it ended; None while it runs."""
        if self.ended is not None:
            return self.ended
        code = self._process.poll()
        if code is None:
            while self._escalation and time.monotonic() >= self._escalation[0][0]:
                send(self._process.pid, self._escalation.pop(0)[1])
            return None
        send(self._process.pid, signal.SIGKILL)  # what it started and left behind
        if self._process.lost:
            self.ended = Ended(returncode=code, error="the server that it was forked from is gone", lost=True)
        else:
            self.ended = ended_as(self.job, self._file, code, stopped=self._stopped)
        return self.ended

    def stop(self, grace: float = GRACE) -> None:
        """Ask it to end and return at once; see `Handle`."""
        if self._stopped or self.poll() is not None:
            return
        self._stopped = True
        now = time.monotonic()
        self._escalation = [(now + grace, signal.SIGTERM), (now + grace + LAST_GRACE, signal.SIGKILL)]
        send(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        self._stopped = True
        while self.poll() is None:
            send(self._process.pid, signal.SIGKILL)
            time.sleep(0.01)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment_of(threads: int) -> dict[str, str]:
    """Return the environment of a trial: one that says how many threads, and in which order sets are walked."""
    return {THREADS: str(threads), "PYTHONHASHSEED": "0", **os.environ}


def begin_log(job: Job) -> None:
    """Say in the log of a trial that another attempt begins."""
    with open(job.log, "a", encoding="utf-8") as log:
        log.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")


def send(group: int, number: int) -> None:
    """Send a signal to a process group; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
