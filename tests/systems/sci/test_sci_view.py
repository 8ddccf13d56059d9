"""Panels say what the numbers say: means of words, what features tell and chance does not, mistakes, slots."""

from __future__ import annotations

import sys

import pytest
import torch

from trimtab.errors import UserError
from trimtab.panels import Map, Scatter, Table
from trimtab_systems.sci import view
from trimtab_systems.sci.data import ACTION_WORDS, ACTIONS, WORDS
from trimtab_systems.sci.scores import KINDS, by_length

ALL_BN = torch.tensor([[*range(1, len(WORDS) + 1), 0, 0]])


def numbers(*words):
    return [WORDS.index(word) + 1 for word in words]


def per_word(values, default):
    """Return a score for each word of ALL_BN; the padding has one as well, which must not count."""
    return torch.tensor([[values.get(word, default) for word in WORDS] + [9.0, 9.0]])


def test_classes_cover_each_word_once():
    assert sorted(view.IN_ORDER) == sorted(WORDS)
    assert len(view.CLASS_OF) == len(WORDS)


def test_word_means_leave_padding_out():
    words_BN = torch.tensor([[*numbers("walk", "twice"), 0], numbers("walk", "left", "twice")])
    scores_BN = torch.tensor([[0.2, 0.9, 7.0], [0.4, 0.5, 0.7]])
    assert view.word_means(words_BN, scores_BN) == pytest.approx({"walk": 0.3, "left": 0.5, "twice": 0.8})
    table = view.word_roles_table(words_BN, {"structural": scores_BN}, {"walk": "content"})
    assert table.columns == ("word", "class", "role", "times", "structural", "least", "largest")
    assert table.rows[0] == ("walk", "action", "content", 2, 0.3, 0.2, 0.4)
    assert [row[0] for row in table.rows] == ["walk", "left", "twice"]
    two = view.word_roles_table(words_BN, {"structure": scores_BN, "pattern": 1 - scores_BN})
    assert two.columns == ("word", "class", "times", "structure", "pattern")


def test_the_map_over_time_has_a_row_for_each_word_and_a_column_for_each_step():
    found = view.word_roles_map([(10, {"walk": 0.5}), (20, {"walk": 0.25, "and": 0.75})])
    assert isinstance(found, Map)
    assert (found.rows, found.columns) == (("walk", "and"), ("10", "20"))
    assert found.values[0] == (0.5, 0.25)
    assert found.values[1][0] != found.values[1][0]
    with pytest.raises(UserError, match="history is empty"):
        view.word_roles_map([])


def test_a_feature_that_tells_actions_is_found_and_one_of_chance_is_not():
    generator = torch.Generator().manual_seed(0)
    noise_BNF = torch.rand(1, ALL_BN.shape[1], 7, generator=generator)
    tells_BN1 = per_word(dict.fromkeys(ACTION_WORDS, 0.1), 0.8)[..., None]  # low for actions: that tells them as well
    found = {one.question: one for one in view.readings(ALL_BN, torch.cat([noise_BNF, tells_BN1], -1))}
    action = found["an action"]
    assert (action.feature, action.auc, action.holds) == (7, 1.0, True)
    assert action.chance < 0.05
    assert not found["a function word"].holds
    assert not found["a direction"].holds
    table = view.features_table(ALL_BN, torch.cat([noise_BNF, tells_BN1], -1))
    assert "holds for 1 of 3 questions (an action)" in table.caption
    assert ("is it an action?", 8, 1.0, round(action.chance, 3), "yes") in table.rows


def test_features_that_are_all_alike_tell_nothing():
    found = view.readings(ALL_BN, torch.full((*ALL_BN.shape, 8), 0.5))
    assert [(one.auc, one.chance, one.holds) for one in found] == [(0.5, 1.0, False)] * 3


def test_a_perfect_split_is_no_evidence_where_many_features_split_at_random():
    """With forty features every pair of words is told from the rest by some of them."""
    generator = torch.Generator().manual_seed(1)
    found = {one.question: one for one in view.readings(ALL_BN, torch.rand(*ALL_BN.shape, 40, generator=generator))}
    direction = found["a direction"]
    assert direction.auc >= 0.9
    assert direction.chance > 0.05
    assert not direction.holds


def test_the_map_of_features_counts_each_word_once():
    words_BN = torch.tensor([numbers("walk", "walk", "run", "and")])
    features_BNF = torch.tensor([[[0.0], [0.0], [1.0], [0.3]]])
    found = view.features_map(words_BN, features_BNF)
    assert (found.rows, found.columns) == (("action", "conjunction"), ("feature 1",))
    assert [row[0] for row in found.values] == pytest.approx([0.5, 0.3])


def test_rates_and_mistakes_become_tables():
    targets = [(0, 0), (2,), (3, 3, 3), (1,)]
    predicted = [(0,), (2,), (3, 3, 3, 3), ()]
    commands = [("walk", "twice"), ("run",), ("jump", "thrice"), ("look",)]
    rates = view.rates_table("By length", "", "actions", by_length(predicted, targets), closing=True)
    assert rates.closing
    assert rates.rows[0] == ("1", 2, 1, 0.5, 0.5, 0.5)
    table = view.mistakes_table(commands, predicted, targets, ACTIONS)
    assert isinstance(table, Table)
    assert table.caption.startswith("3 of 4 wrong.")
    assert [row[:4] for row in table.rows] == [
        (KINDS[0], 2, "67%", "walk twice"), ("", "", "", "look"), (KINDS[1], 1, "33%", "jump thrice"),
    ]  # fmt: skip
    assert table.rows[0][4:] == (1, 2, "WALK", "2xWALK")
    assert len(view.mistakes_table(commands, predicted, targets, ACTIONS, examples=1).rows) == 2
    assert view.mistakes_table(commands, targets, targets, ACTIONS).rows == ()


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        ("", ""),
        ("I_WALK", "WALK"),
        ("I_WALK I_WALK I_RUN", "2xWALK RUN"),
        ("I_RUN I_TURN_LEFT I_WALK I_TURN_LEFT I_WALK I_TURN_LEFT", "RUN 2x(TURN_LEFT WALK) TURN_LEFT"),
        ("I_WALK I_WALK I_RUN I_WALK I_WALK I_RUN", "2x(WALK WALK RUN)"),
        ("I_WALK I_RUN I_JUMP", "WALK RUN JUMP"),
    ],
)
def test_actions_are_written_as_products_of_phrases(actions, text):
    targets = [tuple(ACTIONS.index(action) for action in actions.split())]
    (row,) = view.mistakes_table([("walk",)], [(0, 1, 2, 3, 0, 1)], targets, ACTIONS).rows
    assert row[-1] == text


def test_attention_is_cut_to_the_command_and_labels_repeated_words_apart():
    weights_KN = torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]])
    found = view.attention_map("Slots", ("walk", "walk"), weights_KN, "After 5 updates.")
    assert found.columns == ("1. walk", "2. walk")
    assert found.values == ((0.75, 0.25), (0.5, 0.5))
    assert found.caption.endswith("After 5 updates.")
    with pytest.raises(UserError, match="at least 4 words"):
        view.attention_map("Slots", ("walk",) * 4, weights_KN)


@pytest.mark.parametrize("installed", [True, False])
def test_slots_are_placed_apart_with_and_without_scikit_learn(installed, monkeypatch):
    if installed:
        pytest.importorskip("sklearn")
    else:
        monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    generator = torch.Generator().manual_seed(0)
    centre_KD = torch.tensor([[10.0, 0.0, 0.0], [-10.0, 0.0, 0.0]])
    slots_BKD = centre_KD + torch.randn(20, 2, 3, generator=generator)
    state = torch.get_rng_state()
    found = view.slots_scatter(slots_BKD, ["walk"])
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(found, Scatter)
    assert ("t-SNE" in found.caption.split(" of ")[0].replace("no t-SNE", "")) is installed
    points = {group: [(x, y) for x, y, _, own in found.points if own == group] for group in ("slot 1", "slot 2")}
    assert [len(each) for each in points.values()] == [20, 20]
    assert [point[2] for point in found.points[:3]] == ["walk", "walk", ""]
    one, other = (torch.tensor(each) for each in points.values())
    assert (one.mean(0) - other.mean(0)).norm() > 2 * max(one.std(0).norm(), other.std(0).norm())
    assert view.slots_scatter(slots_BKD, ["walk"]) == found


def test_few_or_equal_slots_need_no_t_sne():
    assert "Two main axes" in view.slots_scatter(torch.zeros(30, 2, 4)).caption
    assert len(view.slots_scatter(torch.zeros(1, 2, 1)).points) == 2
    assert len(view.slots_scatter(torch.zeros(1000, 4, 2)).points) == view.MOST_POINTS
