"""Interventions are asked of given examples alone, and a swap has the effect that it must have, or is seen not to."""

from __future__ import annotations

import pytest
import torch

from trimtab_systems.sci.data import ACTION_WORDS, Example, encode_words, interpret, train_of
from trimtab_systems.sci.pairs import template
from trimtab_systems.sci.scores import THIRDS, swap_check
from trimtab_systems.sci.write_up import answers
from trimtab_systems.sci.write_up.answers import Answers, Swapped
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.generate import Generation, generate
from trimtab_systems.sci.write_up.model import SCITransformer

SMALL = {"width": 16, "heads": 2, "binding_heads": 2, "slots": 4, "edge_dim": 4, "encoder_layers": 1,
         "decoder_layers": 1, "mlp_ratio": 1}  # fmt: skip
SHORT = Generation(max_new_tokens=49)


def example(text):
    words = tuple(text.split())
    return Example(words, interpret(words))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SCITransformer(WriteUpConfig(**SMALL))


@pytest.fixture(scope="module")
def some():
    return train_of("length")[:400]


def test_partners_have_the_template_and_come_from_where_they_may(some):
    own = some[::10]
    pairs = answers.partners(own, some)
    assert len(pairs) > len(own) // 2
    assert all(template(one.words) == template(other.words) and one != other for one, other in pairs)
    assert {one for pair in pairs for one in pair} <= set(some)
    assert {one for one, _ in pairs} <= set(own)
    assert answers.partners([example("walk left")]) == ()


def test_the_first_action_word_alone_is_changed_and_only_for_given_examples(some):
    pairs = answers.first_action_changed(some)
    for one, other in pairs:
        differing = [place for place, both in enumerate(zip(one.words, other.words, strict=True)) if both[0] != both[1]]
        first = next(place for place, word in enumerate(one.words) if word in ACTION_WORDS)
        assert differing == [first]
        assert other in some
    jump = [example("walk twice"), example("turn left")]
    assert answers.first_action_changed(jump) == ()
    assert answers.first_action_changed(jump, [example("jump twice")]) == ((jump[0], example("jump twice")),)


def test_a_command_that_is_given_its_own_content_answers_as_it_does(network, some):
    words_BN = encode_words([one.words for one in some[:24]])
    twice_BN = torch.stack([words_BN, words_BN], dim=2).flatten(1)
    assert generate(Swapped(network), twice_BN, SHORT) == generate(network, words_BN, SHORT)


def test_the_swap_check_decodes_structure_of_the_one_with_content_of_the_other(network, monkeypatch):
    """With a network that says the actions of whatever content it was given, every swap is right."""
    one, other = example("walk twice"), example("jump twice")
    seen = []

    def said(model, words_BN, options):
        seen.append(words_BN.tolist())
        return [answers.numbers_of(other), answers.numbers_of(other)]

    monkeypatch.setattr(answers, "generate", said)
    found = answers.swap_and_check(network, [(one, other), (other, one)], SHORT)
    assert (found.n, found.right, found.unchanged) == (2, 0.5, 0.5)
    assert [number for number in seen[0][0] if number] == [
        encode_words([one.words])[0, 0], encode_words([other.words])[0, 0],
        encode_words([one.words])[0, 1], encode_words([other.words])[0, 1],
    ]  # fmt: skip
    assert answers.swap_and_check(network, []).n == 0


class Recorded:
    """What a Guard would have been told."""

    def __init__(self):
        self.rows, self.panels = [], {}

    def record(self, *, split=None, better=None, **metrics):
        self.rows.append({f"{split}/{name}": value for name, value in metrics.items()})

    def keep(self, name, tensor, *, every=1):
        raise AssertionError("nothing is kept")

    def show(self, name, panel):
        self.panels[name] = panel


def test_answers_are_shown_by_length_by_clause_and_by_mistake(network, some):
    guard = Recorded()
    Answers(network, some[::8], some, SHORT, most=40).show(guard)
    assert list(guard.panels) == ["exact-match-by-length", "exact-match-by-clauses", "mistakes", "influence"]
    lengths = guard.panels["exact-match-by-length"]
    assert lengths.closing
    assert sum(row[1] for row in lengths.rows) == 40
    assert [row[0] for row in guard.panels["exact-match-by-clauses"].rows] == ["seen clauses"]
    (row,) = guard.rows
    assert set(row) <= {"validation/late_influence", "validation/swap_and_check", "validation/swap_without_effect"}
    assert 0.0 <= row["validation/swap_and_check"] + row["validation/swap_without_effect"] <= 1.0
    assert network.training


def test_a_perfect_network_follows_its_first_word_to_the_end(network, some, monkeypatch):
    of = {tuple(encode_words([one.words])[0].tolist()): answers.numbers_of(one) for one in some}
    monkeypatch.setattr(answers, "generate", lambda model, words_BN, options: [of[tuple(r)] for r in words_BN.tolist()])
    monkeypatch.setattr(answers, "swap_and_check", lambda *_: swap_check((), (), ()))
    guard = Recorded()
    Answers(network, some[::8], some, SHORT, most=40).show(guard)
    assert guard.rows == [{"validation/late_influence": 1.0}]
    rows = guard.panels["influence"].rows
    assert {row[1] for row in rows} == set(THIRDS)
    assert all(row[3:] == (1.0, 0.0) for row in rows)
    assert guard.panels["mistakes"].rows == ()


def test_without_validation_examples_nothing_is_asked(network, some):
    guard = Recorded()
    Answers(network, (), some).show(guard)
    assert (guard.rows, guard.panels) == ([], {})
