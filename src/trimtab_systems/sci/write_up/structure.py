"""The structure stream: how structural each word is, eight slots that gather the structure, and a graph between them.

Letters in names: B rows, N words, K slots (also I and J, the ends of an edge), D width, E dimensions of an edge,
M hidden units of a message, F features, H heads, C dimensions of a head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.layers import Dropout, EncoderLayer, depths, encoder_mask, in_heads
from trimtab_systems.sci.write_up.positions import PositionEncoding


class AbstractionLayer(nn.Module):
    """Score how structural each word is, and weight it by that.

    Source: write-up, section 2.3. F features of a word, each a sigmoid with a common temperature, are aggregated to
    its score; the word passes with the weight s + g (1 - s), g learned. The weight acts on the normalised word: a norm
    after it, as upstream has it, would take it out again, and no loss could reach a score.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        width, count = config.width, config.features
        self.low, self.high, self.form = config.temperature_min, config.temperature_max, config.temperature_form
        self.aggregation, self.norm_last = config.aggregation, config.abstraction_norm == "after"
        last = nn.Linear(2 * width, count)
        nn.init.normal_(last.weight, std=0.02)
        nn.init.constant_(last.bias, config.score_bias_init)
        self.detect = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), Dropout(config.dropout), last)
        raw = config.temperature
        if self.form == "sigmoid":
            share = (config.temperature - self.low) / (self.high - self.low)
            raw = math.log(share / (1 - share))
        self.raw_temperature = nn.Parameter(torch.tensor(raw), requires_grad=config.learned_temperature)
        if self.aggregation == "weighted_mean":
            self.weight_F = nn.Parameter(torch.zeros(count))
        elif self.aggregation == "attention":
            self.attend = nn.Linear(width, count)
        self.residual = nn.Parameter(torch.tensor(0.1))
        self.norm = nn.LayerNorm(width)

    def temperature(self) -> torch.Tensor:
        """Return the temperature, a number between its bounds."""
        if self.form == "clamp":
            return self.raw_temperature.clamp(self.low, self.high)
        return self.low + (self.high - self.low) * torch.sigmoid(self.raw_temperature)

    def forward(self, x_BND: torch.Tensor, mask_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the weighted words (B, N, D), their scores (B, N) and features (B, N, F), all 0 at padding."""
        feature_BNF = torch.sigmoid(self.detect(x_BND) / self.temperature())
        score_BN = self._aggregate(feature_BNF, x_BND) * mask_BN
        weight_BN1 = (score_BN + self.residual * (1 - score_BN)).unsqueeze(-1)
        weighted_BND = self.norm(weight_BN1 * x_BND) if self.norm_last else weight_BN1 * self.norm(x_BND)
        valid_BN1 = mask_BN.unsqueeze(-1)
        return weighted_BND * valid_BN1, score_BN, feature_BNF * valid_BN1

    def _aggregate(self, feature_BNF: torch.Tensor, x_BND: torch.Tensor) -> torch.Tensor:
        if self.aggregation == "mean":
            return feature_BNF.mean(-1)
        if self.aggregation == "max":
            return feature_BNF.amax(-1)
        weight = self.weight_F if self.aggregation == "weighted_mean" else self.attend(x_BND)
        return (weight.softmax(-1) * feature_BNF).sum(-1)


class SlotAttention(nn.Module):
    """Slots gather words by cross-attention.

    Source: write-up, section 2.2. "competition": a softmax over the slots shares out each word, then each slot weights
    its shares to a sum of 1. "plain": a softmax over the words for each slot, which lets all slots read the same.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        width = config.width
        self.heads, self.competing = config.heads, config.slot_attention == "competition"
        query_KD = torch.empty(config.slots, width)
        nn.init.xavier_uniform_(query_KD)
        if config.slot_init == "equal":
            query_KD[:] = query_KD[0].clone()
        self.query_KD = nn.Parameter(query_KD * config.slot_scale)
        self.project_query = nn.Linear(width, width, bias=config.attention_bias)
        self.project_words = nn.Linear(width, 2 * width, bias=config.attention_bias)
        self.out = nn.Linear(width, width, bias=config.attention_bias)
        self.drop = Dropout(config.dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, word_BND: torch.Tensor, mask_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slots (B, K, D) and the attention (B, K, N), mean over heads, 0 at padding.

        With competition the attention is how each word is shared out: a word's column sums to 1. Otherwise it is how
        each slot looks: a slot's row sums to 1.
        """
        B, _, D = word_BND.shape
        query_HKC = in_heads(self.project_query(self.query_KD)[None], self.heads)[0]
        key_BHNC, value_BHNC = (in_heads(part, self.heads) for part in self.project_words(word_BND).chunk(2, dim=-1))
        score_BHKN = query_HKC @ key_BHNC.transpose(-1, -2) / math.sqrt(D // self.heads)
        valid_B11N = mask_BN[:, None, None, :]
        if self.competing:
            shown_BHKN = score_BHKN.softmax(dim=2) * valid_B11N
            weight_BHKN = shown_BHKN / (shown_BHKN.sum(-1, keepdim=True) + 1e-8)
        else:
            weight_BHKN = shown_BHKN = score_BHKN.masked_fill(~valid_B11N, float("-inf")).softmax(-1)
        read_BKD = (self.drop(weight_BHKN) @ value_BHNC).transpose(1, 2).reshape(B, -1, D)
        return self.norm(self.query_KD + self.out(read_BKD)), shown_BHKN.mean(1)


class EdgePredictor(nn.Module):
    """Say how much slot j influences slot i: an edge in (0, 1), none of a slot to itself, and a vector on it."""

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self.ends = nn.Linear(config.width, 2 * config.edge_dim, bias=False)
        self.bias_E = nn.Parameter(torch.zeros(config.edge_dim))
        self.strength = nn.Linear(config.edge_dim, 1)

    def forward(self, slot_BKD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the edges (B, I, J) and their vectors (B, I, J, E); I is influenced, J influences."""
        at_BKE, of_BKE = self.ends(slot_BKD).chunk(2, dim=-1)
        vector_BIJE = functional.gelu(at_BKE[:, :, None] + of_BKE[:, None] + self.bias_E)
        edge_BIJ = torch.sigmoid(self.strength(vector_BIJE).squeeze(-1))
        return edge_BIJ * ~torch.eye(edge_BIJ.shape[-1], dtype=torch.bool, device=edge_BIJ.device), vector_BIJE


class Messages(nn.Module):
    """The mean message that each slot gets along its edges: W2 GELU(W1 [h_i; h_j; e_ij]) weighted by the edges.

    W1 acts on its three parts apart, and W2, being linear, on the mean; a slot without edges gets nothing.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self.ends = nn.Linear(config.width, 2 * config.message_dim)
        self.along = nn.Linear(config.edge_dim, config.message_dim, bias=False)
        self.out = nn.Linear(config.message_dim, config.width)

    def part_of_edges(self, vector_BIJE: torch.Tensor) -> torch.Tensor:
        """Return what the vectors on the edges add to the hidden units, (B, I, J, M); it is the same in every round."""
        part_BIJM: torch.Tensor = self.along(vector_BIJE)
        return part_BIJM

    def forward(self, slot_BKD: torch.Tensor, edge_BIJ: torch.Tensor, part_BIJM: torch.Tensor) -> torch.Tensor:
        """Return the message to each slot, (B, K, D); `part_BIJM` comes from `part_of_edges`."""
        at_BKM, of_BKM = self.ends(slot_BKD).chunk(2, dim=-1)
        hidden_BIJM = functional.gelu(at_BKM[:, :, None] + of_BKM[:, None] + part_BIJM)
        share_BIJ = edge_BIJ / (edge_BIJ.sum(-1, keepdim=True) + 1e-6)
        mean_BIM = (share_BIJ.unsqueeze(-2) @ hidden_BIJM).squeeze(-2)
        return functional.linear(mean_BIM, self.out.weight) + share_BIJ.sum(-1, keepdim=True) * self.out.bias


class SlotGraph(nn.Module):
    """Pass messages between the slots, a GRU cell taking in what each gets.

    Source: write-up, section 2.2: two layers, residual, layer norm.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self.messages = nn.ModuleList(Messages(config) for _ in range(config.gnn_layers))
        self.cells = nn.ModuleList(nn.GRUCell(config.width, config.width) for _ in range(config.gnn_layers))
        norms = (nn.LayerNorm(config.width) if config.gnn_norm else nn.Identity() for _ in range(config.gnn_layers))
        self.norms = nn.ModuleList(norms)
        self.residual = config.gnn_residual

    def forward(self, slot_BKD: torch.Tensor, edge_BIJ: torch.Tensor, vector_BIJE: torch.Tensor) -> torch.Tensor:
        """Return the slots after all layers, (B, K, D)."""
        for messages, cell, norm in zip(self.messages, self.cells, self.norms, strict=True):
            assert isinstance(messages, Messages)
            message_BKD = messages(slot_BKD, edge_BIJ, messages.part_of_edges(vector_BIJE))
            taken_BKD = cell(message_BKD.flatten(0, 1), slot_BKD.flatten(0, 1)).view_as(slot_BKD)
            slot_BKD = norm(slot_BKD + taken_BKD if self.residual else taken_BKD)
        return slot_BKD


class Structure(NamedTuple):
    """What the structural encoder finds in each command.

    Attributes:
        found_BKD: (B, K, D), the slots before the graph.
        slots_BKD: (B, K, D), the slots after it.
        scores_BN: (B, N), how structural each word is, of the last abstraction layer.
        features_BNF: (B, N, F), what that score was made of.
        attention_BKN: (B, K, N), as `SlotAttention` returns it.
        edges_BKK: (B, K, K), influence of the second slot on the first.
        vectors_BKKE: (B, K, K, E), on the edges.
    """

    found_BKD: torch.Tensor
    slots_BKD: torch.Tensor
    scores_BN: torch.Tensor
    features_BNF: torch.Tensor
    attention_BKN: torch.Tensor
    edges_BKK: torch.Tensor
    vectors_BKKE: torch.Tensor


class StructuralEncoder(nn.Module):
    """Self-attention with abstraction on the way, then slots, then the graph between them.

    Source: write-up, section 2.2; the self-attention layers and where abstraction sits are upstream's.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self.positions = PositionEncoding(config, both_sides=True)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.structural_layers))
        self.abstracted = depths(config.abstraction_at, config.structural_layers)
        self.abstraction = nn.ModuleList(AbstractionLayer(config) for _ in self.abstracted)
        self.slots = SlotAttention(config)
        self.edges = EdgePredictor(config)
        self.graph = SlotGraph(config)

    def forward(
        self, embedded_BND: torch.Tensor, mask_BN: torch.Tensor, generator: torch.Generator | None = None
    ) -> Structure:
        """Return the structure of each command.

        Args:
            embedded_BND: its words.
            mask_BN: True for words, False for padding.
            generator: draws the noise of the positions in training.
        """
        places_N = self.positions.places(embedded_BND.shape[1], generator=generator)
        x_BND = self.positions.embed(embedded_BND, places_N)
        where = self.positions.where(places_N)
        attend = encoder_mask(mask_BN, where)
        abstraction = iter(self.abstraction)
        score_BN, feature_BNF = x_BND.new_zeros(mask_BN.shape), x_BND.new_zeros(*mask_BN.shape, 0)
        for number, layer in enumerate(self.layers, start=1):
            x_BND = layer(x_BND, where, attend)
            if number in self.abstracted:
                x_BND, score_BN, feature_BNF = next(abstraction)(x_BND, mask_BN)
        found_BKD, attention_BKN = self.slots(x_BND, mask_BN)
        edge_BKK, vector_BKKE = self.edges(found_BKD)
        slot_BKD = self.graph(found_BKD, edge_BKK, vector_BKKE)
        return Structure(found_BKD, slot_BKD, score_BN, feature_BNF, attention_BKN, edge_BKK, vector_BKKE)
