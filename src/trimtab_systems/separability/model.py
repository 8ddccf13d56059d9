"""A small causal attention model.

Letters in names: B rows of a batch, T places of a row, D width of the model, H heads, E width of a head (D / H),
K taps, V tokens of the vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class Taps(nn.Module):
    """Add to each place a weighted sum of itself and the places just before it: a causal depthwise convolution.

    It tells a place who its predecessor is, without which a single attention layer can only look at fixed distances.
    """

    def __init__(self, width: int, taps: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(taps, width))
        nn.init.uniform_(self.weight, -1 / math.sqrt(taps), 1 / math.sqrt(taps))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return the input plus its taps; weight k multiplies the place k before."""
        length = x_BTD.shape[1]
        out_BTD = x_BTD
        for back, weight_D in enumerate(self.weight):
            out_BTD = out_BTD + weight_D * F.pad(x_BTD, (0, 0, back, 0))[:, :length]
        return out_BTD


class Head(nn.Module):
    """One attention head with weights of its own and a learned bonus for each distance to the past."""

    def __init__(self, width: int, size: int, length: int):
        super().__init__()
        self.query = nn.Linear(width, size, bias=False)
        self.key = nn.Linear(width, size, bias=False)
        self.value = nn.Linear(width, size, bias=False)
        self.output = nn.Linear(size, width, bias=False)
        self.lag = nn.Parameter(torch.zeros(length))
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.uniform_(self.output.weight, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x_BTD: torch.Tensor, distance_TT: torch.Tensor, ahead_TT: torch.Tensor) -> torch.Tensor:
        """Return what each place reads from the places that are not ahead of it, back in the model's width."""
        bonus_TT = self.lag[distance_TT].masked_fill(ahead_TT, -math.inf)
        read_BTE = F.scaled_dot_product_attention(
            self.query(x_BTD), self.key(x_BTD), self.value(x_BTD), attn_mask=bonus_TT
        )
        out_BTD: torch.Tensor = self.output(read_BTE)
        return out_BTD


class Attention(nn.Module):
    """Causal attention: each place reads itself and the past, by content and by distance."""

    distance: torch.Tensor
    ahead: torch.Tensor

    def __init__(self, width: int, heads: int, length: int):
        super().__init__()
        self.heads = nn.ModuleList(Head(width, width // heads, length) for _ in range(heads))
        place_T = torch.arange(length)
        distance_TT = place_T[:, None] - place_T[None, :]
        self.register_buffer("distance", distance_TT.clamp_min(0), persistent=False)
        self.register_buffer("ahead", distance_TT < 0, persistent=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return the sum of what the heads read."""
        length = x_BTD.shape[1]
        distance_TT, ahead_TT = self.distance[:length, :length], self.ahead[:length, :length]
        out_BTD = torch.zeros_like(x_BTD)
        for head in self.heads:
            out_BTD = out_BTD + head(x_BTD, distance_TT, ahead_TT)
        return out_BTD


class Block(nn.Module):
    """Attention, then two linear layers; each reads a normalised input and adds to it."""

    def __init__(self, width: int, heads: int, length: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, length)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return the input with both additions."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return x_BTD


class StreamModel(nn.Module):
    """Predict the next token of two interleaved streams.

    Embedding, taps, blocks, normalisation, linear layer to the vocabulary. Places are told apart by distance alone.
    The output at a place depends on that place and the ones before it, on nothing later.

    Args:
        vocabulary: number of tokens.
        length: the longest input.
        width: size of the hidden vectors, a multiple of `heads`.
        heads: attention heads per block.
        blocks: how many blocks.
        taps: places that the causal convolution reads, 0 for none.
    """

    def __init__(self, *, vocabulary: int, length: int, width: int, heads: int, blocks: int, taps: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.taps = Taps(width, taps) if taps else nn.Identity()
        self.blocks = nn.Sequential(*(Block(width, heads, length) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next token at every place, shape (B, T, V)."""
        logits_BTV: torch.Tensor = self.head(self.norm(self.blocks(self.taps(self.embedding(tokens_BT)))))
        return logits_BTV
