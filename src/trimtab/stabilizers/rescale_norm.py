"""Cap the norm of each sample without turning it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trimtab.errors import UserError

TINY = 1e-8
"""Added to a norm before something is divided by it."""


def rescale_norm(
    x: torch.Tensor,
    max_norm: float | None,
    dims: int | tuple[int, ...],
    *,
    stats: NormStats | None = None,
    ids: Sequence[int] | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return `x` with the norm of each sample capped: y = x * min(1, max_norm / (norm + 1e-8)).

    The guarantee: no norm is above `max_norm` by more than rounding; the direction of a sample never changes; a sample
    within the cap is bit-identical; no sample has an influence on another. The gradient goes through the norm, so it is
    that of the exact projection.

    A clamp without a penalty drifts. A clamped sample is the same whatever its norm was, so the gradient is at a right
    angle to it, and a step of gradient descent along it makes the sample longer, never shorter (one of Adam does so on
    average): the raw norm grows for as long as the clamp binds, and the more it has grown, the less a step turns it.
    Add `norm_excess_penalty` on the raw norm to the loss, and watch the raw norm with `NormStats`: the norm after the
    clamp says nothing. With noisy targets and a cap of 1, 500 steps of Adam took the raw norm from 3.0 to 4.7; with the
    penalty at a weight of 0.2 it came down to 1.0.

    Args:
        x: of any shape and floating type; norms are taken in float32 or wider.
        max_norm: the cap, in the units of `x`; None, zero or less turn the clamp off, and `x` itself is returned.
        dims: the dimensions that make up one sample; the others are counted as samples.
        stats: is told the raw norms, with the clamp off too.
        ids: for `stats`: an integer for each sample, or for each entry of the first dimension of the samples.

    Returns:
        A tensor like `x`. A sample whose norm is not finite becomes NaN as a whole: a clamp must not hide it.

    Raises:
        UserError: `x` is not floating, or `max_norm` is NaN.

    Source: P0.1 of the write-up on stabilising a recursive solver, which clamps at 3.0 the matrices that a network
    predicts. They are applied as x + Delta x, so that 1.0 bounds what they can do to a hidden state, and 3.0 does not.

    Example:
        >>> x = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
        >>> rescale_norm(x, 1.0, dims=1)
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    if not x.is_floating_point():
        raise UserError(f"rescale_norm: expected a tensor of floats, got {str(x.dtype).removeprefix('torch.')}")
    if max_norm is not None and math.isnan(max_norm):
        raise UserError("rescale_norm: max_norm is NaN; give a number, or None to turn the clamp off")
    off = max_norm is None or max_norm <= 0
    if off and stats is None:
        return x
    wide = x if x.dtype == torch.float64 else x.float()
    norm = torch.linalg.vector_norm(wide, dim=dims, keepdim=True)
    if stats is not None:
        axes = (dims,) if isinstance(dims, int) else dims
        samples = [size for axis, size in enumerate(x.shape) if axis not in {d % x.dim() for d in axes}]
        stats.add(norm.reshape(samples), max_norm=None if off else max_norm, ids=ids)
    if off:
        return x
    factor = torch.where(norm > max_norm, max_norm / (norm + TINY), 1.0)
    factor = torch.where(norm.isinf(), torch.nan, factor)
    return (wide * factor).to(x.dtype)


def norm_excess_penalty(raw: torch.Tensor, tau: float, dims: int | tuple[int, ...] | None = None) -> torch.Tensor:
    """Return mean(relu(norm - tau)^2) over samples, the companion of `rescale_norm`, as a 0-D tensor.

    It pulls a norm back to `tau` and leaves smaller ones alone: below `tau` it is zero, and so is its gradient. Give it
    what comes before the clamp: after the clamp its gradient is zero exactly when the clamp is at work.

    Args:
        raw: the raw norms, of any shape; or, with `dims`, what `rescale_norm` was given. Without samples it is zero.
        tau: where the penalty begins; 0.5 to 0.8 of the cap leaves the clamp for outliers.
        dims: the dimensions that make up one sample, where `raw` is not norms already.

    Raises:
        UserError: `tau` is negative or NaN.

    Source: P1.3 of the same write-up. Its |norm - 1| pulls small norms up as well, and its mean over samples before the
    absolute value hides outliers; both are mended here.

    Example:
        >>> norm_excess_penalty(torch.tensor([0.2, 0.5, 2.5]), tau=0.5)
        tensor(1.3333)
    """
    if not tau >= 0:
        raise UserError(f"norm_excess_penalty: tau must be 0 or more, got {tau}")
    wide = raw if raw.dtype == torch.float64 else raw.float()
    norm = wide if dims is None else torch.linalg.vector_norm(wide, dim=dims)
    if not norm.numel():
        return norm.sum()
    return (norm - tau).relu().square().mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSummary:
    """What `NormStats` saw since its reset; `mean` to `max` are over the finite norms, NaN when there is none.

    Attributes:
        count: samples.
        not_finite: samples whose norm was infinite or NaN.
        mean, p50, p95, max: of the raw norms. Quantiles interpolate linearly, and are those of the latest
            `NormStats.keep` samples.
        hit_rate: share of all samples on which the clamp was at work; 0 when it was off.
        top: (id, raw norm) of the largest, the largest first; those that are not finite stand before all others.
    """

    count: int
    not_finite: int
    mean: float
    p50: float
    p95: float
    max: float
    hit_rate: float
    top: tuple[tuple[int, float], ...]


class NormStats:
    """The distribution of raw norms since the last reset, gathered on the device without waiting for it.

    `rescale_norm(..., stats=stats, ids=ids)` fills it; `compute()` reads it, which waits for the device once, and
    `reset()` begins anew, for instance each epoch. One outlier in a batch hardly moves the mean: look at `max`, at the
    gap to `p95`, and at the ids.

    Args:
        top: how many of the largest norms are kept with their ids.
        keep: of how many of the latest samples norms are kept for the quantiles; 4 bytes each.

    Source: P2.2 of the write-up. A healthy clamp has a hit rate below 5 % and a raw p95 below twice the cap.
    """

    def __init__(self, *, top: int = 8, keep: int = 1_000_000):
        if top < 0 or keep < 1:
            raise UserError(f"NormStats: expected top >= 0 and keep >= 1, got top={top}, keep={keep}")
        self.top = top
        self.keep = keep
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._count = 0
        self._norms = torch.empty(0)
        """A ring of the latest norms: number i stands at i % keep. It grows as it fills."""
        self._sums = torch.zeros(3, dtype=torch.float64)
        """Of the finite norms: their sum and their number; and the number of hits."""
        self._max = torch.tensor(-math.inf)
        """Of the finite norms."""
        self._largest = torch.empty(0)
        self._ids = torch.empty(0, dtype=torch.int64)

    @torch.no_grad()
    def add(
        self,
        norms: torch.Tensor,
        *,
        max_norm: float | None = None,
        ids: Sequence[int] | torch.Tensor | None = None,
    ) -> None:
        """Take in the raw norms of some samples; nothing is read back from the device.

        Args:
            norms: one for each sample, of any shape.
            max_norm: the cap that they were held to; None when they were not.
            ids: an integer for each sample, or for each entry of the first dimension; by default samples are numbered
                as they come.

        Raises:
            UserError: the number of ids does not fit.
        """
        if not norms.numel():
            return
        device = norms.device
        if self._norms.device != device:
            self._move(device)
        flat = norms.detach().reshape(-1).to(torch.float32)
        numbers = self._numbers(norms, ids)
        finite = flat.isfinite()
        hits = flat > max_norm if max_norm is not None and max_norm > 0 else torch.zeros_like(finite)
        self._sums += torch.stack(
            [torch.where(finite, flat, 0.0).sum(dtype=self._sums.dtype), finite.sum(), hits.sum()]
        )
        self._max = torch.maximum(self._max, torch.where(finite, flat, -torch.inf).max())
        if self.top:
            everything, owners = torch.cat([self._largest, flat]), torch.cat([self._ids, numbers])
            rank = torch.where(everything.isnan(), torch.inf, everything)
            best = rank.topk(min(self.top, len(rank))).indices
            self._largest, self._ids = everything[best], owners[best]
        self._keep(flat)
        self._count += len(flat)

    def compute(self) -> NormSummary:
        """Return what was seen since the reset. This waits for the device."""
        norms = self._norms[: min(self._count, self.keep)].double().cpu().numpy()
        norms = norms[np.isfinite(norms)]
        total, finite, hits = self._sums.tolist()
        p50, p95 = np.quantile(norms, [0.5, 0.95]).tolist() if norms.size else (math.nan, math.nan)
        return NormSummary(
            count=self._count,
            not_finite=self._count - round(finite),
            mean=total / finite if finite else math.nan,
            p50=p50,
            p95=p95,
            max=self._max.item() if finite else math.nan,
            hit_rate=hits / self._count if self._count else 0.0,
            top=tuple(zip(self._ids.tolist(), self._largest.tolist(), strict=True)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return copies of everything gathered."""
        return {
            "count": self._count,
            "norms": self._norms[: min(self._count, self.keep)].clone(),
            "sums": self._sums.clone(),
            "max": self._max.clone(),
            "largest": self._largest.clone(),
            "ids": self._ids.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, of an object with the same `top` and `keep`."""
        if min(state["count"], self.keep) != len(state["norms"]):
            raise UserError(
                f"NormStats: the state holds {len(state['norms'])} norms of {state['count']} samples, which does not "
                f"fit keep={self.keep}; use the same keep"
            )
        self._count = state["count"]
        self._norms, self._sums, self._max = (state[name].clone() for name in ("norms", "sums", "max"))
        self._largest, self._ids = state["largest"].clone(), state["ids"].clone()

    def _move(self, device: torch.device) -> None:
        """Go where the norms are."""
        self._sums = self._sums.to(torch.float32 if device.type == "mps" else torch.float64).to(device)
        self._norms, self._max = self._norms.to(device), self._max.to(device)
        self._largest, self._ids = self._largest.to(device), self._ids.to(device)

    def _numbers(self, norms: torch.Tensor, ids: Sequence[int] | torch.Tensor | None) -> torch.Tensor:
        if ids is None:
            return torch.arange(self._count, self._count + norms.numel(), device=norms.device)
        given = torch.as_tensor(ids, dtype=torch.int64).to(norms.device, non_blocking=True).reshape(-1)
        if len(given) == norms.numel():
            return given
        if norms.dim() and len(given) == norms.shape[0]:
            return given.repeat_interleave(norms[0].numel(), output_size=norms.numel())
        raise UserError(
            f"NormStats: {len(given)} ids for norms of shape {tuple(norms.shape)}; give one for each sample, or one "
            f"for each entry of the first dimension"
        )

    def _keep(self, flat: torch.Tensor) -> None:
        """Write the norms into the ring, which has room for a power of two of them until it has room for all."""
        count = self._count + len(flat)
        flat = flat[-self.keep :]
        needed = min(count, self.keep)
        if needed > len(self._norms):
            grown = flat.new_full((min(self.keep, max(256, 1 << (needed - 1).bit_length())),), math.nan)
            grown[: len(self._norms)] = self._norms
            self._norms = grown
        first = (count - len(flat)) % self.keep
        fits = min(len(flat), self.keep - first)
        self._norms[first : first + fits] = flat[:fits]
        self._norms[: len(flat) - fits] = flat[fits:]
