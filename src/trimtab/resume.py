"""Going on with a run that ended early: which one, with which settings, from which checkpoint."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trimtab import config as plain
from trimtab.checkpoint import TrainingState
from trimtab.checkpoint.rotation import Checkpoints
from trimtab.errors import RunError, UserError
from trimtab.folder import Again
from trimtab.records import Severity
from trimtab.run import Run, find_run
from trimtab.system import System, Training

if TYPE_CHECKING:
    from trimtab.guard import Guard

log = logging.getLogger("trimtab")

FOLDER = "checkpoints"
"""Where in a run folder the checkpoints lie."""

PER_RUN = 10
"""About so many checkpoints are made in a training where nobody says how often."""
KEEP = 3
GOOD_AFTER = 8
"""So many updates after it without a fatal finding make a checkpoint good, or fewer where they are made more often."""

MOST_SHOWN = 8
"""So many differing settings are listed."""


@dataclass(slots=True)
class Place:
    """Where the loop of a training stands; a part of its checkpoints.

    Attributes:
        done: updates that the loop has taken.
        streams: stream -> the index of its latest update, as the rows of the run count them.
        update: how many updates were attempted over all streams.
    """

    done: int = 0
    streams: dict[str, int] = field(default_factory=dict)
    update: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers."""
        return {"done": self.done, "streams": dict(self.streams), "update": self.update}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self.done, self.streams, self.update = int(state["done"]), dict(state["streams"]), int(state["update"])


def run_to_resume(resume: Run | Path | str, root: Path | str | None = None) -> Run:
    """Return the run that is meant, if it can be gone on with.

    Args:
        resume: a run, its folder, the beginning of its id, or "last".
        root: the folder of runs.

    Raises:
        RunError: there is no such run, it has finished, or it is still running.
    """
    run = resume if isinstance(resume, Run) else find_run(str(resume), root)
    run.reload()
    if run.status == "finished":
        raise RunError(f"run {run.id} has finished; there is nothing to go on with. Train anew, or name another run")
    if run.status == "running":
        raise RunError(
            f"run {run.id} is still running, as process {run.facts.pid} "
            "(on another machine it cannot be seen from here whether that lives). Wait until it has ended; when you "
            'know that it has, say so: trimtab.Run(FOLDER).close_as("killed")'
        )
    if not run.facts.system:
        raise RunError(
            f"run {run.id} is no training of a System, so its loop is not known here; a loop of your own goes on with "
            "Checkpoints(FOLDER).resume(state)"
        )
    return run


def config_of(run: Run, system: System) -> Any:
    """Return the Config that a run was trained with.

    Raises:
        UserError: it trained another system, or one that had other settings then.
    """
    if system.name != run.facts.system:
        raise UserError(f"run {run.id} trained the system {run.facts.system!r}, not {system.name!r}; leave SYSTEM out")
    stored = run.config().get("config", {})
    start = system.presets.get(str(run.settings().get("preset")), next(iter(system.presets.values())))
    config = plain.of_dict(start(), stored, str(run.path / "config.yaml"))
    _same(run, stored, plain.as_dict(config), "the system has other settings today")
    return config


def check_same(run: Run, config: Any) -> None:
    """Refuse settings that are not those of the run.

    Raises:
        UserError: they differ; every difference is listed.
    """
    _same(run, run.config().get("config", {}), plain.as_dict(config), "other settings were given")


def seed_of(run: Run, seed: int | None) -> int | None:
    """Return the seed of a run.

    Raises:
        UserError: another one was given.
    """
    if seed is not None and seed != run.facts.seed:
        raise UserError(f"run {run.id} has the seed {run.facts.seed}, {seed} was given; leave the seed out")
    return run.facts.seed


def _same(run: Run, there: Mapping[str, Any], here: Mapping[str, Any], what: str) -> None:
    different = [
        f"{key}: {_shown(there, key)} there, {_shown(here, key)} here"
        for key in dict.fromkeys((*there, *here))
        if key not in there or key not in here or there[key] != here[key]
    ]
    if different:
        more = f" and {len(different) - MOST_SHOWN} more" if len(different) > MOST_SHOWN else ""
        raise UserError(
            f"run {run.id} cannot be gone on with: {what} ({'; '.join(different[:MOST_SHOWN])}{more}). Leave the "
            "preset and the settings out to go on with those of the run"
        )


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "nothing"


def state_of(training: Training, place: Place) -> TrainingState:
    """Return all that a checkpoint of a System's training holds.

    Raises:
        UserError: the batches, or a part, cannot be stored.
    """
    parts = {**training.parts, "batches": training.batches, "loop": place}
    for name, part in parts.items():
        stored = hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
        if not stored and not isinstance(part, torch.Generator | np.random.Generator | random.Random):
            raise UserError(
                f"{name!r} is a {type(part).__name__}, which has no state_dict and load_state_dict, so that no "
                "checkpoint of this training could be gone on with; "
                + ("make the batches with trimtab.batches" if name == "batches" else "give it both")
            )
    return TrainingState({"model": training.model}, training.optimizers, parts)


def parts_of(training: Training) -> dict[str, Any]:
    """Return what a Guard that goes back puts back besides models and optimizers; the loop itself goes on counting."""
    batches = training.batches
    return {**training.parts, **({"batches": batches} if hasattr(batches, "load_state_dict") else {})}


class Keeper:
    """Makes the checkpoints of a training while its loop runs.

    Args:
        training: what is stored.
        every: updates between two checkpoints.
        keep: see `Checkpoints`.

    A checkpoint that cannot be written costs a warning and not the training.
    """

    def __init__(self, training: Training, every: int, keep: int):
        self.place = Place()
        self.state = state_of(training, self.place)
        self.every, self.keep = every, keep
        self._checkpoints: Checkpoints | None = None

    def put_back(self, run: Run) -> Again:
        """Put the training back to the newest checkpoint of a run and say what a Guard has to know of that.

        Raises:
            UserError: there is no checkpoint, it is one of another training, or another process goes on with this run.
        """
        checkpoints = self._checkpoints = self._in(run.path)
        if checkpoints.resume(self.state) is None:
            passed = f" ({'; '.join(checkpoints.remarks)})" if checkpoints.remarks else ""
            raise UserError(
                f"run {run.id} cannot be gone on with: there is no checkpoint in {checkpoints.folder}{passed}. "
                "Train anew; checkpoint_every says how often one is made"
            )
        place = self.place
        return Again(run=run, steps=place.streams, update=place.update, because=f"went on after update {place.done}")

    def begin(self, guard: Guard) -> int:
        """Return how many updates were taken already; before the first one a checkpoint is made."""
        if self._checkpoints is None and guard.run_path is not None:
            self._checkpoints = self._in(guard.run_path)
            self._save(guard)
        return self.place.done

    def after(self, done: int, guard: Guard, *, last: bool) -> None:
        """Take in that an update was taken, and make a checkpoint when one is due, as after the last update."""
        self.place.done = done
        if self._checkpoints is None:
            return
        try:
            clean = all(finding.severity < Severity.FATAL for finding in guard.findings)
            self._checkpoints.mark_clean(done, clean)
        except Exception as error:  # noqa: BLE001 - no checkpoint is worth a training
            log.warning("no checkpoint could be marked good (%s); the training goes on", error)
        if self.every and (last or done % self.every == 0):
            self._save(guard)

    def keep_last(self, guard: Guard) -> None:
        """Make a checkpoint of what the training is now, in place of one after the same update that held other weights.

        An early stop puts the best weights back when the last ones may have been stored already.
        """
        if self._checkpoints is not None and self.every:
            self._save(guard, replace=True)

    def close(self) -> None:
        """Let others go on with the run."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _in(self, run: Path) -> Checkpoints:
        return Checkpoints(run / FOLDER, keep=self.keep, good_after=min(GOOD_AFTER, max(self.every, 1)))

    def _save(self, guard: Guard, *, replace: bool = False) -> None:
        assert self._checkpoints is not None
        self.place.streams, self.place.update = dict(guard.measure.streams), guard.measure.update
        try:
            self._checkpoints.save(self.state, self.place.done, replace=replace)
        except Exception as error:  # noqa: BLE001 - no checkpoint is worth a training
            log.warning("no checkpoint was made after update %d (%s); the training goes on", self.place.done, error)


def keeper_of(training: Training, every: int | None, keep: int, *, must: bool) -> Keeper | None:
    """Return who makes the checkpoints of a training; None when none are wanted, or none can be made.

    Args:
        training: what is stored.
        every: updates between two checkpoints, 0 for none; None for about ten in a training, if they can be made.
        keep: see `Checkpoints`.
        must: the training is put back from one, so that it must be possible.

    Raises:
        UserError: a number without meaning, or checkpoints are asked for and the training cannot be stored.
    """
    if every is not None and (type(every) is not int or every < 0):
        raise UserError(f"checkpoint_every: expected a whole number of updates, 0 or more, got {every!r}")
    if type(keep) is not int or keep < 1:
        raise UserError(f"keep: expected a whole number of checkpoints, 1 or more, got {keep!r}")
    if every == 0 and not must:
        return None
    try:
        return Keeper(training, max(training.steps // PER_RUN, 1) if every is None else every, keep)
    except UserError as error:
        if every is not None or must:
            raise
        log.info("no checkpoints are made: %s", error)
        return None


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Let a training draw from generators that begin with `seed`; the caller's are as before afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
