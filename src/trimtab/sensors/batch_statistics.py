"""What the numbers of a batch look like: its labels, its targets, its inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trimtab import graph
from trimtab.cadence import FIRST, Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base

SAMPLE = 4096
"""At most so many elements of a tensor are looked at, evenly spread."""
SELDOM = 4
"""After the first steps inputs are looked at on every so many-th row only: finding them means to walk the graph."""


@dataclass(frozen=True, kw_only=True)
class BatchStatistics(Base):
    """The batch in a few numbers, of at most 4,096 elements each, evenly spread.

    Of the targets of a cross-entropy with class indices, elements to be ignored left out:

    - `label_entropy`: entropy in nats of the labels of this batch; `label_classes`: how many different ones;
    - `label_mean`: their mean as numbers, of a binary cross-entropy with one output the share of ones;
    - `target_spread`: their standard deviation as numbers; `target_count`: how many targets there are.

    Of the targets of a squared or absolute error: `target_mean`, `target_spread` and `target_count`.

    Of the first floating-point tensor that a layer was given: `input_mean`, `input_std`, `input_largest` (of the
    absolute value); on every fourth row after the first 32.

    Cost: 60 microseconds, and about 1 for each node of the graph where inputs are looked at.
    """

    name: str = "batch_statistics"
    points: tuple[Point, ...] = ("backward",)
    tier: Tier = "norms"

    def read(self, live: Live) -> Reading:
        """Return numbers on the device of the batch."""
        node = live.roots[-1].node if live.roots else None
        if node is None:
            return {}
        reading: dict[str, float | torch.Tensor] = {}
        loss = graph.find_loss(node)
        targets = graph.targets_of(loss) if loss is not None else None
        if loss is not None and targets is not None and targets.numel() > 0:
            reading.update(_targets(loss, targets))
        looks = live.memory["batch_statistics"] = live.memory.get("batch_statistics", -1) + 1
        if looks < FIRST or looks % SELDOM == 0:
            given = next((tensor for tensor in graph.inputs_of(node) if tensor.is_floating_point()), None)
            if given is not None and given.numel() > 0:
                values = sample(given).float()
                # A mean of zero elements would be NaN, the deviation of a single one too.
                deviation, mean = torch.std_mean(values, correction=0)
                reading.update(input_mean=mean, input_std=deviation, input_largest=values.abs().amax())
        return reading


def sample(tensor: torch.Tensor) -> torch.Tensor:
    """Return at most `SAMPLE` elements as a vector, evenly spread; small tensors whole."""
    flat = in_memory_order(tensor)
    return flat[:: math.ceil(flat.numel() / SAMPLE)] if flat.numel() > SAMPLE else flat


def in_memory_order(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements as a vector, as they lie in memory: to reshape images in channels-last order copies them."""
    tensor = tensor.detach()
    if not tensor.is_contiguous():
        strides = tensor.stride()
        tensor = tensor.permute(sorted(range(tensor.dim()), key=lambda axis: -strides[axis]))
    return tensor.reshape(-1)


def _targets(loss: graph.LossNode, targets: torch.Tensor) -> dict[str, float | torch.Tensor]:
    values = sample(targets)
    count = {"target_count": float(targets.numel())}
    if loss.kind == "cross-entropy":
        return count | _labels(loss, values)
    deviation, mean = torch.std_mean(values.float(), correction=0)
    if loss.kind == "squared":
        return {**count, "target_mean": mean, "target_spread": deviation}
    one_output = targets.dim() < 2 or targets.shape[1:].numel() == 1
    return {**count, "label_mean": mean, "target_spread": deviation} if one_output else {}


def _labels(loss: graph.LossNode, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Count the classes by adding up ones, which needs no sorting and no waiting for the device."""
    scores = graph.saved(loss.node, "self")
    if not isinstance(scores, torch.Tensor) or scores.dim() == 0:
        return {}
    classes = scores.shape[1] if scores.dim() > 1 else scores.shape[0]
    valid = ((labels >= 0) & (labels != graph.ignored(loss.node))).float()
    counts = torch.zeros(classes, device=labels.device).scatter_add_(0, labels.clamp(0, classes - 1).long(), valid)
    total = counts.sum().clamp(min=1.0)
    shares = counts / total
    places = torch.arange(classes, device=labels.device, dtype=torch.float32)
    mean = torch.dot(shares, places)
    return {
        "label_entropy": torch.special.entr(shares).sum(),
        "label_classes": (counts > 0).float().sum(),
        "label_mean": mean,
        "target_spread": torch.dot(shares, (places - mean).square()).sqrt(),
    }
