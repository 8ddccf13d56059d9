"""Which workers of a sweep are alive: each holds a lock on a file of its own, which the system drops with the process.

A claim of a worker that was killed need not wait until it is stale: whoever can take the lock knows that the worker has
ended. It is known only where workers share the sweep's folder, and never guessed: no file, or a file system without
locks, says nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SUFFIX = ".lock"


@contextlib.contextmanager
def alive(folder: Path, worker: str) -> Iterator[None]:
    """Hold the lock of a worker while the block runs; its file stays where the block raised.

    Args:
        folder: where the files are.
        worker: name of the worker, fit to be the name of a file.
    """
    path = folder / f"{worker}{SUFFIX}"
    file: IO[bytes] | None = None
    with contextlib.suppress(OSError):  # without the file the claims of this worker become stale
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - it is open as long as the block runs
    if file is None:
        yield
        return
    with file:
        held = _locked(file)
        yield
        if held:
            path.unlink(missing_ok=True)


def has_ended(folder: Path, worker: str) -> bool:
    """Say whether a worker is known to have ended with claims that it could not give back."""
    try:
        with open(folder / f"{worker}{SUFFIX}", "r+b") as file:
            return _locked(file)
    except OSError:
        return False


def _locked(file: IO[bytes]) -> bool:
    """Try to take the lock of an open file until it is closed; say whether it was free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
