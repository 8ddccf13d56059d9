"""The run folder as a Guard writes it: made when it is needed; a disk that refuses costs lines, never the training."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import TrainingStopped
from trimtab.run import Run, RunWriter
from trimtab.run.writer import default_root

log = logging.getLogger("trimtab")

RETRY_AFTER = 256
"""After a row that could not be written, writing is tried again so many rows later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A run that has ended and is gone on with, and where its training stands that was put back from a checkpoint.

    `steps` is stream -> its latest update (-1 for none), `update` how many were attempted over all streams.
    """

    run: Run
    steps: Mapping[str, int]
    update: int
    because: str


class Folder:
    """Writes a run, or leaves it when that cannot be.

    Args:
        path: the folder, or None for a fresh one below `root`. One that exists is left alone, and a numbered neighbour
            is made.
        root: where fresh folders go.
        facts: what `RunWriter.create` stores of the run.
        opened: called with the folder once it was made.
        on_failure: called with the error, the first time that a kind of line could not be written.
    """

    def __init__(
        self,
        path: Path | None,
        root: Path | str | None,
        facts: Mapping[str, Any],
        opened: Callable[[Path], None] | None,
        on_failure: Callable[[Exception], None],
    ):
        self.writer: RunWriter | None = None
        self._path = None if path is None else path.absolute()
        self._root = (default_root() if root is None else Path(root)).absolute()
        self._facts = facts
        self._opened, self._on_failure = opened, on_failure
        self._refused = False
        self._failed: set[str] = set()
        self._rows = self._no_rows_until = 0
        self._again = False

    @property
    def path(self) -> Path | None:
        """The folder; None while none was made."""
        return self.writer.path if self.writer is not None else None

    def go_on(self, path: Path, rows: int) -> None:
        """Go on in the folder of a run that has ended, which holds so many rows."""
        self._path, self._rows, self._again = path, rows, True

    def open(self) -> None:
        """Make the folder, unless it is there or was refused before."""
        if self.writer is not None or self._refused:
            return
        path = self._path
        if path is not None and path.exists() and not self._again:
            taken, number = path, 2
            while path.exists():
                path, number = taken.with_name(f"{taken.name}-{number}"), number + 1
            log.warning("%s exists already and is left alone; this run goes to %s", taken, path)
        try:
            if path is not None and self._again:
                self.writer = RunWriter.reopen(path, self._rows)
            else:
                self.writer = RunWriter.create(self._root, path=path, **self._facts)
        except OSError as error:
            self._refused = True
            log.warning("cannot create a run folder (%s); the training is watched, but nothing is stored", error)
            return
        if self._opened is not None:
            self._opened(self.writer.path)

    def write(self, what: str, *args: Any, **kwargs: Any) -> None:
        """Call the writer's method `what`; a failure is said once, and rows are tried again some rows later."""
        if self.writer is None:
            self.open()
        if what == "row":
            self._rows += 1
            if self._rows < self._no_rows_until:
                return
        if self.writer is None:
            return
        try:
            getattr(self.writer, what)(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a full disk must not end a training
            if what == "row":
                self._no_rows_until = self._rows + RETRY_AFTER
            if what not in self._failed:
                self._failed.add(what)
                log.warning("could not write a %s to %s (%s); the training goes on", what, self.writer.path, error)
                self._on_failure(error)


def ending(error: BaseException | None) -> tuple[str, dict[str, Any]]:
    """Return the status and the facts with which a run ends that was left by `error` (None: it ran to its end)."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "finished", {}
    if isinstance(error, TrainingStopped):
        return "stopped", {"reason": str(error)}
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", {"reason": "KeyboardInterrupt"}
    if isinstance(error, SystemExit):
        return "failed", {"exit_code": error.code if isinstance(error.code, int) else 1}
    text = "".join(traceback.format_exception(error))
    return "failed", {"reason": f"{type(error).__name__}: {error}"[:2000], "traceback": text[-8000:]}
