"""The encoder-decoder under the structure stream: a small pre-LN Transformer made from the settings.

Letters in names: B rows, N words, T actions, D width, V symbols of the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trimtab_systems.sci.data import OUTPUT, WORDS
from trimtab_systems.sci.write_up.binding import Readable
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.layers import (
    DecoderLayer,
    Dropout,
    EncoderLayer,
    LayerCache,
    causal_mask,
    encoder_mask,
)
from trimtab_systems.sci.write_up.positions import PositionEncoding

Inject = Callable[[int, torch.Tensor], torch.Tensor]
"""What happens to the states after a layer, given its number from 1; the identity where nothing is injected."""


class Cache(Protocol):
    """What a decoder keeps of the tokens so far, so that the next ones can come alone; for generation, not training.

    Attributes:
        length: tokens so far.
        readable: the slots as the injections read them; None without a structure stream.
    """

    length: int
    readable: Readable | None

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order; a row may come more than once, as in a beam search."""


class Base(Protocol):
    """An encoder-decoder whose states can be added to after each layer."""

    encoder_depth: int
    decoder_depth: int

    def embed(self, words_BN: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the words, (B, N, D)."""

    def encode(
        self, embedded_BND: torch.Tensor, mask_BN: torch.Tensor, inject: Inject, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Return the memory, (B, N, D)."""

    def start(self, memory_BND: torch.Tensor, mask_BN: torch.Tensor, longest: int) -> Cache:
        """Return an empty cache for up to `longest` tokens."""

    def decode(
        self,
        inputs_BT: torch.Tensor,
        memory_BND: torch.Tensor,
        mask_BN: torch.Tensor,
        inject: Inject,
        cache: Cache | None,
        generator: torch.Generator | None,
    ) -> torch.Tensor:
        """Return the states after the last layer and its norm, (B, T, D); with a cache, of the new tokens."""

    def logits(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Return the logits of the output symbols, (B, T, V)."""


class OwnCache:
    """The cache of the own base."""

    def __init__(self, layers: list[LayerCache], mask_B11N: torch.Tensor):
        self.layers, self.mask_B11N = layers, mask_B11N
        self.length = 0
        self.readable: Readable | None = None

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order; a row may come more than once."""
        for layer in self.layers:
            layer.select(rows)
        self.mask_B11N = self.mask_B11N.index_select(0, rows)
        if self.readable is not None:
            self.readable = self.readable.select(rows)


class OwnBase(nn.Module):
    """A pre-LN encoder-decoder with embeddings drawn from N(0, 1)."""

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        width = config.width
        self.encoder_depth, self.decoder_depth = config.encoder_layers, config.decoder_layers
        self.checkpointing = config.gradient_checkpointing
        self.words = nn.Embedding(len(WORDS) + 1, width, padding_idx=0)
        self.actions = nn.Embedding(len(OUTPUT), width)
        self.drop = Dropout(config.dropout)
        self.encoder_positions = PositionEncoding(config, both_sides=True)
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder_positions = PositionEncoding(config, both_sides=False)
        self.decoder_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.output = None if config.tied_output else nn.Linear(width, len(OUTPUT), bias=False)

    def embed(self, words_BN: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the words, (B, N, D)."""
        embedded_BND: torch.Tensor = self.drop(self.words(words_BN))
        return embedded_BND

    def encode(
        self, embedded_BND: torch.Tensor, mask_BN: torch.Tensor, inject: Inject, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Return the memory, (B, N, D)."""
        places_N = self.encoder_positions.places(embedded_BND.shape[1], generator=generator)
        x_BND, where = self.encoder_positions.embed(embedded_BND, places_N), self.encoder_positions.where(places_N)
        attend = encoder_mask(mask_BN, where)
        for number, layer in enumerate(self.encoder_layers, start=1):
            x_BND = inject(number, self._run(layer, x_BND, where, attend))
        memory_BND: torch.Tensor = self.encoder_norm(x_BND)
        return memory_BND

    def start(self, memory_BND: torch.Tensor, mask_BN: torch.Tensor, longest: int) -> OwnCache:
        """Return an empty cache for up to `longest` tokens."""
        layers = []
        for layer in self.decoder_layers:
            assert isinstance(layer, DecoderLayer)
            key_BHNC, value_BHNC = layer.cross.keys(memory_BND)
            layers.append(LayerCache(key_BHNC, value_BHNC, longest))
        return OwnCache(layers, mask_BN[:, None, None, :])

    def decode(
        self,
        inputs_BT: torch.Tensor,
        memory_BND: torch.Tensor,
        mask_BN: torch.Tensor,
        inject: Inject,
        cache: Cache | None,
        generator: torch.Generator | None,
    ) -> torch.Tensor:
        """Return the states after the last layer and its norm, (B, T, D); with a cache, of the new tokens."""
        assert cache is None or isinstance(cache, OwnCache), "a cache is made by the base that reads it"
        new, length = inputs_BT.shape[1], 0 if cache is None else cache.length
        places_K = self.decoder_positions.places(length + new, exact=cache is not None, generator=generator)
        x_BTD = self.decoder_positions.embed(self.drop(self.actions(inputs_BT)), places_K[length:])
        where = self.decoder_positions.where(places_K, new)
        own = causal_mask(where, new, length, inputs_BT.device, cached=cache is not None)
        if cache is None:
            memory_mask = mask_BN[:, None, None, :]
            for number, layer in enumerate(self.decoder_layers, start=1):
                x_BTD = inject(number, self._run(layer, x_BTD, where, own, memory_BND, memory_mask))
        else:
            for number, (layer, kept) in enumerate(zip(self.decoder_layers, cache.layers, strict=True), start=1):
                x_BTD = inject(number, layer(x_BTD, where, own, None, cache.mask_B11N, kept, length))
            cache.length += new
        hidden_BTD: torch.Tensor = self.decoder_norm(x_BTD)
        return hidden_BTD

    def logits(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Return the logits of the output symbols, (B, T, V)."""
        if self.output is not None:
            logits_BTV: torch.Tensor = self.output(hidden_BTD)
            return logits_BTV
        return hidden_BTD @ self.actions.weight.T / math.sqrt(hidden_BTD.shape[-1])

    def _run(self, layer: nn.Module, *given: Any) -> torch.Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            again: torch.Tensor = checkpoint(layer, *given, use_reentrant=False)
            return again
        states: torch.Tensor = layer(*given)
        return states
