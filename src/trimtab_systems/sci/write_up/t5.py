"""A T5 of `transformers` under the structure stream, with random weights or those of a folder.

Its attention, and the relative bias that it was trained with, stay as they are; slots are added to the states after its
blocks. It reads whole words and writes whole actions: its own pieces would make the longest answer 336 symbols.

Letters in names: B rows, N words, T actions, D width, V symbols of the output.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trimtab.errors import ConfigError
from trimtab_systems.sci.data import EOS, OUTPUT, PAD, WORDS
from trimtab_systems.sci.write_up.base import Cache, Inject
from trimtab_systems.sci.write_up.binding import Readable
from trimtab_systems.sci.write_up.config import WriteUpConfig

TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
"""Where a folder has one of these, a word starts as the mean of the vectors of its pieces."""


class T5StackCache:
    """The cache of `transformers` for one T5, with the memory that its cross-attention names."""

    def __init__(self, past: Any, memory_BND: torch.Tensor, mask_BN: torch.Tensor):
        self.past, self.memory_BND, self.mask_BN = past, memory_BND, mask_BN
        self.length = 0
        self.readable: Readable | None = None

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order; a row may come more than once."""
        if self.length:
            self.past.batch_select_indices(rows)
        self.memory_BND, self.mask_BN = self.memory_BND.index_select(0, rows), self.mask_BN.index_select(0, rows)
        if self.readable is not None:
            self.readable = self.readable.select(rows)


class T5Base(nn.Module):
    """The encoder and the decoder of a T5, with embeddings of words and actions of their own.

    Raises:
        ConfigError: `transformers` is not installed, the folder holds no T5, or its width is not that of the settings.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self._library = _transformers()
        model = _loaded(self._library, config) if config.t5_folder else _random(self._library, config)
        width = model.config.d_model
        self.words = nn.Embedding(len(WORDS) + 1, width, padding_idx=0)
        self.actions = nn.Embedding(len(OUTPUT), width)
        if config.t5_folder and any((Path(config.t5_folder) / name).is_file() for name in TOKENIZER_FILES):
            tokenizer = self._library.AutoTokenizer.from_pretrained(config.t5_folder, local_files_only=True)
            with torch.no_grad():
                for number, word in enumerate(WORDS, start=1):
                    self.words.weight[number] = _mean_of_pieces(tokenizer, model.shared.weight, word)
                for number, symbol in enumerate(OUTPUT):
                    self.actions.weight[number] = _mean_of_pieces(tokenizer, model.shared.weight, symbol)
        self.encoder, self.decoder = model.encoder, model.decoder
        for stack in (self.encoder, self.decoder):
            stack.embed_tokens = nn.Identity()  # read through the embeddings above
        self.encoder_depth, self.decoder_depth = len(self.encoder.block), len(self.decoder.block)
        self.output = None if config.tied_output else nn.Linear(width, len(OUTPUT), bias=False)

    def embed(self, words_BN: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the words, (B, N, D)."""
        embedded_BND: torch.Tensor = self.words(words_BN)
        return embedded_BND

    def encode(
        self, embedded_BND: torch.Tensor, mask_BN: torch.Tensor, inject: Inject, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Return the memory, (B, N, D); a T5 draws no positions, so the generator is not read."""
        with _injecting(self.encoder.block, inject):
            memory_BND: torch.Tensor = self.encoder(
                inputs_embeds=embedded_BND, attention_mask=mask_BN
            ).last_hidden_state
        return memory_BND

    def start(self, memory_BND: torch.Tensor, mask_BN: torch.Tensor, longest: int) -> T5StackCache:
        """Return an empty cache; it grows as it needs to, so `longest` is not read."""
        config = self.decoder.config
        own, cross = self._library.DynamicCache(config=config), self._library.DynamicCache(config=config)
        return T5StackCache(self._library.EncoderDecoderCache(own, cross), memory_BND, mask_BN)

    def decode(
        self,
        inputs_BT: torch.Tensor,
        memory_BND: torch.Tensor,
        mask_BN: torch.Tensor,
        inject: Inject,
        cache: Cache | None,
        generator: torch.Generator | None,
    ) -> torch.Tensor:
        """Return the states after the last block and its norm, (B, T, D); with a cache, of the new tokens."""
        assert cache is None or isinstance(cache, T5StackCache), "a cache is made by the base that reads it"
        if cache is not None:
            memory_BND, mask_BN = cache.memory_BND, cache.mask_BN
        with _injecting(self.decoder.block, inject):
            hidden_BTD: torch.Tensor = self.decoder(
                inputs_embeds=self.actions(inputs_BT),
                encoder_hidden_states=memory_BND,
                encoder_attention_mask=mask_BN,
                past_key_values=None if cache is None else cache.past,
                use_cache=cache is not None,
            ).last_hidden_state
        if cache is not None:
            cache.length += inputs_BT.shape[1]
        return hidden_BTD

    def logits(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Return the logits of the output symbols, (B, T, V)."""
        if self.output is not None:
            logits_BTV: torch.Tensor = self.output(hidden_BTD)
            return logits_BTV
        return hidden_BTD @ self.actions.weight.T / math.sqrt(hidden_BTD.shape[-1])


@contextmanager
def _injecting(blocks: nn.ModuleList, inject: Inject) -> Iterator[None]:
    """Let `inject` act on the states after each block, and leave no trace behind."""

    def hook(number: int) -> Any:
        return lambda block, given, output: (inject(number, output[0]), *output[1:])

    handles = [block.register_forward_hook(hook(number)) for number, block in enumerate(blocks, start=1)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            "base: 't5' is built by transformers, which is not installed; pip install 'trimtab[transformers]', or use "
            "base='own'"
        ) from error


def _random(library: Any, config: WriteUpConfig) -> Any:
    """Return a T5 of our widths with random weights."""
    return library.T5Model(
        library.T5Config(
            vocab_size=len(OUTPUT),
            d_model=config.width,
            d_kv=config.width // config.heads,
            d_ff=config.mlp_ratio * config.width,
            num_layers=config.encoder_layers,
            num_decoder_layers=config.decoder_layers,
            num_heads=config.heads,
            relative_attention_num_buckets=config.relative_buckets,
            relative_attention_max_distance=config.relative_max_distance,
            dropout_rate=config.dropout,
            pad_token_id=PAD,
            eos_token_id=EOS,
        )
    )


def _loaded(library: Any, config: WriteUpConfig) -> Any:
    """Return the T5 of a folder, whose shape is its own and must fit ours where the two meet."""
    folder = Path(config.t5_folder)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"t5_folder: expected a folder with a T5 that save_pretrained wrote (config.json and weights), got {folder}"
        )
    try:
        model = library.T5Model.from_pretrained(folder, local_files_only=True, dropout_rate=config.dropout)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"t5_folder: {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    for name, ours, its in (
        ("width", config.width, model.config.d_model),
        ("encoder_layers", config.encoder_layers, model.config.num_layers),
        ("decoder_layers", config.decoder_layers, model.config.num_decoder_layers),
    ):
        if ours != its:
            raise ConfigError(f"{name}: the T5 in {folder} has {its}, got {ours}; set {name}={its}")
    return model


def _mean_of_pieces(tokenizer: Any, vector_VD: torch.Tensor, text: str) -> torch.Tensor:
    pieces = tokenizer(text, add_special_tokens=False)["input_ids"]
    return vector_VD[pieces].mean(0)
