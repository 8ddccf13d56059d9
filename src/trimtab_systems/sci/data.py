"""SCAN: 20,910 commands, the actions that each asks for, and the ways of dividing them into training and test.

A command is one clause, or two joined by `and` or `after`. A clause is a phrase, once, `twice` or `thrice`. A phrase is
an action word (`walk`, `look`, `run`, `jump`), or an action word or `turn` with a direction, bare or after `opposite`
or `around`. All of it is written out here from that grammar; nothing is read from a file.

What the test of a split holds is known to `open_test` alone. The commands that measure a finished model call it, and
nothing else does (a test of the suite reads the source for that).

Letters in names: B examples, N words (9), T actions (of the longest example at hand).

Source: Lake & Baroni (2018) for the grammar and the splits `length` and `addprim`, Loula et al. (2018) for `template`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain, product
from typing import NamedTuple

import numpy as np
import torch

from trimtab.errors import ConfigError, UserError, nearest

ACTION_WORDS = ("walk", "look", "run", "jump")
DIRECTION_WORDS = ("left", "right")
WAY_WORDS = ("opposite", "around")
REPEAT_WORDS = ("twice", "thrice")
JOIN_WORDS = ("and", "after")
WORDS = tuple(sorted((*ACTION_WORDS, "turn", *DIRECTION_WORDS, *WAY_WORDS, *REPEAT_WORDS, *JOIN_WORDS)))
"""The 13 words of the commands, in alphabetical order; word i has the number i + 1."""

ACTIONS = ("I_WALK", "I_LOOK", "I_RUN", "I_JUMP", "I_TURN_LEFT", "I_TURN_RIGHT")
"""The six actions, in the order of their numbers 0..5."""
OUTPUT = ("<pad>", "<bos>", "<eos>", *ACTIONS)
"""What a decoder that writes one symbol after the other chooses from."""
PAD, BOS, EOS = (OUTPUT.index(name) for name in ("<pad>", "<bos>", "<eos>"))
FIRST_ACTION = OUTPUT.index(ACTIONS[0])
"""Number in `OUTPUT` of action 0."""

LONGEST_COMMAND = 9
"""N: words of the longest command."""
CUTOFF = 22
"""Actions of the longest training example of the split `length`; all longer ones are its test."""

_ACTION_OF = dict(zip((*ACTION_WORDS, *DIRECTION_WORDS), ACTIONS, strict=True))
_TIMES = {"twice": 2, "thrice": 3}
_NUMBER_OF_WORD = {word: number for number, word in enumerate(WORDS, start=1)}
_NUMBER_OF_ACTION = {action: number for number, action in enumerate(ACTIONS)}


class Example(NamedTuple):
    """A command and what it asks for.

    Attributes:
        words: of the command, 1..9.
        actions: 1..48 names out of `ACTIONS`.
    """

    words: tuple[str, ...]
    actions: tuple[str, ...]


class Encoded(NamedTuple):
    """Examples as numbers.

    Attributes:
        words_BN: int64, word i of `WORDS` as i + 1, 0 behind the command; N is always 9.
        actions_BT: int64, 0..5, -1 behind the last action; T is the number of actions of the longest example.
        lengths_B: int64, actions of each example.
    """

    words_BN: torch.Tensor
    actions_BT: torch.Tensor
    lengths_B: torch.Tensor


def interpret(words: Sequence[str]) -> tuple[str, ...]:
    """Return the actions that a command asks for.

    Args:
        words: of the command, as `"walk left twice".split()` gives them.

    Raises:
        UserError: this is no command of the grammar; the message names the word and its place.
    """
    if isinstance(words, str):
        raise UserError(f"expected the words of a command one by one, got the text {words!r}; pass {words!r}.split()")
    first, place = _read_clause(words, 0)
    if place == len(words):
        return first
    if words[place] not in JOIN_WORDS:
        raise _wrong(words, place, (*_possible_after(words[place - 1]), *JOIN_WORDS), or_end=True)
    second, end = _read_clause(words, place + 1)
    if end < len(words):
        raise _wrong(words, end, _possible_after(words[end - 1]), or_end=True)
    return first + second if words[place] == "and" else second + first


def _read_clause(words: Sequence[str], place: int) -> tuple[tuple[str, ...], int]:
    """Return the actions of the clause that begins at `place`, and the place behind it."""

    def word(at: int) -> str:
        return words[at] if at < len(words) else ""

    head = word(place)
    if head not in (*ACTION_WORDS, "turn"):
        raise _wrong(words, place, (*ACTION_WORDS, "turn"))
    act: tuple[str, ...] = () if head == "turn" else (_ACTION_OF[head],)
    place += 1
    way = word(place) if word(place) in WAY_WORDS else ""
    place += bool(way)
    if word(place) in DIRECTION_WORDS:
        act = _turned(way, (_ACTION_OF[word(place)],), act)
        place += 1
    elif way:
        raise _wrong(words, place, DIRECTION_WORDS)
    elif head == "turn":
        raise _wrong(words, place, (*WAY_WORDS, *DIRECTION_WORDS))
    times = _TIMES.get(word(place), 1)
    return act * times, place + (times > 1)


def _turned(way: str, turn: tuple[str, ...], act: tuple[str, ...]) -> tuple[str, ...]:
    """Return the actions of a phrase with a direction; `way` is empty where neither of `WAY_WORDS` stands before it."""
    if way == "around":
        return (turn + act) * 4
    return turn * (2 if way == "opposite" else 1) + act


def _possible_after(word: str) -> tuple[str, ...]:
    """Return the words with which a clause that could end in `word` may go on."""
    if word in REPEAT_WORDS:
        return ()
    return REPEAT_WORDS if word in DIRECTION_WORDS else (*WAY_WORDS, *DIRECTION_WORDS, *REPEAT_WORDS)


def _wrong(words: Sequence[str], place: int, expected: Sequence[str], or_end: bool = False) -> UserError:
    """Return the error for a word that cannot stand where it stands, or for a command that ends too early."""
    wanted = ", ".join([repr(word) for word in expected] + ["the end"] * or_end)
    text = " ".join(words)
    if place >= len(words):
        return UserError(f"the command {text!r} ends too early: expected one of {wanted} as word {place + 1}")
    unknown = words[place] not in WORDS
    hint = f" It is no word of this grammar.{nearest(words[place], WORDS)}" if unknown else ""
    return UserError(f"word {place + 1} of the command {text!r} is {words[place]!r}, expected: {wanted}.{hint}")


@cache
def all_examples() -> tuple[Example, ...]:
    """Return all 20,910 commands with their actions: first those of one clause, then those with `and`, with `after`."""
    phrases = [Example((word,), (_ACTION_OF[word],)) for word in ACTION_WORDS]
    for way, head, direction in product(("", *WAY_WORDS), (*ACTION_WORDS, "turn"), DIRECTION_WORDS):
        act = () if head == "turn" else (_ACTION_OF[head],)
        words = (head, way, direction) if way else (head, direction)
        phrases.append(Example(words, _turned(way, (_ACTION_OF[direction],), act)))
    singles = phrases + [
        Example((*words, repeat), actions * _TIMES[repeat]) for repeat in REPEAT_WORDS for words, actions in phrases
    ]
    pairs = list(product(singles, singles))
    joined_and = [Example((*one.words, "and", *two.words), one.actions + two.actions) for one, two in pairs]
    joined_after = [Example((*one.words, "after", *two.words), two.actions + one.actions) for one, two in pairs]
    return (*singles, *joined_and, *joined_after)


def digest(examples: Iterable[Example]) -> str:
    """Return the sha256 of the examples as the lines of a published file, sorted, so that order does not count."""
    lines = sorted(f"IN: {' '.join(words)} OUT: {' '.join(actions)}\n" for words, actions in examples)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# ---- splits


class _Held(NamedTuple):
    """What a split keeps out of training, by runs of words.

    Attributes:
        tested: a command with one of these runs is a test command.
        dropped: a command with one of these runs is in neither part.
        shown: the one command that is trained on although it has a run of `tested`, and how often it stands in training
            so that it is a tenth of all lines.
    """

    tested: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    shown: tuple[str, int] | None = None


_HELD = {
    "addprim-jump": _Held(("jump",), shown=("jump", 1_467)),
    "addprim-turn-left": _Held(("turn left",), shown=("turn left", 2_189)),
    "template-right": _Held(tuple(f"{word} right" for word in ACTION_WORDS), ("turn right",)),
    "template-opposite-right": _Held(
        tuple(f"{word} opposite right" for word in ACTION_WORDS), ("turn opposite right",)
    ),
    "template-around-right": _Held(tuple(f"{word} around right" for word in ACTION_WORDS), ("turn around right",)),
    "template-jump-around-right": _Held(("jump around right",), ("turn around right",)),
}
SPLITS = ("length", *_HELD, "simple")
"""Names of the splits. `simple` is published as one random draw; ours is a draw of the same size from the seed."""
SIMPLE_TRAIN = 16_728
"""Training examples of `simple`, 80 % of all."""
_SIMPLE, _CARVE = 0, 1
"""What a generator is for; with the seed it makes each generator one of its own."""


def train_of(split: str, seed: int = 0) -> tuple[Example, ...]:
    """Return the training examples of a split, in a fixed order, nothing of its test among them.

    `addprim-jump` and `addprim-turn-left` repeat their one primitive 1,467 and 2,189 times, as published.

    Args:
        split: one of `SPLITS`.
        seed: of the draw of `simple`; the other splits are the same for every seed.

    Raises:
        ConfigError: there is no such split.
    """
    return _divide(split, seed if split == "simple" else 0)[0]


def open_test(split: str, seed: int = 0) -> tuple[Example, ...]:
    """Return the test examples of a split. For the last measurement of a finished model, and for the leak guard.

    Arguments and errors are those of `train_of`.
    """
    return _divide(split, seed if split == "simple" else 0)[1]


@cache
def _divide(split: str, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    if split == "length":
        return _partition(all_examples(), lambda example: len(example.actions) <= CUTOFF)
    if split == "simple":
        order = np.random.default_rng((seed, _SIMPLE)).permutation(len(all_examples()))
        chosen = set(order[:SIMPLE_TRAIN].tolist())
        train = tuple(example for place, example in enumerate(all_examples()) if place in chosen)
        test = tuple(example for place, example in enumerate(all_examples()) if place not in chosen)
        return train, test
    if split not in _HELD:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.{nearest(split, SPLITS)}")
    tested, dropped, shown = _HELD[split]
    kept, _ = _partition(all_examples(), lambda example: not _has(example.words, dropped))
    train, test = _partition(kept, lambda example: not _has(example.words, tested))
    if shown:
        command, times = tuple(shown[0].split()), shown[1]
        primitive, test = _partition(test, lambda example: example.words == command)
        train += primitive * times
    return train, test


def _partition(
    examples: Iterable[Example], first: Callable[[Example], bool]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return the examples for which `first` is true, and the others."""
    yes: list[Example] = []
    no: list[Example] = []
    for example in examples:
        (yes if first(example) else no).append(example)
    return tuple(yes), tuple(no)


def _has(words: Sequence[str], runs: Iterable[str]) -> bool:
    """Return whether one of these runs of words stands in the command, without a gap."""
    text = f" {' '.join(words)} "
    return any(f" {run} " in text for run in runs)


def carve(
    examples: Sequence[Example], share: float = 0.1, seed: int = 0
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return what is left to train on, and a validation set of the same distribution; both keep the given order.

    The draw is among distinct commands, so none is in both parts. One that stands in `examples` more than once (the
    primitive of an `addprim` split) stays in training: nothing else would teach it.

    Args:
        examples: training examples of a split.
        share: of the distinct commands that goes into validation, in (0, 1).
        seed: of the draw.

    Raises:
        ConfigError: the share is out of range, or leaves one of the two parts empty.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share: expected a number between 0 and 1, both excluded, got {share}; 0.1 is usual")
    count = Counter(example.words for example in examples)
    once = [words for words, times in count.items() if times == 1]
    order = np.random.default_rng((seed, _CARVE)).permutation(len(once))
    drawn = {once[place] for place in order[: round(share * len(count))].tolist()}
    train, validation = _partition(examples, lambda example: example.words not in drawn)
    if not train or not validation:
        raise ConfigError(
            f"share: {share} of {len(count)} distinct commands leaves {len(train)} examples to train on and"
            f" {len(validation)} to validate with; give more examples, or another share"
        )
    return train, validation


def proxy_of(train: Iterable[Example], longest: int = 15) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return the examples of at most `longest` actions, and the longer ones to develop on.

    It poses the length split's task inside its training set: of the 3,152 longer examples of `length` 67 % have a
    clause (`A around D twice`) that no shorter one has. Settings are chosen here, so that the test is met only once.
    """
    return _partition(train, lambda example: len(example.actions) <= longest)


def clauses(words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the one or two clauses of a command, in the order in which they stand there."""
    for place, word in enumerate(words):
        if word in JOIN_WORDS:
            return tuple(words[:place]), tuple(words[place + 1 :])
    return (tuple(words),)


def seen_clauses(train: Iterable[Example]) -> frozenset[tuple[str, ...]]:
    """Return every clause that stands in some training command.

    A model that learns clauses as wholes can do a test command only if all its clauses are among these.
    """
    return frozenset(chain.from_iterable(clauses(example.words) for example in train))


# ---- numbers


def encode(examples: Sequence[Example]) -> Encoded:
    """Return examples as numbers.

    Raises:
        UserError: there are none, or a word, an action or the length of a command is none of SCAN's.
    """
    words_BN = encode_words([example.words for example in examples])
    lengths = np.fromiter((len(example.actions) for example in examples), np.int64, len(examples))
    flat = (_NUMBER_OF_ACTION.get(action, -1) for example in examples for action in example.actions)
    numbers = np.fromiter(flat, np.int64, int(lengths.sum()))
    if (numbers < 0).any():
        wrong = next(action for example in examples for action in example.actions if action not in ACTIONS)
        raise UserError(f"expected actions out of {', '.join(ACTIONS)}, got {wrong!r}.{nearest(wrong, ACTIONS)}")
    actions_BT = np.full((len(examples), int(lengths.max())), -1)
    actions_BT[np.arange(actions_BT.shape[1]) < lengths[:, None]] = numbers
    return Encoded(words_BN, torch.from_numpy(actions_BT), torch.from_numpy(lengths))


def encode_words(commands: Sequence[Sequence[str]]) -> torch.Tensor:
    """Return commands as numbers, (B, 9), with 0 behind each.

    Raises:
        UserError: there are none, one has no word or more than 9, or a word is none of the 13.
    """
    if not commands:
        raise UserError("expected at least one command to encode, got none")
    lengths = np.fromiter((len(words) for words in commands), np.int64, len(commands))
    for place in np.flatnonzero((lengths < 1) | (lengths > LONGEST_COMMAND))[:1]:
        raise UserError(
            f"expected commands of 1 to {LONGEST_COMMAND} words, got {lengths[place]}: {' '.join(commands[place])!r}"
        )
    numbers = np.fromiter((_NUMBER_OF_WORD.get(word, 0) for word in chain.from_iterable(commands)), np.int64)
    if (numbers == 0).any():
        wrong = next(word for word in chain.from_iterable(commands) if word not in _NUMBER_OF_WORD)
        raise UserError(f"{wrong!r} is no word of the commands, expected: {', '.join(WORDS)}.{nearest(wrong, WORDS)}")
    words_BN = np.zeros((len(commands), LONGEST_COMMAND), np.int64)
    words_BN[np.arange(LONGEST_COMMAND) < lengths[:, None]] = numbers
    return torch.from_numpy(words_BN)


def targets(encoded: Encoded) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a decoder reads and what it shall write, both (B, T + 1), numbers in `OUTPUT`, `PAD` behind.

    The inputs are BOS and the actions; the labels are the actions and EOS.
    """
    actions_BT, lengths_B = encoded.actions_BT, encoded.lengths_B
    symbols_BT = torch.where(actions_BT >= 0, actions_BT + FIRST_ACTION, PAD)
    beside_B1 = symbols_BT.new_full((len(symbols_BT), 1), BOS)
    inputs_BT = torch.cat([beside_B1, symbols_BT], dim=1)
    labels_BT = torch.cat([symbols_BT, torch.full_like(beside_B1, PAD)], dim=1)
    return inputs_BT, labels_BT.scatter(1, lengths_B[:, None], EOS)
