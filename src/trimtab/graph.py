"""Reading an autograd graph from its root: what loss it is, what it reaches, in which order the forward pass ran.

These are private fields of torch. Each access is guarded: what is not there is None, and the rule that wanted it says
Unknown. A graph is only looked at while `backward` has not begun, and nothing of it is kept.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

NODE_LIMIT = 50_000
"""A graph with more nodes is not walked to its end; what depends on the whole graph is then unknown."""

_CROSS_ENTROPY = {"NllLossBackward0", "NllLoss2DBackward0", "NllLossNdBackward0"}
_BINARY = {"BinaryCrossEntropyWithLogitsBackward0", "BinaryCrossEntropyBackward0"}
_SQUARED = {"MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0", "L1LossBackward0"}
LOSS_NODES = _CROSS_ENTROPY | _BINARY | _SQUARED

_SHAPE_ONLY = {
    "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "TransposeBackward0", "PermuteBackward0",
    "ToCopyBackward0", "CloneBackward0", "SelectBackward0", "SliceBackward0", "SqueezeBackward0", "SqueezeBackward1",
    "UnsqueezeBackward0", "AsStridedBackward0", "AliasBackward0", "TBackward0", "ExpandBackward0", "IndexBackward0",
}  # fmt: skip
_SQUASHING = {"SoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossNode:
    """The loss function at the end of a graph.

    `kind` is "cross-entropy", "binary" or "squared"; `node` its autograd node; `factor` what the value is multiplied
    by on the way to the root, None when that cannot be read (other terms are added, for instance).
    """

    kind: str
    node: Any
    factor: float | None


def name_of(node: Any) -> str:
    """Return the node's class name without namespace, such as 'AddmmBackward0'."""
    return type(node).__name__


def parents(node: Any) -> list[Any]:
    """Return the nodes that `node` passes its gradient on to."""
    return [edge[0] for edge in node.next_functions if edge[0] is not None]


def saved(node: Any, field: str) -> Any:
    """Return a saved value of a node, or None where torch does not have it at hand.

    That is so when the field is unknown or freed, and when a saved-tensor hook packed it away: to unpack it would run
    a checkpointed block again, or bring a tensor back from another place.
    """
    try:
        if getattr(getattr(node, f"_raw_saved_{field}", None), "unpack_hook", None) is not None:
            return None
        return getattr(node, f"_saved_{field}", None)
    except RuntimeError:
        return None


def walk(root: Any) -> Iterator[Any]:
    """Yield every node that the root reaches except leaves, in no particular order, at most `NODE_LIMIT` of them."""
    seen, waiting, count = {root}, [root], 0
    while waiting and count < NODE_LIMIT:
        node = waiting.pop()
        count += 1
        yield node
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen and type(parent).__name__ != "AccumulateGrad":
                seen.add(parent)
                waiting.append(parent)


def find_loss(root: Any) -> LossNode | None:
    """Return the loss node nearest to the root, looking at no more than 64 nodes; None when there is none."""
    queue: deque[tuple[Any, float | None]] = deque([(root, 1.0)])
    for _ in range(64):
        if not queue:
            return None
        node, factor = queue.popleft()
        name = name_of(node)
        if name in LOSS_NODES:
            kind = "cross-entropy" if name in _CROSS_ENTROPY else "binary" if name in _BINARY else "squared"
            return LossNode(kind=kind, node=node, factor=factor)
        followed = parents(node)
        after = _factor_through(node, name, factor) if len(followed) == 1 else None
        queue.extend((parent, after) for parent in followed)
    return None


def _factor_through(node: Any, name: str, factor: float | None) -> float | None:
    if factor is None or name in _SHAPE_ONLY or name == "MeanBackward0":
        return factor
    if name == "NegBackward0":
        return -factor
    if name in ("DivBackward0", "MulBackward0"):
        other = saved(node, "other")
        if isinstance(other, (int, float)) or (isinstance(other, torch.Tensor) and other.numel() == 1):
            number = float(other)
            if number != 0 and math.isfinite(number):
                return factor * number if name == "MulBackward0" else factor / number
    return None


def logits_node(loss: LossNode) -> Any:
    """Return the node that made what the loss function was given: the logits, or the prediction; None if unknown."""
    node = next(iter(parents(loss.node)), None)
    if loss.kind == "cross-entropy":
        while node is not None and name_of(node) in _SHAPE_ONLY:
            node = next(iter(parents(node)), None)
        if node is None or name_of(node) != "LogSoftmaxBackward0":
            return None
        node = next(iter(parents(node)), None)
    return node


def squashed_by(loss: LossNode) -> str:
    """Return 'softmax' or 'sigmoid' when the logits were already squashed before a loss that squashes them, else ''.

    A log-softmax before cross-entropy is not reported: applying it twice changes nothing.
    """
    if loss.kind == "squared" or name_of(loss.node) == "BinaryCrossEntropyBackward0":
        return ""
    node = logits_node(loss)
    while node is not None and name_of(node) in _SHAPE_ONLY:
        node = next(iter(parents(node)), None)
    return _SQUASHING.get(name_of(node), "") if node is not None else ""


def targets_of(loss: LossNode) -> torch.Tensor | None:
    """Return the tensor of targets that the loss function saved."""
    target = saved(loss.node, "target")
    return target.detach() if isinstance(target, torch.Tensor) else None


def ignored(node: Any) -> int:
    """Return the class index that a cross-entropy leaves out, -100 where that cannot be read."""
    index = saved(node, "ignore_index")
    if not isinstance(index, int):
        return -100
    return index - 2**64 if index >= 2**63 else index  # torch hands a negative number out as unsigned


def leaf(node: Any) -> torch.Tensor | None:
    """Return the parameter behind an AccumulateGrad node."""
    return getattr(node, "variable", None) if name_of(node) == "AccumulateGrad" else None


def forward_order(root: Any) -> dict[int, int]:
    """Return id(parameter) -> rank in the forward pass, for every leaf that the root reaches."""
    first_use: dict[int, int] = {}
    for node in walk(root):
        for parent in parents(node):
            variable = leaf(parent)
            if variable is not None:
                used = _sequence(node)
                first_use[id(variable)] = min(used, first_use.get(id(variable), used))
    return {key: rank for rank, key in enumerate(sorted(first_use, key=lambda key: first_use[key]))}


def holds(root: Any, tensors: Iterable[torch.Tensor]) -> set[int]:
    """Return the ids of those tensors whose memory some operation of the graph kept for its backward pass.

    So a frozen weight is seen, which is no leaf of the graph: who passes a gradient on to his input needs it. A frozen
    bias is not, and neither are frozen layers without a trained one before them.
    """
    wanted: dict[int, list[int]] = {}
    for tensor in tensors:
        place = _storage(tensor)
        if place is not None:
            wanted.setdefault(place, []).append(id(tensor))
    fields: dict[type, list[str]] = {}
    found: set[int] = set()
    for node in walk(root):
        kind = type(node)
        if kind not in fields:
            fields[kind] = [name[len("_saved_") :] for name in dir(kind) if name.startswith("_saved_")]
        for field in fields[kind]:
            value = saved(node, field)
            for one in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(one, torch.Tensor):
                    found.update(wanted.get(_storage(one) or 0, ()))
    return found


def _storage(tensor: torch.Tensor) -> int | None:
    """Return what tells the memory of a tensor from that of others, shared by its views; None where torch has none."""
    try:
        place = tensor.untyped_storage()._cdata
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    return place if isinstance(place, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one operation of the forward pass gave or was given, as the graph saved it: references, to be read at once.

    Attributes:
        label: the module whose parameter stands nearest before it and the kind, such as "body.0>relu"; the second one
            of a kind after the same module is "body.0>relu#2". The same from step to step.
        kind: "relu" (exactly 0 below its threshold), "leaky", "gelu", "silu", "elu", "softplus", "tanh", "sigmoid",
            "linear" (also convolutions), "softmax", or "sdpa" (`scaled_dot_product_attention`).
        result: what relu, tanh, sigmoid and softmax returned; None for the others, and for a relu that saved its input.
        given: what the others were given, before the operation: of "linear" its input.
        units: the dimension of the tensor that counts its units: 1 after a convolution or batch norm, else the last.
        feeds: whether a layer with weights comes after it; what does not may be a part of the loss or the output.
        attention: a softmax whose result weighs other activations, or an sdpa.
        query, key, value: of an sdpa (..., L, D), (..., S, D), (..., S, D'); of a softmax over dot products the query
            and key, where they can be read.
        mask: of an sdpa, boolean or added, or None.
        causal: of an sdpa.
        scale: what the dot products are multiplied by; None where that cannot be read.
    """

    label: str
    kind: str
    result: torch.Tensor | None = None
    given: torch.Tensor | None = None
    units: int = -1
    feeds: bool = False
    attention: bool = False
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    causal: bool = False
    scale: float | None = None


MOST_LAYERS = 256
"""No more than so many layers of one graph are looked into, the first ones of the forward pass."""
MOST_LOOKED_AT = 1024
"""Of more than twice so many operations only the first and the last so many are looked at."""
MOST_ALIKE = 4
"""An operation that follows the same module more often than this, such as in a recurrence, is passed over."""

_ACTIVATIONS = {
    "ReluBackward0": ("relu", "result"),
    "ThresholdBackward0": ("relu", "self"),
    "HardtanhBackward0": ("relu", "self"),
    "ClampBackward1": ("relu", "self"),
    "ClampMinBackward0": ("relu", "self"),
    "LeakyReluBackward0": ("leaky", "self"),
    "PreluKernelBackward0": ("leaky", "self"),
    "GeluBackward0": ("gelu", "self"),
    "SiluBackward0": ("silu", "self"),
    "EluBackward0": ("elu", "self"),
    "SoftplusBackward0": ("softplus", "self"),
    "TanhBackward0": ("tanh", "result"),
    "SigmoidBackward0": ("sigmoid", "result"),
    "SoftmaxBackward0": ("softmax", "result"),
    "SafeSoftmaxBackward0": ("softmax", "result"),
    "AddmmBackward0": ("linear", "mat1"),
    "MmBackward0": ("linear", "self"),
    "LinearBackward0": ("linear", "input"),
    "ConvolutionBackward0": ("linear", "input"),
}
"""Node name -> kind and the saved field to read."""
_FLOOR = {"HardtanhBackward0": "min_val", "ClampBackward1": "min", "ClampMinBackward0": "min"}
"""Node name -> the saved field that must be 0 for the node to be a relu."""
_PRODUCTS = {"BmmBackward0": ("self", "mat2", 0), "MmBackward0": ("self", "mat2", 0)}
"""Node name of a product -> the fields of its two factors, and the edge of the first."""
_CHANNELS_FIRST = {
    "ConvolutionBackward0", "NativeBatchNormBackward0", "CudnnBatchNormBackward0", "NativeGroupNormBackward0",
}  # fmt: skip
_ON_THE_WAY = _SHAPE_ONLY | {"MulBackward0", "MulBackward1", "DivBackward0", "NativeDropoutBackward0"}
_MASKING = {"AddBackward0", "SubBackward0", "MaskedFillBackward0", "MaskedFillBackward1", "WhereBackward0"}


def layers(root: Any, names: Mapping[int, tuple[str, Any]]) -> tuple[list[Layer], bool]:
    """Return the layers that a graph passed through in forward order, and whether a compiled part hides some.

    Args:
        root: the node of the loss.
        names: id(parameter) -> its name first, to name a layer by its module.
    """
    found: list[tuple[int, Any]] = []
    weighing: set[Any] = set()
    weighted: list[Any] = []
    compiled = False
    for node in walk(root):
        name = type(node).__name__
        if name in _ACTIVATIONS or name.startswith("ScaledDotProduct"):
            found.append((_sequence(node), node))
            if _ACTIVATIONS.get(name, ("", ""))[0] == "linear" and _has_weight(node):
                weighted.append(node)
        if name in _PRODUCTS:
            weighing.update(_softmaxes_before(node, _PRODUCTS[name][2]))
        compiled = compiled or name.startswith("CompiledFunction")
    feeding = _before(weighted)
    seen: dict[str, int] = {}
    result: list[Layer] = []
    found.sort(key=lambda pair: pair[0])
    if len(found) > 2 * MOST_LOOKED_AT:  # a long recurrence; what is in its middle was met before
        del found[MOST_LOOKED_AT:-MOST_LOOKED_AT]
    for _, node in found:
        if len(result) == MOST_LAYERS:
            break
        facts = _facts(node, node in weighing)
        if facts is None:
            continue
        owner, units = _owner(node, names)
        label = f"{owner}>{facts['kind']}".removeprefix(">")
        count = seen[label] = seen.get(label, 0) + 1
        if count <= MOST_ALIKE:
            label = label if count == 1 else f"{label}#{count}"
            result.append(Layer(label=label, units=units, feeds=node in feeding, **facts))
    return result, compiled


def _before(nodes: Iterable[Any]) -> set[Any]:
    """Return every node that one of these passes its gradient on to, directly or through others."""
    seen: set[Any] = set()
    waiting = list(nodes)
    while waiting and len(seen) < NODE_LIMIT:
        for parent, _ in waiting.pop().next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return seen


def _facts(node: Any, weighs: bool) -> dict[str, Any] | None:
    """Return the fields of a Layer except its label, or None where nothing can be read."""
    name = type(node).__name__
    if name.startswith("ScaledDotProduct"):
        query, key, value = (_tensor(node, field) for field in ("query", "key", "value"))
        if query is None or key is None:
            return None
        mask = _tensor(node, "attn_mask")
        mask = _tensor(node, "attn_bias") if mask is None else mask
        scale = saved(node, "scale")
        return {
            "kind": "sdpa", "attention": True, "query": query, "key": key, "value": value, "mask": mask,
            "causal": bool(saved(node, "is_causal")),
            "scale": float(scale) if isinstance(scale, (int, float)) else query.shape[-1] ** -0.5,
        }  # fmt: skip
    kind, field = _ACTIVATIONS[name]
    if kind == "linear" and not _has_weight(node):
        return None
    if name in _FLOOR and saved(node, _FLOOR[name]) != 0:
        return None
    tensor = _tensor(node, field)
    if tensor is None or tensor.numel() == 0:
        return None
    facts: dict[str, Any] = {"kind": kind, "result" if field == "result" else "given": tensor}
    if kind == "softmax" and weighs:
        facts["attention"] = True
        facts.update(_dot_products(node))
    return facts


def _tensor(node: Any, field: str) -> torch.Tensor | None:
    value = saved(node, field)
    return value.detach() if isinstance(value, torch.Tensor) else None


def _has_weight(node: Any) -> bool:
    """Say whether a product is one with a parameter, and not of two activations."""
    for parent in parents(node):
        while parent is not None and name_of(parent) in _SHAPE_ONLY:
            parent = next(iter(parents(parent)), None)
        if parent is not None and name_of(parent) == "AccumulateGrad":
            return True
    return False


def _softmaxes_before(product: Any, first: int) -> Iterator[Any]:
    """Yield the softmax nodes whose results are a factor of a product whose other factor has a graph of its own."""
    edges = [edge[0] for edge in product.next_functions[first : first + 2]]
    for node, other in (edges, edges[::-1]) if len(edges) == 2 else ():
        while other is not None and name_of(other) in _SHAPE_ONLY:
            other = next(iter(parents(other)), None)
        if other is None or (name_of(other) == "AccumulateGrad" and name_of(product) == "MmBackward0"):
            continue  # a product with data or with a layer's weight
        for _ in range(8):
            if node is None or name_of(node) not in _ON_THE_WAY:
                break
            node = next(iter(parents(node)), None)
        if node is not None and _ACTIVATIONS.get(name_of(node), ("", ""))[0] == "softmax":
            yield node


def _dot_products(softmax: Any) -> dict[str, Any]:
    """Return query, key and scale of a softmax over dot products, or nothing where they cannot be read."""
    waiting: list[tuple[Any, float | None]] = [(parent, 1.0) for parent in parents(softmax)]
    for _ in range(16):
        if not waiting:
            break
        node, scale = waiting.pop(0)
        name = name_of(node)
        if name in _PRODUCTS:
            query, key = (_tensor(node, field) for field in _PRODUCTS[name][:2])
            if query is None or key is None:
                break
            return {"query": query, "key": key.transpose(-1, -2), "scale": scale}
        if name in _MASKING or name in _ON_THE_WAY:
            after = scale if name in _MASKING else _scale_through(node, name, scale)
            waiting.extend((parent, after) for parent in parents(node))
    return {}


def _scale_through(node: Any, name: str, scale: float | None) -> float | None:
    if scale is None or name in _SHAPE_ONLY:
        return scale
    return _factor_through(node, "DivBackward0" if name == "DivBackward0" else "MulBackward0", scale)


def _owner(node: Any, names: Mapping[int, tuple[str, Any]]) -> tuple[str, int]:
    """Return the module whose parameter stands nearest before a node, "" for none near, and where it has its units."""
    seen, waiting = {node}, deque([node])
    for _ in range(64):
        if not waiting:
            break
        current = waiting.popleft()
        for parent in parents(current):
            variable = leaf(parent)
            if variable is not None and id(variable) in names:
                units = 1 if name_of(current) in _CHANNELS_FIRST else -1
                return names[id(variable)][0].rpartition(".")[0], units
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return "", -1


def inputs_of(root: Any) -> list[torch.Tensor]:
    """Return the tensors without a gradient that the earliest layers of the forward pass were given.

    Linear, convolution and embedding nodes save their input; where that input has no graph of its own it came from
    the data. The list is in forward order and has no tensor twice.
    """
    found: list[tuple[int, torch.Tensor]] = []
    for node in walk(root):
        known = _INPUT_OF.get(type(node).__name__)
        if known is None:
            continue
        field, edge = known
        edges = node.next_functions
        if edge >= len(edges) or edges[edge][0] is None:
            value = saved(node, field)
            if isinstance(value, torch.Tensor) and not value.requires_grad:
                found.append((_sequence(node), value.detach()))
    unique: dict[int, torch.Tensor] = {}
    for _, value in sorted(found, key=lambda pair: pair[0]):
        unique.setdefault(value.data_ptr(), value)
    return list(unique.values())


_INPUT_OF = {
    "AddmmBackward0": ("mat1", 1),
    "MmBackward0": ("self", 0),
    "ConvolutionBackward0": ("input", 0),
    "EmbeddingBackward0": ("indices", 1),
}
"""Node name -> the saved field that holds the layer's input, and the edge along which its gradient would flow (an
embedding has none for its indices)."""


def _sequence(node: Any) -> int:
    try:
        return int(node._sequence_nr())
    except (AttributeError, TypeError):
        return 0
