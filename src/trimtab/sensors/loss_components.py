"""The terms that a loss adds up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from trimtab import graph
from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.overhear import unheard
from trimtab.sensors._sensor import Base

TERMS = 32
"""A loss with more terms is a sum over examples and not over parts."""
REST = "rest"
"""What the known loss functions leave of the loss."""

_REDUCTIONS = {1: "mean", 2: "sum"}
_NAMES = {
    "NllLossBackward0": "cross-entropy",
    "NllLoss2DBackward0": "cross-entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary",
    "BinaryCrossEntropyBackward0": "binary",
    "MseLossBackward0": "squared",
    "SmoothL1LossBackward0": "smooth",
    "HuberLossBackward0": "huber",
}


@dataclass(frozen=True, kw_only=True)
class LossComponents(Base):
    """`loss_parts`: what each term of the loss is worth, where the graph shows that it adds several: `cross-entropy`,
    `binary`, `squared`, `smooth`, `huber`, a second one of a kind with `#2`, each times its weight in the sum; `rest`
    for what is left (a divergence, a penalty, anything that is no loss function of torch).

    The values are computed again from what the loss functions saved. Cost: that of these loss functions, on rows of the
    "layers" tier.
    """

    name: str = "loss_components"
    points: tuple[Point, ...] = ("backward",)
    tier: Tier = "layers"
    axes: Mapping[str, str] = field(default_factory=lambda: {"loss_parts": "losses"})

    @torch.no_grad()
    def read(self, live: Live) -> Reading:
        """Return label -> value; nothing for a loss of a single term, or of none that is known."""
        root = live.roots[-1] if live.roots else None
        if root is None or root.node is None:
            return {}
        terms = list(_terms(root.node))
        if not 1 < len(terms) <= TERMS:
            return {}
        parts: dict[str, torch.Tensor] = {}
        for node, factor in terms:
            with unheard():
                value = _value(node)
            if value is not None:
                kind, count = _NAMES[graph.name_of(node)], 1
                while (label := kind if count == 1 else f"{kind}#{count}") in parts:
                    count += 1
                parts[label] = value * factor
        if not parts:
            return {}
        total = torch.as_tensor(root.value, device=next(iter(parts.values())).device).float().mean()
        if len(parts) < len(terms):
            parts[REST] = total - torch.stack([part.float() for part in parts.values()]).sum()
        return {"loss_parts": parts}


def _terms(root: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the nodes that the root adds up, with the factor of each; a factor stays on its device."""
    waiting: list[tuple[Any, Any]] = [(root, 1.0)]
    for _ in range(8 * TERMS):
        if not waiting:
            return
        node, factor = waiting.pop()
        name = graph.name_of(node)
        parents = graph.parents(node)
        if name in ("AddBackward0", "SubBackward0") and len(node.next_functions) == 2:
            sign = -1.0 if name == "SubBackward0" else 1.0
            alpha = graph.saved(node, "alpha")
            signs = (1.0, sign * (1.0 if alpha is None else alpha))
            edges = reversed(list(zip(node.next_functions, signs, strict=True)))
            waiting.extend((edge[0], factor * side) for edge, side in edges if edge[0] is not None)
        elif name == "SumBackward0" and parents and graph.name_of(parents[0]) == "StackBackward0":
            waiting.extend((parent, factor) for parent in reversed(graph.parents(parents[0])))
        elif name in ("MulBackward0", "DivBackward0") and len(parents) == 1 and _number(node) is not None:
            other = _number(node)
            waiting.append((parents[0], factor * other if name == "MulBackward0" else factor / other))
        elif name == "NegBackward0" and parents:
            waiting.append((parents[0], factor * -1.0))
        else:
            yield node, factor


def _number(node: Any) -> Any:
    other = graph.saved(node, "other")
    return other if isinstance(other, (int, float)) or (isinstance(other, torch.Tensor) and other.dim() == 0) else None


def _value(node: Any) -> torch.Tensor | None:
    """Compute a loss function again from what it saved; None for other nodes, and for what was not reduced."""
    name = graph.name_of(node)
    given, targets = graph.saved(node, "self"), graph.saved(node, "target")
    reduction = _REDUCTIONS.get(graph.saved(node, "reduction"))
    if name not in _NAMES or reduction is None:
        return None
    if not isinstance(given, torch.Tensor) or not isinstance(targets, torch.Tensor):
        return None
    given, weight = given.detach(), graph.saved(node, "weight")
    if name.startswith("NllLoss"):
        return F.nll_loss(given, targets, weight, ignore_index=graph.ignored(node), reduction=reduction)
    if name == "BinaryCrossEntropyWithLogitsBackward0":
        positive = graph.saved(node, "pos_weight")
        return F.binary_cross_entropy_with_logits(given, targets, weight, reduction=reduction, pos_weight=positive)
    if name == "BinaryCrossEntropyBackward0":
        return F.binary_cross_entropy(given, targets, weight, reduction=reduction)
    if name == "SmoothL1LossBackward0":
        return F.smooth_l1_loss(given, targets, reduction=reduction, beta=graph.saved(node, "beta") or 0.0)
    if name == "HuberLossBackward0":
        return F.huber_loss(given, targets, reduction=reduction, delta=graph.saved(node, "delta") or 1.0)
    return F.mse_loss(given, targets, reduction=reduction)
