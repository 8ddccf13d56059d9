"""Which examples each update is computed from: phases of rising length and complexity, and what is drawn beside them.

Update number k is a function of the seed and of k alone, so that a training that is gone on with meets the batches that
it would have met. Everything is drawn by its place among the training examples; nothing that is not one of them can
come in.

Letters in names: N training examples, B examples of a batch, S words (9), T places of the decoder.

Source: the write-up, sections 4.1 and 4.2.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from trimtab.errors import ConfigError
from trimtab_systems.sci.data import Example, encode, targets
from trimtab_systems.sci.pairs import Pool
from trimtab_systems.sci.write_up.settings import Phases

OPERATOR_WORDS = frozenset({"twice", "thrice", "and", "after", "around", "opposite"})

_ORDER, _DRAWS, _SHORT = 0, 1, 2
"""What a generator is for; with the seed it makes each generator one of its own."""


def complexity(words: Sequence[str]) -> int:
    """Return how many operator words a command has, 0..5."""
    return sum(word in OPERATOR_WORDS for word in words)


def limit_at(phases: Phases, epoch: int) -> int | None:
    """Return the limit that holds in an epoch, None where there are no phases."""
    return next((limit for first, limit in reversed(phases) if first <= epoch), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """What an epoch is made of.

    Attributes:
        length_phases: most actions by epoch, of half-open phases; none for no limit.
        structure_phases: most operator words by epoch, likewise. Both limits hold at a time.
        oversampling: how often, on average, an example with fewer than `short` actions comes in an epoch.
        short: see `oversampling`.
    """

    length_phases: Phases = ()
    structure_phases: Phases = ()
    oversampling: float = 1.0
    short: int = 10

    def admitted(self, lengths_N: np.ndarray, complexity_N: np.ndarray, epoch: int) -> np.ndarray:
        """Return the places of the examples that an epoch takes, in order."""
        longest, deepest = limit_at(self.length_phases, epoch), limit_at(self.structure_phases, epoch)
        fits_N = np.ones(len(lengths_N), bool)
        if longest is not None:
            fits_N &= lengths_N <= longest
        if deepest is not None:
            fits_N &= complexity_N <= deepest
        return np.flatnonzero(fits_N)

    def times(self, lengths_N: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        """Return how often each of these examples comes in an epoch."""
        draw_N = np.random.default_rng((seed, _SHORT, epoch)).random(len(lengths_N)) < self.oversampling % 1
        return np.where(lengths_N < self.short, int(self.oversampling) + draw_N, 1)

    def changes(self) -> tuple[int, ...]:
        """Return the epochs, after the first, in which a phase begins."""
        return tuple(sorted({first for first, _ in (*self.length_phases, *self.structure_phases) if first}))


def sizes(train: Sequence[Example], curriculum: Curriculum, epochs: int, seed: int) -> tuple[int, ...]:
    """Return how many examples each epoch has, those that come twice counted twice.

    Raises:
        ConfigError: no example is short and simple enough for an epoch.
    """
    lengths_N = np.array([len(example.actions) for example in train])
    complexity_N = np.array([complexity(example.words) for example in train])
    found = []
    for epoch in range(epochs):
        rows = curriculum.admitted(lengths_N, complexity_N, epoch)
        if not len(rows):
            raise ConfigError(
                f"length_phases, structure_phases: no training example is within the limits of epoch {epoch}; "
                "raise them"
            )
        found.append(int(curriculum.times(lengths_N[rows], epoch, seed).sum()))
    return tuple(found)


def starts(counts: Sequence[int], per_update: int) -> list[int]:
    """Return the number of the first update of each epoch, and behind them that of all updates."""
    found = [0]
    for count in counts:
        found.append(found[-1] + -(-count // per_update))
    return found


class Micro(NamedTuple):
    """The examples of one loss.

    Attributes:
        words_BS: commands.
        inputs_BT: what the decoder is fed.
        labels_BT: what it shall write.
        lengths_B: actions.
        template_B: number of the template of each example.
        partner_BS: for each another command of its template, or itself where there is none.
        template_partner_B: number of the template that each partner is taken to have.
        swapped_X: places, in this batch, of the examples that are intervened on; X of them.
        other_XS: the command whose content each of them is given.
        other_inputs_XT: what the decoder is fed then.
        other_labels_XT: what it shall write then.
    """

    words_BS: torch.Tensor
    inputs_BT: torch.Tensor
    labels_BT: torch.Tensor
    lengths_B: torch.Tensor
    template_B: torch.Tensor
    partner_BS: torch.Tensor
    template_partner_B: torch.Tensor
    swapped_X: torch.Tensor
    other_XS: torch.Tensor
    other_inputs_XT: torch.Tensor
    other_labels_XT: torch.Tensor


class Batch(NamedTuple):
    """The examples of one update.

    Attributes:
        step: number of the update.
        micros: their gradients are averaged.
    """

    step: int
    micros: tuple[Micro, ...]


class Plan:
    """All updates of a training.

    Args:
        train: training examples.
        pool: of the same examples; with a guard where `swap_rate` is more than 0.
        curriculum: what an epoch is made of.
        epochs: passes over what is admitted.
        batch: examples of one loss; the last ones of an epoch are fewer.
        accumulate: losses of one update.
        seed: of order and draws.
        swap_rate: share of the examples in place of which comes the same with other content words. Where that is no
            training example (it may be set aside for validation), the example stays.
        counterfactual_share: share of the examples with a partner of other content that are intervened on.
        wrong_pairs: a partner is taken to have the template of the next example: a fault.

    Raises:
        ConfigError: no example is short and simple enough for an epoch.
    """

    def __init__(
        self,
        train: Sequence[Example],
        pool: Pool,
        curriculum: Curriculum,
        *,
        epochs: int,
        batch: int,
        accumulate: int,
        seed: int,
        swap_rate: float = 0.0,
        counterfactual_share: float = 0.0,
        wrong_pairs: bool = False,
    ):
        self.train, self.pool, self.curriculum = train, pool, curriculum
        self.batch, self.accumulate, self.seed = batch, accumulate, seed
        self.swap_rate, self.counterfactual_share, self.wrong_pairs = swap_rate, counterfactual_share, wrong_pairs
        encoded = encode(train)
        self._encoded = encoded
        self._inputs_NT, self._labels_NT = targets(encoded)
        self._place_of = {example.words: place for place, example in enumerate(train)}
        self._lengths_N = encoded.lengths_B.numpy()
        self._complexity_N = np.array([complexity(example.words) for example in train])
        self._order: Callable[[int], np.ndarray] = lru_cache(maxsize=2)(self._drawn)
        self.starts = starts(sizes(train, curriculum, epochs, seed), batch * accumulate)

    @property
    def steps(self) -> int:
        """Updates of the whole training."""
        return self.starts[-1]

    def epoch_of(self, step: int) -> int:
        """Return the epoch that an update belongs to; the last one for all later ones."""
        return min(bisect.bisect_right(self.starts, step), len(self.starts) - 1) - 1

    def first_of(self, epoch: int) -> int:
        """Return the number of the first update of an epoch."""
        return self.starts[min(epoch, len(self.starts) - 1)]

    def steps_in(self, epochs: float) -> float:
        """Return how many updates the first epochs have; a part of an epoch has that part of its updates."""
        whole = min(int(epochs), len(self.starts) - 1)
        after = self.starts[min(whole + 1, len(self.starts) - 1)]
        return self.starts[whole] + (epochs - whole) * (after - self.starts[whole])

    def changes(self) -> tuple[int, ...]:
        """Return the updates with which a phase begins, the first phase left out."""
        return tuple(self.first_of(epoch) for epoch in self.curriculum.changes())

    def make(self, step: int) -> Batch:
        """Return the examples of update number `step`; behind the last one the last epoch comes again."""
        epoch = self.epoch_of(step)
        length = self.starts[epoch + 1] - self.starts[epoch]
        size = self.batch * self.accumulate
        place = (step - self.starts[epoch]) % length * size
        rows_B = self._order(epoch)[place : place + size]
        generator = np.random.default_rng((self.seed, _DRAWS, step))
        micros = [rows_B[first : first + self.batch] for first in range(0, len(rows_B), self.batch)]
        return Batch(step, tuple(self._micro(one, generator) for one in micros))

    def _drawn(self, epoch: int) -> np.ndarray:
        rows = self.curriculum.admitted(self._lengths_N, self._complexity_N, epoch)
        times = self.curriculum.times(self._lengths_N[rows], epoch, self.seed)
        return np.random.default_rng((self.seed, _ORDER, epoch)).permutation(np.repeat(rows, times))

    def _micro(self, rows_B: np.ndarray, generator: np.random.Generator) -> Micro:
        if self.swap_rate:
            rows_B = rows_B.copy()
            for place in np.flatnonzero(generator.random(len(rows_B)) < self.swap_rate).tolist():
                other = self.pool.swapped(self.train[rows_B[place]], generator)
                rows_B[place] = self._place_of.get(other.words, rows_B[place])
        partners_B = self.pool.partners(rows_B, generator)
        chosen = (generator.random(len(rows_B)) < self.counterfactual_share) & (partners_B != rows_B)
        swapped_X = np.flatnonzero(chosen)
        template_B = self.pool.templates_N[torch.from_numpy(rows_B)]
        words_BS, inputs_BT, labels_BT, lengths_B = self._taken(rows_B)
        other_XS, other_inputs_XT, other_labels_XT, _ = self._taken(partners_B[swapped_X])
        return Micro(
            words_BS=words_BS,
            inputs_BT=inputs_BT,
            labels_BT=labels_BT,
            lengths_B=lengths_B,
            template_B=template_B,
            partner_BS=self._encoded.words_BN[torch.from_numpy(partners_B)],
            template_partner_B=template_B.roll(1) if self.wrong_pairs else template_B,
            swapped_X=torch.from_numpy(swapped_X),
            other_XS=other_XS,
            other_inputs_XT=other_inputs_XT,
            other_labels_XT=other_labels_XT,
        )

    def _taken(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return commands, inputs, labels and lengths of these examples, no longer than the longest of them."""
        rows_B = torch.from_numpy(rows)
        lengths_B = self._encoded.lengths_B[rows_B]
        longest = int(lengths_B.max()) + 1 if len(rows) else 1
        inputs_BT, labels_BT = self._inputs_NT[rows_B, :longest], self._labels_NT[rows_B, :longest]
        return self._encoded.words_BN[rows_B], inputs_BT, labels_BT, lengths_B
