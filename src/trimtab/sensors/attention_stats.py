"""How sharply each attention looks, and how large its logits are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base

EXAMPLES, HEADS, ROWS = 2, 4, 32
"""At most so many batch elements, heads and query rows of each attention are looked at, evenly spread ..."""
LOGITS = 16_384
"""... and no more than so many logits of each of these heads, so that many keys mean fewer rows."""
KEYS = 4096
"""An attention with more keys is passed over, as its mask alone would be dear."""
ATTENTIONS = 8
"""At most so many attentions of a model are looked at, evenly spread from the first to the last."""
FEWEST_KEYS = 4
"""A softmax over fewer keys is a gate rather than an attention, and its entropy says little."""
UNDERFLOW = 80.0
"""A logit so far below the largest of its row may have the probability zero in float32."""
MASKED = -1e4
"""An additive mask below this hides a key; biases that only prefer some keys lie far above."""


class Looks(NamedTuple):
    """What one attention does, each a 0-D tensor; NaN where no row has two keys to choose from."""

    entropy: torch.Tensor
    peak: torch.Tensor
    logit: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class AttentionStats(Base):
    """What each attention of the graph does with its keys, on at most 2 examples, 4 heads and 32 query rows.

    - `attention_entropy`: mean over rows of the entropy, divided by ln(valid keys): 1 looks at all alike, 0 at one;
    - `attention_peak`: mean over rows of the largest probability times the number of valid keys, 1 when uniform;
    - `attention_logit`: the largest distance of a logit from the mean of its row, over valid keys and without biases.

    Keys that a mask hides are not valid, and a row with one valid key is left out. Where the attention is written out,
    so that the result of its softmax is kept and no mask, the mask is read from its zeros. If query and key cannot be
    read either, `attention_logit` is ln(largest) - mean ln(p), which is at most 87 in float32.

    Cost: 0.3 milliseconds for each of at most 8 small attentions, 1 for large ones, on rows of the "layers" tier.
    """

    name: str = "attention_stats"
    points: tuple[Point, ...] = ("backward",)
    tier: Tier = "layers"
    axes: Mapping[str, str] = field(
        default_factory=lambda: dict.fromkeys(("attention_entropy", "attention_peak", "attention_logit"), "attentions")
    )

    def read(self, live: Live) -> Reading:
        """Return the three quantities of each attention, as tensors on its device."""
        found: dict[str, Looks] = {}
        attentions = [layer for layer in live.layers if layer.attention]
        for layer in attentions[:: stride(len(attentions), ATTENTIONS)]:
            looks = None
            if layer.kind == "sdpa" and layer.query is not None and layer.key is not None:
                looks = of_scores(layer.query, layer.key, layer.mask, layer.causal, layer.scale)
            elif layer.result is not None:
                looks = of_weights(layer.result, layer.query, layer.key, layer.scale)
            if looks is not None:
                found[layer.label] = looks
        if not found:
            return {}
        return {
            "attention_entropy": {label: looks.entropy for label, looks in found.items()},
            "attention_peak": {label: looks.peak for label, looks in found.items()},
            "attention_logit": {label: looks.logit for label, looks in found.items()},
        }


def stride(size: int, most: int) -> int:
    """Return the step that takes at most `most` of `size` places, evenly spread from the first one on."""
    return max(-(-size // most), 1)


def _sample(tensor_BHLX: torch.Tensor, b: int, h: int, rows: int) -> torch.Tensor:
    """Take every b-th example, every h-th head and every so many-th row; a dimension that is broadcast stays."""
    return tensor_BHLX[::b, ::h, ::rows]


def of_scores(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, causal: bool, scale: float | None
) -> Looks | None:
    """Return what scaled dot-product attention does.

    Args:
        query: (..., L, E), with batch elements first and heads last among the leading dimensions.
        key: (..., S, E); with fewer heads than the query when several share one.
        mask: boolean (True may be looked at) or added to the logits; broadcast to (..., L, S).
        causal: whether row i sees the keys 0 to i only.
        scale: factor of the products, None for 1 / sqrt(E).
    """
    if query.dim() < 2 or key.shape[-2] < FEWEST_KEYS or key.shape[-2] > KEYS:
        return None
    query_BHLE, key_BHSE = _four(query.detach()), _four(key.detach())
    (b, h, lines, width), keys = query_BHLE.shape, key_BHSE.shape[2]
    steps = _steps(b, h, lines, keys)
    q = _sample(query_BHLE, *steps).float()
    shared = key_BHSE.shape[1]
    k = key_BHSE[:: steps[0]]
    k = k[:, :: steps[1]] if shared == h else torch.stack([k[:, i * shared // h] for i in range(0, h, steps[1])], 1)
    k = k.float()
    products = q @ k.transpose(-1, -2) * (1.0 / math.sqrt(width) if scale is None else scale)
    logits, valid = products, None
    if causal:
        valid = _causal(lines, steps[2], keys, products.device)
    if mask is not None:
        mask = _sample(_four(mask.detach()), *steps)
        seen = mask if mask.dtype == torch.bool else mask > MASKED
        valid = seen if valid is None else valid & seen
        if mask.dtype != torch.bool:
            logits = products + mask.float()
    if valid is None:
        valid = torch.ones((1, keys), dtype=torch.bool, device=products.device)
    valid = valid.expand(*valid.shape[:-1], keys)
    hidden = ~valid
    count = valid.sum(-1).float()
    weights = torch.softmax(logits.masked_fill(hidden, torch.finfo(torch.float32).min), -1)
    far = (products - _mean(products, hidden, count).unsqueeze(-1)).abs_().masked_fill_(hidden, 0.0).amax(-1)
    return _looks(weights, count, far)


def of_weights(
    result: torch.Tensor,
    query: torch.Tensor | None = None,
    key: torch.Tensor | None = None,
    scale: float | None = None,
) -> Looks | None:
    """Return what an attention does of which the probabilities are kept.

    Args:
        result: (..., L, S) of three dimensions or more; a matrix is the softmax of a classifier or of a gate.
        query, key, scale: what the logits were made of, where they can be read; any leading dimensions.
    """
    if result.dim() < 3 or result.shape[-1] < FEWEST_KEYS or result.shape[-1] > KEYS:
        return None
    merged = result.dim() == 3  # (examples x heads, L, S), as nn.MultiheadAttention has it
    weights_BHLS = result.detach().unsqueeze(1) if merged else _four(result.detach())
    b, h, lines, keys = weights_BHLS.shape
    steps = (stride(b, EXAMPLES * HEADS), 1, _steps(b, h, lines, keys)[2]) if merged else _steps(b, h, lines, keys)
    p = _sample(weights_BHLS, *steps).float()
    # What lies above the diagonal was hidden if all of it is zero.
    future = ~_causal(lines, steps[2], keys, p.device)
    future = future & ((p * future).amax() == 0) if lines == keys else torch.zeros_like(future)
    products = None
    if query is not None and key is not None and scale is not None and _fits(query, key, b * h, lines, keys):
        q = _sample(query.detach().reshape(b, h, lines, -1), *steps).float()
        k = key.detach().reshape(b, h, keys, -1)[:: steps[0], :: steps[1]].float()
        products = q @ k.transpose(-1, -2) * scale
    if products is not None:
        # So far below the largest that the probability became zero by itself. Any other zero is a mask.
        largest = products.masked_fill(p <= 0, -torch.inf).amax(-1, keepdim=True)
        hidden = (p <= 0) & ((largest - products <= UNDERFLOW) | future)
    else:  # a key that no sampled row of an example looks at
        hidden = ~(p > 0).any(1, keepdim=True).any(2, keepdim=True) | future
    count = keys - hidden.sum(-1).float()
    if products is None:
        logs = p.clamp(min=torch.finfo(torch.float32).tiny).log()
        far = logs.masked_fill(hidden, -torch.inf).amax(-1) - _mean(logs, hidden, count)
    else:
        far = (products - _mean(products, hidden, count).unsqueeze(-1)).abs_().masked_fill_(hidden, 0.0).amax(-1)
    return _looks(p, count, far)


def _fits(query: torch.Tensor, key: torch.Tensor, attentions: int, lines: int, keys: int) -> bool:
    """Say whether query and key are those of so many attentions of lines x keys."""
    wanted = attentions * lines * query.shape[-1], attentions * keys * key.shape[-1]
    return query.shape[-1] == key.shape[-1] and (query.numel(), key.numel()) == wanted


def _steps(b: int, h: int, lines: int, keys: int) -> tuple[int, int, int]:
    return stride(b, EXAMPLES), stride(h, HEADS), stride(lines, min(ROWS, max(LOGITS // keys, 1)))


def _mean(values: torch.Tensor, hidden: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return the mean of each row over its valid keys."""
    return values.masked_fill(hidden, 0.0).sum(-1) / count.clamp(min=1)


def _looks(weights: torch.Tensor, count: torch.Tensor, far: torch.Tensor) -> Looks:
    """Average over the rows that have at least two keys to choose from; hidden keys have the weight zero."""
    skipped = count < 2
    # Written out: torch.special.entr is not vectorised on a CPU, and took half of all the time here.
    logs = weights.clamp(min=torch.finfo(torch.float32).tiny).log()
    entropy = -(weights * logs).sum(-1) / count.clamp(min=2).log()
    peak = weights.amax(-1) * count
    rows = torch.stack((entropy, peak, far)).masked_fill_(skipped, 0.0).flatten(1)
    total = (~skipped).expand(entropy.shape).sum()
    return Looks(rows[0].sum() / total, rows[1].sum() / total, rows[2].amax() / (total > 0))


def _four(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor with four dimensions, the leading ones added or merged."""
    if tensor.dim() > 4:
        return tensor.flatten(0, tensor.dim() - 4)
    return tensor[(None,) * (4 - tensor.dim())]


def _causal(lines: int, step: int, keys: int, device: torch.device) -> torch.Tensor:
    """Return which keys every `step`-th row sees when it sees no later one, (rows, keys)."""
    rows = torch.arange(0, lines, step, device=device).unsqueeze(1)
    return torch.arange(keys, device=device) <= rows
