"""A number that is the same for the same batch and different for every other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trimtab import graph
from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base

SAMPLE = 4096
"""At most so many elements of a tensor enter its fingerprint, evenly spread."""

INPUTS = 8
"""At most so many of a graph's input tensors enter a fingerprint."""


@dataclass(frozen=True, kw_only=True)
class BatchFingerprint(Base):
    """What tells one batch from another, without keeping any of its data.

    - `target_fingerprint`: of the targets that the loss function saved;
    - `input_fingerprint`: of the tensors that the first layers were given, on thorough rows;
    - `batch_fingerprint`: of the batch handed over with `allows(batch=...)`;
    - `batch_rows`: length of the first dimension; `loader_rows`: rows of the smallest data set behind a
      DataLoader with that batch size, absent when there is none;
    - `input_nonfinite`: share of non-finite elements of the input, on thorough rows.

    A fingerprint is a weighted sum in which the place of each element counts; no random numbers are drawn.
    """

    name: str = "batch_fingerprint"
    tier: Tier = "often"
    points: tuple[Point, ...] = ("backward", "before")

    def read(self, live: Live) -> Reading:
        """Return fingerprints as tensors on the device of the data."""
        if live.optimizer is not None:
            return _of_batch(live) if live.batch is not None else {}
        node = live.roots[-1].node if live.roots else None
        if node is None:
            return {}
        reading: dict[str, Any] = {}
        loss = graph.find_loss(node)
        targets = graph.targets_of(loss) if loss is not None else None
        if targets is not None and targets.numel() > 0:
            reading["target_fingerprint"] = fingerprint(targets)
        if live.thorough:
            inputs = graph.inputs_of(node)
            if inputs:
                # All of them: the first alone may be a constant, such as the ones that a slope penalty starts from.
                reading["input_fingerprint"] = _combined(inputs[:INPUTS])
                reading["batch_rows"] = float(inputs[0].shape[0]) if inputs[0].dim() else 1.0
                reading.update(_loader_rows(live, reading["batch_rows"]))
                if inputs[0].is_floating_point():
                    reading["input_nonfinite"] = _nonfinite(inputs[0])
        return reading


def _nonfinite(tensor: torch.Tensor) -> float | torch.Tensor:
    """Return the share of non-finite elements; on a CPU a finite sum saves looking at each."""
    if tensor.is_cpu and math.isfinite(tensor.sum().item()):
        return 0.0
    return 1.0 - torch.isfinite(tensor).float().mean()


def fingerprint(tensor: torch.Tensor) -> torch.Tensor:
    """Return a 0-D float64 (float32 where the device has no float64) that depends on values and their order.

    The weights are fractional parts of multiples of the golden ratio: no two of the first `SAMPLE` are alike.
    """
    flat = tensor.detach().reshape(-1)
    if flat.numel() > SAMPLE:
        flat = flat[:: math.ceil(flat.numel() / SAMPLE)]
    if flat.is_complex():
        flat = torch.view_as_real(flat.resolve_conj()).reshape(-1)
    dtype = torch.float32 if tensor.device.type == "mps" else torch.float64
    return torch.dot(flat.to(dtype), _weights(flat.numel(), tensor.device, dtype))


_WEIGHTS: dict[tuple[int, torch.device], torch.Tensor] = {}


def _weights(count: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    key = (count, device)
    if key not in _WEIGHTS:
        if len(_WEIGHTS) > 64:
            _WEIGHTS.clear()
        ramp = torch.arange(1, count + 1, dtype=torch.float64) * ((math.sqrt(5) - 1) / 2)
        _WEIGHTS[key] = (ramp - ramp.floor() + 0.5).to(device=device, dtype=dtype)
    return _WEIGHTS[key]


def _loader_rows(live: Live, batch_rows: float) -> dict[str, float]:
    rows = [rows for size, rows in live.loaders if size == batch_rows]
    return {"loader_rows": float(min(rows))} if rows else {}


def _of_batch(live: Live) -> Reading:
    parts = [part for part in _tensors(live.batch) if part.numel()]
    if not parts:
        return {}
    rows = float(parts[0].shape[0]) if parts[0].dim() else 1.0
    return {"batch_fingerprint": _combined(parts), "batch_rows": rows, **_loader_rows(live, rows)}


def _combined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    prints = [fingerprint(part) * (index + 1) for index, part in enumerate(parts)]
    return prints[0] if len(prints) == 1 else torch.stack([p.to(prints[0].device) for p in prints]).sum()


def _tensors(batch: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif depth < 4 and isinstance(batch, Mapping):
        for key in sorted(batch, key=str):
            yield from _tensors(batch[key], depth + 1)
    elif depth < 4 and isinstance(batch, (list, tuple)):
        for part in batch:
            yield from _tensors(part, depth + 1)
