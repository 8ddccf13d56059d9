"""Rates are what they say, every wrong prediction has exactly one kind, and influence is counted where it must be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab_systems.sci import scores
from trimtab_systems.sci.scores import KINDS, Mistake, mistake

A, B, C, L = 0, 1, 2, 3
SEQUENCE = st.lists(st.integers(0, 2), max_size=7).map(tuple)


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [
        ((A, B), (A, B), None),
        ((), (), None),
        ((), (A, B), Mistake("stopped early", 2, 0)),
        ((A, B), (A, B, C), Mistake("stopped early", 1, 2)),
        ((A, B, A), (A, B), Mistake("stopped late", 1, 2)),
        ((A, A, A), (A, A), Mistake("stopped late", 1, 2)),  # the count of a last phrase is a matter of stopping
        ((L, A, L, A, L, A, B), (L, A, L, A, B), Mistake("wrong count of a phrase", 2, 4)),
        ((L, A, L, A, L, A, L, A, B), (L, A, L, A, B), Mistake("wrong count of a phrase", 4, 4)),
        ((L, A, B), (L, A, L, A, L, A, B), Mistake("wrong count of a phrase", -4, 2)),
        ((A, C, C), (A, B, C), Mistake("wrong action", 1, 1)),
        ((B, A), (A, B), Mistake("wrong action", 2, 0)),
        ((A, C, B), (A, B), Mistake("other", 1, 1)),
        ((B,), (A, A), Mistake("other", -1, 0)),
    ],
)
def test_each_mistake_has_the_kind_that_describes_it(predicted, target, expected):
    assert mistake(predicted, target) == expected


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SEQUENCE, SEQUENCE), max_size=12))
def test_kinds_are_exhaustive_and_exclusive(pairs):
    predicted, targets = [one for one, _ in pairs], [other for _, other in pairs]
    found = scores.mistakes(predicted, targets)
    assert tuple(found) == KINDS
    wrong = sum(one != other for one, other in pairs)
    assert sum(map(len, found.values())) == wrong
    if pairs:
        assert scores.exact_match(predicted, targets) == pytest.approx(1 - wrong / len(pairs))


@settings(max_examples=25, deadline=None)
@given(SEQUENCE, SEQUENCE.filter(bool), SEQUENCE.filter(bool), st.integers(1, 3))
def test_a_phrase_that_is_said_more_often_is_never_called_other(before, phrase, after, more):
    once, often = before + phrase + after, before + phrase * (1 + more) + after
    found = mistake(often, once)
    assert found is not None
    assert found.kind in ("wrong count of a phrase", "stopped late")
    assert found.amount == more * len(phrase)
    back = mistake(once, often)
    assert back is not None
    assert back.kind in ("wrong count of a phrase", "stopped early")


def test_rates_of_a_few_examples():
    predicted, targets = [(A, B), (A,), (A, C, B), (A, B, C)], [(A, B), (A, B), (A, B), (A, B)]
    assert scores.exact_match(predicted, targets) == 0.25
    assert scores.token_accuracy(predicted, targets) == (1 + 0.5 + 0.5 + 1) / 4
    assert scores.length_accuracy(predicted, targets) == 0.25
    assert scores.rates(predicted, targets) == (4, 1, 0.25, 0.75, 0.25)
    assert math.isnan(scores.exact_match([], []))
    assert scores.token_accuracy([(), (A,)], [(), ()]) == 0.5
    with pytest.raises(UserError, match="1 sequences were compared with 2"):
        scores.exact_match([(A,)], [(A,), (B,)])


def test_by_length_sorts_by_length_and_not_by_name():
    targets = [(A,) * 10, (A,) * 9, (A,) * 9, (A,)]
    found = scores.by_length([(A,) * 10, (A,) * 9, (B,) * 9, ()], targets)
    assert list(found) == ["1", "9", "10"]
    assert [found[name].exact_match for name in found] == [0.0, 0.5, 1.0]
    joined = scores.by_length(targets, targets, buckets=(1, 9))
    assert {name: one.n for name, one in joined.items()} == {"0-1": 1, "2-9": 2, "10+": 1}
    assert list(scores.by_length(targets, targets, buckets=(8, 9))) == ["0-8", "9", "10+"]
    with pytest.raises(UserError, match="rise"):
        scores.by_length(targets, targets, buckets=(9, 9))


def test_by_clauses_tells_recombined_clauses_from_new_ones():
    clauses = [[("walk", "twice"), ("run",)], [("run",), ("walk", "thrice")], [("run",)]]
    seen = scores.clauses_seen(clauses, {("walk", "twice"), ("run",)})
    assert seen == [True, False, True]
    found = scores.by_clauses([(A,), (A,), (B,)], [(A,)] * 3, seen)
    assert {name: (one.n, one.exact) for name, one in found.items()} == {
        "seen clauses": (2, 1), "an unseen clause": (1, 1),
    }  # fmt: skip
    assert scores.as_metrics(found) == {"exact_match/seen_clauses": 0.5, "exact_match/an_unseen_clause": 1.0}
    with pytest.raises(UserError, match="2 groups for 3"):
        scores.grouped([(A,)] * 3, [(A,)] * 3, ["x", "y"])


def test_influence_counts_the_places_that_must_follow_the_word_by_third():
    target, other = (L, A, L, A, L, A), (L, B, L, B, L, B)
    deaf_at_the_end = (L, A, L, A, L, A), (L, B, L, B, L, A)
    found = scores.influence(*[[one] for one in (*deaf_at_the_end, target, other)])
    assert found == {
        "6": {"first third": (1, 1.0, 0.0), "middle third": (1, 1.0, 0.0), "last third": (1, 0.0, 1.0)},
    }  # fmt: skip
    short = scores.influence([(L, A)], [(L, B)], [target], [other])["6"]
    assert short["last third"] == (1, 0.0, 0.0)  # not reached: not followed, and nothing is stuck
    assert short["first third"] == (1, 1.0, 0.0)


def test_swap_check_leaves_out_what_cannot_be_told():
    own, other = [(A, L), (A, L), (A, L), (A, L)], [(B, L), (B, L), (A, L), (B, L)]
    found = scores.swap_check([(B, L), (A, L), (A, L), (C, L)], other, own)
    assert found.n == 3
    assert [found.right, found.unchanged, found.other] == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert scores.swap_check([(A, L)], [(A, L)], [(A, L)]).n == 0


def test_similarity_of_groups_leaves_out_each_row_with_itself():
    rows_MD = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    found = scores.similarity(rows_MD, ["x", "x", "y", "y"])
    assert (found.same, found.different) == (1.0, 0.0)
    assert math.isnan(found.ratio)
    mixed = scores.similarity(rows_MD, ["x", "y", "x", "y"])
    assert (mixed.same, mixed.different) == (0.0, 0.5)
    assert math.isnan(scores.similarity(rows_MD, list("wxyz")).same)
    with pytest.raises(UserError, match="a row"):
        scores.similarity(rows_MD, ["x"])
