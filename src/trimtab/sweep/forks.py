"""A server that has its imports done, and forks a process for every trial.

The server imports; it computes nothing and starts no thread, so that a fork of it is as good as an interpreter that did
the same imports. Where that is not so (an import started a thread, or a GPU), it starts an interpreter instead. It
reads requests from a socket, a line of JSON each, and answers with the process and, later, its exit code. It ends when
the socket does, and its trials then end with the sweep.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.sweep.job import Job

_LINES = 65536
_IMPORTS = ("trimtab.train", "trimtab.checkpoint", "trimtab.run.models", "torch._dynamo")
"""What the trials of a System need; torch itself imports the last one when the first optimizer is made."""


class Server:
    """The server, as the sweep's process sees it.

    Args:
        life: the reading end of a pipe; trials end when nobody holds the other end.
        environment: of the trials.
        log: where the server's own output goes.
    """

    def __init__(self, life: int, environment: Mapping[str, str], log: Path):
        self._socket, theirs = socket.socketpair()
        with theirs, open(log, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trimtab.sweep.forks", str(theirs.fileno()), str(life)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                pass_fds=[theirs.fileno(), life], env=dict(environment),
            )  # fmt: skip
        self._lines = b""
        self._forked: dict[int, Forked] = {}
        self._count = 0
        self.alive = True

    def start(self, job: Job, job_file: Path) -> Forked:
        """Have a trial forked; wait until it is there."""
        self._count += 1
        forked = self._forked[self._count] = Forked(self)
        request = {
            "number": self._count, "job": str(job_file), "log": str(job.log),
            "target": "" if job.trial.target.endswith(".py") else job.trial.target,
        }  # fmt: skip
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while forked.pid == 0 and self.alive:
                self.hear(wait=True)
        except OSError:
            self._gone()
        return forked

    def hear(self, *, wait: bool = False) -> None:
        """Take in what the server has said."""
        self._socket.setblocking(wait)
        while self.alive:
            try:
                said = self._socket.recv(_LINES)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                self._gone()
                return
            *lines, self._lines = (self._lines + said).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                forked = self._forked[answer["number"]]
                forked.pid = answer.get("pid", forked.pid)
                if "code" in answer:
                    forked.code = answer["code"]
                    del self._forked[answer["number"]]
            if wait:
                return

    def close(self) -> None:
        """End the server, and what it still has running."""
        self._socket.close()
        self.alive = False
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _gone(self) -> None:
        self.alive = False
        for forked in self._forked.values():
            forked.lost = True
            forked.code = -signal.SIGKILL
        self._forked = {}


class Forked:
    """A process that the server forked; `pid` is 0 until it is there."""

    def __init__(self, server: Server):
        self._server = server
        self.pid = 0
        self.code: int | None = None
        self.lost = False

    def poll(self) -> int | None:
        """Return its code, negative for a signal; None while it runs."""
        if self.code is None:
            self._server.hear()
        return self.code


def serve(requests: socket.socket, life: int) -> None:
    """Fork a process for every request, until the other side is gone; then end what runs."""
    running: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    lines = b""
    while True:
        ready = {key.fd for key, _ in selector.select()}
        if woken in ready:
            os.read(woken, _LINES)
            for number, code in _left(running):
                _answer(requests, number=number, code=code)
        if requests.fileno() not in ready:
            continue
        said = requests.recv(_LINES)
        if not said:
            break
        *whole, lines = (lines + said).split(b"\n")
        for line in whole:
            request = json.loads(line)
            _import(request["target"])
            pid = _begin(request, life, [requests.fileno(), woken, wake, selector.fileno()])
            running[pid] = request["number"]
            _answer(requests, number=request["number"], pid=pid)
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _import(target: str) -> None:
    """Import what a System needs, for every trial to come; its own failures are for the trial to report."""
    if not target:
        return
    try:
        from trimtab.sweep.settle import system_of

        for module in _IMPORTS:
            importlib.import_module(module)

        system_of(target)
    except Exception:  # the trial will meet the same error, and say it in its own log
        logging.getLogger("trimtab").debug("import of %s failed", target, exc_info=True)
    gc.collect()
    gc.freeze()  # what was imported is never looked at by the collectors of the trials, and stays shared memory


def _begin(request: Mapping[str, Any], life: int, ours: list[int]) -> int:
    """Fork the process of a trial, or start an interpreter where a fork is not as good; return its number."""
    if not _may_fork():
        from trimtab.sweep.engine import CHILD

        with open(request["log"], "ab") as log:
            return subprocess.Popen(
                [sys.executable, *CHILD, request["job"], str(life)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[life],
            ).pid  # fmt: skip
    pid = os.fork()
    if pid:
        _lead_group(pid)  # both do it, so that it is done for whoever comes first
        return pid
    code = 1
    try:
        code = _trial(request, life, ours)
    except BaseException:  # noqa: BLE001 - nothing may return into the server's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _trial(request: Mapping[str, Any], life: int, ours: list[int]) -> int:
    """Be the process of a trial."""
    _lead_group(os.getpid())
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in ours:
        os.close(descriptor)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    from trimtab.sweep import child

    child.begin()
    try:
        return child.main([request["job"], str(life)])
    finally:
        atexit._run_exitfuncs()


def _may_fork() -> bool:
    if threading.active_count() > 1:
        return False
    torch = sys.modules.get("torch")
    return torch is None or not torch.cuda.is_initialized()


def _left(running: dict[int, int]) -> list[tuple[int, int]]:
    """Return number and code of every trial that has left, and forget it."""
    left = []
    while running:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        if pid in running:
            left.append((running.pop(pid), os.waitstatus_to_exitcode(status)))
    return left


def _answer(requests: socket.socket, **answer: int) -> None:
    try:
        requests.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:  # the other side is gone, which the loop is about to see
        logging.getLogger("trimtab").debug("nobody heard %s", answer)


def _lead_group(pid: int) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        os.setpgid(pid, pid)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
