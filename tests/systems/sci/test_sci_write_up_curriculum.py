"""Which examples an update is computed from."""

import numpy as np
import pytest

from trimtab.errors import ConfigError
from trimtab_systems.sci.data import PAD, WORDS, Example, interpret, train_of
from trimtab_systems.sci.pairs import LeakGuard, Pool, template
from trimtab_systems.sci.write_up.curriculum import Curriculum, Micro, Plan, complexity, limit_at, sizes, starts

TRAIN = train_of("length")


@pytest.fixture(scope="module")
def some() -> tuple[Example, ...]:
    drawn = np.random.default_rng(0).choice(len(TRAIN), 600, replace=False)
    return tuple(TRAIN[place] for place in drawn)


@pytest.fixture(scope="module")
def guard() -> LeakGuard:
    return LeakGuard(TRAIN, "length")


def plan(some: tuple[Example, ...], guard: LeakGuard | None = None, **changes: object) -> Plan:
    curriculum = Curriculum(length_phases=((0, 12), (1, 22)), oversampling=2.0)
    settings = {"epochs": 2, "batch": 32, "accumulate": 1, "seed": 3, **changes}
    return Plan(some, Pool(some, guard), curriculum, **settings)


def commands(micro: Micro) -> list[tuple[str, ...]]:
    return [tuple(WORDS[number - 1] for number in row if number) for row in micro.words_BS.tolist()]


def count(**phases: tuple[tuple[int, int], ...]) -> list[int]:
    """Return how many of all training examples an epoch has for which each of these limits is the last one."""
    last = max(first for one in phases.values() for first, _ in one)
    return list(sizes(TRAIN, Curriculum(**phases), last + 1, 0))


def test_the_phases_have_the_examples_that_were_counted():
    assert count(length_phases=((0, 6), (1, 12), (2, 22))) == [3714, 11870, 16990]
    assert count(structure_phases=((0, 2), (1, 4), (2, 6))) == [3174, 15462, 16990]
    written = count(length_phases=((0, 20), (1, 50), (2, 88)))
    assert written[0] / len(TRAIN) == pytest.approx(0.962, abs=5e-4)
    assert written[1:] == [16990, 16990]


def test_both_limits_hold_at_a_time():
    both = count(length_phases=((0, 12),), structure_phases=((0, 2),))
    assert both == [sum(len(one.actions) <= 12 and complexity(one.words) <= 2 for one in TRAIN)]
    assert both[0] < 3174


def test_short_examples_come_twice_and_long_ones_once():
    doubled = sizes(TRAIN, Curriculum(oversampling=2.0), 1, 0)
    assert doubled == (16990 + 7524,)
    half_again = sizes(TRAIN, Curriculum(oversampling=1.5), 1, 0)[0]
    assert abs(half_again - 16990 - 7524 / 2) < 5 * (7524 * 0.25) ** 0.5


def test_a_phase_holds_until_the_next_begins():
    assert [limit_at(((0, 6), (3, 12)), epoch) for epoch in (0, 2, 3, 9)] == [6, 6, 12, 12]
    assert limit_at((), 4) is None
    assert starts([10, 7], 4) == [0, 3, 5]


def test_an_epoch_without_an_example_is_refused(some: tuple[Example, ...]):
    with pytest.raises(ConfigError, match="epoch 0"):
        sizes(some, Curriculum(length_phases=((0, 0), (1, 22))), 2, 0)


def test_an_epoch_has_each_of_its_examples_as_often_as_it_should(some: tuple[Example, ...]):
    made = plan(some)
    seen: dict[tuple[str, ...], int] = {}
    for step in range(made.starts[0], made.starts[1]):
        for words in commands(made.make(step).micros[0]):
            seen[words] = seen.get(words, 0) + 1
    wanted = {one.words: 2 if len(one.actions) < 10 else 1 for one in some if len(one.actions) <= 12}
    assert seen == wanted


def test_a_batch_is_a_function_of_seed_and_number(some: tuple[Example, ...], guard: LeakGuard):
    settings = {"swap_rate": 0.3, "counterfactual_share": 0.3}
    made, again = plan(some, guard, **settings), plan(some, guard, **settings)
    again.make(1)
    one, other = made.make(7).micros[0], again.make(7).micros[0]
    assert all(bool((a == b).all()) for a, b in zip(one, other, strict=True))
    third = plan(some, guard, **settings, seed=4).make(7).micros[0]
    assert commands(one) != commands(third)


def test_partners_and_interventions_keep_the_template_and_lie_in_training(some: tuple[Example, ...]):
    made, places = plan(some, counterfactual_share=1.0), {one.words for one in some}
    differ = 0
    for step in range(4):
        micro = made.make(step).micros[0]
        for number, words in enumerate(commands(micro)):
            partner = tuple(WORDS[each - 1] for each in micro.partner_BS[number].tolist() if each)
            assert template(partner) == template(words)
            assert partner in places
            differ += partner != words
        for number, row in enumerate(micro.swapped_X.tolist()):
            assert micro.other_XS[number].tolist() == micro.partner_BS[row].tolist()
            other = tuple(WORDS[each - 1] for each in micro.other_XS[number].tolist() if each)
            assert int((micro.other_labels_XT[number] != PAD).sum()) == len(interpret(other)) + 1
        assert len(micro.swapped_X) == sum(
            micro.partner_BS[row].tolist() != micro.words_BS[row].tolist() for row in range(len(micro.words_BS))
        )
    assert differ


def test_labels_are_what_the_commands_ask_for(some: tuple[Example, ...], guard: LeakGuard):
    micro = plan(some, guard, swap_rate=0.5).make(3).micros[0]
    for words, length in zip(commands(micro), micro.lengths_B.tolist(), strict=True):
        assert len(interpret(words)) == length
    assert micro.inputs_BT.shape[1] == int(micro.lengths_B.max()) + 1


def test_swapped_examples_are_training_examples_and_others_than_before(some: tuple[Example, ...], guard: LeakGuard):
    inside = {one.words for one in some}
    plain, swapped = plan(some), plan(some, guard, swap_rate=1.0)
    changed = 0
    for step in range(6):
        before, after = commands(plain.make(step).micros[0]), commands(swapped.make(step).micros[0])
        assert set(after) <= inside
        assert [template(one) for one in before] == [template(one) for one in after]
        changed += before != after
    assert changed


def test_wrong_pairs_are_taken_for_those_of_the_next_example(some: tuple[Example, ...]):
    right, wrong = plan(some).make(0).micros[0], plan(some, wrong_pairs=True).make(0).micros[0]
    assert right.template_partner_B.tolist() == right.template_B.tolist()
    assert wrong.template_partner_B.tolist() == [wrong.template_B.tolist()[-1], *wrong.template_B.tolist()[:-1]]


def test_an_update_has_several_losses_where_gradients_are_accumulated(some: tuple[Example, ...]):
    made = plan(some, batch=8, accumulate=4)
    assert [len(micro.words_BS) for micro in made.make(0).micros] == [8, 8, 8, 8]
    single = plan(some, batch=32)
    assert made.steps == single.steps
    together = [words for micro in made.make(2).micros for words in commands(micro)]
    assert together == commands(single.make(2).micros[0])


def test_epochs_of_updates_and_the_changes_of_phase(some: tuple[Example, ...]):
    made = plan(some)
    assert made.epoch_of(0) == 0
    assert made.epoch_of(made.starts[1] - 1) == 0
    assert made.epoch_of(made.starts[1]) == made.epoch_of(made.steps + 9) == 1
    assert made.changes() == (made.starts[1],)
    assert made.steps_in(1.5) == made.starts[1] + 0.5 * (made.starts[2] - made.starts[1])
    assert made.steps_in(9.0) == made.steps
