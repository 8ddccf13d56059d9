"""Reading a checkpoint that may be damaged or hostile: every byte is checked against the manifest, nothing is run."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trimtab.checkpoint import strict_json, tensor_file
from trimtab.checkpoint.description import DescribedModel, described_models
from trimtab.checkpoint.tree import place, unflatten
from trimtab.checkpoint.writing import FORMAT, GOOD, LISTED, MANIFEST, MODEL, STATE, TRAINING
from trimtab.errors import CheckpointError, UserError

LARGEST_JSON = 256 * 1024 * 1024
"""Bytes of a manifest or a state.json; larger ones are refused before they are read."""

KEYS = {
    "format", "step", "created", "versions", "seed", "models", "config", "metrics", "facts", "finite", "training",
}  # fmt: skip
"""What stands in state.json; anything else is refused."""

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One file as the manifest lists it."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All of a checkpoint, checked.

    `models`: name -> description. `tensors`: model -> its tensors by name, ties once. `training` has what optimizers,
    parts and random numbers need, by key, and `state` is what state.json says.
    """

    path: Path
    files: tuple[Listed, ...]
    state: Mapping[str, Any]
    models: Mapping[str, DescribedModel]
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    training: Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a checkpoint says of itself, without its tensors: state.json is checked, the others only by their size."""

    path: Path
    files: tuple[Listed, ...]
    good: bool
    state: Mapping[str, Any]
    models: Mapping[str, DescribedModel]


def read_header(path: Path | str) -> Header:
    """Read manifest and state of a checkpoint.

    Raises:
        CheckpointError: there is none, or it is damaged; the message names the file.
    """
    folder = Path(path)
    files = _manifest(folder)
    state = _state(folder, files[STATE])
    return Header(
        path=folder, files=tuple(files.values()), good=(folder / GOOD).is_file(), state=state,
        models=_described(folder, state),
    )  # fmt: skip


def read(path: Path | str) -> Contents:
    """Read and check all of a checkpoint: sizes, hashes of files, names, shapes, dtypes and hash of every tensor.

    Raises:
        CheckpointError: there is none, or it is damaged; the message names the file.
    """
    header = read_header(path)
    files = {listed.name: listed for listed in header.files}
    raw = {name: _checked(header.path, files[name]) for name in (MODEL, TRAINING)}
    weights, training = (tensor_file.read(raw[name], str(header.path / name)) for name in (MODEL, TRAINING))
    return Contents(
        path=header.path, files=header.files, state=header.state, models=header.models,
        tensors=_by_model(header, weights, training), training=training,
    )  # fmt: skip


def plain(header: Header | Contents, key: str) -> Any:
    """Return an entry of state.json that holds a nest: config, metrics, facts.

    Raises:
        CheckpointError: it is malformed.
    """
    try:
        return unflatten(header.state[key], {})
    except UserError as error:
        raise CheckpointError(f"{header.path / STATE}: {key!r}: {error}") from None


def metrics_of(header: Header | Contents) -> dict[str, dict[str, Any]]:
    """Return the stored metrics: name -> value, noise and mode.

    Raises:
        CheckpointError: they are malformed.
    """
    found = plain(header, "metrics")
    for one in found.values() if isinstance(found, dict) else (None,):
        if (
            not isinstance(one, dict)
            or one.keys() != {"value", "noise", "mode"}
            or not all(type(one[key]) in (int, float) for key in ("value", "noise"))
        ):
            raise CheckpointError(f"{header.path / STATE}: a metric is {one!r:.80}; use another checkpoint")
    return dict(found)


def read_file(path: Path, largest: int) -> bytearray:
    """Return the bytes of a regular file, refusing links, pipes and what is larger than `largest` before reading.

    Raises:
        CheckpointError: it is missing, no regular file, or too large.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise CheckpointError(f"{path}: this is a link or no regular file, and is not followed; use a copy")
        # A pipe that is put there in between must not make this wait.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise CheckpointError(f"{path}: this is a link or no regular file, and is not followed; use a copy")
            if facts.st_size > largest:
                raise CheckpointError(f"{path}: it has {facts.st_size} bytes, at most {largest} were expected")
            raw = bytearray(facts.st_size)
            view, filled = memoryview(raw), 0
            while filled < len(raw):
                count = file.readinto(view[filled:])
                if not count:
                    raise CheckpointError(f"{path}: it became shorter while it was read; read it again")
                filled += count
            return raw
    except FileNotFoundError:
        raise CheckpointError(f"{path}: this file is missing; the checkpoint is not whole, use another one") from None
    except OSError as error:
        raise CheckpointError(f"{path}: it cannot be read: {error.strerror or error}") from None


def _manifest(folder: Path) -> dict[str, Listed]:
    try:
        is_folder = folder.is_dir()
    except OSError as error:
        raise CheckpointError(f"{folder}: it cannot be read: {error.strerror or error}") from None
    if not is_folder:
        raise CheckpointError(
            f"{folder}: "
            + ("this is a file; a checkpoint is a folder" if folder.is_file() else "there is no such folder")
            + "; give the folder that holds manifest.json"
        )
    path = folder / MANIFEST
    if not path.exists() and not path.is_symlink():
        inside = sorted(entry.name for entry in folder.iterdir() if (entry / MANIFEST).is_file())
        hint = f"; it holds the checkpoints {', '.join(inside[:5])}" if inside else ""
        raise CheckpointError(f"{folder}: this is no checkpoint, it has no {MANIFEST}{hint}")
    manifest = strict_json.loads(bytes(read_file(path, LARGEST_JSON)), str(path))

    def refused(why: str) -> CheckpointError:
        return CheckpointError(f"{path}: {why}; the manifest is not one that save writes, use another checkpoint")

    if not isinstance(manifest, dict) or "format" not in manifest:
        raise refused("it has no format number")
    check_format(manifest["format"], path)
    if manifest.keys() != {"format", "files"} or not isinstance(manifest["files"], dict):
        raise refused(f"it has the entries {sorted(manifest)}, expected format and files")
    for name in manifest["files"]:
        if os.path.isabs(name) or any(mark in name for mark in ("/", "\\", "\0")) or name in ("", ".", ".."):
            raise refused(f"it lists {name!r}, which leads out of the checkpoint")
    if set(manifest["files"]) != set(LISTED):
        raise refused(f"it lists {sorted(manifest['files'])}, expected {sorted(LISTED)}")
    listed = {name: _listed(name, entry, refused) for name, entry in manifest["files"].items()}
    there = {entry.name for entry in folder.iterdir()}
    extra = sorted(there - {*LISTED, MANIFEST, GOOD})
    if extra:
        raise refused(f"the folder holds {', '.join(map(repr, extra))}, which the manifest does not list")
    for one in listed.values():
        file = folder / one.name
        if not file.exists() and not file.is_symlink():
            raise CheckpointError(f"{file}: this file is missing; the checkpoint is not whole, use another one")
        size = os.lstat(file).st_size
        if not file.is_symlink() and size != one.size:
            raise CheckpointError(
                f"{file}: it has {size} bytes, the manifest says {one.size}: it was cut off or changed; "
                f"use another checkpoint"
            )
    return listed


def _listed(name: str, entry: Any, refused: Any) -> Listed:
    if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
        raise refused(f"the entry of {name!r} is not a size and a hash")
    size, digest = entry["size"], entry["sha256"]
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise refused(f"the size or the hash of {name!r} is none")
    return Listed(name=name, size=size, sha256=digest)


def check_format(number: Any, path: Path) -> None:
    """Raise CheckpointError unless this format can be read."""
    if type(number) is not int or number < 1:
        raise CheckpointError(f"{path}: the format number is {number!r}; use another checkpoint")
    if number > FORMAT:
        raise CheckpointError(f"{path}: it has format {number}, this Trimtab reads up to {FORMAT}; install a newer one")


def _checked(folder: Path, listed: Listed) -> bytearray:
    path = folder / listed.name
    raw = read_file(path, listed.size)
    if len(raw) != listed.size or hashlib.sha256(raw).hexdigest() != listed.sha256:
        raise CheckpointError(
            f"{path}: its content is not what the manifest says (sha256 {listed.sha256[:12]}...): it was changed or "
            f"damaged; use another checkpoint"
        )
    return raw


def _state(folder: Path, listed: Listed) -> dict[str, Any]:
    path = folder / STATE
    if listed.size > LARGEST_JSON:
        raise CheckpointError(
            f"{path}: it has {listed.size} bytes, {LARGEST_JSON} is the limit; use another checkpoint"
        )
    state = strict_json.loads(bytes(_checked(folder, listed)), str(path))
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: it is no object; use another checkpoint")
    check_format(state.get("format"), path)
    if state.keys() != KEYS:
        raise CheckpointError(f"{path}: it has the entries {sorted(state)}, expected {sorted(KEYS)}")
    return state


def _described(folder: Path, state: Mapping[str, Any]) -> dict[str, DescribedModel]:
    try:
        return described_models(state["models"])
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        why = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{folder / STATE}: the description of a model is damaged: {why}") from None


def _by_model(
    header: Header, weights: Mapping[str, torch.Tensor], training: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, torch.Tensor]]:
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    named: set[str] = set()
    for name, model in header.models.items():
        mine = tensors[name] = {}
        for called, one in model.tensors.items():
            if one.tied_to is not None:
                continue
            # Buffers that are not persistent lie beside the weights, which are a state_dict as others read it.
            path = header.path / (MODEL if one.persistent else TRAINING)
            key = model.prefix + called if one.persistent else place("model", name, called)
            tensor = (weights if one.persistent else training).get(key)
            if tensor is None:
                raise CheckpointError(f"{path}: {key!r} is missing, {STATE} names it; use another checkpoint")
            if (tuple(tensor.shape), tensor.dtype) != (one.shape, one.dtype):
                raise CheckpointError(f"{path}: {key!r} has another shape or dtype than {STATE} says")
            if tensor_file.sha256(tensor) != one.sha256:
                raise CheckpointError(f"{path}: {key!r} has another content than {STATE} says; use another checkpoint")
            mine[called] = tensor
            if one.persistent:
                named.add(key)
    if named != weights.keys():
        raise CheckpointError(f"{header.path / MODEL}: {STATE} does not name {sorted(weights.keys() - named)[:5]}")
    return tensors
