"""The exceptions that Trimtab raises on purpose.

    TrimtabError
    |-- UserError (also ValueError)   what a user gave us cannot be used; the message says what to do
    |   |-- ConfigError               an unknown or wrong setting
    |   |-- RunError                  a run folder that is missing, ambiguous or damaged
    |   `-- CheckpointError           a checkpoint that is damaged, does not fit, or cannot be written
    `-- TrainingStopped               a response stopped the training on purpose

Everything else that goes wrong inside Trimtab while a training runs is caught, noted and never reaches the user's loop.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrimtabError(Exception):
    """Root of the exceptions that Trimtab raises on purpose."""


class UserError(TrimtabError, ValueError):
    """What a user gave us cannot be used."""


class ConfigError(UserError):
    """A setting is unknown or has the wrong type."""


class RunError(UserError):
    """A run folder is missing, ambiguous, damaged or of a newer format."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of a newer format, does not fit the model, or cannot be written."""


class TrainingStopped(TrimtabError):
    """A response stopped the training; the message is the finding's summary."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean ...?' with the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
