"""Reading an autograd graph from its root: what loss it is, what it reaches, in which order the forward pass ran.

These are private fields of torch. Each access is guarded: what is not there is None, and the rule that wanted it says
Unknown. A graph is only looked at while `backward` has not begun, and nothing of it is kept.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
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
