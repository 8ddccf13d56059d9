"""Commands of one structure: templates, partners, swapped content words, and the guard that keeps the test out.

Two commands have one structure when they differ only in content words. Only the four action words count as content.
The write-up's implementation counts `turn` as well, but `turn around left` is four actions where `walk around left` is
eight, so half of the pairs it makes differ in structure, and swapping `turn` makes 3,720 of the 3,920 test commands of
the length split out of training commands. `LeakGuard` refuses that.

Letters in names: N training examples, B rows of a batch.

Source: the write-up, sections 4.2 and 6; the content words are ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import torch

from trimtab.errors import ConfigError, UserError
from trimtab_systems.sci.data import (
    ACTION_WORDS,
    DIRECTION_WORDS,
    LONGEST_COMMAND,
    WORDS,
    Example,
    interpret,
    open_test,
)

CONTENT = ACTION_WORDS
"""The words that may be exchanged without a change of structure."""
ANY_CONTENT, ANY_DIRECTION = "A", "D"
"""What stands in a template for a content word, and for a direction where directions are content too."""


def template(
    words: Sequence[str], direction_is_content: bool = False, content: Sequence[str] = CONTENT
) -> tuple[str, ...]:
    """Return the command with `A` for every content word, and with `D` for every direction if those are content too."""
    directions = DIRECTION_WORDS if direction_is_content else ()
    return tuple(ANY_CONTENT if word in content else ANY_DIRECTION if word in directions else word for word in words)


def positives(templates_B: torch.Tensor) -> torch.Tensor:
    """Return which rows are positive pairs, (B, B): two different rows with the same template number.

    For anchors and their partner views, pass the numbers of both, one behind the other.
    """
    same_BB = templates_B[:, None] == templates_B[None, :]
    return same_BB & ~torch.eye(len(templates_B), dtype=torch.bool, device=templates_B.device)


class LeakGuard:
    """Keeps test commands out of whatever is made from training commands.

    Args:
        train: the training examples of the split; none that are made from them may have more actions than the longest.
        split: whose test commands are kept out.
        seed: of the split `simple`.
    """

    def __init__(self, train: Iterable[Example], split: str, seed: int = 0) -> None:
        self._split = split
        self._longest = max(len(example.actions) for example in train)
        self._closed = frozenset(example.words for example in open_test(split, seed))

    def check(self, examples: Iterable[Example], source: str = "augmentation", remedy: str = "") -> None:
        """Raise ConfigError if there is a test command among the examples, or one that is longer than all of training.

        Args:
            examples: what a model would be trained on, or chosen by.
            source: where they come from, for the message.
            remedy: what to do about it, if it is more than keeping to training commands.
        """
        remedy = remedy or "keep to training commands"
        distinct = {example.words: example for example in examples}.values()
        closed = [example for example in distinct if example.words in self._closed]
        if closed:
            raise ConfigError(
                f"{source} brings in {len(closed)} of the {len(self._closed)} test commands of the split"
                f" {self._split!r}, for example {' '.join(closed[0].words)!r}; {remedy}"
            )
        longer = [example for example in distinct if len(example.actions) > self._longest]
        if longer:
            raise ConfigError(
                f"{source} brings in {len(longer)} commands of more than {self._longest} actions, the most that"
                f" training on the split {self._split!r} has, for example {' '.join(longer[0].words)!r}"
                f" ({len(longer[0].actions)}); {remedy}"
            )


def reachable(examples: Iterable[Example], content: Sequence[str] = CONTENT) -> tuple[Example, ...]:
    """Return all commands that come from these when each content word is exchanged, one by one, for any other.

    Those that are no commands of the grammar (`turn` alone) are left out.
    """
    found: list[Example] = []
    for shape in dict.fromkeys(template(example.words, content=content) for example in examples):
        for words in product(*(content if word == ANY_CONTENT else (word,) for word in shape)):
            try:
                found.append(Example(words, interpret(words)))
            except UserError:
                continue
    return tuple(found)


class Pool:
    """Training examples by their templates: a partner for each, and its like with other content words.

    Attributes:
        templates_N: int64, number of the template of each training example.
        names: the template of each number.

    Args:
        train: training examples; their places are the indices of `partner`.
        guard: what must not come out of `swapped`; without one `swapped` is not to be had.
        content: words that are exchanged; each must be a word that commands have.
        direction_is_content: partners may differ in directions as well.

    Raises:
        ConfigError: swapping these content words makes a test command, or a longer one than training has.
    """

    def __init__(
        self,
        train: Sequence[Example],
        guard: LeakGuard | None = None,
        content: Sequence[str] = CONTENT,
        direction_is_content: bool = False,
    ) -> None:
        if strange := [word for word in content if word not in WORDS]:
            raise ConfigError(f"content: expected words out of {', '.join(WORDS)}, got {', '.join(strange)}")
        if guard is not None:
            guard.check(
                reachable(train, content),
                source=f"swapping the content words {', '.join(content)}",
                remedy="name fewer content words, or do not swap them",
            )
        self._content = tuple(content)
        self._guarded = guard is not None
        numbers: dict[tuple[str, ...], int] = {}
        members: defaultdict[int, list[int]] = defaultdict(list)
        first: dict[tuple[str, ...], int] = {}
        templates = np.empty(len(train), np.int64)
        for index, example in enumerate(train):
            shape = template(example.words, direction_is_content, content)
            templates[index] = numbers.setdefault(shape, len(numbers))
            if example.words not in first:
                first[example.words] = index
                members[templates[index]].append(index)
        self.templates_N = torch.from_numpy(templates)
        self.names = tuple(numbers)
        self._members = np.array([index for number in range(len(numbers)) for index in members[number]], np.int64)
        sizes = np.array([len(members[number]) for number in range(len(numbers))], np.int64)
        self._size_N = sizes[templates]
        self._start_N = (np.cumsum(sizes) - sizes)[templates]
        place_of = np.empty(len(train), np.int64)
        place_of[self._members] = np.arange(len(self._members))
        self._place_N = place_of[[first[example.words] for example in train]]

    def partner(self, index: int, generator: np.random.Generator) -> int:
        """Return the index of another training command with the same template, or `index` where there is none."""
        return int(self.partners(np.array([index]), generator)[0])

    def partners(self, indices_B: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return a partner for each of these training examples, drawn anew at every call, (B,).

        A command that stands in training several times counts once, and is never its own partner.
        """
        others_B = self._size_N[indices_B] - 1
        own_B = self._place_N[indices_B] - self._start_N[indices_B]
        drawn_B = generator.integers(0, np.maximum(others_B, 1))
        drawn_B += drawn_B >= own_B
        return np.where(others_B > 0, self._members[self._start_N[indices_B] + drawn_B * (others_B > 0)], indices_B)

    def swapped(self, example: Example, generator: np.random.Generator) -> Example:
        """Return the example with its content words renamed on both sides, the same word always to the same other one.

        Renaming may leave the example as it was. Where it would leave the grammar, the example is returned unchanged.

        Raises:
            ConfigError: the pool was built without a guard.
        """
        if not self._guarded:
            raise ConfigError("swapping content words may make test commands; build the pool with a LeakGuard")
        names = dict(zip(self._content, generator.permutation(self._content).tolist(), strict=True))
        words = tuple(names.get(word, word) for word in example.words)
        try:
            return Example(words, interpret(words))
        except UserError:
            return example

    def augmented(
        self, examples: Sequence[Example], rate: float, generator: np.random.Generator
    ) -> tuple[Example, ...]:
        """Return the examples, each with the probability `rate` with its content words swapped (write-up: 0.3)."""
        chosen = generator.random(len(examples)) < rate
        return tuple(
            self.swapped(example, generator) if swap else example
            for example, swap in zip(examples, chosen.tolist(), strict=True)
        )


def oversampled(
    examples: Sequence[Example], generator: np.random.Generator, times: float = 2.0, below: int = 10
) -> np.ndarray:
    """Return the indices of one epoch in a random order, in which short examples come several times.

    Args:
        examples: to go through.
        generator: of the order, and of which short ones come once more where `times` is no whole number.
        times: how often on average an example of fewer than `below` actions comes (write-up, section 4.2: 2.0).
        below: the first number of actions that counts as long (write-up: 10).

    Raises:
        ConfigError: `times` is less than 1.
    """
    if not times >= 1:
        raise ConfigError(f"times: expected at least 1, got {times}; 1 leaves every example as often as it is")
    short = np.array([len(example.actions) < below for example in examples])
    more = int(times) + (generator.random(len(examples)) < times % 1)
    return generator.permutation(np.repeat(np.arange(len(examples)), np.where(short, more, 1)))


def check_synonyms(synonyms: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigError unless every word of the synonyms is one that the model has.

    The write-up says `two times` for `twice` (section 4.2). SCAN has neither word, so no test command would gain by it,
    and a model of 13 words cannot read them.

    Args:
        synonyms: other wordings of a word, such as `{"twice": ["two times"]}`.
    """
    for word, wordings in synonyms.items():
        strange = [part for wording in (word, *wordings) for part in wording.split() if part not in WORDS]
        if strange:
            raise ConfigError(
                f"structure_synonyms: {word!r} -> {list(wordings)} has {strange[0]!r}, which is none of the"
                f" {len(WORDS)} words of SCAN ({', '.join(WORDS)}); no test command has it; leave structure_synonyms"
                " empty"
            )


def reworded(
    example: Example, synonyms: Mapping[str, Sequence[str]], rate: float, generator: np.random.Generator
) -> Example:
    """Return the example with each word that has a synonym replaced by one, with the probability `rate`.

    Raises:
        ConfigError: a word is not the model's, or the new command is too long, or is a command that asks for something
            else: then the wording is no synonym.
    """
    check_synonyms(synonyms)
    parts: list[str] = []
    for word in example.words:
        wordings = synonyms.get(word)
        swap = bool(wordings) and generator.random() < rate
        parts += generator.choice(list(wordings)).split() if wordings and swap else [word]
    words = tuple(parts)
    if len(words) > LONGEST_COMMAND:
        raise ConfigError(
            f"structure_synonyms: {' '.join(words)!r} has {len(words)} words, a command has at most {LONGEST_COMMAND}"
        )
    try:
        meaning = interpret(words)
    except UserError:
        meaning = example.actions
    if meaning != example.actions:
        raise ConfigError(
            f"structure_synonyms: {' '.join(words)!r} asks for something else than {' '.join(example.words)!r};"
            " leave that wording out"
        )
    return Example(words, example.actions)
