"""SCI-Loop with a part taken out or one of the write-up's put in, to be measured against the model as it is.

Nothing here is built or computed unless it is asked for. Letters in names: B commands, N words, K slots, H heads, U
spans, D width, V words of the embedding, P views (commands and their partners, one below the other).

Source: the write-up, sections 2.2, 2.3, 3.4 and 4.2, for what is put in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from trimtab.errors import ConfigError
from trimtab_systems.sci.data import ACTION_WORDS, WORDS
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.losses import contrastive_loss, orthogonality_loss
from trimtab_systems.sci.write_up.structure import EdgePredictor, SlotGraph

Abstraction = Literal["features", "free"]
TEMPERATURE = 0.1
"""Of the contrast; the write-up's, section 3.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Weights of terms of the loss that SCI-Loop does without."""

    scl_weight: float = 0.0
    """Of the structural contrast between slots."""
    orthogonality: float = 0.0
    """Of the squared cosine of slots and content words."""


PLAIN = Added()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variations:
    """The settings of what is taken out or put in; the defaults are SCI-Loop as it is."""

    competition: bool = False
    """Slots share out the words of a skeleton, instead of each reading for itself."""
    reset: bool = True
    """Every call of a span starts from the same state; False: it is told which call it is; no `steady` then."""
    abstraction: Abstraction = "features"
    """"free": each word has scores of its own, instead of features of what it looks like."""
    gnn: bool = False
    """Slots exchange messages before they say what they call."""
    scl_weight: float = 0.0
    """Of the contrast that draws the slots of one template together and those of others apart; partners are added."""
    orthogonality: float = 0.0
    """Of the squared cosine of slots and content words."""

    def check_variations(self, contextual: bool) -> None:
        """Raise ConfigError where a setting is none, or does not go with scores of each occurrence."""
        if self.abstraction not in ("features", "free"):
            raise ConfigError(f"abstraction: expected one of features, free, got {self.abstraction!r}")
        if self.abstraction == "free" and contextual:
            raise ConfigError(
                "abstraction: 'free' gives a word one score wherever it stands, expected 'features' with "
                "contextual=true; leave one of the two out"
            )
        for name in ("scl_weight", "orthogonality"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: expected a number of at least 0, got {getattr(self, name)!r}")

    def of_model(self) -> dict[str, Any]:
        """Return those that the model is built with."""
        return {name: getattr(self, name) for name in ("competition", "gnn", "reset", "abstraction")}

    def of_loss(self) -> Added:
        """Return those that the loss is computed with."""
        return Added(scl_weight=self.scl_weight, orthogonality=self.orthogonality)


class FreeScores(nn.Module):
    """A score of its own for each word, in place of an AbstractionLayer: what a word looks like does not count.

    The logit is bounded as the features are, where they are sharpest, so that only the features are missing.

    Args:
        words: of the embedding.
        bound: of the logit.
    """

    def __init__(self, words: int, bound: float = 4.0):
        super().__init__()
        self.bound = bound
        self.logit_V = nn.Parameter(torch.zeros(words))

    def tau(self) -> torch.Tensor:
        """Return 1: there is no temperature."""
        return torch.ones(())

    def start_anew(self) -> None:
        """Score every word 0.5 again."""
        nn.init.zeros_(self.logit_V)

    def forward(self, words_VD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores of all words, [V, 1] and [V]; of the embeddings only their number is looked at."""
        assert words_VD.shape[:-1] == self.logit_V.shape
        score_V = (self.bound * torch.tanh(self.logit_V / self.bound)).sigmoid()
        return score_V[:, None], score_V


class CallGraph(nn.Module):
    """Messages between the slots before they say what they call, along edges that the slots predict."""

    def __init__(self, width: int, slots: int):
        super().__init__()
        config = WriteUpConfig(width=width, slots=slots)
        self.edges, self.graph = EdgePredictor(config), SlotGraph(config)

    def start_anew(self) -> None:
        """Draw everything."""
        nn.init.zeros_(self.edges.bias_E)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.LayerNorm | nn.GRUCell):
                part.reset_parameters()

    def forward(self, slots_BKD: torch.Tensor) -> torch.Tensor:
        """Return the slots after all messages, [B, K, D]."""
        slots_BKD = self.graph(slots_BKD, *self.edges(slots_BKD))
        return slots_BKD


def shared_out(
    query_BHKD: torch.Tensor, key_BHND: torch.Tensor, value_BHND: torch.Tensor, pad_BN: torch.Tensor
) -> torch.Tensor:
    """Return what each slot reads when the slots compete: each word is shared out between them.

    Attention without competition lets every slot read the same. Shares of a slot are then weighted to a sum of 1.
    """
    score_BHKN = query_BHKD @ key_BHND.transpose(-1, -2) / math.sqrt(query_BHKD.shape[-1])
    share_BHKN = score_BHKN.softmax(-2) * ~pad_BN[:, None, None]
    return share_BHKN / (share_BHKN.sum(-1, keepdim=True) + 1e-8) @ value_BHND


def told(
    embedded_UND: torch.Tensor, words_UN: torch.Tensor, call_KD: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the words of each span as they look in each call, [K * U, N, D], and what they are, [K * U, N].

    Span u in call k stands at k * U + u. Without vectors of the calls both come back as they are.

    An inner loop that reads them starts from another state at every call. Its phrase may then depend on how often it
    was said, which training shows for few calls only.
    """
    if call_KD is None:
        return embedded_UND, words_UN
    return (call_KD[:, None, None] + embedded_UND).flatten(0, 1), words_UN.repeat(len(call_KD), 1)


def by_call(pointer_RKJ: torch.Tensor, span_RJ: torch.Tensor, spans: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pointers and spans for phrases that differ from call to call: call k can only point to its own.

    Args:
        pointer_RKJ: probability that call k is of span j.
        span_RJ: number of the j-th span of a row.
        spans: how many distinct spans there are.

    Returns:
        [R, K, K * J], and [R, K * J] with numbers as `told` gives them.
    """
    rows, calls, most = pointer_RKJ.shape
    own_KK = torch.eye(calls, dtype=pointer_RKJ.dtype)
    wide_RKKJ = own_KK[:, :, None] * pointer_RKJ[:, :, None]
    number_RKJ = torch.arange(calls)[:, None] * spans + span_RJ[:, None]
    return wide_RKKJ.view(rows, calls, calls * most), number_RKJ.view(rows, calls * most)


_TEMPLATE = torch.tensor([0, *(1 if word in ACTION_WORDS else 2 + place for place, word in enumerate(WORDS))])


def templates(words_PN: torch.Tensor) -> torch.Tensor:
    """Return a number for the template of each command, [P]: two that differ in action words alone have the same."""
    number_P: torch.Tensor = _TEMPLATE[words_PN].unique(dim=0, return_inverse=True)[1]
    return number_P


def contrast(slots_PKD: torch.Tensor, words_PN: torch.Tensor) -> torch.Tensor:
    """Return the structural contrast of the slots: one template near together, others apart; scalar.

    All slots in their order are compared, not their mean, which would hide which call is which.
    """
    return contrastive_loss(functional.normalize(slots_PKD.flatten(1), dim=-1), templates(words_PN), TEMPERATURE)


def overlap(slots_BKD: torch.Tensor, embedded_BND: torch.Tensor, content_BN: torch.Tensor) -> torch.Tensor:
    """Return the mean squared cosine of the slots and the content words of their command; 0 where there are none."""
    if not content_BN.any():
        return slots_BKD.sum() * 0.0
    return orthogonality_loss(slots_BKD, embedded_BND, content_BN)
