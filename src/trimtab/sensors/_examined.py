"""What a tensor that the user names says about itself: the functions behind `guard.examine`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch

Kind = Literal["representation", "attention", "latent"]

ROWS, FEATURES = 256, 512
"""At most so many rows and features are looked at, evenly spread: one decomposition of a 256 x 256 matrix."""
ACTIVE = 0.01
"""A latent unit whose mean varies over the batch with less variance than this carries nothing (Burda et al. 2016)."""


def examined(kind: Kind, tensor: torch.Tensor) -> dict[str, float]:
    """Return what is measured of a tensor of this kind, by name; at most one wait for a device.

    Args:
        kind: "representation" for features of examples, (N, D), or (N, T, D) of which each of the N x T vectors counts;
            "attention" for probabilities over keys, (..., L, S), 0 where a key is hidden;
            "latent" for the means of a latent distribution, (N, D).
        tensor: the tensor, on any device.

    Returns:
        `rank` and `spread` of a representation; with `active_units` of a latent; `entropy` and `peak` of an attention.
        Nothing of a representation or latent of one example, which cannot differ from others.
    """
    if kind != "attention" and rows_of(tensor.detach()).shape[0] < 2:
        return {}
    with torch.no_grad():
        return {name: float(value) for name, value in KINDS[kind](tensor.detach()).items()}


def rows_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return at most `ROWS` vectors of at most `FEATURES` features, evenly spread, in float32."""
    if tensor.dim() < 2:
        tensor = tensor.reshape(-1, 1)
    rows = tensor.flatten(0, -2) if tensor.dim() == 3 else tensor.flatten(1)
    rows = rows[:: math.ceil(rows.shape[0] / ROWS) or 1]
    return rows[:, :: math.ceil(rows.shape[1] / FEATURES) or 1].float()


def effective_rank(rows_ND: torch.Tensor) -> torch.Tensor:
    """Return exp(entropy) of the singular values of the centred rows: how many directions they fill; 0 for none.

    The measure of Roy and Vetterli (2007): 1 when all rows lie on a line, D when every direction has its share, NaN
    when a number is not finite.
    """
    centred = rows_ND - rows_ND.mean(0)
    centred = centred / centred.abs().amax().clamp(min=torch.finfo(centred.dtype).tiny)
    gram = centred @ centred.T if centred.shape[0] < centred.shape[1] else centred.T @ centred
    finite = gram.isfinite().all()
    gram = torch.where(finite, gram, torch.zeros_like(gram))  # a decomposition raises at NaN
    squares = torch.linalg.eigvalsh(gram.double() if gram.device.type != "mps" else gram).clamp(min=0.0)
    # Below this share of the largest an eigenvalue is what rounding left of nothing.
    squares = torch.where(squares > 1e-6 * squares.amax(), squares, torch.zeros_like(squares))
    shares = squares.sqrt()
    total = shares.sum()
    shares = shares / total.clamp(min=torch.finfo(shares.dtype).tiny)
    rank = torch.where(total > 0, torch.exp(torch.special.entr(shares).sum()), torch.zeros_like(total))
    return torch.where(finite, rank, torch.full_like(rank, torch.nan))


def spread(rows_ND: torch.Tensor) -> torch.Tensor:
    """Return the mean over features of the standard deviation over rows, divided by the root mean square of all."""
    size = rows_ND.square().mean().sqrt()
    deviation = rows_ND.std(0, correction=0).mean()
    return deviation / size.clamp(min=torch.finfo(rows_ND.dtype).tiny)


def active_units(rows_ND: torch.Tensor) -> torch.Tensor:
    """Return how many features vary over the rows."""
    return (rows_ND.var(0, correction=0) > ACTIVE).sum()


def entropy_and_peak(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return entropy divided by ln(valid keys), and largest probability times valid keys, each the mean over rows.

    A key is valid for a row if some head gives it a probability above 0; rows with one valid key say nothing. Where
    no row is left, every row looks at one key alone: entropy 0, and the peak is the number of keys.
    """
    weights = weights.float()
    if weights.dim() == 1:
        weights = weights.unsqueeze(0)
    seen = weights > 0
    if weights.dim() > 3:
        seen = seen.any(-3, keepdim=True).expand_as(seen)
    weights, seen = weights.flatten(0, -2), seen.flatten(0, -2)
    step = math.ceil(weights.shape[0] / (4 * ROWS)) or 1
    weights, keys = weights[::step], seen[::step].sum(-1).to(weights.dtype)
    counts = keys > 1
    number = counts.sum()
    entropy = torch.special.entr(weights).sum(-1) / keys.clamp(min=2.0).log()
    peak = weights.amax(-1) * keys
    zero = torch.zeros_like(entropy)
    mean_entropy = torch.where(counts, entropy, zero).sum() / number.clamp(min=1)
    mean_peak = torch.where(counts, peak, zero).sum() / number.clamp(min=1)
    keys_at_all = torch.full_like(mean_peak, float(weights.shape[-1]))
    return mean_entropy, torch.where(number > 0, mean_peak, keys_at_all)


def _of_representation(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = rows_of(tensor)
    return {"rank": effective_rank(rows), "spread": spread(rows)}


def _of_latent(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = rows_of(tensor)
    return {"rank": effective_rank(rows), "spread": spread(rows), "active_units": active_units(rows)}


def _of_attention(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    entropy, peak = entropy_and_peak(tensor)
    return {"entropy": entropy, "peak": peak}


KINDS: Mapping[str, Callable[[torch.Tensor], dict[str, torch.Tensor]]] = {
    "representation": _of_representation,
    "attention": _of_attention,
    "latent": _of_latent,
}
"""What can be examined, and how."""
