"""The 19,683 ternary operations: what they are, how deep each lies, and the batches that a training meets.

An operation is the truth table of a binary function on three values: nine digits, each -1, 0 or 1. Number n in
0..19682 is written in base 3, least digit first; digit k of the table is `(n // 3**k) % 3`, its value one less.

The valuation of n is the largest k with 3**k dividing n, and 9 for n = 0. It is the number of leading digits with the
value -1, so a model can read it off the input. Two thirds of all operations have valuation 0, one alone has 9.

Letters in names: N operations, B rows of a batch, D digits, I inputs (3 x D), L levels, Z latent dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import torch

DIGITS = 9
VALUES = 3
COUNT = VALUES**DIGITS
"""All there are: 19,683."""
LEVELS = DIGITS + 1
"""Valuations 0..9."""


class Operations(NamedTuple):
    """All operations, in the order of their numbers; shared by everyone, never to be written to.

    Attributes:
        digits: (N, D), 0, 1 or 2, one more than the value.
        level: (N,), the valuation.
        one_hot: (N, I), digits as three cells each, 1.0 for the digit that it is.
        values: (N, D), -1.0, 0.0 or 1.0.
    """

    digits: torch.Tensor
    level: torch.Tensor
    one_hot: torch.Tensor
    values: torch.Tensor


@cache
def operations() -> Operations:
    """Return all 19,683 operations."""
    digits_ND = digits_of(torch.arange(COUNT))
    one_hot_NI = torch.nn.functional.one_hot(digits_ND, VALUES).flatten(1).float()
    return Operations(digits_ND, valuation(digits_ND), one_hot_NI, digits_ND.float() - 1)


def digits_of(numbers_B: torch.Tensor) -> torch.Tensor:
    """Return the digits 0, 1, 2 of numbers in 0..19682, least digit first, shape (B, D)."""
    return numbers_B[:, None] // VALUES ** torch.arange(DIGITS) % VALUES


def number_of(digits_BD: torch.Tensor) -> torch.Tensor:
    """Return the numbers that have these digits 0, 1, 2: the inverse of `digits_of`, shape (B,)."""
    return (digits_BD * VALUES ** torch.arange(DIGITS)).sum(-1)


def valuation(digits_BD: torch.Tensor) -> torch.Tensor:
    """Return how many leading digits are 0 (values -1), shape (B,): the largest k with 3**k dividing the number."""
    return (digits_BD == 0).long().cumprod(-1).sum(-1)


def distance(one_B: torch.Tensor, other_B: torch.Tensor) -> torch.Tensor:
    """Return the 3-adic distance of two numbers, 3 ** -valuation(difference), and 0 for a number and itself."""
    apart_B = (one_B - other_B).abs()
    return torch.where(apart_B == 0, 0.0, float(VALUES) ** -valuation(digits_of(apart_B)).double())


def split(share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers to train on and those held out, each in ascending order.

    Args:
        share: of all operations that are trained on, in (0, 1]; at least one is.
        seed: which ones; the same share and seed give the same split.
    """
    order_N = torch.from_numpy(np.random.default_rng((seed, _SPLIT)).permutation(COUNT))
    kept = max(1, round(share * COUNT))
    return order_N[:kept].sort().values, order_N[kept:].sort().values


_SPLIT, _ORDER, _NOISE = 0, 1, 2
"""What a generator is for; with the seed and a number it makes each generator one of its own."""


class Batch(NamedTuple):
    """Some operations, and all else that an update depends on.

    Attributes:
        inputs: one-hot digits, (B, 27), or their values, (B, 9).
        digits: (B, D), what shall be reconstructed.
        level: 1.0 at the valuation, (B, 10).
        noise: (B, Z), standard normal numbers for the latent code.
        done: share of the training's updates that lie before this one, in [0, 1).
    """

    inputs: torch.Tensor
    digits: torch.Tensor
    level: torch.Tensor
    noise: torch.Tensor
    done: float


def batch_maker(
    numbers: torch.Tensor,
    *,
    size: int,
    always: torch.Tensor,
    latent: int,
    steps: int,
    seed: int,
    raw_input: bool = False,
) -> Callable[[int], Batch]:
    """Return the function that makes batch number 0, 1, 2, ... of a training, for `NumberedBatches`.

    The same number always gives the same batch, noise included. In each epoch every operation comes once, in an order
    of its own, and those of `always` come in every batch as well.

    Args:
        numbers: of the operations to train on.
        size: B without those of `always`; the last batch of an epoch may be smaller.
        always: numbers of operations that join each batch; rare levels would hardly ever be met otherwise.
        latent: Z.
        steps: updates that the training takes; what `Batch.done` is a share of.
        seed: of orders and noise.
        raw_input: values instead of one-hot digits.
    """
    data = operations()
    inputs_NI = data.values if raw_input else data.one_hot
    level_NL = torch.nn.functional.one_hot(data.level, LEVELS).float()
    length = batches_in_epoch(len(numbers), size)

    @lru_cache(maxsize=1)
    def order(epoch: int) -> torch.Tensor:
        return numbers[torch.from_numpy(np.random.default_rng((seed, _ORDER, epoch)).permutation(len(numbers)))]

    def make(number: int) -> Batch:
        epoch, place = divmod(number, length)
        rows_B = torch.cat([order(epoch)[place * size : (place + 1) * size], always])
        generator = np.random.Generator(np.random.SFC64((seed, _NOISE, number)))
        noise = generator.standard_normal((len(rows_B), latent), dtype=np.float32)
        return Batch(
            inputs=inputs_NI.index_select(0, rows_B),
            digits=data.digits.index_select(0, rows_B),
            level=level_NL.index_select(0, rows_B),
            noise=torch.from_numpy(noise),
            done=number / steps,
        )

    return make


def batches_in_epoch(examples: int, size: int) -> int:
    """Return how many batches it takes to meet every example once."""
    return -(-examples // size)
