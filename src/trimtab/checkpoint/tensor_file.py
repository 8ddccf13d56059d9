"""Tensors in a file, in the safetensors format: eight bytes of length, a JSON header, the bytes of the tensors.

The format is that of https://github.com/huggingface/safetensors (README, "Format"), so that every tool that knows it
reads these files. It is read and written here, because the bytes that are hashed must be the bytes that are used, and
the header of a hostile file must meet the same strict JSON reader as everything else.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import torch

from trimtab.checkpoint import strict_json
from trimtab.checkpoint.tree import DTYPES
from trimtab.errors import CheckpointError

LONGEST_HEADER = 100_000_000
"""Bytes of a header; the limit of the format."""

NAMES: dict[torch.dtype, str] = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.uint16: "U16",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.uint32: "U32", torch.float32: "F32",
    torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64",
}  # fmt: skip
"""dtype -> its name in the format. Others are stored as bytes with one more dimension, and named in `VIEWED`."""

KINDS = {name: dtype for dtype, name in NAMES.items()}

VIEWED = "trimtab.viewed"
"""Key in the header's metadata: JSON of tensor name -> dtype, for tensors that stand there as bytes."""

_CHUNK = 1 << 24


def sha256(tensor: torch.Tensor) -> str:
    """Return the hash of a tensor's content: its elements in order, little-endian, without shape and dtype."""
    digest = hashlib.sha256()
    digest.update(_bytes(tensor))
    return digest.hexdigest()


def write(tensors: Mapping[str, torch.Tensor], put: Callable[[memoryview | bytes], Any]) -> dict[str, str]:
    """Write tensors, each moved to the CPU when its turn has come; return their hashes by name.

    Args:
        tensors: dense tensors by name.
        put: takes the bytes of the file, piece by piece.
    """
    # Large elements first, so that every tensor stands at a multiple of its element size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    viewed: dict[str, str] = {}
    begin = 0
    for name in order:
        tensor = tensors[name]
        end = begin + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        kind = NAMES.get(tensor.dtype)
        if kind is None:
            kind, shape = "U8", [*shape, tensor.element_size()]
            viewed[name] = str(tensor.dtype).removeprefix("torch.")
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    metadata = {"format": "pt"}
    if viewed:
        metadata[VIEWED] = strict_json.dumps(viewed, indent=None).decode("ascii")
    text = strict_json.dumps({"__metadata__": metadata, **header}, indent=None)
    text += b" " * (-len(text) % 8)
    put(struct.pack("<Q", len(text)))
    put(text)
    hashes = {}
    for name in order:
        content = _bytes(tensors[name])
        hashes[name] = hashlib.sha256(content).hexdigest()
        for start in range(0, len(content), _CHUNK):
            put(content[start : start + _CHUNK])
    return hashes


def read(raw: bytearray, where: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file whose bytes were read; they share its memory.

    Args:
        raw: all of the file.
        where: its name, for messages.

    Raises:
        CheckpointError: this is no safetensors file, or a damaged one.
    """

    def refused(why: str) -> CheckpointError:
        return CheckpointError(f"{where}: {why}; use another checkpoint")

    if raw[8:9] != b"{":
        other = looks_like(bytes(raw[:8]))
        if other is not None:
            raise refused(
                f"this is {other} and no safetensors file; it is not opened, for that could run what is in it"
            )
        raise refused(f"this is no safetensors file, or one that is cut off ({len(raw)} bytes)")
    length = struct.unpack_from("<Q", raw)[0]
    if length > min(LONGEST_HEADER, len(raw) - 8):
        raise refused(f"its header claims {length} bytes; the file has {len(raw)}, and {LONGEST_HEADER} is the limit")
    header = strict_json.loads(bytes(raw[8 : 8 + length]), where)
    if not isinstance(header, dict):
        raise refused("its header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refused("the metadata in its header are not texts")
    viewed = strict_json.loads(metadata[VIEWED].encode(), where) if VIEWED in metadata else {}
    data = memoryview(raw)[8 + length :]
    tensors: dict[str, torch.Tensor] = {}
    reached = 0
    try:
        for name, entry in sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0])):
            dtype, shape, begin, end = _entry(entry)
            if begin != reached or end > len(data):
                raise ValueError(f"{name!r} stands at {begin}..{end}, where {reached} and at most {len(data)} is meant")
            reached = end
            tensors[name] = _tensor(data[begin:end], dtype, shape)
            if name in viewed:
                kind = DTYPES[viewed[name]]
                if dtype is not torch.uint8 or kind in NAMES or not shape or shape[-1] != kind.itemsize:
                    raise ValueError(f"{name!r} cannot be bytes of {viewed[name]!r}")
                tensors[name] = tensors[name].clone().view(kind).reshape(shape[:-1])
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise refused(f"its header is damaged: {error}") from None
    if reached != len(data):
        raise refused(f"{len(data) - reached} bytes at its end belong to no tensor")
    return tensors


def looks_like(beginning: bytes) -> str | None:
    """Return what a file is, by its first bytes, when it is one that must not be opened as tensors."""
    if beginning.startswith(b"PK\x03\x04"):
        return "a zip file, as torch.save writes it"
    if len(beginning) >= 2 and beginning[0] == 0x80 and 2 <= beginning[1] <= 5:
        return "a pickle"
    if beginning.startswith(b"\x1f\x8b"):
        return "a compressed file"
    return None


def _entry(entry: Any) -> tuple[torch.dtype, list[int], int, int]:
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"an entry has the keys {sorted(entry)}")
    dtype, shape = KINDS[entry["dtype"]], entry["shape"]
    begin, end = entry["data_offsets"]
    numbers = [*shape, begin, end]
    if not isinstance(shape, list) or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError(f"the shape {shape!r} or the place {begin!r}..{end!r} is not made of whole numbers")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"shape {tuple(shape)} of {dtype} needs other than the {end - begin} bytes it has")
    return dtype, shape, begin, end


def _tensor(content: memoryview, dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    if not content:
        return torch.empty(shape, dtype=dtype)
    tensor = torch.frombuffer(content, dtype=torch.uint8)
    if tensor.data_ptr() % dtype.itemsize:
        tensor = tensor.clone()
    return tensor.view(dtype).reshape(shape)


def _bytes(tensor: torch.Tensor) -> memoryview:
    plain = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous().reshape(-1)
    if not plain.numel():
        return memoryview(b"")
    content: Any = plain.view(torch.uint8).numpy()
    return memoryview(content)
