"""Causal binding: slots take in content, pass it along their graph, can be intervened on, and are read by the base.

Letters in names: B rows, N words, K slots, T places that read, D width, H heads, C dimensions of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from trimtab.errors import UserError
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.layers import Dropout, in_heads
from trimtab_systems.sci.write_up.structure import Messages, Structure


@dataclass(frozen=True, slots=True)
class Intervention:
    """do(v_S = v*): set some slots to values of ours and see what follows.

    Attributes:
        slots_BK: (B, K) or (K,), True for the slots in S.
        values_BKD: (B, K, D), what they are set to; read for those slots alone.
        strength: 1 sets a slot and cuts what flows into it (do-calculus); less moves it part of the way and weakens
            what flows in by as much (soft intervention); 0 does nothing. What flows out of a slot is never cut.
    """

    slots_BK: torch.Tensor
    values_BKD: torch.Tensor
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UserError(f"strength: expected a number from 0 (nothing) to 1 (do), got {self.strength!r}")
        if self.slots_BK.dtype != torch.bool or self.slots_BK.shape[-1:] != self.values_BKD.shape[-2:-1]:
            raise UserError(
                f"slots_BK: expected a boolean mask (B, {self.values_BKD.shape[-2]}) over the slots of values_BKD, got "
                f"{self.slots_BK.dtype} of shape {tuple(self.slots_BK.shape)}"
            )

    def on_slots(self, slot_BKD: torch.Tensor) -> torch.Tensor:
        """Return the slots, those in S set or moved."""
        share_BK1 = (self.strength * self.slots_BK).unsqueeze(-1)
        return torch.where(share_BK1 == 1, self.values_BKD, (1 - share_BK1) * slot_BKD + share_BK1 * self.values_BKD)

    def on_edges(self, edge_BKK: torch.Tensor) -> torch.Tensor:
        """Return the edges, those into S cut or weakened."""
        return edge_BKK * (1 - self.strength * self.slots_BK).unsqueeze(-1)


class Bound(NamedTuple):
    """What binding makes of a command.

    Attributes:
        slots_BKD: (B, K, D), the slots with their content.
        attention_BKN: (B, K, N), which word's content each slot read in the last iteration, mean over heads; rows sum
            to 1.
    """

    slots_BKD: torch.Tensor
    attention_BKN: torch.Tensor


class Binding(nn.Module):
    """Bind content to slots by attention, then pass it along the causal graph; repeat with the same weights.

    Source: write-up, section 2.5. Queries are the slots, keys and values the content of the words.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        width = config.width
        self.heads, self.iterations, self.bound_above = (
            config.binding_heads,
            config.binding_iterations,
            config.bound_above,
        )
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.drop = Dropout(config.dropout)
        self.norm_bound = nn.LayerNorm(width)
        self.messages = Messages(config)
        self.norm_passed = nn.LayerNorm(width)

    def forward(
        self,
        structure: Structure,
        content_BND: torch.Tensor,
        mask_BN: torch.Tensor,
        intervention: Intervention | None = None,
    ) -> Bound:
        """Return slots and binding of each command.

        Args:
            structure: its slots and edges.
            content_BND: its content.
            mask_BN: True for words, False for padding.
            intervention: holds some slots, before and after every iteration.
        """
        B, N, D = content_BND.shape
        slot_BKD, edge_BKK = structure.slots_BKD, structure.edges_BKK
        if intervention is not None:
            slot_BKD, edge_BKK = intervention.on_slots(slot_BKD), intervention.on_edges(edge_BKK)
        key_BHNC, value_BHNC = (in_heads(part, self.heads) for part in self.key_value(content_BND).chunk(2, dim=-1))
        key_BHCN = key_BHNC.transpose(-1, -2)
        closed_BHKN = torch.zeros(mask_BN.shape, device=mask_BN.device).masked_fill(~mask_BN, float("-inf"))[
            :, None, None
        ]
        attention_BKN = content_BND.new_zeros(B, slot_BKD.shape[1], N)
        part_BKKM = self.messages.part_of_edges(structure.vectors_BKKE)
        for _ in range(self.iterations):
            query_BHKC = in_heads(self.query(slot_BKD), self.heads)
            weight_BHKN = (query_BHKC @ key_BHCN / math.sqrt(D // self.heads) + closed_BHKN).softmax(-1)
            attention_BKN = weight_BHKN.mean(1)
            read_BKD = self.out((self.drop(weight_BHKN) @ value_BHNC).transpose(1, 2).reshape(B, -1, D))
            bound_BKD, open_BKK = self.norm_bound(slot_BKD + read_BKD), edge_BKK
            if self.bound_above < 1 and not self.training:
                sure_BK = attention_BKN.amax(-1) > self.bound_above
                surely = Intervention(sure_BK, self.norm_bound(read_BKD))
                bound_BKD, open_BKK = surely.on_slots(bound_BKD), surely.on_edges(edge_BKK)
            passed_BKD = self.messages(bound_BKD, open_BKK, part_BKKM)
            slot_BKD = self.norm_passed(bound_BKD + passed_BKD)
            if intervention is not None:
                slot_BKD = intervention.on_slots(slot_BKD)
        return Bound(slot_BKD, attention_BKN)


class Reader(nn.Module):
    """How the base reads the slots, and what becomes of what it reads.

    Source: write-up, section 2.5, broadcast and injection. The query of a place is the base's own state there: a query
    of its position would be another when tokens come one by one. What a place reads is a weighted mean of the slots,
    so that the projection of each layer acts on the few slots and not on every place.

    Args:
        config: `broadcast`, `injection` and `injection_scale`.
        layers: after which layers of the stack there is an injection, counted from 1.
    """

    def __init__(self, config: WriteUpConfig, layers: tuple[int, ...]):
        super().__init__()
        width = config.width
        self.layers, self.broadcast, self.injection = layers, config.broadcast, config.injection
        self.scale = config.injection_scale
        if self.broadcast == "attention_weighted":
            self.query = nn.Linear(width, width, bias=False)
            self.key_value = nn.Linear(width, 2 * width, bias=False)
        elif self.broadcast == "learned":
            self.choose = nn.Linear(width, config.slots)
        self.project = nn.ModuleList(nn.Linear(width, width) for _ in layers)
        if self.injection == "gated_add":
            self.adapt = nn.ModuleList(nn.Linear(2 * width, width) for _ in layers)
            self.gate = nn.ParameterList(nn.Parameter(torch.tensor(0.1)) for _ in layers)

    def open(self, slot_BKD: torch.Tensor) -> Readable:
        """Return the slots as the layers read them; made once a command, whatever comes after."""
        if self.broadcast == "uniform":
            mean_B1D = slot_BKD.mean(1, keepdim=True)
            return Readable(None, [project(mean_B1D) for project in self.project])
        if self.broadcast == "learned":
            return Readable(None, [project(slot_BKD) for project in self.project])
        key_BKD, value_BKD = self.key_value(slot_BKD).chunk(2, dim=-1)
        # <Wq x, k> = <x, Wq^T k>: the projection of the queries acts on the slots as well
        key_BKD = functional.linear(key_BKD, self.query.weight.T) / math.sqrt(slot_BKD.shape[-1])
        return Readable(key_BKD.transpose(1, 2), [project(value_BKD) for project in self.project])

    def inject(self, number: int, x_BTD: torch.Tensor, readable: Readable) -> torch.Tensor:
        """Return the states after layer `number`, with what they read of the slots where that is one of our layers."""
        if number not in self.layers:
            return x_BTD
        index = self.layers.index(number)
        read_BTD = self._read(x_BTD, readable.key_BDK, readable.values[index])
        if self.injection == "residual_add":
            return torch.add(x_BTD, read_BTD, alpha=self.scale)
        if self.injection == "gated_add":
            adapted_BTD: torch.Tensor = self.adapt[index](torch.cat((x_BTD, self.scale * read_BTD), dim=-1))
            return torch.lerp(x_BTD, adapted_BTD, self.gate[index])
        return self.scale * read_BTD

    def _read(self, x_BTD: torch.Tensor, key_BDK: torch.Tensor | None, value_BKD: torch.Tensor) -> torch.Tensor:
        if key_BDK is not None:
            return torch.bmm(torch.bmm(x_BTD, key_BDK).softmax(-1), value_BKD)
        if self.broadcast == "learned":
            share_BTK: torch.Tensor = self.choose(x_BTD).softmax(-1)
            return torch.bmm(share_BTK, value_BKD)
        return value_BKD.expand_as(x_BTD)


class Readable:
    """Slots made ready for reading.

    Attributes:
        key_BDK: (B, D, K), what a state is multiplied with for its scores; None where there are no keys.
        values: one (B, K, D) for each injected layer, or (B, 1, D) of a uniform broadcast.
    """

    __slots__ = ("key_BDK", "values")

    def __init__(self, key_BDK: torch.Tensor | None, values: list[torch.Tensor]):
        self.key_BDK, self.values = key_BDK, values

    def select(self, rows: torch.Tensor) -> Readable:
        """Return these rows alone, in this order."""
        key_BDK = None if self.key_BDK is None else self.key_BDK.index_select(0, rows)
        return Readable(key_BDK, [value.index_select(0, rows) for value in self.values])
