"""Tensors from files of others: a plain state_dict that torch.save wrote, or a safetensors file."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trimtab.checkpoint import tensor_file
from trimtab.checkpoint.reading import read_file
from trimtab.errors import CheckpointError

LARGEST = 64 * 1024**3
"""Bytes that a file may have, and that may come out of it."""

MOST_RATIO = 100
"""So many times larger than in the file an entry may become; torch itself does not compress at all."""

NESTED = ("state_dict", "model_state_dict", "model", "net", "module", "weights")
"""Under which keys other tools put the weights when they store more than these."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_plain(path: Path | str, key: str | None = None, *, largest: int = LARGEST) -> dict[str, torch.Tensor]:
    """Return the tensors of a `.pt`, `.pth` or `.safetensors` file by name, on the CPU; nothing in it is run.

    Args:
        path: the file. What it is, its content says and not its name.
        key: the entry of the stored dict that holds the state_dict, where it cannot be told.
        largest: bytes that may come out of the file at most.

    Raises:
        CheckpointError: it is missing, damaged, too large, holds objects that are no tensors, or would have to be
            unpacked to very much more than it is.
    """
    where = Path(path)
    raw = read_file(where, largest)
    if raw[8:9] == b"{" and not raw.startswith(b"PK"):
        return tensor_file.read(raw, str(where))
    if raw.startswith(b"PK\x03\x04"):
        _check_zip(where, raw, largest)
    return _state_dict(where, _unpacked(where, raw), key)


def _check_zip(where: Path, raw: bytearray, largest: int) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError) as error:
        raise CheckpointError(f"{where}: the zip file is damaged: {error}; use another file") from None
    total = sum(entry.file_size for entry in entries)
    bombs = [entry for entry in entries if entry.file_size > MOST_RATIO * max(entry.compress_size, 1)]
    # Entries that share their bytes give more than the file without any compression.
    if bombs or total > min(largest, MOST_RATIO * len(raw)):
        raise CheckpointError(
            f"{where}: its {len(raw)} bytes would become {total}"
            + (f", {bombs[0].filename!r} alone {bombs[0].file_size}" if bombs else "")
            + f"; more than {MOST_RATIO} times as much, or {largest} bytes, is not unpacked"
        )
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{where}: the zip file lists an entry twice; use another file")


def _unpacked(where: Path, raw: bytearray) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - damaged files raise nearly anything
        what = _GLOBAL.search(str(error))
        why = f"it holds {what[1]}, and to open that would run code" if what else _first_line(error)
        raise CheckpointError(
            f"{where}: this is no plain state_dict: {why}; where it comes from, store it again with "
            f"torch.save(model.state_dict(), path)"
        ) from None


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    # torch advises to open the file without its protection; that advice is not passed on.
    text = text if "weights_only" not in text else "it cannot be read as tensors alone"
    return f"{type(error).__name__}: {text}"


def _state_dict(where: Path, found: Any, key: str | None) -> dict[str, torch.Tensor]:
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{where}: expected a state_dict, found a {type(found).__name__}")
    if key is not None:
        if not isinstance(found.get(key), Mapping):
            raise CheckpointError(f"{where}: there is no state_dict under {key!r}; there are {_keys(found)}")
        found = found[key]
    elif not all(isinstance(value, torch.Tensor) for value in found.values()):
        nested = [one for one in NESTED if isinstance(found.get(one), Mapping)]
        if len(nested) != 1:
            raise CheckpointError(f"{where}: which entry is the state_dict? Say key=; there are {_keys(found)}")
        found = found[nested[0]]
    odd = [name for name, value in found.items() if not isinstance(name, str) or not isinstance(value, torch.Tensor)]
    if odd or not found:
        what = f"{odd[0]!r} is no tensor" if odd else "it is empty"
        raise CheckpointError(f"{where}: this is no state_dict: {what}")
    return {name: value.detach() for name, value in found.items()}


def _keys(found: Mapping[Any, Any]) -> str:
    return ", ".join(f"{key!r} ({type(value).__name__})" for key, value in list(found.items())[:20])
