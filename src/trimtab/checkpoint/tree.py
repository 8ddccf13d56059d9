"""Take a nest of plain values and tensors apart into tensors by path and strict JSON, and put it together again.

What JSON cannot say stands as an object with one key that begins with a tilde:

    {"~tuple": [0.9, 0.999]}      {"~float": "nan"}      {"~dict": [[0, "zero"]]}      {"~tensor": "exp_avg"}

Nothing is pickled, so that nothing is executed when it is read; what has no form here is refused by its path.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from trimtab.errors import UserError

Plain = Any
"""What `json.dumps(plain, allow_nan=False)` takes: None, bool, int, finite float, str, lists, dicts with str keys."""

DEEPEST = 200
"""A nest that is deeper than this is refused: it is most likely a cycle."""

DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
"""Every dtype of torch by its name: 'float32', 'bfloat16', ..."""


def flatten(tree: Any, at: str = "") -> tuple[dict[str, torch.Tensor], Plain]:
    """Return the tensors of a nest by path, and the rest of it as strict JSON that names those paths.

    Args:
        tree: any nest of dict (keys: str, int, float, bool, None, bytes or tuples of these), list, tuple, set,
            frozenset, deque, Counter, OrderedDict, None, bool, int, float (also infinite or NaN), complex, str, bytes,
            torch.dtype, torch.device, torch.Size, numpy scalars and arrays, and dense tensors.
        at: begins every path.

    Returns:
        (tensors, plain): the tensors are the very ones of the tree, detached, not copies. Keys of a path are
        separated by "/".

    Raises:
        UserError: something else is in the nest; the message names where and what.
    """
    taken = _Taken()
    plain = taken.plain(tree, at, 0)
    return taken.tensors, plain


def unflatten(plain: Plain, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return the nest that `flatten` took apart; tensors are those of `tensors`, not copies.

    Raises:
        UserError: this is not what `flatten` writes, or a tensor is missing.
    """
    return _put(plain, tensors, 0)


def place(*keys: Any) -> str:
    """Return the path of nested keys: `place("main", "weight")` is 'main/weight'; "/" in a key is written '~1'."""
    return "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def strided(tensor: torch.Tensor) -> str | None:
    """Return why the bytes of a tensor cannot be stored, or None when they can."""
    if torch.nn.parameter.is_lazy(tensor):
        return "a lazy parameter that has no shape yet; run the model once before"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"a {type(tensor).__name__}, whose values are not one block of memory; store its full tensor"
    if tensor.is_meta:
        return "a tensor on the meta device, which has no values"
    if tensor.is_quantized or tensor.layout != torch.strided:
        return f"a {str(tensor.layout).removeprefix('torch.')} or quantized tensor; only dense tensors can be stored"
    return None


class _Taken:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def plain(self, value: Any, at: str, depth: int) -> Plain:
        if depth > DEEPEST:
            raise UserError(f"{at or 'the tree'!r} is nested more than {DEEPEST} deep, is it part of itself?")
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is str:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"~float": repr(value)}
        write = _WRITERS.get(kind)
        if write is not None:
            return write(self, value, at, depth + 1)
        if isinstance(value, torch.Tensor):
            return self.tensor(value, at)
        if isinstance(value, np.ndarray) and kind in (np.ndarray, np.memmap):
            return self.array(value, at)
        if isinstance(value, np.generic):
            return {"~scalar": self.array(np.asarray(value), at, inline=True)}
        raise UserError(
            f"{at or 'the tree'!r} holds {_kind(value)}, which cannot be stored without pickle; "
            f"a state may hold numbers, texts, None, tensors, arrays, and lists, tuples, sets and dicts of these"
        )

    def tensor(self, value: torch.Tensor, at: str) -> Plain:
        why = strided(value)
        if why is not None:
            raise UserError(f"{at or 'the tree'!r} cannot be stored: it is {why}")
        return {"~tensor": self.put(value.detach(), at)}

    def put(self, value: torch.Tensor, at: str) -> str:
        path, again = at, 1
        while path in self.tensors:  # the keys 0 and "0" give one path
            again += 1
            path = f"{at}~{again}"
        self.tensors[path] = value
        return path

    def array(self, value: np.ndarray[Any, Any], at: str, *, inline: bool = False) -> Plain:
        if value.dtype.hasobject or value.dtype.names is not None:
            raise UserError(
                f"{at or 'the tree'!r} holds an array of dtype {value.dtype}, which cannot be stored without pickle"
            )
        if not inline and value.dtype.name in DTYPES and value.dtype.isnative and value.size:
            # Read-only arrays are copied, for torch warns of them.
            held = np.ascontiguousarray(value) if value.flags.writeable else np.array(value)
            return {"~array": self.put(torch.from_numpy(held).reshape(value.shape), at)}
        raw = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {"~raw": [value.dtype.str, list(value.shape), raw]}

    def items(self, values: Iterable[Any], at: str, depth: int) -> list[Plain]:
        return [self.plain(value, _below(at, index), depth) for index, value in enumerate(values)]

    def pairs(self, value: Mapping[Any, Any], at: str, depth: int) -> list[Plain]:
        return [[self.plain(key, at, depth), self.plain(held, _below(at, key), depth)] for key, held in value.items()]


def _dict(taken: _Taken, value: dict[Any, Any], at: str, depth: int) -> Plain:
    if all(type(key) is str and not key.startswith("~") for key in value):
        return {key: taken.plain(held, _below(at, key), depth) for key, held in value.items()}
    return {"~dict": taken.pairs(value, at, depth)}


def _sorted(value: Iterable[Any]) -> list[Any]:
    return sorted(value, key=lambda item: (type(item).__name__, repr(item)))


_WRITERS: dict[type, Callable[[_Taken, Any, str, int], Plain]] = {
    dict: _dict,
    list: lambda taken, value, at, depth: taken.items(value, at, depth),
    tuple: lambda taken, value, at, depth: {"~tuple": taken.items(value, at, depth)},
    set: lambda taken, value, at, depth: {"~set": taken.items(_sorted(value), at, depth)},
    frozenset: lambda taken, value, at, depth: {"~frozenset": taken.items(_sorted(value), at, depth)},
    deque: lambda taken, value, at, depth: {"~deque": [value.maxlen, taken.items(value, at, depth)]},
    Counter: lambda taken, value, at, depth: {"~Counter": taken.pairs(value, at, depth)},
    OrderedDict: lambda taken, value, at, depth: {"~OrderedDict": taken.pairs(value, at, depth)},
    complex: lambda taken, value, at, depth: {"~complex": [repr(value.real), repr(value.imag)]},
    bytes: lambda taken, value, at, depth: {"~bytes": base64.b64encode(value).decode("ascii")},
    torch.dtype: lambda taken, value, at, depth: {"~dtype": str(value).removeprefix("torch.")},
    torch.device: lambda taken, value, at, depth: {"~device": str(value)},
    torch.Size: lambda taken, value, at, depth: {"~Size": list(value)},
    torch.Tensor: lambda taken, value, at, depth: taken.tensor(value, at),
}


def _put(plain: Plain, tensors: Mapping[str, torch.Tensor], depth: int) -> Any:
    if depth > DEEPEST + 2:
        raise UserError(f"this is nested more than {DEEPEST} deep")
    if isinstance(plain, list):
        return [_put(item, tensors, depth + 1) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if len(plain) == 1:
        tag, held = next(iter(plain.items()))
        if tag.startswith("~"):
            return _tagged(tag, held, tensors, depth + 1)
    return {key: _put(item, tensors, depth + 1) for key, item in plain.items()}


def _tagged(tag: str, held: Plain, tensors: Mapping[str, torch.Tensor], depth: int) -> Any:
    if tag in ("~tensor", "~array"):
        if not isinstance(held, str) or held not in tensors:
            raise UserError(f"the tensor {held!r} is named and not there")
        return tensors[held] if tag == "~tensor" else tensors[held].detach().cpu().numpy().copy()
    read = _READERS.get(tag)
    if read is None:
        raise UserError(f"{tag!r} is no kind of value that is known here; was this written by a newer Trimtab?")
    try:
        return read(held, lambda item: _put(item, tensors, depth))
    except (TypeError, ValueError, LookupError, RuntimeError, OverflowError, binascii.Error, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"a value tagged {tag!r} is malformed: {type(error).__name__}: {error}") from None


Again = Callable[[Plain], Any]


def _mapping(held: Plain, again: Again) -> list[tuple[Hashable, Any]]:
    return [(again(key), again(value)) for key, value in held]


def _list(held: Plain) -> list[Any]:
    if not isinstance(held, list):
        raise ValueError(f"expected a list, got {type(held).__name__}")
    return held


def _float(held: Plain) -> float:
    if held not in ("nan", "inf", "-inf"):
        raise ValueError(f"{held!r} is neither 'nan', 'inf' nor '-inf'")
    return float(held)


def _raw(held: Plain) -> np.ndarray[Any, Any]:
    dtype, shape, raw = held
    kind = np.dtype(str(dtype))
    if kind.hasobject:
        raise ValueError("an array of objects")
    return np.frombuffer(base64.b64decode(raw, validate=True), dtype=kind).reshape(shape).copy()


_READERS: dict[str, Callable[[Plain, Again], Any]] = {
    "~float": lambda held, again: _float(held),
    "~tuple": lambda held, again: tuple(again(_list(held))),
    "~set": lambda held, again: set(again(_list(held))),
    "~frozenset": lambda held, again: frozenset(again(_list(held))),
    "~deque": lambda held, again: deque(again(_list(held[1])), maxlen=held[0]),
    "~dict": lambda held, again: dict(_mapping(held, again)),
    "~Counter": lambda held, again: Counter(dict(_mapping(held, again))),
    "~OrderedDict": lambda held, again: OrderedDict(_mapping(held, again)),
    "~complex": lambda held, again: complex(float(held[0]), float(held[1])),
    "~bytes": lambda held, again: base64.b64decode(held, validate=True),
    "~dtype": lambda held, again: DTYPES[held],
    "~device": lambda held, again: torch.device(held),
    "~Size": lambda held, again: torch.Size(held),
    "~raw": lambda held, again: _raw(held),
    "~scalar": lambda held, again: again(held)[()],
}


def _below(at: str, key: Any) -> str:
    return f"{at}/{place(key)}" if at else place(key)


def _kind(value: Any) -> str:
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"a {name}"
