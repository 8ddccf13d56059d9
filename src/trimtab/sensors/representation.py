"""Whether the model still tells its inputs apart: spread and rank of what it makes of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trimtab import graph
from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base

ROWS, FEATURES = 128, 256
"""At most so many rows of a batch and features of each row are looked at, evenly spread."""
LINEAR = 2
"""The inputs of the last so many linear layers are looked at: a collapse may hide behind a normalisation."""


@dataclass(frozen=True, kw_only=True)
class Representation(Base):
    """How different what the model makes of the examples of a batch is, on at most 128 rows and 256 features.

    - `output_spread`: mean over outputs of the standard deviation over the batch, divided by the root mean square of
      what the loss was given; logits of a cross-entropy are centred first. 0: the same answer whatever the input;
    - `representation_spread`: the same for the input of a linear layer: the smaller of the last two such layers;
    - `representation_rank`: in how many directions such an input varies, the smaller of the two: (sum of variances)^2 /
      (sum of their squares) along its principal axes, which needs no decomposition and no waiting.

    What was given as data is left out, as are batches of one example.

    Cost: 0.5 milliseconds, on rows of the "layers" tier.
    """

    name: str = "representation"
    points: tuple[Point, ...] = ("backward",)
    tier: Tier = "layers"

    def read(self, live: Live) -> Reading:
        """Return tensors on the device of the model."""
        reading: dict[str, torch.Tensor] = {}
        node = live.roots[-1].node if live.roots else None
        loss = graph.find_loss(node) if node is not None else None
        outputs = _given(loss) if loss is not None else None
        if outputs is not None:
            reading["output_spread"] = spread_and_rank(outputs, ranked=False)[0]
        if node is not None and live.layers:
            given = [layer.given for layer in live.layers if layer.kind == "linear" and layer.given is not None]
            if len(given) <= 4 * LINEAR:  # in a deeper model the last layers are not given data
                data = {tensor.data_ptr() for tensor in graph.inputs_of(node)}
                given = [tensor for tensor in given if tensor.data_ptr() not in data]
            chosen = [sample(tensor) for tensor in given if tensor.dim() > 1 and tensor.shape[0] > 1][-LINEAR:]
            if chosen:
                both = torch.stack([torch.stack(spread_and_rank(rows)) for rows in chosen]).amin(0)
                reading["representation_spread"], reading["representation_rank"] = both.unbind()
        return reading


def _given(loss: graph.LossNode) -> torch.Tensor | None:
    """Return what the loss function was given, (examples, outputs): centred logits, scores or the prediction."""
    if loss.kind == "cross-entropy":
        node = next(iter(graph.parents(loss.node)), None)
        while node is not None and graph.name_of(node) != "LogSoftmaxBackward0":
            before = graph.parents(node)
            node = before[0] if len(before) == 1 else None
        scores = graph.saved(node, "result") if node is not None else None
        if not isinstance(scores, torch.Tensor) or scores.dim() < 2 or scores.shape[0] < 2:
            return None
        over = graph.saved(node, "dim")
        if not isinstance(over, int):
            return None
        over = over - 2**64 if over >= 2**63 else over  # torch hands a negative number out as an unsigned one
        scores = sample(_rows(scores.detach().movedim(over, -1)))
        return scores - scores.mean(1, keepdim=True)
    given = graph.saved(loss.node, "self")
    if not isinstance(given, torch.Tensor) or given.dim() < 1 or given.shape[0] < 2:
        return None
    return sample(given.detach())


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return `ROWS` of the vectors along the last dimension, evenly spread; flattening a map of classes copies it."""
    if tensor.dim() == 2:
        return tensor
    places = math.prod(tensor.shape[:-1])
    place = torch.arange(0, places, _stride(places, ROWS), device=tensor.device)
    index: list[torch.Tensor] = []
    for size in reversed(tensor.shape[:-1]):
        index.insert(0, place % size)
        place = place // size
    return tensor[tuple(index)]


def sample(tensor: torch.Tensor) -> torch.Tensor:
    """Return at most `ROWS` x `FEATURES` of the values, in float32: evenly spread rows, and features of each."""
    chosen = tensor.unsqueeze(1) if tensor.dim() == 1 else tensor
    chosen = chosen[:: _stride(chosen.shape[0], ROWS)]
    if chosen.dim() > 2:  # images and sequences: thin out each place before flattening, which may copy
        thin = _stride(chosen[0, 0].numel(), FEATURES)
        chosen = chosen.flatten(2)[:, :, ::thin].flatten(1)
    return chosen[:, :: _stride(chosen.shape[1], FEATURES)].float()


def _stride(size: int, most: int) -> int:
    return max(-(-size // most), 1)


def spread_and_rank(rows: torch.Tensor, ranked: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how different the rows are, and in how many directions (0 where that was not asked for).

    The first is the mean over columns of the standard deviation over rows, divided by the root mean square. The second
    is 1 for rows on a line and n for n directions alike, 0 where all rows are the same.
    """
    tiny = torch.finfo(rows.dtype).tiny
    mean = rows.mean(0)
    centred = rows - mean
    variance = centred.square().mean(0)
    size = (variance.mean() + mean.square().mean()).sqrt()
    spread = variance.sqrt().mean() / size.clamp(min=tiny)
    if not ranked:
        return spread, spread.new_zeros(())
    centred = centred / variance.mean().sqrt().clamp(min=tiny)
    # The squares of the covariance's entries add up to the squares of its eigenvalues; the smaller product is enough.
    gram = centred @ centred.T if rows.shape[0] < rows.shape[1] else centred.T @ centred
    return spread, gram.diagonal().sum().square() / gram.square().sum().clamp(min=tiny)
