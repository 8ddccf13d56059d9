"""What the autograd graph says about the wiring, at the first steps and whenever the graph changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from trimtab import graph
from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class GraphCensus(Base):
    """The loss function and what it reaches, read from the graph while `backward` has not begun.

    - `chance_level`: loss of a guess that knows nothing: ln C for cross-entropy over C classes, ln 2 for binary
      cross-entropy, times whatever constant the loss is multiplied by; absent for other losses, and when other terms
      are added to it;
    - `loss_terms`: how many terms a loss with `reduction="sum"` adds up; 1 for a mean;
    - `label_entropy`: entropy in nats of the labels of this batch; `label_classes`: how many different ones;
    - `squashed_before_loss`: 1 when a softmax or sigmoid stands before a loss that applies one itself;
    - `parameter_reached`: 1 or 0 for every parameter of every model: whether this loss depends on it.
    """

    name: str = "graph_census"
    points: tuple[Point, ...] = ("backward",)
    tier: Tier = "census"
    axes: Mapping[str, str] = field(default_factory=lambda: {"parameter_reached": "everything"})

    def read(self, live: Live) -> Reading:
        """Walk the graph of the last root; cost about 1 microsecond a node."""
        node = live.roots[-1].node if live.roots else None
        if node is None:
            return {}
        reading: dict[str, float | tuple[float, ...]] = {}
        if live.model_parameters:
            reached = graph.forward_order(node)
            reading["parameter_reached"] = tuple(float(id(p) in reached) for p in live.model_parameters)
        loss = graph.find_loss(node)
        if loss is None:
            return reading
        targets = graph.targets_of(loss)
        if loss.kind != "squared":
            reading["squashed_before_loss"] = float(bool(graph.squashed_by(loss)))
        if targets is None:
            return reading
        classes = _classes(loss)
        summed = graph.saved(loss.node, "reduction") == 2
        reading["loss_terms"] = float(max(targets.numel(), 1)) if summed else 1.0
        if loss.factor is not None and classes is not None:
            reading["chance_level"] = math.log(classes) * abs(loss.factor)
        if loss.kind == "cross-entropy":
            reading.update(_labels(targets))
        return reading


def _classes(loss: graph.LossNode) -> int | None:
    if loss.kind == "binary":
        return 2
    if loss.kind != "cross-entropy":
        return None
    scores = graph.saved(loss.node, "self")
    if not isinstance(scores, torch.Tensor) or scores.dim() == 0:
        return None
    classes = scores.shape[1] if scores.dim() > 1 else scores.shape[0]
    return classes if classes > 1 else None


def _labels(targets: torch.Tensor) -> dict[str, float]:
    counts = torch.unique(targets.detach().cpu().reshape(-1), return_counts=True)[1].double()
    if counts.numel() == 0:
        return {}
    shares = counts / counts.sum()
    return {"label_entropy": float(-(shares * shares.log()).sum()), "label_classes": float(counts.numel())}
