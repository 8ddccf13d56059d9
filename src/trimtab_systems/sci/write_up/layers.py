"""Pre-LN Transformer layers on one fused attention kernel, with a cache for tokens that come one by one.

Letters in names: B rows, H heads, N or T tokens, M tokens of the memory, D width, C dimensions of a head.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.positions import Where, rotate


def depths(fractions: tuple[float, ...], layers: int) -> tuple[int, ...]:
    """Return after which layers, counted from 1, these fractions of the depth are reached: ceil(fraction x layers)."""
    return tuple(sorted({-int(-fraction * layers // 1) for fraction in fractions}))


class LayerCache:
    """Keys and values of one decoder layer: of the tokens so far, with room for more, and of the memory.

    Attributes:
        key_BHTC: (B, H, T, C), filled up to the length that the owner keeps.
        value_BHTC: likewise.
        memory_key_BHMC: of the memory, complete.
        memory_value_BHMC: likewise.
    """

    __slots__ = ("key_BHTC", "memory_key_BHMC", "memory_value_BHMC", "value_BHTC")

    def __init__(self, memory_key_BHMC: torch.Tensor, memory_value_BHMC: torch.Tensor, longest: int):
        B, H, _, C = memory_key_BHMC.shape
        self.key_BHTC = memory_key_BHMC.new_empty(B, H, longest, C)
        self.value_BHTC = torch.empty_like(self.key_BHTC)
        self.memory_key_BHMC, self.memory_value_BHMC = memory_key_BHMC, memory_value_BHMC

    def extend(
        self, key_BHNC: torch.Tensor, value_BHNC: torch.Tensor, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write what is new behind the first `length` tokens and return keys and values of all."""
        end = length + key_BHNC.shape[2]
        self.key_BHTC[:, :, length:end] = key_BHNC
        self.value_BHTC[:, :, length:end] = value_BHNC
        return self.key_BHTC[:, :, :end], self.value_BHTC[:, :, :end]

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order; a row may come more than once."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name).index_select(0, rows))


def in_heads(x_BND: torch.Tensor, heads: int) -> torch.Tensor:
    """Return vectors divided among heads, (B, H, N, D / H)."""
    parted_BNHC: torch.Tensor = x_BND.unflatten(-1, (heads, -1))
    return parted_BNHC.transpose(1, 2)


class Dropout(nn.Module):
    """As `nn.Dropout`, but with 16 random bits a number: on a CPU that takes an eighth of the time."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share
        self.least = round(share * 2**16) - 2**15

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` with a share of its numbers set to 0 and the others scaled up; in evaluation, `x`."""
        if not self.training or self.share == 0:
            return x
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = (bits.view(torch.int16)[: x.numel()] >= self.least).view(x.shape)
        return x * (kept * (1 / (1 - self.share)))


class SelfAttention(nn.Module):
    """Attention of tokens to themselves, with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x_BND: torch.Tensor,
        where: Where,
        mask: torch.Tensor | None,
        *,
        causal: bool = False,
        cache: LayerCache | None = None,
        length: int = 0,
    ) -> torch.Tensor:
        """Return what each token reads, (B, N, D).

        Args:
            x_BND: the tokens, with a cache only those that are new.
            where: of their places.
            mask: added to the scores, broadcast to (B, H, N, keys), the bias of `where` included; None for none.
            causal: a token reads itself and those before it; then no mask is given.
            cache: of this layer; extended.
            length: tokens in the cache.
        """
        B, N, D = x_BND.shape
        both, value = self.qkv(x_BND).split((2 * D, D), dim=-1)
        query_BHNC, key = rotate(in_heads(both, 2 * self.heads), where).chunk(2, dim=1)
        value = in_heads(value, self.heads)
        if cache is not None:
            key, value = cache.extend(key, value, length)
        read_BHNC = functional.scaled_dot_product_attention(query_BHNC, key, value, attn_mask=mask, is_causal=causal)
        out_BND: torch.Tensor = self.out(read_BHNC.transpose(1, 2).reshape(B, N, D))
        return out_BND


class CrossAttention(nn.Module):
    """Attention of tokens to the memory of another stack; places play no part."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys(self, memory_BMD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of the memory, (B, H, M, C) each."""
        key_BMD, value_BMD = self.key_value(memory_BMD).chunk(2, dim=-1)
        return in_heads(key_BMD, self.heads), in_heads(value_BMD, self.heads)

    def forward(
        self, x_BTD: torch.Tensor, keys: tuple[torch.Tensor, torch.Tensor], mask_BHTM: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what each token reads, (B, T, D).

        Args:
            x_BTD: the tokens.
            keys: of the memory, from `keys`.
            mask_BHTM: True where the memory may be read, broadcast; None for everywhere.
        """
        B, T, D = x_BTD.shape
        query_BHTC = in_heads(self.query(x_BTD), self.heads)
        read_BHTC = functional.scaled_dot_product_attention(query_BHTC, *keys, attn_mask=mask_BHTM)
        out_BTD: torch.Tensor = self.out(read_BHTC.transpose(1, 2).reshape(B, T, D))
        return out_BTD


def feed_forward(width: int, hidden: int) -> nn.Sequential:
    """Return two linear layers around a GELU."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Pre-LN self-attention and feed-forward layer, each added to what it read."""

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.attention = SelfAttention(config.width, config.heads)
        self.norm_forward = nn.LayerNorm(config.width)
        self.forward_layer = feed_forward(config.width, config.mlp_ratio * config.width)
        self.drop = Dropout(config.dropout)

    def forward(self, x_BND: torch.Tensor, where: Where, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the tokens after this layer; `mask` as in `encoder_mask`."""
        x_BND = x_BND + self.drop(self.attention(self.norm(x_BND), where, mask))
        out_BND: torch.Tensor = x_BND + self.drop(self.forward_layer(self.norm_forward(x_BND)))
        return out_BND


class DecoderLayer(nn.Module):
    """Pre-LN causal self-attention, attention to the memory and feed-forward layer, each added to what it read."""

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.attention = SelfAttention(config.width, config.heads)
        self.norm_cross = nn.LayerNorm(config.width)
        self.cross = CrossAttention(config.width, config.heads)
        self.norm_forward = nn.LayerNorm(config.width)
        self.forward_layer = feed_forward(config.width, config.mlp_ratio * config.width)
        self.drop = Dropout(config.dropout)

    def forward(
        self,
        x_BTD: torch.Tensor,
        where: Where,
        mask: torch.Tensor | None,
        memory: torch.Tensor | None,
        memory_mask: torch.Tensor | None,
        cache: LayerCache | None = None,
        length: int = 0,
    ) -> torch.Tensor:
        """Return the tokens after this layer.

        Args:
            x_BTD: the tokens, with a cache only those that are new.
            where: of their places.
            mask: from `causal_mask`; None for the plain causal one where there is no cache, and for none where the
                cache is followed by a single token.
            memory: (B, M, D), of the encoder; with a cache it is not read.
            memory_mask: (B, 1, 1, M), True for words.
            cache: of this layer; extended.
            length: tokens in the cache.
        """
        plain = mask is None and cache is None
        own_BTD = self.attention(self.norm(x_BTD), where, mask, causal=plain, cache=cache, length=length)
        x_BTD = x_BTD + self.drop(own_BTD)
        if cache is None:
            assert memory is not None, "a decoder without a cache reads the memory"
            keys = self.cross.keys(memory)
        else:
            keys = cache.memory_key_BHMC, cache.memory_value_BHMC
        x_BTD = x_BTD + self.drop(self.cross(self.norm_cross(x_BTD), keys, memory_mask))
        out_BTD: torch.Tensor = x_BTD + self.drop(self.forward_layer(self.norm_forward(x_BTD)))
        return out_BTD


def encoder_mask(mask_BN: torch.Tensor, where: Where) -> torch.Tensor:
    """Return what an encoder's scores are masked with: True for words, or the bias and minus infinity elsewhere."""
    allowed_B11N = mask_BN[:, None, None, :]
    if where.bias_HQK is None:
        return allowed_B11N
    return where.bias_HQK.masked_fill(~allowed_B11N, float("-inf"))


def causal_mask(where: Where, new: int, length: int, device: torch.device, *, cached: bool) -> torch.Tensor | None:
    """Return what a decoder's scores are masked with, (.., new, length + new), or None where none is needed.

    That is so for a single token, and without cache and bias: then the kernel masks by itself.
    """
    if where.bias_HQK is None and (new == 1 or not cached):
        return None
    allowed_TK = torch.ones(new, length + new, dtype=torch.bool, device=device).tril(length)
    if where.bias_HQK is None:
        return allowed_TK
    return where.bias_HQK.masked_fill(~allowed_TK, float("-inf"))
