"""A T5 of `transformers` that writes one symbol at a time, several times as fast as its own modules do.

It has the weights of the T5 and does the same sums: what each norm scales by is multiplied into the layer behind it,
queries, keys and values are one product, those of the first layer are looked up, since no more than nine symbols can
stand there, and the cache has its full length from the start. It writes alone: training goes through the T5 itself.

Letters in names: B rows, H heads, C dimensions of a head, D width, I all heads together, M words, T symbols, V numbers
in `sci.data.OUTPUT`, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from trimtab.errors import ConfigError
from trimtab_systems.sci.data import OUTPUT, WORDS

Pair = tuple[torch.Tensor, torch.Tensor]


class T5Cache:
    """Keys and values of the commands and of what was written so far.

    Attributes:
        memory: of the words, for each layer keys and values (B, M, I).
        own: of the symbols, for each layer keys and values (B, H, T, C), with room for all that may be written; zeros
            where nothing is yet.
        mask_BM: 0 for words, -inf behind a command; None where none is shorter than the others.
        length: symbols written.
    """

    def __init__(self, memory: list[Pair], own: list[Pair], mask_BM: torch.Tensor | None):
        self.memory, self.own, self.mask_BM = memory, own, mask_BM
        self.length = 0

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order; a row may come more than once."""
        self.memory = [(keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.memory]
        self.own = [(self._moved(keys, rows), self._moved(values, rows)) for keys, values in self.own]
        self.mask_BM = None if self.mask_BM is None else self.mask_BM.index_select(0, rows)

    def _moved(self, whole_BHTC: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        moved_BHTC = whole_BHTC.new_zeros(len(rows), *whole_BHTC.shape[1:])
        moved_BHTC[:, :, : self.length] = whole_BHTC[:, :, : self.length].index_select(0, rows)
        return moved_BHTC


class T5Encoding(NamedTuple):
    """What the commands are to the decoder: memory (B, M, D), and the words of it (B, M)."""

    memory_BMD: torch.Tensor
    there_BM: torch.Tensor


@dataclass(frozen=True, slots=True)
class T5Decoded:
    """What may follow; see `generate.Decoded`."""

    logits_BTV: torch.Tensor
    stop_BT: None = None


class _Layer(NamedTuple):
    """Weights of one decoder layer, each with the scale of the norm before it multiplied in, as (in, out)."""

    qkv: torch.Tensor
    out: torch.Tensor
    query: torch.Tensor
    cross_out: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


class T5Decoder(nn.Module):
    """A T5 as something that `generate` can use; the weights are those that the T5 has when this is made.

    Args:
        t5: a `T5ForConditionalGeneration` with a ReLU that is not gated, as `T5Config` makes it.
        words: its numbers for the padding and the 13 words, as `sci.data.encode_words` counts them.
        symbols: its numbers for `sci.data.OUTPUT`.
        limit: symbols that are written at most.

    Raises:
        ConfigError: a T5 of another form, or another count of words or symbols.
    """

    def __init__(self, t5: Any, words: Sequence[int], symbols: Sequence[int], limit: int = 64):
        super().__init__()
        config = t5.config
        if config.dense_act_fn != "relu" or config.is_gated_act:
            raise ConfigError(
                f"T5Decoder: expected a T5 with feed_forward_proj='relu', got {config.feed_forward_proj!r}; "
                "generate with the T5 itself"
            )
        if len(symbols) != len(OUTPUT) or len(words) != len(WORDS) + 1:
            raise ConfigError(
                f"T5Decoder: expected numbers of {len(WORDS) + 1} words and {len(OUTPUT)} symbols, got {len(words)} "
                f"and {len(symbols)}"
            )
        self.encoder = t5.encoder
        self.heads, self.limit, self.eps = config.num_heads, limit, config.layer_norm_epsilon
        with torch.no_grad():
            self.words_W = torch.tensor(words)
            self.embedding_VD = t5.decoder.embed_tokens.weight[list(symbols)].detach()
            self.layers = [_folded(block) for block in t5.decoder.block]
            self.memory = [_memory(block) for block in t5.decoder.block]
            scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
            head_VD = t5.lm_head.weight[list(symbols)] * t5.decoder.final_layer_norm.weight * scale
            self.head_DV = head_VD.t().contiguous().detach()
            attention = t5.decoder.block[0].layer[0].SelfAttention
            past_HT = attention.compute_bias(1, limit, past_seen_tokens=limit - 1)[0, :, 0].detach()
            self.bias_HT = F.pad(past_HT, (0, _LEAST), value=-torch.inf)  # what is not written yet is not read
            self.head_HI = torch.eye(self.heads).repeat_interleave(config.d_kv, dim=1)
            self.first_VI = self._normed(self.embedding_VD) @ self.layers[0].qkv

    def encode(self, words_BN: torch.Tensor) -> T5Encoding:
        """Return what the T5's encoder makes of the commands."""
        there_BN = words_BN != 0
        mask_BN = None if bool(there_BN.all()) else there_BN.long()
        return T5Encoding(self.encoder(self.words_W[words_BN], attention_mask=mask_BN).last_hidden_state, there_BN)

    def start(self, encoding: T5Encoding, longest: int) -> T5Cache:
        """Return a cache of the commands, with room for so many symbols.

        Raises:
            ConfigError: for more than `limit` symbols.
        """
        if longest > self.limit:
            raise ConfigError(f"T5Decoder: made for {self.limit} symbols, asked for {longest}; make it with that limit")
        memory_BMD, there_BM = encoding
        memory, own = [], []
        for keys_DI, values_DI in self.memory:
            memory.append((memory_BMD @ keys_DI, memory_BMD @ values_DI))
            shape = (len(memory_BMD), self.heads, max(longest, _LEAST), keys_DI.shape[1] // self.heads)
            own.append((memory_BMD.new_zeros(shape), memory_BMD.new_zeros(shape)))
        full = bool(there_BM.all())
        mask_BM = None if full else torch.zeros_like(memory_BMD[..., 0]).masked_fill_(~there_BM, -torch.inf)
        return T5Cache(memory, own, mask_BM)

    def decode(self, encoding: T5Encoding, inputs_BT: torch.Tensor, cache: T5Cache | None = None) -> T5Decoded:
        """Return what may follow one more symbol.

        Raises:
            ConfigError: without a cache, or for more than one symbol at a time.
        """
        if cache is None or inputs_BT.shape[1] != 1:
            raise ConfigError(
                f"T5Decoder: expected a cache from `start` and one symbol at a time, got {inputs_BT.shape[1]}; what is "
                "known whole goes through the T5 itself"
            )
        symbols_B, heads = inputs_BT[:, 0], self.heads
        cache.length = length = cache.length + 1
        seen = max(length, _LEAST)
        bias_HT = self.bias_HT[:, self.limit - length :][:, :seen]
        mask_B1M = None if cache.mask_BM is None else cache.mask_BM[:, None]
        x_BD, qkv_BI = self.embedding_VD[symbols_B], self.first_VI[symbols_B]
        for index, layer in enumerate(self.layers):
            if index:
                qkv_BI = self._normed(x_BD) @ layer.qkv
            query_BHC, key_BHC, value_BHC = qkv_BI.unflatten(1, (3, heads, -1)).unbind(1)
            keys_BHTC, values_BHTC = cache.own[index]
            keys_BHTC[:, :, length - 1] = key_BHC
            values_BHTC[:, :, length - 1] = value_BHC
            read_BI = _read(query_BHC, keys_BHTC[:, :, :seen], values_BHTC[:, :, :seen], bias_HT)
            x_BD = x_BD.addmm_(read_BI, layer.out)
            read_BI = self._read_memory(self._normed(x_BD) @ layer.query, *cache.memory[index], mask_B1M)
            x_BD = x_BD.addmm_(read_BI, layer.cross_out)
            x_BD = x_BD.addmm_((self._normed(x_BD) @ layer.up).relu_(), layer.down)
        return T5Decoded((self._normed(x_BD) @ self.head_DV)[:, None])

    def _normed(self, x_BD: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x_BD, x_BD.shape[-1:], None, self.eps)

    def _read_memory(
        self, query_BI: torch.Tensor, keys_BMI: torch.Tensor, values_BMI: torch.Tensor, mask_B1M: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what one query for each row and head reads of the words, (B, I).

        There are few words, and one larger product for each row is faster than a small one for each of its heads, in
        spite of the zeros: each head's query with zeros for the other heads, and of what it reads its own part.
        """
        scores_BHM = torch.bmm(query_BI[:, None] * self.head_HI, keys_BMI.mT)
        if mask_B1M is not None:
            scores_BHM += mask_B1M
        read_BHI = torch.bmm(scores_BHM.softmax(-1), values_BMI)
        own_BI: torch.Tensor = read_BHI.unflatten(2, (self.heads, -1)).diagonal(0, 1, 2).mT.flatten(1)
        return own_BI


_LEAST = 16
"""Places that are read at least, masked where there is nothing: below 13, `bmm` is three times as slow."""


def _read(
    query_BHC: torch.Tensor, keys_BHTC: torch.Tensor, values_BHTC: torch.Tensor, bias_HT: torch.Tensor
) -> torch.Tensor:
    """Return what one query for each row and head reads, (B, I)."""
    scores_BHT = (query_BHC.unsqueeze(2) @ keys_BHTC.mT).squeeze(2).add_(bias_HT)
    read_BI: torch.Tensor = (scores_BHT.softmax(-1).unsqueeze(2) @ values_BHTC).flatten(1)
    return read_BI


def _memory(block: Any) -> Pair:
    attention = block.layer[1].EncDecAttention
    return attention.k.weight.detach().t(), attention.v.weight.detach().t()


def _folded(block: Any) -> _Layer:
    own, cross, forward = block.layer
    attention, memory, dense = own.SelfAttention, cross.EncDecAttention, forward.DenseReluDense
    qkv = torch.cat([attention.q.weight, attention.k.weight, attention.v.weight]) * own.layer_norm.weight
    query = memory.q.weight * cross.layer_norm.weight
    up = dense.wi.weight * forward.layer_norm.weight
    weights = (qkv, attention.o.weight, query, memory.o.weight, up, dense.wo.weight)
    return _Layer(*(weight.detach().t().contiguous() for weight in weights))
