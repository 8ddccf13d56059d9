"""Where an attention keeps its heads: which part of which parameter belongs to one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trimtab.errors import UserError, nearest

Slice = tuple[str, torch.Tensor, tuple[slice, ...]]
"""A parameter's name below the attention, the parameter, and which part of it belongs to a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where an attention that is not `nn.MultiheadAttention` keeps its heads.

    Attributes:
        query, key, value, output: names of linear layers below the attention. The same name three times is one packed
            layer whose rows are all queries, then all keys, then all values.
        heads: how many heads there are.
    """

    query: str
    key: str
    value: str
    output: str
    heads: int


def find_attention(model: nn.Module, name: str) -> nn.Module:
    """Return the module called `name`."""
    known: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if name not in known:
        raise UserError(f"FreezeHeads: {type(model).__name__} has no module {name!r}.{nearest(name, known)}")
    return known[name]


def slices_of(
    name: str, attention: nn.Module, chosen: Sequence[int], layout: Layout | None, what: set[str]
) -> Iterator[tuple[str, Slice]]:
    """Yield the parts of the chosen heads, each with the letter of what it is."""
    listed = getattr(attention, "heads", None)
    if layout is None and isinstance(listed, nn.ModuleList):
        _must_be_heads(name, chosen, len(listed))
        for head in chosen:
            names = _guess(f"{name}.heads.{head}", listed[head])
            for letter in sorted(what):
                for part, parameter in listed[head].get_submodule(names[letter]).named_parameters():
                    yield letter, (f"heads.{head}.{names[letter]}.{part}", parameter, (slice(None),) * parameter.dim())
        return
    if layout is None and isinstance(attention, nn.MultiheadAttention):
        yield from _of_torch(name, attention, chosen, what)
        return
    if layout is None:
        names, count = _guess(name, attention), int(getattr(attention, "num_heads", 0))
        if not count:
            raise UserError(f"FreezeHeads: {name!r} does not say its `num_heads`; pass layout=Layout(..., heads=...)")
    else:
        names, count = {"q": layout.query, "k": layout.key, "v": layout.value, "o": layout.output}, layout.heads
    _must_be_heads(name, chosen, count)
    packed = names["q"] == names["k"] == names["v"]
    size = _linear(name, attention, names["o"]).in_features // count
    for letter in sorted(what):
        linear = _linear(name, attention, names[letter])
        if letter == "o":
            for head in chosen:
                yield "o", (f"{names['o']}.weight", linear.weight, (slice(None), slice(head * size, (head + 1) * size)))
            continue
        first = "qkv".index(letter) * count * size if packed else 0
        for group in _groups(name, chosen, count, count if packed else linear.out_features // size):
            rows = slice(first + group * size, first + (group + 1) * size)
            yield letter, (f"{names[letter]}.weight", linear.weight, (rows, slice(None)))
            if linear.bias is not None:
                yield letter, (f"{names[letter]}.bias", linear.bias, (rows,))


def _of_torch(
    name: str, attention: nn.MultiheadAttention, chosen: Sequence[int], what: set[str]
) -> Iterator[tuple[str, Slice]]:
    _must_be_heads(name, chosen, attention.num_heads)
    size, width = attention.head_dim, attention.embed_dim
    for head in chosen:
        here = slice(head * size, (head + 1) * size)
        for place, letter in enumerate("qkv"):
            if letter not in what:
                continue
            rows = slice(place * width + here.start, place * width + here.stop)
            if attention.in_proj_weight is not None:
                yield letter, ("in_proj_weight", attention.in_proj_weight, (rows, slice(None)))
            else:
                own = f"{letter}_proj_weight"
                yield letter, (own, getattr(attention, own), (here, slice(None)))
            if attention.in_proj_bias is not None:
                yield letter, ("in_proj_bias", attention.in_proj_bias, (rows,))
            extra = getattr(attention, f"bias_{letter}", None)
            if extra is not None:
                yield letter, (f"bias_{letter}", extra, (slice(None), slice(None), here))
        if "o" in what:
            yield "o", ("out_proj.weight", attention.out_proj.weight, (slice(None), here))


_NAMES = {
    "q": ("q_proj", "query"),
    "k": ("k_proj", "key"),
    "v": ("v_proj", "value"),
    "o": ("out_proj", "o_proj", "output"),
}


def _guess(name: str, attention: nn.Module) -> dict[str, str]:
    children = {child for child, module in attention.named_children() if isinstance(module, nn.Linear)}
    names = {letter: next((one for one in known if one in children), "") for letter, known in _NAMES.items()}
    if not all(names.values()):
        raise UserError(
            f"FreezeHeads: {name!r} ({type(attention).__name__}) keeps its heads in a way that is not known; pass "
            f"layout=Layout(query=..., key=..., value=..., output=..., heads=...) with the names of its linear layers"
        )
    return names


def _linear(name: str, attention: nn.Module, child: str) -> nn.Linear:
    module = dict(attention.named_modules()).get(child)
    if not isinstance(module, nn.Linear):
        raise UserError(f"FreezeHeads: {name!r} has no linear layer {child!r}, it has {module!r} there")
    return module


def _groups(name: str, chosen: Sequence[int], count: int, kept: int) -> list[int]:
    """Return which of the `kept` sets of rows belong to the chosen of `count` heads; heads may share one."""
    groups = {head * kept // count for head in chosen}
    shared = sorted(set(range(count)) - set(chosen))
    others = sorted({head for head in shared if head * kept // count in groups})
    if others:
        raise UserError(
            f"FreezeHeads: heads {others} of {name!r} share keys and values with a head to be frozen; freeze them too, "
            f"or use what='qo'"
        )
    return sorted(groups)


def _must_be_heads(name: str, chosen: Sequence[int], count: int) -> None:
    wrong = [head for head in chosen if not 0 <= head < count]
    if wrong or not chosen or len(set(chosen)) != len(chosen):
        raise UserError(
            f"FreezeHeads: {name!r} has heads 0 to {count - 1}; got {list(chosen)}, each at most once, at least one"
        )
