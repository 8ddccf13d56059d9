"""What a trained model makes of one command: the role of each word, the calls, their phrases, the actions.

The record is the same for every model. One without calls, as the write-up's network, has the actions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from trimtab.errors import UserError
from trimtab_systems.sci.data import ACTIONS, WORDS, encode_words, interpret
from trimtab_systems.sci.model import ROLES, STRUCTURE, SCILoop, cut

Predict = Callable[[torch.Tensor], list[tuple[int, ...]]]
"""words_BN -> of each command the indices of its actions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word of the command, the role that it was given, and the probability of each role, in the order of `ROLES`."""

    text: str
    role: str
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action, and the place of the word that it was copied from."""

    name: str
    copied_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A run of neighbouring words that are not structural: from the word `first` up to, not with, the word `end`."""

    first: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: which span, how sure that is, how probable it is that this call is the last one, and its phrase."""

    span: int
    probability: float
    stop: float
    phrase: tuple[Action, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """All that a model makes of a command.

    Attributes:
        words: the command; without roles where the model has none.
        spans: what can be called.
        calls: in the order in which they are made.
        actions: what comes out.
        expected: what the grammar says; None for words that are no SCAN command.
        remark: why they are none; empty where they are one.
    """

    words: tuple[Word, ...]
    spans: tuple[Span, ...]
    calls: tuple[Call, ...]
    actions: tuple[str, ...]
    expected: tuple[str, ...] | None
    remark: str = ""

    @property
    def right(self) -> bool | None:
        """Whether the actions are those of the grammar; None where it has none."""
        return None if self.expected is None else self.actions == self.expected

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"command": " ".join(word.text for word in self.words), **asdict(self), "right": self.right}


class Explained(NamedTuple):
    """How SCI-Loop comes to its actions for one command, as plain numbers."""

    roles: tuple[int, ...]
    """Of each word the number of its role."""
    scores: tuple[tuple[float, ...], ...]
    """Of each word the probability of each role."""
    spans: tuple[tuple[int, int], ...]
    """First word and end of each span."""
    calls: tuple[tuple[int, float, float], ...]
    """Number of the span, its probability, and the probability that no call follows, of each call."""
    phrases: tuple[tuple[tuple[int, int], ...], ...]
    """Of each call its actions: the index, and the place of the word that the pointer is on."""


def words_of(command: str | Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command that a person typed, in small letters.

    Raises:
        UserError: there is none, there are more than 9, or one is unknown; the message names the nearest.
    """
    words = tuple((command if isinstance(command, str) else " ".join(command)).lower().split())
    encode_words([words])
    return words


def explain(model: SCILoop, words_BN: torch.Tensor) -> list[Explained]:
    """Return how a model comes to its actions for each command: the likelier role, span and action; stop above 0.5.

    Args:
        model: in evaluation mode.
        words_BN: as `data.encode_words` numbers them.
    """
    with torch.no_grad():
        shares_BN3 = _shares(*model.scores(words_BN))
        roles_BN = model.hard_roles(words_BN)
        spans = cut(words_BN, roles_BN)
        calls, _ = model.programs(spans)
        phrases, pointer_ULN = model.phrases(spans.patterns_UN, spans.words_UN)
    phrase_of = [
        tuple(zip(actions, places, strict=False))  # places go on beyond the end of the phrase
        for actions, places in zip(phrases.greedy(), pointer_ULN.argmax(-1).tolist(), strict=True)
    ]
    pointers, stops = calls.pointer_RKJ.tolist(), calls.stop_RK.tolist()
    found, distinct = [], len(spans.words_UN)
    for row, (length, count, skeleton, numbers) in enumerate(
        zip(
            (words_BN > 0).sum(1).tolist(),
            spans.count_R.tolist(),
            spans.skeleton_R.tolist(),
            spans.span_RJ.tolist(),
            strict=True,
        )
    ):
        roles = tuple(roles_BN[row, :length].tolist())
        runs = _runs(roles)
        called = _calls(pointers[skeleton], stops[skeleton], count)
        found.append(
            Explained(
                roles=roles,
                scores=tuple(map(tuple, shares_BN3[row, :length].tolist())),
                spans=runs,
                calls=called,
                phrases=tuple(
                    tuple(
                        (action, runs[span][0] + place)
                        for action, place in phrase_of[(k * distinct + numbers[span]) % len(phrase_of)]
                    )
                    for k, (span, _, _) in enumerate(called)
                ),
            )
        )
    return found


def _shares(structure_BN: torch.Tensor, pattern_BN: torch.Tensor) -> torch.Tensor:
    """Return the probability of each role, [B, N, 3]: what is not structure is pattern or content."""
    rest_BN = 1.0 - structure_BN
    return torch.stack([structure_BN, rest_BN * pattern_BN, rest_BN * (1.0 - pattern_BN)], -1)


def _calls(
    pointers: Sequence[Sequence[float]], stops: Sequence[float], count: int
) -> tuple[tuple[int, float, float], ...]:
    """Return the calls up to the first after which the caller stops; none where there is nothing to call."""
    found = []
    for pointer, stop in zip(pointers if count else (), stops, strict=False):
        span = max(range(count), key=pointer.__getitem__)
        found.append((span, pointer[span], stop))
        if stop > 0.5:
            break
    return tuple(found)


def _runs(roles: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return first word and end of the longest runs of words that are not structure."""
    edges = [place for place in range(len(roles) + 1) if _free(roles, place) != _free(roles, place - 1)]
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def _free(roles: Sequence[int], place: int) -> bool:
    return 0 <= place < len(roles) and roles[place] != STRUCTURE


def program_of(model: SCILoop, words: Sequence[str]) -> Program:
    """Return what SCI-Loop makes of a command.

    Args:
        model: in evaluation mode.
        words: of the vocabulary; they need not be a SCAN command, which the record then says.

    Raises:
        UserError: as `words_of`.
    """
    words = words_of(words)
    return assembled(words, explain(model, encode_words([words]))[0])


def assembled(words: tuple[str, ...], said: Explained) -> Program:
    """Return the program that `explain` found for these words, with names in place of numbers."""
    calls = tuple(
        Call(
            span=span,
            probability=probability,
            stop=stop,
            phrase=tuple(Action(name=ACTIONS[index], copied_from=place) for index, place in phrase),
        )
        for (span, probability, stop), phrase in zip(said.calls, said.phrases, strict=True)
    )
    expected, remark = _expected(words)
    return Program(
        words=tuple(
            Word(text=word, role=ROLES[role], scores=scores)
            for word, role, scores in zip(words, said.roles, said.scores, strict=True)
        ),
        spans=tuple(Span(first=first, end=end) for first, end in said.spans),
        calls=calls,
        actions=tuple(action.name for call in calls for action in call.phrase),
        expected=expected,
        remark=remark,
    )


def answer_of(predict: Predict, words: Sequence[str]) -> Program:
    """Return what a model without calls makes of a command: its actions.

    Raises:
        UserError: as `words_of`.
    """
    words = words_of(words)
    with torch.no_grad():
        (indices,) = predict(encode_words([words]))
    expected, remark = _expected(words)
    return Program(
        words=tuple(Word(text=word, role="", scores=()) for word in words),
        spans=(),
        calls=(),
        actions=tuple(ACTIONS[index] for index in indices),
        expected=expected,
        remark=remark,
    )


def _expected(words: tuple[str, ...]) -> tuple[tuple[str, ...] | None, str]:
    try:
        return interpret(words), ""
    except UserError as error:
        return None, str(error)


def text(program: Program) -> list[str]:
    """Return a program as lines for a person."""
    lines: list[str] = []
    if any(word.role for word in program.words):
        lines += table(
            ("word", "role", *ROLES),
            [(word.text, word.role, *(f"{score:.3f}" for score in word.scores)) for word in program.words],
        )
        lines.append("")
        rows = []
        for k, call in enumerate(program.calls, start=1):
            span = program.spans[call.span]
            called = " ".join(word.text for word in program.words[span.first : span.end])
            phrase = " ".join(_action(action, program.words) for action in call.phrase)
            rows.append((str(k), called, f"{call.probability:.3f}", f"{call.stop:.3f}", phrase))
        lines += table(("call", "phrase of", "sure", "last", "actions, and the word each was copied from"), rows)
        lines.append("")
    lines.append(f"{len(program.actions)} actions: {' '.join(program.actions) or 'none'}")
    if program.expected is None:
        lines.append(f"no SCAN command, so nothing says what is right: {program.remark}")
    elif program.right:
        lines.append("right: the grammar says the same")
    else:
        lines.append(f"wrong: the grammar says {len(program.expected)} actions: {' '.join(program.expected)}")
    return lines


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines whose columns stand below each other, two blanks apart."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]


def _action(action: Action, words: Sequence[Word]) -> str:
    return f"{action.name.removeprefix('I_')}({words[action.copied_from].text})"


def scores_of_words(model: SCILoop, commands: Sequence[Sequence[str]]) -> dict[str, tuple[float, ...]]:
    """Return word -> probability of each role, in the order of `ROLES`, the mean over its places in these commands."""
    words_BN = encode_words(commands)
    with torch.no_grad():
        shares_BN3 = _shares(*model.scores(words_BN))
    return {
        word: tuple(shares_BN3[words_BN == number].double().mean(0).tolist())
        for number, word in enumerate(WORDS, start=1)
        if (words_BN == number).any()
    }
