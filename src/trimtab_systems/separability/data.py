"""Two interleaved repeating streams, and what the best possible predictor can reach on them.

A row has T + 1 tokens. Tokens at even places are stream A, tokens at odd places stream B. Each stream repeats its own
pattern of p tokens: p uniform on 2..7, the tokens uniform on the vocabulary. The input is the row without its last
token, the target the row without its first one, so the answer at target place j stands 2p places before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch

PERIODS = (2, 3, 4, 5, 6, 7)
"""The lengths that a pattern can have, equally likely."""

Structure = Literal["repeating", "random"]
Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class Batch(NamedTuple):
    """Tokens and the tokens that follow them, both of shape (B, T)."""

    inputs: torch.Tensor
    targets: torch.Tensor


def draw(
    *, rows: int, length: int, vocabulary: int, structure: Structure, seed: int, split: Split, index: int
) -> Batch:
    """Return batch number `index` of a split; the same arguments always give the same tokens.

    Each batch has a generator of its own, made from (seed, split, index): it does not matter in which order, how often
    or in which process batches are asked for. `structure="random"` draws every token afresh: nothing can be learnt.
    """
    generator = np.random.default_rng((seed, SPLITS.index(split), index))
    if structure == "random":
        tokens_BL = generator.integers(vocabulary, size=(rows, length + 1))
    else:
        tokens_BL = np.empty((rows, length + 1), dtype=np.int64)
        for stream in (0, 1):
            period_B1 = generator.integers(PERIODS[0], PERIODS[-1] + 1, size=(rows, 1))
            pattern_BP = generator.integers(vocabulary, size=(rows, PERIODS[-1]))
            place_BK = np.arange(len(range(stream, length + 1, 2))) % period_B1
            tokens_BL[:, stream::2] = np.take_along_axis(pattern_BP, place_BK, axis=1)
    tokens = torch.from_numpy(tokens_BL)
    return Batch(tokens[:, :-1], tokens[:, 1:])


# --- the best that can be reached -----------------------------------------------------------------


def stream_ceiling(element: int) -> float:
    """Return the best accuracy at element 0, 1, 2 ... of a stream when no token occurs twice in a pattern.

    The first two elements cannot be known. At element m, a period below m has shown itself; otherwise the best guess
    is that the pattern ends now, which is right when the period is m. So this is the share of periods up to m.
    """
    return sum(period <= element for period in PERIODS) / len(PERIODS)


def ceiling(length: int) -> float:
    """Return the best mean accuracy over all `length` targets for a large vocabulary: 1 - 8 / T for T >= 14.

    Targets stand at places 1..T of the row, place j is element j // 2 of its stream. With a small vocabulary a little
    more is possible; `bayes(length, vocabulary)` is exact.
    """
    return sum(stream_ceiling(place // 2) for place in range(1, length + 1)) / length


class Bayes(NamedTuple):
    """What the predictor reaches that knows how the data are made: accuracy and nats, for each of the T targets."""

    accuracy_by_place: tuple[float, ...]
    loss_by_place: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean accuracy over all targets: no model that sees only the past can exceed it."""
        return sum(self.accuracy_by_place) / len(self.accuracy_by_place)

    @property
    def loss(self) -> float:
        """Mean cross-entropy over all targets in nats: no model that sees only the past can go below it."""
        return sum(self.loss_by_place) / len(self.loss_by_place)


def bayes(length: int, vocabulary: int, structure: Structure = "repeating") -> Bayes:
    """Return the exact ceiling for one vocabulary, repeated tokens within a pattern included."""
    if structure == "random":
        return Bayes((1 / vocabulary,) * length, (math.log(vocabulary),) * length)
    accuracy, loss = zip(
        *(_element(min(place // 2, _CERTAIN), vocabulary) for place in range(1, length + 1)), strict=True
    )
    return Bayes(accuracy, loss)


def posterior(seen: tuple[int, ...], vocabulary: int) -> dict[int, float]:
    """Return the probability of each token that can come next in a stream, given all that it has shown.

    A period that has already come round and fits the past explains it with `period` free tokens and predicts the token
    one period back; a period that has not come round yet explains it with as many free tokens as were seen, and
    predicts the first token if the pattern ends here, else anything. Tokens left out have probability `rest`, kept
    under the key -1.
    """
    count = len(seen)
    weight: dict[int, float] = {}
    anything = 0.0
    for period in PERIODS:
        if period > count:
            anything += float(vocabulary) ** -count
        elif seen[period:] == seen[: count - period]:
            token = seen[count - period]
            weight[token] = weight.get(token, 0.0) + float(vocabulary) ** -period
    total = anything + sum(weight.values())
    likely = {token: (w + anything / vocabulary) / total for token, w in weight.items()}
    return {**likely, -1: anything / vocabulary / total}


_CERTAIN = PERIODS[-1] + PERIODS[-2]
"""From this element on, two periods that fit the whole past also agree on the future (theorem of Fine and Wilf)."""


@lru_cache(maxsize=1024)
def _element(element: int, vocabulary: int) -> tuple[float, float]:
    """Return the exact accuracy and loss of the best predictor at one element of a stream.

    Only which tokens of a pattern are equal matters, so the sum runs over those cases, each with its probability.
    """
    accuracy = loss = 0.0
    for period in PERIODS:
        for pattern in _equalities(period):
            share = math.perm(vocabulary, max(pattern) + 1) / vocabulary**period / len(PERIODS)
            if share == 0:
                continue
            stream = tuple(pattern[place % period] for place in range(element + 1))
            likely = posterior(stream[:-1], vocabulary)
            best = max(likely, key=lambda token: likely[token])
            if best == -1:  # all tokens are equally likely, so any guess is as good
                accuracy += share / vocabulary
            else:
                accuracy += share * (stream[-1] == best)
            loss -= share * math.log(likely.get(stream[-1], likely[-1]))
    return accuracy, loss


def _equalities(size: int) -> Iterator[tuple[int, ...]]:
    """Yield every way in which `size` tokens can be equal to one another, tokens numbered as they first appear."""
    if size == 0:
        yield ()
        return
    for head in _equalities(size - 1):
        for token in range(max(head, default=-1) + 2):
            yield (*head, token)
