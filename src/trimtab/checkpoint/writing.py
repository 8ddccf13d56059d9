"""A folder that is there whole or not at all.

Files are written into a temporary folder beside the target, each is forced to the disk, then the folder is renamed and
its parent forced to the disk. Whoever dies on the way leaves a folder whose name begins with a dot, and what was there
before stays as it was.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trimtab.checkpoint import strict_json
from trimtab.errors import CheckpointError

FORMAT = 1
"""Number of the format that is written; docs/checkpoints.md describes it."""

MANIFEST, STATE, MODEL, TRAINING, GOOD = (
    "manifest.json", "state.json", "model.safetensors", "optimizer.safetensors", "GOOD",
)  # fmt: skip
LISTED = (MODEL, TRAINING, STATE)
"""The files that a manifest lists, all of them always."""


class NewFolder:
    """A folder while it is written: `file` for each of its files."""

    def __init__(self, path: Path):
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}

    def file(self, name: str, fill: Callable[[Callable[[memoryview | bytes], Any]], Any]) -> Any:
        """Write one file, forced to the disk, and list it; return what `fill` returned.

        Args:
            name: of the file.
            fill: is given a function that takes the bytes, piece by piece.
        """
        digest, size = hashlib.sha256(), 0
        with open(self.path / name, "xb") as file:

            def put(piece: memoryview | bytes) -> None:
                nonlocal size
                file.write(piece)
                digest.update(piece)
                size += len(piece)

            result = fill(put)
            file.flush()
            os.fsync(file.fileno())
        self.entries[name] = {"size": size, "sha256": digest.hexdigest()}
        return result


@contextmanager
def new_folder(target: Path) -> Iterator[NewFolder]:
    """Write a folder that appears under its name, with its manifest, when the block ends without an error.

    Raises:
        CheckpointError: the target exists, or the disk is full, read-only or gone. Nothing half-written stays, and
            nothing that was there is touched.
    """
    temporary = target.parent / temporary_name(target.name)
    try:
        _refuse_existing(target)
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        folder = NewFolder(temporary)
        yield folder
        manifest = {"format": FORMAT, "files": dict(sorted(folder.entries.items()))}
        folder.file(MANIFEST, lambda put: put(strict_json.dumps(manifest)))
        sync(temporary)
        _refuse_existing(target)
        # An empty folder of that name would be replaced without a word; a full one makes this fail.
        os.rename(temporary, target)
        try:
            sync(target.parent)
        except OSError:
            os.rename(target, temporary)  # what the disk did not take must not look as if it had
            raise
    except OSError as error:
        raise explained(error, target) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)


def temporary_name(name: str) -> str:
    """Return the name of the temporary folder of this process for a folder called `name`."""
    return f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def writer_of(temporary: str) -> int | None:
    """Return the id of the process that writes, or wrote, a temporary folder; None when it is none by its name."""
    parts = temporary.split(".")
    if not temporary.startswith(".") or len(parts) < 4 or parts[-1] != "tmp":
        return None
    process = parts[-2].partition("-")[0]
    return int(process) if process.isdecimal() else None


def sync(folder: Path) -> None:
    """Force the entries of a folder to the disk, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise CheckpointError(f"{target}: this exists already and is never written over; choose another name")


def explained(error: OSError, target: Path) -> CheckpointError:
    """Return what a refusal of the disk means for a checkpoint, and what to do."""
    if isinstance(error, FileExistsError | NotADirectoryError) and (above := _file_above(target)) is not None:
        return CheckpointError(f"{target}: {above} is a file; nothing was stored; choose another folder")
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return CheckpointError(
            f"{target}: another process wrote a checkpoint of this name meanwhile; it was left as it is, "
            f"and this one was not stored"
        )
    why = f"{error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why, what = f"the disk is full ({why}{_free(target)})", "make room, or keep fewer checkpoints"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        why, what = f"the folder cannot be written to ({why})", "choose a folder that can be written to"
    else:
        why, what = f"the checkpoint could not be written ({why})", "see to the disk, then save again"
    return CheckpointError(f"{target}: {why}; nothing was stored and nothing that was there was touched; {what}")


def _file_above(target: Path) -> Path | None:
    """Return what stands where a folder is wanted, the target itself or one above it."""
    return next((path for path in (target, *target.parents) if path.is_file()), None)


def _free(target: Path) -> str:
    with suppress(OSError):
        return f", {shutil.disk_usage(target.parent).free / 1e6:.0f} MB free"
    return ""
