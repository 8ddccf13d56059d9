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

CELLS = 65_536
"""Of targets and predictions with more elements fewer columns are looked at."""
FEW = 8
"""Fewer rows than this say nothing about variance, nor about how targets are coded."""
MOST_CODES = 1000
"""Whole numbers below this may be class codes."""


@dataclass(frozen=True, kw_only=True)
class GraphCensus(Base):
    """The loss function and what it reaches, read from the graph while `backward` has not begun.

    - `chance_level`: loss of a guess that knows nothing: ln C for cross-entropy over C classes, ln 2 for binary
      cross-entropy, the variance of this batch's targets for a squared error, times whatever constant the loss is
      multiplied by; absent for other losses, when other terms are added to it, and when its sign is turned;
    - `loss_negated`: 1 when such a loss, and nothing else, is multiplied by a negative number on the way to the root;
    - `prediction_rms`: root mean square of what a squared error compares with its targets;
    - `loss_terms`: how many terms a loss with `reduction="sum"` adds up; 1 for a mean;
    - `one_hot_under_squared`, `one_hot_under_binary`: 1 when every row of the targets of such a loss is a single one
      among zeros; `codes_under_squared`: 1 when all targets of a squared error, one a row, are small whole numbers;
      `targets_broadcast`: 1 when prediction and targets of a squared error, (N, 1) and (N,), were spread to N x N;
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
        reading: dict[str, float | torch.Tensor | tuple[float, ...]] = {}
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
        if loss.factor is not None:
            reading["loss_negated"] = float(loss.factor < 0)
        if loss.factor is not None and loss.factor > 0 and classes is not None:
            reading["chance_level"] = math.log(classes) * loss.factor
        if loss.kind == "squared":
            reading.update(_squared(loss, targets))
        elif loss.kind == "binary":
            reading["one_hot_under_binary"] = _one_hot(targets)
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


def _squared(loss: graph.LossNode, targets: torch.Tensor) -> dict[str, float | torch.Tensor]:
    """Return what the targets of a squared or absolute error look like, and the error of the best constant guess."""
    reading: dict[str, float | torch.Tensor] = {}
    prediction = graph.saved(loss.node, "self")
    if isinstance(prediction, torch.Tensor) and prediction.numel():
        reading["prediction_rms"] = _thinned(prediction.detach()).square().mean().sqrt()
        apart = [_spread_along(prediction), _spread_along(targets)]
        reading["targets_broadcast"] = float(all(apart) and not apart[0] & apart[1])
    known = loss.factor is not None and loss.factor > 0 and reading.get("targets_broadcast") == 0.0
    if known and loss.factor is not None and graph.name_of(loss.node) == "MseLossBackward0":
        sampled = _thinned(targets)
        if sampled.shape[0] < FEW:
            sampled = sampled.reshape(-1, 1)
        variance = sampled.var(0).mean() if sampled.shape[0] >= FEW else sampled.new_zeros(())
        if not variance.is_cpu or variance.item() > 0:  # targets that are all alike have no level of chance
            reading["chance_level"] = variance * loss.factor
    reading["one_hot_under_squared"] = _one_hot(targets)
    column = targets.reshape(-1)[:CELLS]
    alone = targets.dim() == 1 or targets.shape[1:].numel() == 1
    if alone and targets.numel() >= FEW:
        whole = (column == column.round()) & (column >= 0) & (column < MOST_CODES)
        reading["codes_under_squared"] = (whole.all() & (column.amax() > 1)).float()
    else:
        reading["codes_under_squared"] = 0.0
    return reading


def _thinned(tensor: torch.Tensor) -> torch.Tensor:
    """Return (rows, columns) in float32, with fewer columns where the tensor is large."""
    if tensor.dim() < 2:
        return tensor.detach().reshape(-1, 1).float()
    rows = tensor.detach().flatten(1)
    return rows[:, :: max(math.ceil(rows.numel() / CELLS), 1)].float()


def _one_hot(targets: torch.Tensor) -> float | torch.Tensor:
    """Say whether each row (the last axis, or the second of more than two) is one 1 among zeros."""
    if targets.dim() < 2 or targets.shape[-1 if targets.dim() == 2 else 1] < 2 or targets.numel() > 64 * CELLS:
        return 0.0
    if not targets.is_floating_point() or targets.shape[0] < FEW:
        return 0.0
    classes = 1 if targets.dim() > 2 else -1
    binary = ((targets == 0) | (targets == 1)).all()
    return (binary & (targets.sum(classes) == 1).all()).float()


def _spread_along(tensor: torch.Tensor) -> set[int]:
    """Return the axes along which the tensor is one value repeated."""
    pairs = enumerate(zip(tensor.shape, tensor.stride(), strict=True))
    return {axis for axis, (size, stride) in pairs if size > 1 and stride == 0}
