"""What the write-up's network answers while it trains, looked at closely: by length, by mistake, under interventions.

Only given examples are looked at. What stands in for a command (another first action word, the content of a partner) is
a given example as well, so that nothing of a test set can come in.

Letters in names: B commands, N words, K slots, D width, T actions.

Source: the write-up, sections 1.2 and 5.1; the intervention, which it names and does not define, is that of `swap`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from trimtab.panels import Table
from trimtab.system import Recorder
from trimtab_systems.sci import scores, view
from trimtab_systems.sci.data import ACTION_WORDS, ACTIONS, Example, clauses, encode_words, seen_clauses
from trimtab_systems.sci.pairs import template
from trimtab_systems.sci.write_up.generate import Generation, generate
from trimtab_systems.sci.write_up.model import Decoded, Encoding, SCITransformer

Pair = tuple[Example, Example]
BUCKETS = (6, 12, 17, 22, 32)
"""Longest output of each bucket that influence is counted in."""


class Swapped(nn.Module):
    """A network that answers a command as if its content were that of another one; for `generate`.

    A row holds two commands of one template in turns: word 1 of the command, word 1 of the other, word 2, and so on.
    """

    def __init__(self, network: SCITransformer):
        super().__init__()
        self.network = network

    def encode(self, words_BN: torch.Tensor) -> Encoding:
        """Return the encoding of each command after do(content := that of the other)."""
        own, other = (self.network.encode(words_BN[:, first::2]) for first in (0, 1))
        return self.network.swap(own, other)

    def start(self, encoding: Encoding, longest: int) -> Any:
        """Return a cache, as the network does."""
        return self.network.start(encoding, longest)

    def decode(self, encoding: Encoding, inputs_BT: torch.Tensor, cache: Any = None) -> Decoded:
        """Return what comes after each input, as the network does."""
        return self.network.decode(encoding, inputs_BT, cache)


def partners(examples: Sequence[Example], among: Sequence[Example] = ()) -> tuple[Pair, ...]:
    """Return each example with another one of its template; those for which there is none are left out.

    Args:
        examples: the first of each pair.
        among: where partners may come from, beside the examples themselves.
    """
    wanted = {template(example.words) for example in examples}
    groups: dict[tuple[str, ...], list[Example]] = defaultdict(list)
    for example in dict.fromkeys((*examples, *among)):
        name = template(example.words)
        if name in wanted:
            groups[name].append(example)
    pairs = []
    for example in dict.fromkeys(examples):
        group = groups[template(example.words)]
        other = group[(group.index(example) + 1) % len(group)]
        if other != example:
            pairs.append((example, other))
    return tuple(pairs)


def first_action_changed(examples: Sequence[Example], among: Sequence[Example] = ()) -> tuple[Pair, ...]:
    """Return examples with one that differs from it in the first action word alone, where there is one.

    Args:
        examples: the first of each pair.
        among: where the others may come from, beside the examples themselves.
    """
    of = {example.words: example for example in (*examples, *among)}
    pairs = []
    for example in dict.fromkeys(examples):
        place = next((place for place, word in enumerate(example.words) if word in ACTION_WORDS), None)
        if place is None:
            continue
        at = ACTION_WORDS.index(example.words[place])
        for step in range(1, len(ACTION_WORDS)):
            word = ACTION_WORDS[(at + step) % len(ACTION_WORDS)]
            changed = (*example.words[:place], word, *example.words[place + 1 :])
            if changed in of:
                pairs.append((example, of[changed]))
                break
    return tuple(pairs)


def numbers_of(example: Example) -> tuple[int, ...]:
    """Return the numbers of the actions of an example."""
    return tuple(ACTIONS.index(action) for action in example.actions)


def swap_and_check(
    network: SCITransformer, pairs: Sequence[Pair], options: Generation | None = None
) -> scores.SwapCheck:
    """Return how often the network says what a partner asks for, once the command is given the partner's content.

    Args:
        network: with a structure stream.
        pairs: two examples of one template each.
        options: how answers are written.
    """
    if not pairs:
        return scores.swap_check((), (), ())
    own_BN, other_BN = (encode_words([pair[side].words for pair in pairs]) for side in (0, 1))
    device = next(network.parameters()).device
    turns_BN = torch.stack([own_BN, other_BN], dim=2).flatten(1).to(device)
    said = generate(Swapped(network), turns_BN, options)
    return scores.swap_check(said, [numbers_of(other) for _, other in pairs], [numbers_of(own) for own, _ in pairs])


class Answers:
    """Shows what a network answers to validation examples, and records what interventions do.

    Args:
        network: what is asked.
        validation: examples that it is not trained on; the first `most` of them are asked.
        train: what it is trained on; tells seen clauses from unseen ones.
        options: how answers are written.
        most: examples that are asked; half as many pairs for each of the two interventions.
    """

    def __init__(
        self,
        network: SCITransformer,
        validation: Sequence[Example],
        train: Sequence[Example],
        options: Generation | None = None,
        most: int = 256,
    ):
        self.network, self.options = network, options
        self.examples = tuple(validation[:most])
        self.swaps = partners(self.examples[: most // 2], train)
        self.changed = first_action_changed(self.examples[: most // 2], train)
        known = seen_clauses(train)
        self._seen = scores.clauses_seen([clauses(example.words) for example in self.examples], known)
        self._targets = [numbers_of(example) for example in self.examples]

    def show(self, guard: Recorder) -> None:
        """Ask the network, show tables by length, by clause and by mistake, and record swap check and influence."""
        if not self.examples:
            return
        commands = [example.words for example in self.examples]
        said = self._said(commands)
        by_length = scores.by_length(said, self._targets)
        caption = "Validation examples by how many actions they ask for."
        guard.show("exact-match-by-length", view.rates_table("By length", caption, "actions", by_length, closing=True))
        caption = "Validation examples whose clauses all stand in training, and the others."
        found = scores.by_clauses(said, self._targets, self._seen)
        guard.show("exact-match-by-clauses", view.rates_table("By clauses", caption, "clauses", found))
        guard.show("mistakes", view.mistakes_table(commands, said, self._targets, ACTIONS))
        metrics: dict[str, Any] = {}
        if self.changed:
            answer_of = dict(zip(commands, said, strict=True))
            others = self._said([other.words for _, other in self.changed])
            following = scores.influence(
                [answer_of[own.words] for own, _ in self.changed],
                others,
                [numbers_of(own) for own, _ in self.changed],
                [numbers_of(other) for _, other in self.changed],
                BUCKETS,
            )
            guard.show("influence", influence_table(following))
            last = [third for each in following.values() for name, third in each.items() if name == scores.THIRDS[-1]]
            if last:
                places = sum(one.n for one in last)
                metrics["late_influence"] = sum(one.followed * one.n for one in last) / places
        if self.swaps and self.network.config.sci:
            check = swap_and_check(self.network, self.swaps, self.options)
            if check.n:
                metrics |= {"swap_and_check": check.right, "swap_without_effect": check.unchanged}
        if metrics:
            guard.record(split="validation", **metrics)

    def _said(self, commands: Sequence[tuple[str, ...]]) -> list[tuple[int, ...]]:
        device = next(self.network.parameters()).device
        return generate(self.network, encode_words(commands).to(device), self.options)


def influence_table(following: dict[str, dict[str, scores.Following]]) -> Table:
    """Return how often actions follow the first action word of the command, by length and by third of the output."""
    rows = tuple(
        (length, third, one.n, round(one.followed, 4), round(one.stuck, 4))
        for length, thirds in following.items()
        for third, one in thirds.items()
    )
    caption = (
        "Pairs of commands that differ in their first action word alone. 'Followed': of the places that must change "
        "with it, those that are right in both answers; 'stuck': those that are the same in both."
    )
    return Table(
        "Influence of the first action word", caption, ("actions", "part", "places", "followed", "stuck"), rows
    )
