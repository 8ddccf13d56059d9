"""Partners have one structure, swapping words makes nothing new, and what would make a test command is refused."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import ConfigError
from trimtab_systems.sci.data import ACTION_WORDS, Example, interpret, open_test, train_of
from trimtab_systems.sci.pairs import (
    LeakGuard,
    Pool,
    check_synonyms,
    oversampled,
    positives,
    reachable,
    reworded,
    template,
)

TRAIN = train_of("length")
TURN_TOO = (*ACTION_WORDS, "turn")
few = settings(max_examples=25, deadline=None)


def example(text):
    return Example(tuple(text.split()), interpret(text.split()))


def shapes(examples):
    return {template(one.words, direction_is_content=True) for one in examples}


@pytest.fixture(scope="module")
def guard():
    return LeakGuard(TRAIN, "length")


@pytest.fixture(scope="module")
def pool(guard):
    return Pool(TRAIN, guard)


# ---- templates


def test_a_template_keeps_all_but_the_content_words():
    words = ["walk", "around", "left", "twice", "and", "turn", "right"]
    assert template(words) == ("A", "around", "left", "twice", "and", "turn", "right")
    assert template(words, direction_is_content=True) == ("A", "around", "D", "twice", "and", "turn", "D")
    assert template(words, content=TURN_TOO) == ("A", "around", "left", "twice", "and", "A", "right")


def test_training_has_2695_templates_and_800_without_directions(pool):
    assert len(pool.names) == len(set(pool.names)) == 2_695
    assert len(shapes(TRAIN)) == 800


def test_no_template_of_the_test_occurs_in_training(pool):
    test = {template(one.words) for one in open_test("length")}
    assert len(test) == 386
    assert test.isdisjoint(pool.names)
    assert len(shapes(open_test("length"))) == 103
    assert shapes(open_test("length")).isdisjoint(shapes(TRAIN))


def test_half_of_the_pairs_have_two_structures_if_turn_is_content():
    acts = dict.fromkeys(("I_WALK", "I_LOOK", "I_RUN", "I_JUMP"), "A")

    def pairs(keys):
        return sum(count * (count - 1) // 2 for count in Counter(keys).values())

    def one_structure(content):
        shape = [template(one.words, content=content) for one in TRAIN]
        output = [tuple(acts.get(action, action) for action in one.actions) for one in TRAIN]
        return pairs(zip(shape, output, strict=True)), pairs(shape)

    alike, all_of_them = one_structure(TURN_TOO)
    assert (all_of_them - alike, all_of_them) == (92_864, 182_834)
    alike, all_of_them = one_structure(ACTION_WORDS)
    assert alike == all_of_them


def test_positive_pairs_are_two_rows_of_one_template():
    assert positives(torch.tensor([7, 3, 7, 7])).int().tolist() == [
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [1, 0, 0, 1],
        [1, 0, 1, 0],
    ]


# ---- partners


def test_a_partner_is_another_command_of_the_same_template(pool):
    everything = np.arange(len(TRAIN))
    partners = pool.partners(everything, np.random.default_rng(0))
    assert torch.equal(pool.templates_N[partners], pool.templates_N)
    assert [template(TRAIN[index].words) for index in partners[:500]] == [template(one.words) for one in TRAIN[:500]]
    alone = {index for index in everything.tolist() if partners[index] == index}
    assert alone == {index for index, one in enumerate(TRAIN) if not set(ACTION_WORDS) & set(one.words)}
    assert len(alone) == 658


def test_every_other_command_of_the_template_is_drawn_equally_often(pool):
    index = TRAIN.index(example("walk left and jump"))
    drawn = Counter(pool.partners(np.full(15_000, index), np.random.default_rng(1)).tolist())
    assert {TRAIN[other].words for other in drawn} == {
        (one, "left", "and", two) for one in ACTION_WORDS for two in ACTION_WORDS
    } - {("walk", "left", "and", "jump")}
    assert min(drawn.values()) > 850  # 1,000 each on average, with a standard deviation of 31
    assert max(drawn.values()) < 1_150


def test_directions_may_differ_between_partners_where_they_are_content():
    pool = Pool([example("turn left"), example("turn right"), example("walk left")], direction_is_content=True)
    assert [pool.partner(index, np.random.default_rng(0)) for index in range(3)] == [1, 0, 2]


def test_a_command_that_stands_twice_is_not_its_own_partner():
    pool = Pool([example(text) for text in ("jump", "walk", "jump", "jump twice", "jump twice")])
    generator = np.random.default_rng(0)
    assert {pool.partner(0, generator) for _ in range(20)} == {1}
    assert {pool.partner(2, generator) for _ in range(20)} == {1}
    assert {pool.partner(1, generator) for _ in range(20)} == {0}
    assert pool.partner(4, generator) == 4


def test_partners_are_the_generator_s(pool):
    rows = np.arange(100)
    first = pool.partners(rows, np.random.default_rng(5))
    assert np.array_equal(first, pool.partners(rows, np.random.default_rng(5)))
    assert not np.array_equal(first, pool.partners(rows, np.random.default_rng(6)))


# ---- swapped words


def test_swapping_action_words_in_training_makes_training_and_nothing_else():
    made = reachable(TRAIN)
    assert len(made) == len(set(made))
    assert set(made) == set(TRAIN)


@few
@given(st.sampled_from(TRAIN), st.integers(0, 1000))
def test_swapping_renames_on_both_sides_and_keeps_the_template(pool, one, seed):
    words, actions = pool.swapped(one, np.random.default_rng(seed))
    assert template(words) == template(one.words)
    assert actions == interpret(words)
    renamed = dict(zip(one.words, words, strict=True))
    assert len(set(renamed.values())) == len(renamed)
    assert tuple(renamed[word] for word in one.words) == words


def test_swapping_meets_every_word_and_only_as_many_examples_as_it_should(pool):
    generator = np.random.default_rng(0)
    assert {pool.swapped(example("jump twice"), generator).words[0] for _ in range(60)} == set(ACTION_WORDS)

    made = pool.augmented(TRAIN[:4_000], 0.3, generator)
    changed = np.mean([one != other for one, other in zip(made, TRAIN[:4_000], strict=True)])
    assert 0.2 < changed < 0.26  # three of ten, of which every fourth to twelfth stays as it is, and those with `turn`
    assert pool.augmented(TRAIN[:50], 0, generator) == TRAIN[:50]


def test_a_swap_that_leaves_the_grammar_changes_nothing(guard):
    pool = Pool([example("walk")], guard, content=("walk", "turn"))
    made = {pool.swapped(example("walk"), np.random.default_rng(seed)) for seed in range(9)}
    assert made == {example("walk")}


def test_swapping_without_a_guard_is_refused():
    with pytest.raises(ConfigError, match="build the pool with a LeakGuard"):
        Pool(TRAIN[:5]).swapped(TRAIN[0], np.random.default_rng(0))


def test_a_content_word_that_no_command_has_is_refused():
    with pytest.raises(ConfigError, match="got hop"):
        Pool(TRAIN[:5], content=("walk", "hop"))


# ---- the guard


def test_turn_as_content_makes_3720_test_commands_and_is_refused(guard):
    assert len(set(reachable(TRAIN, TURN_TOO)) & set(open_test("length"))) == 3_720
    with pytest.raises(ConfigError, match=r"turn brings in 3720 of the 3920 test commands of the split 'length'"):
        Pool(TRAIN, guard, content=TURN_TOO)


def test_training_itself_passes_the_guard_on_every_split():
    for split in ("length", "addprim-jump", "template-around-right", "simple"):
        train = train_of(split)
        LeakGuard(train, split).check(train)


@pytest.mark.parametrize("place", [0, 1_000, 3_919])
def test_one_test_command_among_many_examples_is_refused(guard, place):
    with pytest.raises(ConfigError, match="validation brings in 1 of the 3920 test commands"):
        guard.check([*TRAIN[:50], open_test("length")[place], *TRAIN[50:99]], source="validation")


def test_a_command_that_is_longer_than_training_is_refused_although_it_is_no_test_command():
    short = [example("walk"), example("jump around left twice")]
    with pytest.raises(ConfigError, match=r"1 commands of more than 16 actions.*'jump around left thrice' \(24\)"):
        LeakGuard(short, "template-right").check([example("jump around left thrice")])


def test_jump_may_not_be_swapped_where_jump_is_tested_but_the_other_words_may():
    train = train_of("addprim-jump")
    guard = LeakGuard(train, "addprim-jump")
    with pytest.raises(ConfigError, match="7706 of the 7706 test commands"):
        Pool(train, guard)
    Pool(train, guard, content=("walk", "look", "run"))


# ---- other augmentation


def test_short_examples_come_twice_in_an_epoch_and_long_ones_once():
    order = oversampled(TRAIN, np.random.default_rng(0))
    count = Counter(order.tolist())
    assert {count[index] for index, one in enumerate(TRAIN) if len(one.actions) < 10} == {2}
    assert {count[index] for index, one in enumerate(TRAIN) if len(one.actions) >= 10} == {1}
    assert len(order) == 16_990 + 7_524
    assert (np.diff(order) < 0).any()


def test_a_broken_number_of_times_is_kept_on_average():
    order = oversampled(TRAIN, np.random.default_rng(0), times=1.5)
    assert abs(len(order) - 16_990 - 7_524 / 2) < 200
    with pytest.raises(ConfigError, match=r"times: expected at least 1, got 0\.5"):
        oversampled(TRAIN, np.random.default_rng(0), times=0.5)


def test_synonyms_of_words_that_the_model_has_not_are_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"'twice' -> .* has 'two', which is none of the 13 words"):
        check_synonyms({"twice": ["two times"]})
    check_synonyms({})


def test_a_wording_in_known_words_replaces_the_word_and_keeps_the_actions():
    wordings, one = {"twice": ["twice around"]}, example("walk left twice")
    assert reworded(one, wordings, 0, np.random.default_rng(0)) == one
    new = reworded(one, wordings, 1, np.random.default_rng(0))
    assert new == Example(("walk", "left", "twice", "around"), one.actions)


@pytest.mark.parametrize(
    ("wording", "message"),
    [("thrice", "'walk left thrice' asks for something else"), ("and " * 8, "has 10 words, a command has at most 9")],
)
def test_a_wording_that_makes_another_command_or_too_long_a_one_is_refused(wording, message):
    with pytest.raises(ConfigError, match=message):
        reworded(example("walk left twice"), {"twice": [wording]}, 1, np.random.default_rng(0))
