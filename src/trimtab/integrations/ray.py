"""The trials of a sweep on a Ray cluster: `trimtab sweep ... --engine ray`.

Every trial is a Ray task that runs the same process as `LocalEngine(fresh=True)` does, on whichever node has a core
free. All nodes must see the sweep's folder under the same path, and have Trimtab installed.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from trimtab.errors import UserError
from trimtab.sweep.engine import CHILD, THREADS, Spawned, begin_log, environment_of, send
from trimtab.sweep.job import GRACE, LAST_GRACE, Ended, Handle, Job, ended_as

LOOK_SECONDS = 0.05
"""Between two looks of a task at its process."""
CANCEL_SECONDS = 5.0
"""A task whose process should be gone for so long is ended by Ray itself."""


class RayEngine:
    """Runs trials as tasks of a Ray cluster; a `trimtab.sweep.Sweep` takes it as `engine`.

    Args:
        address: of a running cluster, as `ray.init` takes it ("auto" finds the one of this machine); None starts one on
            this machine, unless RAY_ADDRESS names one or this process is connected already.
        slots: how many trials at once; the cores of the cluster by default.

    A trial whose node or task dies has an end with `lost` set, so that the sweep runs it again. Each has one core and
    one thread, unless OMP_NUM_THREADS says otherwise.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str | None = None, slots: int | None = None):
        if slots is not None and slots < 1:
            raise UserError(f"slots: expected how many trials may run at once, 1 or more, got {slots}")
        self._ray = _import()
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _connect(self._ray, address)
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        self.slots = slots or max(cores, 1)
        # A trial that was lost is the sweep's to run again: Ray's own retries would not count it.
        self._task = self._ray.remote(num_cpus=1, max_retries=0)(_run)
        self._running: list[_Task] = []

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, job: Job) -> Handle:
        """Hand a job to the cluster and return at once; see `Engine`."""
        path = job.write()
        begin_log(job)
        threads = os.environ.get(THREADS, "1")
        reference = self._task.remote(str(path), str(job.log.absolute()), os.getcwd(), threads)
        handle = _Task(self._ray, job, path, reference)
        self._running = [one for one in self._running if one.ended is None]
        self._running.append(handle)
        return handle

    def close(self) -> None:
        """Kill what still runs, and leave the cluster; one that was started here ends."""
        for handle in self._running:
            handle.kill()
        self._running = []
        if self._ours:
            self._ray.shutdown()
            self._ours = False


class _Task:
    """A trial on the cluster."""

    def __init__(self, ray: ModuleType, job: Job, job_file: Path, reference: Any):
        self.job = job
        self.ended: Ended | None = None
        self._ray, self._file, self._reference = ray, job_file, reference
        self._cancel_at: float | None = None

    def poll(self) -> Ended | None:
        """Return how it ended; None while it runs or waits for a core."""
        if self.ended is not None:
            return self.ended
        stopped = self._cancel_at is not None
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            if self._cancel_at is not None and time.monotonic() > self._cancel_at:
                self._ray.cancel(self._reference, force=True)
            return None
        try:
            code = self._ray.get(self._reference)
        except self._ray.exceptions.RayTaskError as error:  # the node could not even start it
            last = str(error).strip().splitlines()[-1][:300]
            self.ended = ended_as(self.job, self._file, 1, stopped=stopped, otherwise=f"its node cannot run it: {last}")
        except self._ray.exceptions.RayError as error:
            if stopped:
                self.ended = ended_as(self.job, self._file, -signal.SIGKILL, stopped=True)
            else:
                why = f"its Ray task is gone ({type(error).__name__})"
                self.ended = Ended(returncode=-signal.SIGKILL, error=why, lost=True)
        else:
            self.ended = ended_as(self.job, self._file, code, stopped=stopped)
        return self.ended

    def stop(self, grace: float = GRACE) -> None:
        """Ask it to end and return at once; see `Handle`."""
        if self._cancel_at is None and self.poll() is None:
            _stop_file(self._file).write_text(str(grace), encoding="utf-8")
            self._cancel_at = time.monotonic() + grace + LAST_GRACE + CANCEL_SECONDS

    def kill(self) -> None:
        """End it at once: with its task goes its process."""
        if self.poll() is None:
            self._cancel_at = time.monotonic()
            self._ray.cancel(self._reference, force=True)
            self._ray.wait([self._reference], timeout=CANCEL_SECONDS)
            self.poll()


def _run(job_file: str, log: str, folder: str, threads: str) -> int:
    """Be the task: run the process of a trial on this node, and return its code."""
    end, ours = os.pipe()  # the process ends when this one does: nobody else holds `ours`
    try:
        with open(log, "ab") as output:
            process = Spawned(
                [sys.executable, *CHILD, job_file, str(end)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, pass_fds=[end],
                cwd=folder if os.path.isdir(folder) else None, env={**environment_of(1), THREADS: threads},
            )  # fmt: skip
        stop = _stop_file(Path(job_file))
        signals: list[tuple[float, int]] | None = None
        while (code := process.poll()) is None:
            if signals is None and stop.exists():
                now, grace = time.monotonic(), float(stop.read_text(encoding="utf-8") or GRACE)
                signals = [
                    (now, signal.SIGINT),
                    (now + grace, signal.SIGTERM),
                    (now + grace + LAST_GRACE, signal.SIGKILL),
                ]
            while signals and time.monotonic() >= signals[0][0]:
                send(process.pid, signals.pop(0)[1])
            time.sleep(LOOK_SECONDS)
        send(process.pid, signal.SIGKILL)  # what it started and left behind
        return code
    finally:
        os.close(end)
        os.close(ours)


def _stop_file(job_file: Path) -> Path:
    """Return the file that asks a task to end; the folder of the sweep is all that every node sees."""
    return job_file.with_suffix(".stop")


def _import() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UserError(
            f"the engine 'ray' needs Ray, which is not installed ({error}); pip install 'trimtab[ray]'"
        ) from None
    module: ModuleType = ray
    return module


def _connect(ray: ModuleType, address: str | None) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="ray")  # of Ray, about Ray
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"at {address!r}" if address else "on this machine"
        raise UserError(
            f"no Ray cluster {where} ({error}); start one with `ray start --head`, or leave the address out"
        ) from None
