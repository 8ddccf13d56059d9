"""SCI-Loop: commands as programs of calls, with the role of every word learnt.

A word is structure (it says what is called, how often and in which order), pattern (it says how a phrase is built) or
content (it is copied, as the action that it stands for). Two scores of one AbstractionLayer say which. What is not
structure forms spans, the longest runs of such words. The outer loop sees the structure words and one hole for each
span; its slots are calls. The inner loop sees one span, its pattern words and one hole for each content word; it points
to holes, from the same state at every call. So neither loop knows what the other one knows, and neither has to count
further than it did in training.

B commands, N words, K slots, J spans of a command, S distinct skeletons, U distinct spans, L actions of a phrase,
D width, H heads, F features, A actions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from trimtab_systems.sci.data import ACTIONS, WORDS
from trimtab_systems.sci.likelihood import Calls, Phrases
from trimtab_systems.sci.variants import Abstraction, CallGraph, FreeScores, shared_out, told

STRUCTURE, PATTERN, CONTENT = 0, 1, 2
ROLES = ("structure", "pattern", "content")
HOLE = len(WORDS) + 1
"""The token that stands for a span, or for a content word; what it is cannot be seen."""
LONGEST = 9
"""Words of the longest command."""
_BASE = 2 * len(WORDS) + 2


class Spans(NamedTuple):
    """Commands cut by the roles of their words; what is the same is held once."""

    skeletons_SN: torch.Tensor
    """Distinct outer skeletons: structure words, and a hole for each span; 0 beyond the end."""
    skeleton_R: torch.Tensor
    """Which of them a row has."""
    patterns_UN: torch.Tensor
    """Distinct spans: pattern words, and a hole for each content word."""
    words_UN: torch.Tensor
    """The words of these spans, those in the holes as well."""
    span_RJ: torch.Tensor
    """Which distinct span the j-th of a row is; where it has fewer, the empty one."""
    count_R: torch.Tensor
    """Spans of each row."""


class AbstractionLayer(nn.Module):
    """One score between 0 and 1 for each word, a weighted mean of some features; about 0.5 for all at the start.

    Features are bounded before their sigmoid and the temperature cannot reach its ends, so that neither loses its
    gradient (write-up 2.3, whose clamp of the temperature does).
    """

    def __init__(self, width: int, features: int, bound: float = 2.0):
        super().__init__()
        self.bound = bound
        self.hidden = nn.Linear(width, 2 * width)
        self.features = nn.Linear(2 * width, features)
        self.weight = nn.Parameter(torch.empty(features))
        self.temperature = nn.Parameter(torch.empty(()))
        self.start_anew()

    def start_anew(self) -> None:
        """Draw what is drawn, and score every word alike again."""
        nn.init.normal_(self.features.weight, 0.0, 0.02)
        nn.init.zeros_(self.features.bias)
        nn.init.zeros_(self.weight)
        nn.init.constant_(self.temperature, -math.log(2.0))

    def tau(self) -> torch.Tensor:
        """Return the temperature, between 0.5 and 2; 1 at the start."""
        return 0.5 + 1.5 * self.temperature.sigmoid()

    def forward(self, words_BND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features in (0, 1), [..., F], and the score, [...]."""
        raw_BNF = self.features(functional.gelu(self.hidden(words_BND)))
        features_BNF = (self.bound * torch.tanh(raw_BNF / self.bound) / self.tau()).sigmoid()
        return features_BNF, features_BNF @ self.weight.softmax(-1)


class Block(nn.Module):
    """A pre-norm transformer block; with a memory it attends to that, else to itself with relative positions."""

    def __init__(self, width: int, heads: int, relative: bool, competition: bool = False):
        super().__init__()
        self.heads, self.competition = heads, competition
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.distance = nn.Parameter(torch.zeros(heads, 2 * LONGEST - 1)) if relative else None

    def start_anew(self) -> None:
        """Treat all distances alike."""
        if self.distance is not None:
            nn.init.zeros_(self.distance)

    def forward(self, x_BKD: torch.Tensor, memory_BND: torch.Tensor | None, pad_BN: torch.Tensor) -> torch.Tensor:
        """Return what the block makes of `x_BKD`; padded places of the memory are not seen."""
        normed_BKD = self.before(x_BKD)
        memory_BND = normed_BKD if memory_BND is None else memory_BND
        split = (x_BKD.shape[0], -1, self.heads, x_BKD.shape[2] // self.heads)
        query = self.query(normed_BKD).view(split).transpose(1, 2)
        key, value = (part.reshape(split).transpose(1, 2) for part in self.key_value(memory_BND).chunk(2, -1))
        bias = torch.zeros(pad_BN.shape).masked_fill(pad_BN, -1e9)[:, None, None]
        if self.distance is not None:
            place_N = torch.arange(x_BKD.shape[1])
            # words of one command are fewer than LONGEST apart; what is further away is padding, which is not seen
            apart_NN = (place_N[None] - place_N[:, None]).clamp(1 - LONGEST, LONGEST - 1)
            bias = bias + self.distance[:, apart_NN + LONGEST - 1]
        if self.competition:
            mixed = shared_out(query, key, value, pad_BN)
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value, bias)
        x_BKD = x_BKD + self.out(mixed.transpose(1, 2).reshape(x_BKD.shape))
        x_BKD = x_BKD + self.mlp(self.between(x_BKD))
        return x_BKD


class OuterLoop(nn.Module):
    """From a skeleton to its calls: slot k says which span is called k-th, and whether it was the last."""

    def __init__(self, width: int, heads: int, slots: int, competition: bool = False, gnn: bool = False):
        super().__init__()
        self.encoder = nn.ModuleList(Block(width, heads, relative=True) for _ in range(2))
        self.slots = nn.Parameter(torch.empty(slots, width))
        self.reader = nn.ModuleList(Block(width, heads, relative=False, competition=competition) for _ in range(2))
        self.query, self.key, self.stop = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.start_anew()
        self.graph = CallGraph(width, slots) if gnn else None

    def start_anew(self) -> None:
        """Draw the slots, and stop half the time."""
        nn.init.xavier_uniform_(self.slots)
        nn.init.zeros_(self.stop.bias)

    def read(self, embedded_SND: torch.Tensor, skeletons_SN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slots of each distinct skeleton, [S, K, D], and its words in their context, [S, N, D]."""
        pad_SN, x_SND = skeletons_SN == 0, embedded_SND
        for block in self.encoder:
            x_SND = block(x_SND, None, pad_SN)
        slots_SKD = self.slots.expand(len(x_SND), -1, -1)
        for block in self.reader:
            slots_SKD = block(slots_SKD, x_SND, pad_SN)
        return slots_SKD if self.graph is None else self.graph(slots_SKD), x_SND

    def forward(self, embedded_SND: torch.Tensor, skeletons_SN: torch.Tensor) -> Calls:
        """Return the calls of each distinct skeleton; spans are numbered from the left."""
        hole_SN = skeletons_SN == HOLE
        slots_SKD, x_SND = self.read(embedded_SND, skeletons_SN)
        scores_SKN = self.query(slots_SKD) @ self.key(x_SND).transpose(1, 2) / math.sqrt(x_SND.shape[-1])
        pointer_SKN = scores_SKN.masked_fill(~hole_SN[:, None], -1e9).softmax(-1).masked_fill(~hole_SN[:, None], 0.0)
        most = max(1, int(hole_SN.sum(1).max()))
        order_SJ = torch.argsort((~hole_SN).long(), dim=1, stable=True)[:, :most]
        pointer_SKJ = pointer_SKN.gather(2, order_SJ[:, None].expand(-1, pointer_SKN.shape[1], -1))
        return Calls(pointer_SKJ, self.stop(slots_SKD)[..., 0].sigmoid())


class InnerLoop(nn.Module):
    """From a span to its phrase: a clock that starts from the same state at every call, and points to holes."""

    def __init__(self, width: int, longest: int):
        super().__init__()
        self.longest = longest
        self.encoder = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.start = nn.Linear(width, width)
        self.clock = nn.Parameter(torch.empty(width))
        self.start_anew()
        self.steps = nn.GRU(width, width, batch_first=True)
        self.query, self.key, self.end = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)

    def start_anew(self) -> None:
        """Draw the clock."""
        nn.init.normal_(self.clock, 0.0, 0.1)

    def forward(
        self, embedded_UND: torch.Tensor, patterns_UN: torch.Tensor, lexicon_UNA: torch.Tensor
    ) -> tuple[Phrases, torch.Tensor]:
        """Return the phrases of each distinct span, and the pointers to its words, [U, L, N]."""
        hole_UN, length_U = patterns_UN == HOLE, (patterns_UN > 0).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(
            embedded_UND, length_U.clamp(min=1), batch_first=True, enforce_sorted=False
        )
        packed_UND, last = self.encoder(packed)
        x_UND, _ = nn.utils.rnn.pad_packed_sequence(packed_UND, batch_first=True, total_length=embedded_UND.shape[1])
        start_UD = torch.tanh(self.start(torch.cat([last[0], last[1]], -1)))
        clock_ULD = (start_UD + self.clock)[:, None].expand(-1, self.longest, -1)
        steps_ULD, _ = self.steps(clock_ULD, start_UD[None].contiguous())
        scores_ULN = self.query(steps_ULD) @ self.key(x_UND).transpose(1, 2) / math.sqrt(x_UND.shape[-1])
        pointer_ULN = scores_ULN.masked_fill(~hole_UN[:, None], -1e9).softmax(-1).masked_fill(~hole_UN[:, None], 0.0)
        return Phrases(pointer_ULN @ lexicon_UNA, self.end(steps_ULD)[..., 0].sigmoid()), pointer_ULN


class Scaffold(nn.Module):
    """An inner loop that emits actions of its own and copies none: easy to learn, and blind to what it has not seen.

    It carries the search for the roles while nobody knows what a word stands for, and is faded out.
    """

    def __init__(self, width: int, longest: int):
        super().__init__()
        self.longest = longest
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.clock = nn.Parameter(torch.empty(width))
        self.start_anew()
        self.steps = nn.GRU(width, width, batch_first=True)
        self.action, self.end = nn.Linear(width, len(ACTIONS)), nn.Linear(width, 1)

    def start_anew(self) -> None:
        """Draw the clock."""
        nn.init.normal_(self.clock, 0.0, 0.1)

    def forward(self, embedded_UND: torch.Tensor, words_UN: torch.Tensor) -> Phrases:
        """Return the phrases of each distinct span."""
        states_UND, _ = self.encoder(embedded_UND)
        last_U = ((words_UN > 0).sum(1) - 1).clamp(min=0)
        start_UD = states_UND[torch.arange(len(words_UN)), last_U]
        steps_ULD, _ = self.steps((start_UD + self.clock)[:, None].expand(-1, self.longest, -1), start_UD[None])
        return Phrases(self.action(steps_ULD).softmax(-1), self.end(steps_ULD)[..., 0].sigmoid())


class SCILoop(nn.Module):
    """The whole model; see the head of this file.

    Args:
        width: of embeddings, slots and states.
        heads: of attention.
        features: of the AbstractionLayer.
        slots: calls of a command, at most.
        longest: actions of a phrase, at most.
        contextual: score each occurrence of a word in its command, instead of each word once.
        competition: slots share out the words of a skeleton, instead of each reading for itself.
        gnn: slots exchange messages before they say what they call.
        reset: every call of a span starts from the same state; without it, it is told which call it is.
        abstraction: "free" gives each word scores of its own, instead of features of what it looks like.
    """

    call_KD: torch.Tensor | None

    def __init__(
        self, *, width: int, heads: int, features: int, slots: int, longest: int, contextual: bool = False,
        competition: bool = False, gnn: bool = False, reset: bool = True, abstraction: Abstraction = "features",
    ):  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(HOLE + 1, width)
        self.context = Block(width, heads, relative=True) if contextual else None
        free = abstraction == "free"
        self.structure, self.pattern = (
            FreeScores(HOLE + 1) if free else AbstractionLayer(width, features) for _ in range(2)
        )
        self.outer = OuterLoop(width, heads, slots, competition, gnn)
        self.inner = InnerLoop(width, longest)
        self.scaffold = Scaffold(width, longest)
        self.lexicon = nn.Linear(width, len(ACTIONS))
        self.register_buffer("call_KD", None if reset else torch.randn(slots, width))

    def scores(self, words_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how much each word is structure, and if it is not, how much it is pattern, [B, N]; 0 for padding."""
        every_VD = self.embedding.weight
        word_BN = words_BN > 0
        pattern_BN = self.pattern(every_VD)[1][words_BN] * word_BN
        if self.context is None:
            return self.structure(every_VD)[1][words_BN] * word_BN, pattern_BN
        return self.structure(self.context(every_VD[words_BN], None, ~word_BN))[1] * word_BN, pattern_BN

    def features_of(self, words_BN: torch.Tensor) -> torch.Tensor:
        """Return the features behind the structure score of each word, [B, N, F]; those of padding mean nothing."""
        if self.context is None:
            features_VF: torch.Tensor = self.structure(self.embedding.weight)[0]
            return features_VF[words_BN]
        features_BNF: torch.Tensor = self.structure(self.context(self.embedding(words_BN), None, words_BN == 0))[0]
        return features_BNF

    def programs(self, spans: Spans, scaffold: bool = False) -> tuple[Calls, Phrases]:
        """Return the calls of each distinct skeleton and the phrases of each distinct span.

        With `scaffold` phrases are those of the scaffold. Without `reset` those of call k begin at k * U.
        """
        if scaffold:
            phrases = self.taught(spans.words_UN)
        else:
            phrases, _ = self.phrases(spans.patterns_UN, spans.words_UN)
        return self.outer(self.embedding(spans.skeletons_SN), spans.skeletons_SN), phrases

    @property
    def calls(self) -> int:
        """In how many ways a phrase is said: once, or without `reset` for each call."""
        return 1 if self.call_KD is None else len(self.call_KD)

    def slots_of(self, words_BN: torch.Tensor) -> torch.Tensor:
        """Return the slots of each command with its likelier roles, [B, K, D]."""
        spans = cut(words_BN, self.hard_roles(words_BN))
        slots_SKD, _ = self.outer.read(self.embedding(spans.skeletons_SN), spans.skeletons_SN)
        return slots_SKD[spans.skeleton_R]

    def taught(self, words_UN: torch.Tensor) -> Phrases:
        """Return the scaffold's phrases of distinct spans."""
        phrases: Phrases = self.scaffold(*told(self.embedding(words_UN), words_UN, self.call_KD))
        return phrases

    def phrases(
        self, patterns_UN: torch.Tensor, words_UN: torch.Tensor, learn_words: bool = True
    ) -> tuple[Phrases, torch.Tensor]:
        """Return the phrases of distinct spans and the pointers to their words, [U, L, N]."""
        every_VD = self.embedding.weight if learn_words else self.embedding.weight.detach()
        lexicon_UNA = self.lexicon(every_VD).softmax(-1)[words_UN]
        embedded_UND, patterns_UN = told(every_VD[patterns_UN], patterns_UN, self.call_KD)
        said: tuple[Phrases, torch.Tensor] = self.inner(embedded_UND, patterns_UN, lexicon_UNA.repeat(self.calls, 1, 1))
        return said

    def hard_roles(self, words_BN: torch.Tensor) -> torch.Tensor:
        """Return the likelier role of each word, [B, N]; 0 for padding."""
        structure_BN, pattern_BN = self.scores(words_BN)
        roles_BN = torch.where(structure_BN > 0.5, STRUCTURE, torch.where(pattern_BN > 0.5, PATTERN, CONTENT))
        return roles_BN * (words_BN > 0)

    @torch.no_grad()
    def predict(self, words_BN: torch.Tensor, scaffold: bool = False) -> list[tuple[int, ...]]:
        """Return the actions of each command: the likelier roles, spans, actions and stops.

        With `scaffold` phrases are those of the scaffold: what the outer loop has learnt before the inner one has.
        """
        spans = cut(words_BN, self.hard_roles(words_BN))
        calls, phrases = self.programs(spans, scaffold)
        said, distinct = phrases.greedy(), len(spans.words_UN)
        stops_SK = calls.stop_RK > 0.5
        stops_SK[:, -1] = True
        counts, pointers = (stops_SK.long().argmax(-1) + 1).tolist(), calls.pointer_RKJ.argmax(-1).tolist()
        called = [row[:count] for row, count in zip(pointers, counts, strict=True)]
        return [
            tuple(
                step
                for k, span in enumerate(called[skeleton])
                for step in said[(k * distinct + mine[span]) % len(said)]
            )
            if count
            else ()
            for skeleton, mine, count in zip(
                spans.skeleton_R.tolist(), spans.span_RJ.tolist(), spans.count_R.tolist(), strict=True
            )
        ]

    def forget(self, *, inner: bool) -> list[nn.Parameter]:
        """Draw parts anew and return their parameters; what words look like is always kept.

        Args:
            inner: only the inner loop and which words are pattern, instead of both loops, the scaffold and both scores.
        """
        kept = ("embedding", "structure", "context", "outer", "scaffold") if inner else ("embedding",)
        drawn: list[nn.Parameter] = []
        for name, child in self.named_children():
            if name not in kept:
                for part in child.modules():
                    if isinstance(part, nn.Linear | nn.LayerNorm | nn.GRU):
                        part.reset_parameters()
                for part in child.modules():
                    if isinstance(part, _DRAWN):
                        part.start_anew()
                drawn.extend(child.parameters())
        return drawn


_DRAWN = FreeScores | AbstractionLayer | OuterLoop | CallGraph | Block | InnerLoop | Scaffold


def cut(words_RN: torch.Tensor, roles_RN: torch.Tensor) -> Spans:
    """Cut commands at their structure words; equal skeletons and spans are held once."""
    rows, places = words_RN.shape
    word_RN = words_RN > 0
    free_RN = word_RN & (roles_RN != STRUCTURE)
    before_RN = functional.pad(free_RN[:, :-1], (1, 0))
    start_RN = free_RN & ~before_RN
    number_RN = start_RN.long().cumsum(1) - 1
    count_R = start_RN.sum(1)
    most = max(1, int(count_R.max()))
    token_RN = words_RN + len(WORDS) * (roles_RN == CONTENT)
    spans_RJ = torch.zeros(rows, most + 1, dtype=torch.long)
    skeleton_R = torch.zeros(rows, dtype=torch.long)
    every = torch.arange(rows)
    for n in range(places):
        at_R = torch.where(free_RN[:, n], number_RN[:, n], most)
        spans_RJ[every, at_R] = spans_RJ[every, at_R] * _BASE + token_RN[:, n]
        kept_R = (word_RN[:, n] & ~free_RN[:, n]) | start_RN[:, n]
        token_R = torch.where(free_RN[:, n], HOLE, words_RN[:, n])
        skeleton_R = torch.where(kept_R, skeleton_R * _BASE + token_R, skeleton_R)
    skeletons_S, skeleton_R = skeleton_R.unique(return_inverse=True)
    spans_U, span_RJ = spans_RJ[:, :most].unique(return_inverse=True)
    tokens_UN = _digits(spans_U)
    return Spans(
        skeletons_SN=_digits(skeletons_S),
        skeleton_R=skeleton_R,
        patterns_UN=tokens_UN.clamp(max=HOLE),
        words_UN=torch.where(tokens_UN > len(WORDS), tokens_UN - len(WORDS), tokens_UN),
        span_RJ=span_RJ,
        count_R=count_R,
    )


def _digits(codes_S: torch.Tensor) -> torch.Tensor:
    """Return the tokens that the codes stand for, from the left, 0 beyond the end."""
    places_S = codes_S
    digits = []
    for _ in range(LONGEST):
        digits.append(places_S % _BASE)
        places_S = places_S // _BASE
    tokens_SN = torch.stack(digits[::-1], 1)
    length_S = (tokens_SN > 0).sum(1)
    at_SN = (torch.arange(LONGEST) + (LONGEST - length_S)[:, None]).clamp(max=LONGEST - 1)
    tokens_SN = tokens_SN.gather(1, at_SN) * (torch.arange(LONGEST) < length_S[:, None])
    return tokens_SN[:, : max(1, int(length_S.max()))]
