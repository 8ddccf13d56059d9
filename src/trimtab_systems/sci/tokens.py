"""How long SCAN's outputs are: in actions, and in the pieces that sub-word tokenizers make of the actions' names.

The models here write one symbol per action. The write-up counts pieces of a pretrained tokenizer (88 and 92 at the cut
of the length split, 288 at most), and no one tokenizer gives its numbers. This prints what was measured beside them:

    python -m trimtab_systems.sci.tokens [folder of a tokenizer]

No tokenizer ships with Trimtab. What is known of two of them are the pieces per action's name, kept below.

Source: the write-up, section 1.1.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trimtab.errors import UserError, nearest
from trimtab_systems.sci.data import ACTIONS, WORDS, Example, open_test, train_of

WORD = dict.fromkeys(ACTIONS, 1)
"""Pieces per action where each action is a symbol of its own."""
LLAMA = {"I_WALK": 5, "I_LOOK": 4, "I_RUN": 4, "I_JUMP": 5, "I_TURN_LEFT": 6, "I_TURN_RIGHT": 7}
"""Pieces per action under the tokenizer of Llama and TinyLlama. 5 for I_WALK and I_JUMP and 7 for I_TURN_RIGHT were
read off; the other three are the only whole numbers with which the lengths measured on the published files come out
(training 4..141, mean 61.6; test 120..288, mean 164.2)."""
T5_ACTS, T5_TURNS = (4, 5, 5, 5), (8, 9)
"""Pieces under the tokenizer of T5 of the four acts, and of the two turns, each in an unknown order: the only whole
numbers with which the measured lengths come out (training 4..180, mean 75.8; test 144..336, mean 198.7; 110 test
outputs above 300). The order has no effect on them, since the length split treats all acts alike, and both turns."""


class Lengths(NamedTuple):
    """The least, the mean and the greatest length of some outputs."""

    least: int
    mean: float
    most: int


WRITE_UP = (Lengths(1, 12.0, 88), Lengths(92, 150.0, 288))
"""What the write-up states of the length split (section 1.1): training, and test."""


class WordTokenizer:
    """Numbers for words and back, one number per word, 0 for padding.

    Args:
        words: of the vocabulary; word i has the number i + 1.
    """

    def __init__(self, words: Sequence[str] = WORDS) -> None:
        self.words = tuple(words)
        self._number = {word: number for number, word in enumerate(self.words, start=1)}

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the numbers of the words of a text.

        Raises:
            UserError: a word is not in the vocabulary.
        """
        numbers = []
        for place, word in enumerate(text.split(), start=1):
            if word not in self._number:
                raise UserError(
                    f"word {place} of {text!r} is {word!r}, expected one of: {', '.join(self.words)}."
                    + nearest(word, self.words)
                )
            numbers.append(self._number[word])
        return tuple(numbers)

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text that has these numbers; padding is left out.

        Raises:
            UserError: a number stands for no word.
        """
        words = []
        for number in numbers:
            if not 0 <= number <= len(self.words):
                raise UserError(f"expected numbers from 0 (padding) to {len(self.words)}, got {number}")
            if number:
                words.append(self.words[number - 1])
        return " ".join(words)


def in_some_order(acts: Sequence[int], turns: Sequence[int]) -> dict[str, int]:
    """Return pieces per action from those of the acts and of the turns, given without the names that they belong to."""
    return dict(zip(ACTIONS, (*acts, *turns), strict=True))


def lengths(pieces: Mapping[str, int], examples: Iterable[Example]) -> Lengths:
    """Return how long the outputs are when each action takes that many pieces; no end symbol is counted.

    Raises:
        UserError: an action has no number of pieces, or there are no examples.
    """
    if missing := [action for action in ACTIONS if action not in pieces]:
        raise UserError(f"expected the pieces of every action, nothing is given for {', '.join(missing)}")
    counts = [sum(pieces[action] for action in example.actions) for example in examples]
    if not counts:
        raise UserError("expected at least one example to measure, got none")
    return Lengths(min(counts), sum(counts) / len(counts), max(counts))


def from_folder(folder: Path) -> dict[str, int]:
    """Return the pieces per action of a tokenizer that lies in a folder, as `transformers` saves it.

    Raises:
        UserError: `transformers` is not installed, the folder is none or holds no tokenizer, or the pieces of a text
            are not the sum of those of its words.
    """
    try:
        auto_tokenizer = importlib.import_module("transformers").AutoTokenizer
    except ImportError as error:
        raise UserError("reading a tokenizer needs transformers: pip install transformers") from error
    if not folder.is_dir():
        raise UserError(f"expected a folder with a tokenizer, {folder} is none")
    try:
        tokenizer = auto_tokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} holds no tokenizer that transformers can read: {str(error).splitlines()[0]}"
        ) from error

    def count(text: str) -> int:
        return len(tokenizer.tokenize(text))

    # Behind another word: many tokenizers treat the beginning of a text in a way of its own.
    pieces = {action: count(f"{ACTIONS[0]} {action}") - count(ACTIONS[0]) for action in ACTIONS}
    added, whole = sum(pieces.values()), count(" ".join((ACTIONS[0], *ACTIONS))) - count(ACTIONS[0])
    if added != whole:
        raise UserError(
            f"the tokenizer in {folder} makes {whole} pieces of a text whose words make {added}; it joins words, so"
            " lengths cannot be told from pieces per word"
        )
    return pieces


def report(folder: Path | None = None) -> str:
    """Return the table of lengths on the length split, one row per way to count, the write-up's statement last."""
    units = {
        "actions": WORD,
        "pieces of Llama": LLAMA,
        "pieces of T5": in_some_order(T5_ACTS, T5_TURNS),
    }
    if folder is not None:
        units[f"pieces of {folder.name}"] = from_folder(folder)
    parts = (train_of("length"), open_test("length"))
    rows = {unit: tuple(lengths(pieces, part) for part in parts) for unit, pieces in units.items()}
    rows["as the write-up says"] = WRITE_UP
    lines = [f"{'length split':<22}{'training':>20}{'test':>20}", f"{'':<22}" + f"{'least   mean  most':>20}" * 2]
    for unit, both in rows.items():
        lines.append(f"{unit:<22}" + "".join(f"{one.least:>7}{one.mean:>7.1f}{one.most:>6}" for one in both))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how long SCAN's outputs are, in actions and in the pieces of tokenizers, beside the write-up's numbers."""
    parser = argparse.ArgumentParser(prog="python -m trimtab_systems.sci.tokens", description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="a tokenizer as transformers saves it")
    try:
        print(report(parser.parse_args(arguments).folder))  # noqa: T201 (this module is a command)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
