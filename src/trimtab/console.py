"""The lines that a person sees while a training runs: Trimtab's log, on standard error, unless logging is set up."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("trimtab")


class _Fallback(logging.StreamHandler):  # type: ignore[type-arg]  # generic only in the stubs
    """Writes to whatever standard error is now, as long as the program has set up no handlers of its own."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("trimtab: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            self.stream = sys.stderr
            super().emit(record)


def speak() -> None:
    """Let the log's info lines reach standard error; calling it again changes nothing."""
    if not any(isinstance(handler, _Fallback) for handler in log.handlers):
        log.addHandler(_Fallback())
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
