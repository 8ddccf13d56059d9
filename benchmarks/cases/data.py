"""Small real data sets, split anew for each seed."""

import textwrap
import tokenize
from functools import lru_cache
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from sklearn import datasets
from torch import Tensor

from benchmarks.cases.training import Data


@lru_cache
def _bundled(name: str) -> tuple[Any, Any]:
    bunch = getattr(datasets, f"load_{name}")()
    return bunch.data, bunch.target


def split(x: Tensor, y: Tensor, seed: int, validation: int) -> Data:
    """Copies of the rows in a random order, the last `validation` of them held out."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, held_out = order[:-validation], order[-validation:]
    return Data(x_train=x[train], y_train=y[train], x_validation=x[held_out], y_validation=y[held_out])


def digits(seed: int) -> Data:
    """1,797 images of 8 x 8 pixels in [0, 1] as rows of 64, and their digit."""
    x, y = _bundled("digits")
    return split(torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y), seed, validation=400)


def standardised(name: str, seed: int, validation: int) -> Data:
    """A bundled table with every column, and a real-valued target, at mean 0 and deviation 1."""
    x, y = (torch.tensor(part) for part in _bundled(name))
    x = ((x - x.mean(0)) / x.std(0)).float()
    if y.is_floating_point():
        y = ((y - y.mean()) / y.std()).float().unsqueeze(1)
    return split(x, y, seed, validation)


ALPHABET = "\n !\"#'()*,-.:=[]_" + "0123456789" + "abcdefghijklmnopqrstuvwxyz"
"""Characters of the text data; any other becomes a blank."""


@lru_cache
def _source_text() -> str:
    """Two modules of the standard library."""
    return "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (textwrap, tokenize))


@lru_cache
def _source_codes() -> tuple[int, ...]:
    return tuple(ALPHABET.find(character) if character in ALPHABET else 1 for character in _source_text().lower())


def pieces(codes: Tensor, length: int) -> Tensor:
    """A long sequence cut into rows; the rest is dropped."""
    return codes[: len(codes) // length * length].view(-1, length)


def characters(seed: int, length: int) -> Data:
    """Pieces of Python source and the same pieces shifted by one character."""
    codes = torch.tensor(_source_codes())
    return split(pieces(codes[:-1], length), pieces(codes[1:], length), seed, validation=120)


TAGS = {tokenize.NAME: 1, tokenize.NUMBER: 2, tokenize.STRING: 3, tokenize.COMMENT: 4, tokenize.OP: 5}
"""What a character of source belongs to; 0 is white space and the rest."""


@lru_cache
def _source_tags() -> tuple[int, ...]:
    lines = _source_text().splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    tags = [0] * starts[-1]
    for token in tokenize.generate_tokens(StringIO("".join(lines)).readline):
        begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        tags[begin:end] = [TAGS.get(token.type, 0)] * (end - begin)
    return tuple(tags)


def tagged_characters(seed: int, length: int) -> Data:
    """Pieces of Python source, and for each character the kind of token it belongs to."""
    x, y = (pieces(torch.tensor(codes), length) for codes in (_source_codes(), _source_tags()))
    return split(x, y, seed, validation=80)


def noisy_digits(seed: int, noise: float) -> Data:
    """Digits with Gaussian noise as 1 x 8 x 8 images, and the clean images."""
    generator = torch.Generator().manual_seed(seed)
    clean = digits(seed)
    y_train, y_validation = (y.view(-1, 1, 8, 8) for y in (clean.x_train, clean.x_validation))
    x_train, x_validation = (y + noise * torch.randn(y.shape, generator=generator) for y in (y_train, y_validation))
    return Data(x_train=x_train, y_train=y_train, x_validation=x_validation, y_validation=y_validation)


def most_frequent_symbol(seed: int, symbols: int = 4, length: int = 9, count: int = 3000) -> Data:
    """Random sequences of symbols, and the symbol that occurs most often in each (the smaller one in a tie)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(symbols, (count, length), generator=generator)
    counts = torch.nn.functional.one_hot(x, symbols).sum(1)
    return split(x, counts.argmax(1), seed, validation=400)
