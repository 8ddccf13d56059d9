"""The write-up's network: an encoder-decoder whose decoder reads slots in which structure and content are bound.

Letters in names: B rows, N words, T actions, K slots, D width, E dimensions of an edge, F features, V output symbols.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import nn

from trimtab.errors import UserError
from trimtab_systems.sci.write_up.base import Base, Cache, Inject, OwnBase
from trimtab_systems.sci.write_up.binding import Binding, Intervention, Readable, Reader
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.content import ContentEncoder
from trimtab_systems.sci.write_up.layers import depths
from trimtab_systems.sci.write_up.structure import StructuralEncoder, Structure
from trimtab_systems.sci.write_up.t5 import T5Base


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the network makes of commands, before any action; without a structure stream K, E and F are 0.

    Attributes:
        words_BN: the commands.
        mask_BN: True for words, False for padding.
        embedded_BND: their vectors.
        memory_BND: of the base's encoder.
        found_BKD: slots before the graph between them.
        slots_BKD: slots after it, structure alone.
        slots_bound_BKD: slots with their content, as the base reads them.
        scores_BN: how structural each word is; 0 at padding and without a structure stream.
        features_BNF: what that score was made of.
        slot_attention_BKN: of slots to words; with competition a word's column sums to 1, with plain attention a
            slot's row does.
        edges_BKK: influence of the second slot on the first.
        edge_vectors_BKKE: on the edges.
        content_BND: what each word says; (B, 0, D) without a structure stream.
        binding_BKN: which word's content each slot read; rows sum to 1.
    """

    words_BN: torch.Tensor
    mask_BN: torch.Tensor
    embedded_BND: torch.Tensor
    memory_BND: torch.Tensor
    found_BKD: torch.Tensor
    slots_BKD: torch.Tensor
    slots_bound_BKD: torch.Tensor
    scores_BN: torch.Tensor
    features_BNF: torch.Tensor
    slot_attention_BKN: torch.Tensor
    edges_BKK: torch.Tensor
    edge_vectors_BKKE: torch.Tensor
    content_BND: torch.Tensor
    binding_BKN: torch.Tensor

    @property
    def slot_shares_BKN(self) -> torch.Tensor:  # noqa: N802 (the shape stands in the name)
        """How each word is shared out among the slots, whichever the attention: its column sums to 1."""
        return self.slot_attention_BKN / (self.slot_attention_BKN.sum(1, keepdim=True) + 1e-8)

    @property
    def structure(self) -> Structure:
        """What the structural encoder found."""
        return Structure(
            self.found_BKD,
            self.slots_BKD,
            self.scores_BN,
            self.features_BNF,
            self.slot_attention_BKN,
            self.edges_BKK,
            self.edge_vectors_BKKE,
        )

    def select(self, rows: torch.Tensor) -> Encoding:
        """Return these rows alone, in this order.

        Args:
            rows: their numbers, or a boolean mask (B,).
        """
        if rows.dtype == torch.bool:
            rows = rows.nonzero().squeeze(-1)
        return Encoding(**{each.name: getattr(self, each.name).index_select(0, rows) for each in fields(self)})


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder says.

    Attributes:
        logits_BTV: of the next symbol after each input, in the order of `data.OUTPUT`.
        stop_BT: logit of stopping before the next action, from the stop head; None without one.
        hidden_BTD: the states behind both.
        cache: the one that was given, longer by the inputs.
    """

    logits_BTV: torch.Tensor
    stop_BT: torch.Tensor | None
    hidden_BTD: torch.Tensor
    cache: Cache | None = None


class SCITransformer(nn.Module):
    """Structure in slots, content in tokens, bound causally and injected into an encoder-decoder.

    Source: write-up, section 2. With `sci=False` the encoder-decoder alone, the flat baseline.

    Args:
        config: the settings of the model.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self.config = config
        base = _base(config)
        self.base = base
        words = base.words
        words.requires_grad_(not config.freeze_embeddings)
        self.stop = nn.Linear(config.width, 1) if config.stop_head else None
        if not config.sci:
            return
        self.structure = StructuralEncoder(config)
        self.content = ContentEncoder(config)
        self.content_words = None
        if not config.use_shared_embeddings:
            self.content_words = nn.Embedding(words.num_embeddings, config.width, padding_idx=0)
            self.content_words.requires_grad_(not config.freeze_embeddings)
        self.binding = Binding(config)
        ends = ("encoder", "decoder") if config.inject_at == "both" else (config.inject_at,)
        layers = {"encoder": base.encoder_depth, "decoder": base.decoder_depth}
        readers = {end: Reader(config, depths(config.injection_fractions, layers[end])) for end in ends}
        self.readers = nn.ModuleDict(readers)

    def encode(
        self,
        words_BN: torch.Tensor,
        *,
        intervention: Intervention | None = None,
        generator: torch.Generator | None = None,
    ) -> Encoding:
        """Return what the network makes of commands.

        Args:
            words_BN: numbers of the words, 0 for padding after them.
            intervention: sets some of their slots.
            generator: draws the noise of the positions in training; None for torch's own, as dropout.
        """
        mask_BN, base = words_BN != 0, self._base()
        embedded_BND = base.embed(words_BN)
        if not self.config.sci:
            memory_BND = base.encode(embedded_BND, mask_BN, _nothing, generator)
            return _flat_encoding(words_BN, embedded_BND, memory_BND)
        structure = self.structure(embedded_BND, mask_BN, generator)
        read_BND = embedded_BND if self.content_words is None else self.content_words(words_BN)
        content_BND = self.content(read_BND, mask_BN, structure.scores_BN, structure.slots_BKD, generator)
        bound = self.binding(structure, content_BND, mask_BN, intervention)
        return Encoding(
            words_BN=words_BN,
            mask_BN=mask_BN,
            embedded_BND=embedded_BND,
            memory_BND=self._memory(embedded_BND, mask_BN, bound.slots_BKD, generator),
            found_BKD=structure.found_BKD,
            slots_BKD=structure.slots_BKD,
            slots_bound_BKD=bound.slots_BKD,
            scores_BN=structure.scores_BN,
            features_BNF=structure.features_BNF,
            slot_attention_BKN=structure.attention_BKN,
            edges_BKK=structure.edges_BKK,
            edge_vectors_BKKE=structure.vectors_BKKE,
            content_BND=content_BND,
            binding_BKN=bound.attention_BKN,
        )

    def intervention(self, slots_BK: torch.Tensor, values_BKD: torch.Tensor) -> Intervention:
        """Return an intervention of the method and the strength of the settings.

        Args:
            slots_BK: (B, K) or (K,), True for the slots to set.
            values_BKD: what they are set to.
        """
        return Intervention(slots_BK, values_BKD, self.intervention_strength)

    @property
    def intervention_strength(self) -> float:
        """The strength of an intervention by the settings: 1 for do-calculus."""
        return 1.0 if self.config.intervention == "do_calculus" else self.config.intervention_strength

    def bind(
        self, encoding: Encoding, intervention: Intervention | None = None, generator: torch.Generator | None = None
    ) -> Encoding:
        """Return the encoding with its binding done again: same structure, its content as it now is.

        Args:
            encoding: of this network, with a structure stream.
            intervention: sets some of its slots.
            generator: draws the noise of the positions, where the base's encoder reads slots and must run again.
        """
        if not self.config.sci:
            raise UserError("bind: this network has no structure stream (sci=false), so there is nothing to bind")
        bound = self.binding(encoding.structure, encoding.content_BND, encoding.mask_BN, intervention)
        memory_BND = encoding.memory_BND
        if "encoder" in self.readers:
            memory_BND = self._memory(encoding.embedded_BND, encoding.mask_BN, bound.slots_BKD, generator)
        return replace(
            encoding, memory_BND=memory_BND, slots_bound_BKD=bound.slots_BKD, binding_BKN=bound.attention_BKN
        )

    def swap(self, encoding: Encoding, other: Encoding, strength: float | None = None) -> Encoding:
        """Return what follows from do(content of x := content of x~): the structure of x, the words of x~.

        Slots, edges and memory are those of x; content enters as that of x~, held apart from the structure of x, and
        binding follows anew. Where x~ has the template of x, the decoder is to say what x~ asks for.

        Args:
            encoding: of the commands x.
            other: of the commands x~, row by row of the same number of words.
            strength: 1 replaces the content, less mixes it; None for that of the settings.

        Raises:
            UserError: a row has another number of words than its partner.
        """
        if not torch.equal(encoding.mask_BN, other.mask_BN):
            raise UserError(
                "swap: content is exchanged word by word, and some rows differ in their number of words from their "
                "partner; pair commands of one template, as pairs.Pool does"
            )
        share = self.intervention_strength if strength is None else strength
        content_BND = self.content.apart(other.content_BND, encoding.slots_BKD)
        if share < 1:
            content_BND = (1 - share) * encoding.content_BND + share * content_BND
        return self.bind(replace(encoding, content_BND=content_BND))

    def start(self, encoding: Encoding, longest: int) -> Cache:
        """Return an empty cache for decoding these commands token by token.

        Args:
            encoding: of the commands; what decoding needs of it lies in the cache.
            longest: tokens there is room for, the first one (BOS) included.
        """
        cache = self._base().start(encoding.memory_BND, encoding.mask_BN, longest)
        cache.readable = self._readable(encoding)
        return cache

    def decode(
        self,
        encoding: Encoding,
        inputs_BT: torch.Tensor,
        cache: Cache | None = None,
        generator: torch.Generator | None = None,
    ) -> Decoded:
        """Return what comes after each input.

        Args:
            encoding: of the commands; with a cache it is not read.
            inputs_BT: numbers of the symbols so far, BOS first; with a cache only the new ones.
            cache: from `start`; extended.
            generator: draws the noise of the positions in training.
        """
        readable = self._readable(encoding) if cache is None else cache.readable
        inject = self._injecting("decoder", readable)
        hidden_BTD = self._base().decode(inputs_BT, encoding.memory_BND, encoding.mask_BN, inject, cache, generator)
        stop_BT = None if self.stop is None else self.stop(hidden_BTD).squeeze(-1)
        return Decoded(self._base().logits(hidden_BTD), stop_BT, hidden_BTD, cache)

    def forward(
        self, words_BN: torch.Tensor, inputs_BT: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[Encoding, Decoded]:
        """Return encoding and decoding of commands with their targets as inputs."""
        encoding = self.encode(words_BN, generator=generator)
        return encoding, self.decode(encoding, inputs_BT, generator=generator)

    def _base(self) -> Base:
        return self.base

    def _readable(self, encoding: Encoding) -> Readable | None:
        if not self.config.sci or "decoder" not in self.readers:
            return None
        return self._reader("decoder").open(encoding.slots_bound_BKD)

    def _reader(self, end: str) -> Reader:
        reader = self.readers[end]
        assert isinstance(reader, Reader)
        return reader

    def _injecting(self, end: str, readable: Readable | None) -> Inject:
        if readable is None:
            return _nothing
        reader = self._reader(end)
        return lambda number, x_BND: reader.inject(number, x_BND, readable)

    def _memory(
        self,
        embedded_BND: torch.Tensor,
        mask_BN: torch.Tensor,
        slot_BKD: torch.Tensor,
        generator: torch.Generator | None,
    ) -> torch.Tensor:
        inject: Inject = _nothing
        if "encoder" in self.readers:
            inject = self._injecting("encoder", self._reader("encoder").open(slot_BKD))
        return self._base().encode(embedded_BND, mask_BN, inject, generator)


def _nothing(number: int, x_BND: torch.Tensor) -> torch.Tensor:
    return x_BND


def _base(config: WriteUpConfig) -> OwnBase | T5Base:
    return T5Base(config) if config.base == "t5" else OwnBase(config)


def _flat_encoding(words_BN: torch.Tensor, embedded_BND: torch.Tensor, memory_BND: torch.Tensor) -> Encoding:
    """Return an encoding without structure: no slots, no content, every score 0."""
    B, N, D = memory_BND.shape
    none = memory_BND.new_zeros
    return Encoding(
        words_BN=words_BN,
        mask_BN=words_BN != 0,
        embedded_BND=embedded_BND,
        memory_BND=memory_BND,
        found_BKD=none(B, 0, D),
        slots_BKD=none(B, 0, D),
        slots_bound_BKD=none(B, 0, D),
        scores_BN=none(B, N),
        features_BNF=none(B, N, 0),
        slot_attention_BKN=none(B, 0, N),
        edges_BKK=none(B, 0, 0),
        edge_vectors_BKKE=none(B, 0, 0, 0),
        content_BND=none(B, 0, D),
        binding_BKN=none(B, 0, N),
    )
