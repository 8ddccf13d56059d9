"""A folder of checkpoints: the newest few, and always the last one that is known to be good.

    checkpoints = Checkpoints("runs/a/checkpoints", keep=3, good_after=20)
    for step in range(checkpoints.resume(state) or 0, 10_000):
        ...                                                            # one update
        checkpoints.mark_clean(step + 1, clean=math.isfinite(loss))
        if (step + 1) % 100 == 0:
            checkpoints.save(state, step + 1)

A checkpoint is good when so many updates went well after it and it was read back whole; the empty file GOOD in its
folder says so. A process may be killed at any moment: what is half written or half deleted has a name that begins with
a dot, and the next writer clears it away.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from trimtab.checkpoint import loading
from trimtab.checkpoint.planning import compare
from trimtab.checkpoint.reading import read
from trimtab.checkpoint.saving import save
from trimtab.checkpoint.source import open_source
from trimtab.checkpoint.state import TrainingState
from trimtab.checkpoint.writing import GOOD, explained, sync
from trimtab.errors import CheckpointError, UserError

try:
    import fcntl
except ImportError:  # not a POSIX system: there two writers are not told from one another
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

log = logging.getLogger("trimtab")

LOCK = ".lock"
GONE = ".gone-"
"""How the name of a checkpoint begins that is being deleted."""

_NAME = re.compile(r"step-(\d{12,})")
_LEFT = re.compile(r"\.step-\d{12,}\.\d+-[0-9a-f]+\.tmp|\.gone-step-\d{12,}-\d+")
"""What a writer that was killed may leave; nothing else in the folder is ours to clear away."""
_held: dict[tuple[int, str], weakref.ref[Checkpoints]] = {}
"""(process, folder) -> who writes there; locks of the system do not tell objects of one process apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One checkpoint of a folder, as its name and its mark say; nothing in it was looked at."""

    path: Path
    step: int
    good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What came of saving: the folder of the checkpoint, or why none was made."""

    path: Path | None
    refused: str = ""


class Checkpoints:
    """Saves, marks, deletes and finds the checkpoints of one training.

    Args:
        folder: where they lie; made when the first is saved. A relative one is below the working directory of now.
        keep: so many of the newest are kept, and the newest good one whatever its age.
        good_after: a checkpoint is good once so many steps after it were clean.

    Attributes:
        remarks: what was passed over while looking for a checkpoint, and why.

    Reading needs no lock. The first call that writes takes one, which ends with the process or with `close`.

    Raises:
        UserError: `keep` or `good_after` is no whole number or below 1.
    """

    def __init__(self, folder: Path | str, keep: int = 3, good_after: int = 8):
        if any(type(number) is not int or number < 1 for number in (keep, good_after)):
            raise UserError(f"expected whole numbers keep >= 1 and good_after >= 1, got {keep!r} and {good_after!r}")
        self.folder = Path(folder).absolute()
        self.keep, self.good_after = keep, good_after
        self.remarks: list[str] = []
        self._pending: dict[int, Path] = {}
        self._whole: set[Path] = set()
        self._lock: weakref.finalize[..., Checkpoints] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- reading -------------------------------------------------------------------------------------------------

    def all(self) -> list[Stored]:
        """Return the checkpoints, the newest first."""
        if not self.folder.is_dir():
            return []
        found = ((path, _NAME.fullmatch(path.name)) for path in self.folder.iterdir())
        stored = [Stored(path=p, step=int(m[1]), good=(p / GOOD).exists()) for p, m in found if m is not None]
        return sorted(stored, key=lambda one: one.step, reverse=True)

    def newest_good(self) -> Path | None:
        """Return the newest good checkpoint whose every byte is as it was written, or None; see `remarks`."""
        return next(self._intact(good=True), None)

    def newest(self) -> Path | None:
        """Return the newest good checkpoint, or where none is good the newest that is whole, or None."""
        return self.newest_good() or next(self._intact(good=False), None)

    def resume(self, state: TrainingState, **how: Any) -> int | None:
        """Put a training back to its newest checkpoint, and let go of those that were made after it.

        Damaged ones are not deleted but renamed: `damaged-step-...`. A setting of the model that changes while it
        trains, such as the probability of a dropout, must be as it was once all parts are put back.

        Args:
            state: the training as it was set up anew.
            how: further arguments of `trimtab.checkpoint.resume`, such as `config` and `override`.

        Returns:
            The step that was given to `save`, or None, and nothing is changed, when there is no checkpoint.

        Raises:
            UserError: the checkpoint is one of another training, or another process writes into this folder.
        """
        self.acquire()
        path = self.newest()
        if path is None:
            return None
        moved = _moved(path, state, {})
        override = {**dict.fromkeys(moved, ...), **how.pop("override", {})}
        loading.resume(path, state, **how, override=override)
        still = _moved(path, state, how)
        still = {key: words for key, words in still.items() if key not in override or override[key] is ...}
        if still:
            raise CheckpointError(
                f"{path}: settings of the model had other values then, and no part of the training brings them back: "
                f"{'; '.join(still.values())}. Build the model with the stored values, give what changes them to "
                "`parts`, or accept the present ones with override"
            )
        step = step_of(path)
        for one in self.all():  # they belong to a past that will come otherwise, or again
            if one.step > step and damage(one.path) is None:
                self._delete(one.path)
            elif one.step > step:  # somebody may want to see what is left of it
                self._put_aside(one.path)
        self._pending = {one.step: one.path for one in self.all() if one.step == step and not one.good}
        return step

    def _intact(self, *, good: bool) -> Iterator[Path]:
        for one in self.all():
            if one.good or not good:
                why = damage(one.path)
                if why is None:
                    yield one.path
                else:
                    self._remark(f"{one.path.name} was passed over: {why}")

    # -- writing -------------------------------------------------------------------------------------------------

    def save(self, state: TrainingState, step: int, *, replace: bool = False, **facts: Any) -> Saved:
        """Store a training and delete what is too old.

        Args:
            state: the training.
            step: how many updates were taken; becomes the name.
            replace: delete a checkpoint of this step that is there already.
            facts: further arguments of `trimtab.checkpoint.save`, such as `metrics` and `config`.

        Returns:
            The folder; or why nothing was stored: weights that are not finite are never taken.

        Raises:
            UserError: there is a checkpoint of this step already and it is not to be replaced, something cannot be
                stored, or another process writes into this folder.
            CheckpointError: the disk refused; the checkpoints that are there stay.
        """
        self.acquire()
        why = not_finite(state)
        if why:
            log.warning("no checkpoint at step %s: %s", step, why)
            return Saved(path=None, refused=why)
        path = self.folder / f"step-{step:012d}"
        if replace and path.exists():
            self._delete(path)
        save(path, state, step=step, **facts)
        self._pending[step] = path
        self._rotate()
        return Saved(path=path)

    def mark_clean(self, step: int, clean: bool = True) -> list[Path]:
        """Say that all updates up to `step` went well, or that this one did not.

        A checkpoint after which an update did not go well before it was good never becomes good.

        Returns:
            The checkpoints that have become good. One whose mark the disk refuses is tried again the next time.
        """
        if not clean:
            self._pending.clear()
            return []
        ready = [at for at in self._pending if step >= at + self.good_after]
        made = []
        for at in sorted(ready):
            path = self._pending[at]
            why = None if path in self._whole else damage(path)
            if why is not None:
                del self._pending[at]
                self._remark(f"{path.name} cannot be marked good: {why}")
                continue
            self.acquire()
            self._whole.add(path)
            try:
                _touch(path / GOOD)
            except OSError as error:
                self._remark(f"{path.name} cannot be marked good yet: {error.strerror or error}")
                continue
            del self._pending[at]
            made.append(path)
        if made:
            self._rotate()
        return made

    def acquire(self) -> None:
        """Become the only writer of this folder, and clear away what a killed one left half done.

        Raises:
            UserError: somebody else is; the message names the process.
        """
        if self._lock is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, self.folder) from error
        key = (os.getpid(), str(self.folder.resolve()))
        other = _held[key]() if key in _held else None
        if other is not None:
            raise CheckpointError(
                f"{self.folder}: this process writes there already, through other Checkpoints; use those, or close them"
            )
        try:
            lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise explained(error, self.folder) from error
        try:
            if fcntl is not None:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                said = os.read(lock, 4096).decode(errors="replace")
                os.close(lock)
                raise CheckpointError(
                    f"{self.folder}: another process writes there ({said.strip() or 'it has not said which'}); wait "
                    "until it has ended, or give this training a folder of its own"
                ) from None
            self._remark(f"{self.folder}: this disk knows no locks ({error.strerror}); let one process write there")
        os.ftruncate(lock, 0)
        os.write(lock, f"pid {os.getpid()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode())
        _held[key] = weakref.ref(self)
        self._lock = weakref.finalize(self, _release, lock, key)
        for left in self.folder.iterdir():
            if _LEFT.fullmatch(left.name):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others write; this object may go on, and asks for the lock again then."""
        release, self._lock = self._lock, None
        if release is not None:
            release()

    def _rotate(self) -> None:
        stored = self.all()
        last_good = None
        for one in stored:
            if one.good and self._is_whole(one.path):
                last_good = one.path
                break
        for one in stored[self.keep :]:
            if one.path != last_good and not (one.good and last_good is None):
                self._delete(one.path)
                self._pending.pop(one.step, None)

    def _is_whole(self, path: Path) -> bool:
        """Say whether a checkpoint is as it was written; looked at once, before an older good one may go."""
        if path not in self._whole and damage(path) is None:
            self._whole.add(path)
        return path in self._whole

    def _delete(self, path: Path) -> None:
        gone = path.with_name(f"{GONE}{path.name}-{os.getpid()}")
        os.replace(path, gone)
        self._whole.discard(path)
        shutil.rmtree(gone, ignore_errors=True)

    def _put_aside(self, path: Path) -> None:
        number = 1
        while (aside := path.with_name(f"damaged-{path.name}-{number}")).exists():
            number += 1
        os.replace(path, aside)

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)
            log.warning("%s", text)


def _moved(path: Path, state: TrainingState, how: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of models that are not as they were stored: key -> words."""
    source = open_source(path)
    found: dict[str, str] = {}
    for name, model in state.models.items():
        if name in source.models:
            build = how.get("build")
            build = build.get(name) if isinstance(build, Mapping) else build
            plan = compare(source, model, name=name, build=build, config=how.get("config"), constants=False)
            found.update((one.key, one.words) for one in plan.settings if one.source == "module")
    return found


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path.name!r} is no name of a checkpoint in a rotation; expected step-<12 digits>")
    return int(match[1])


def not_finite(state: TrainingState) -> str:
    """Return what in a training is not finite and would ruin it, or an empty string.

    Parameters must be finite. Buffers and the states of optimizers may hold infinities, as masks do, but no NaN.
    """
    names: list[str] = []
    flags: list[torch.Tensor] = []

    def look(name: str, tensor: torch.Tensor, *, infinity: bool) -> None:
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.layout == torch.strided:
            values = tensor.detach().float() if tensor.dtype.itemsize == 1 else tensor.detach()
            bad = values.isnan() if infinity else ~values.isfinite()
            names.append(name)
            flags.append(bad.any())

    for model_name, model in state.models.items():
        for name, parameter in model.named_parameters():
            look(f"parameter {name!r} of {model_name!r}", parameter, infinity=False)
        for name, buffer in model.named_buffers():
            look(f"buffer {name!r} of {model_name!r}", buffer, infinity=True)
    called = state.parameter_names()
    for stream, optimizer in state.optimizers.items():
        for parameter in (one for group in optimizer.param_groups for one in group["params"] if id(one) not in called):
            look(f"a parameter of optimizer {stream!r}", parameter, infinity=False)
        for held, kept in optimizer.state.items():
            for name, value in kept.items() if isinstance(kept, dict) else ():
                if isinstance(value, torch.Tensor):
                    of = called.get(id(held), "a parameter")
                    look(f"{name!r} of {of!r} in optimizer {stream!r}", value, infinity=True)
    if not flags:
        return ""
    broken = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()
    wrong = [name for name, bad in zip(names, broken, strict=True) if bad]
    if not wrong:
        return ""
    return f"{wrong[0]} is not finite" + (f", and {len(wrong) - 1} more tensors" if len(wrong) > 1 else "")


def _touch(path: Path) -> None:
    """Make an empty file that is on the disk when this returns."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    sync(path.parent)


def _release(lock: int, key: tuple[int, str]) -> None:
    """Give a lock back, unless this is a forked child, whose copy of it is none."""
    if os.getpid() == key[0]:
        _held.pop(key, None)
        os.close(lock)


def damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, None when every byte is as it was written."""
    try:
        read(path)
    except (CheckpointError, OSError) as error:
        return str(error)
    return None
