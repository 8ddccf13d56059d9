"""Easy examples first: what may be met at each step, what is announced, and how it waits and goes back."""

from __future__ import annotations

import functools
import itertools
import json
import math
import operator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab import Guard
from trimtab.errors import UserError
from trimtab.run import Run
from trimtab.stabilizers._health import Look
from trimtab.stabilizers.curriculum import Competence, Curriculum, Stage

OPERATORS = {0: 14, 1: 440, 2: 2720, 3: 6400, 4: 5888, 5: 1528}
"""Operator words in the commands of the SCAN length split, counted for this project (`sci.md` 1.10)."""

STAGES = [Stage(begins=0, at_most=2), Stage(begins=5, at_most=4), Stage(begins=12, at_most=math.inf)]


class Scripted:
    def __init__(self, states):
        self.states = list(states)

    def look(self):
        state = self.states.pop(0) if self.states else "healthy"
        return Look(state=state, because=state)


def commands():
    generator = np.random.default_rng(0)
    return generator.permutation(np.repeat(list(OPERATORS), list(OPERATORS.values())))


def counts(curriculum, steps):
    seen = []
    for _ in range(steps):
        seen.append(curriculum.count)
        curriculum.step()
    return seen


def test_the_stages_of_the_write_up_hold_the_counted_examples():
    """Half-open epochs [0, 5), [5, 12), [12, 20): 3,174 and 15,462 and 16,990 examples."""
    curriculum = Curriculum(commands(), STAGES)
    assert counts(curriculum, 20) == [3174] * 5 + [15462] * 7 + [16990] * 8
    assert [entry["limit"] for entry in curriculum.log if entry["what"] == "changed"] == [4, 5]


def test_indices_are_those_of_the_examples_up_to_the_limit():
    curriculum = Curriculum(hard := commands(), STAGES)
    for _ in range(14):
        assert curriculum.indices().tolist() == np.flatnonzero(hard <= curriculum.limit).tolist()
        curriculum.step()


def test_two_quantities_are_two_curricula():
    one = Curriculum([1, 2, 3, 4], [Stage(begins=0, at_most=3)])
    other = Curriculum([9, 1, 1, 1], [Stage(begins=0, at_most=5)])
    assert np.intersect1d(one.indices(), other.indices()).tolist() == [1, 2]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_a_competence_grows_from_its_start_to_all(power):
    curriculum = Curriculum(torch.arange(1000), Competence(steps=50, start=0.1, power=power))
    seen = counts(curriculum, 60)
    assert seen[0] == 100
    assert seen[50:] == [1000] * 10
    assert all(a <= b for a, b in itertools.pairwise(seen))
    half = (0.1**power + 0.5 * (1 - 0.1**power)) ** (1 / power)
    assert seen[25] == pytest.approx(1000 * half, abs=1)
    assert 7 <= sum(entry["what"] == "changed" for entry in curriculum.log) <= 11  # not fifty notes


def test_examples_that_are_equally_hard_come_together():
    curriculum = Curriculum([1, 1, 1, 1, 2, 2], Competence(steps=4, start=0.01))
    assert set(counts(curriculum, 8)) == {4, 6}


@given(
    hard=st.lists(st.floats(-10, 10), min_size=1, max_size=40),
    steps=st.integers(1, 20),
    start=st.floats(0.01, 1.0),
    states=st.lists(st.sampled_from(["healthy", "unhealthy", "unknown"]), max_size=30),
)
def test_whatever_the_data_and_the_health_there_is_an_example_and_nothing_harder_than_the_limit(
    hard, steps, start, states
):
    curriculum = Curriculum(hard, Competence(steps=steps, start=start), gate=Scripted(states))
    for state in states:
        before = curriculum.count
        curriculum.step()
        assert curriculum.count == before or state == "healthy"
        assert 1 <= len(curriculum.indices()) == curriculum.count <= len(hard)
        assert max(hard[index] for index in curriculum.indices()) == curriculum.limit


# -- it obeys health -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["unhealthy", "unknown"])
def test_nothing_harder_comes_while_it_is_not_healthy(bad):
    curriculum = Curriculum(commands(), STAGES, gate=Scripted([*["healthy"] * 4, *[bad] * 30]), clear_for=2)
    assert counts(curriculum, 40) == [3174] * 36 + [15462] * 4


def test_it_can_be_paused():
    curriculum = Curriculum(commands(), STAGES, clear_for=1)
    curriculum.pause("a person said so", looks=10)
    assert counts(curriculum, 17) == [3174] * 15 + [15462] * 2


def test_backing_off_repeats_the_stage_before():
    curriculum = Curriculum(commands(), STAGES, clear_for=1, cooldown=3)
    counts(curriculum, 30)
    curriculum.back_off("the loss jumped")
    assert curriculum.count == 15462
    assert counts(curriculum, 12) == [15462] * 10 + [16990] * 2
    curriculum.back_off("again", factor=0.0)
    assert curriculum.count == 3174


def test_a_competence_backs_off_by_a_factor():
    curriculum = Curriculum(np.arange(100), Competence(steps=10, start=0.1, power=1.0), cooldown=0, clear_for=1)
    counts(curriculum, 10)
    curriculum.back_off("too hard", factor=0.5)
    assert curriculum.count == 55


# -- batches ---------------------------------------------------------------------------------------------------------


def test_batches_hold_allowed_examples_only_and_follow_a_change_at_once():
    curriculum = Curriculum(hard := torch.arange(40), [Stage(begins=0, at_most=9), Stage(begins=6, at_most=39)])
    met = []
    for indices_B, _ in zip(curriculum.batches(4, seed=3), range(16), strict=False):
        assert bool((hard[indices_B] <= curriculum.limit).all())
        met.append(indices_B.tolist())
        curriculum.step()
    first = functools.reduce(operator.iadd, met[:3], [])
    assert sorted(first) == list(range(10))  # an epoch is every example once
    assert sorted(functools.reduce(operator.iadd, met[6:16], [])) == list(range(40))


@pytest.mark.parametrize("cut", [0, 2, 6, 7, 11])
def test_curriculum_and_batches_go_through_json_and_back(cut):
    def made():
        curriculum = Curriculum(np.arange(40) % 13, [Stage(begins=0, at_most=5), Stage(begins=6, at_most=12)])
        return curriculum, curriculum.batches(4, seed=1)

    def some(curriculum, batches, times):
        met = []
        for _ in range(times):
            met.append(next(batches).tolist())
            curriculum.step()
        return met

    curriculum, batches = made()
    whole = some(curriculum, batches, 20)
    curriculum, batches = made()
    begun = some(curriculum, batches, cut)
    state = json.loads(json.dumps([curriculum.state_dict(), batches.state_dict()], allow_nan=False))
    other, more = made()
    other.load_state_dict(state[0])
    more.load_state_dict(state[1])
    assert begun + some(other, more, 20 - cut) == whole
    assert other.log == made_log(20, some, made)


def made_log(times, some, made):
    curriculum, batches = made()
    some(curriculum, batches, times)
    return curriculum.log


def test_the_position_in_the_data_is_told_from_the_course():
    curriculum = Curriculum([1, 2], Competence(steps=2))
    assert curriculum.batches(1).is_data
    assert not getattr(curriculum, "is_data", False)


# -- notes and wrong settings ------------------------------------------------------------------------------------------


def test_each_change_is_a_note_that_excuses_a_jump_of_the_loss_for_a_while(tmp_path):
    with Guard(tmp_path / "a", pyproject=False) as guard:
        gate = Scripted([*["healthy"] * 7, "unhealthy"])
        curriculum = Curriculum(commands(), STAGES, guard=guard, excused_for=50, gate=gate)
        counts(curriculum, 25)
    notes = [note for note in Run(tmp_path / "a").notes() if note.kind == "curriculum"]
    assert [(note.facts["what"], note.until - note.step) for note in notes if note.facts["what"] != "going"] == [
        ("changed", 50), ("held", 0), ("complete", 50), ("changed", 50),
    ]  # fmt: skip
    assert notes[-1].text == "changed: 16990 of 16990 examples, up to 5"


@pytest.mark.parametrize(
    ("hard", "pacing", "says"),
    [
        ([], STAGES, "one number for each example"),
        ([1.0, math.nan], STAGES, "1 NaN"),
        ([[1.0]], STAGES, r"shape \(1, 1\)"),
        ([1, 9], [], "expected 0 first"),
        ([1, 9], [Stage(begins=3, at_most=9)], "expected 0 first"),
        ([1, 9], [Stage(begins=0, at_most=1), Stage(begins=0, at_most=9)], "each later than the last"),
        ([4, 9], [Stage(begins=0, at_most=3)], "up to 3 and there is none; the easiest has 4"),
        ([1, 9], [Stage(begins=0, at_most=20), Stage(begins=3, at_most=50)], "the same 2 examples.*the hardest has 9"),
        ([1, 9], Competence(steps=0), "steps >= 1"),
        ([1, 9], Competence(steps=5, start=0.0), "0 < start"),
    ],
)
def test_a_wrong_curriculum_says_what_was_expected(hard, pacing, says):
    with pytest.raises(UserError, match=says):
        Curriculum(hard, pacing)


def test_a_state_of_other_data_is_refused():
    state = Curriculum([1, 2], Competence(steps=2)).state_dict()
    with pytest.raises(UserError, match="of 2 examples, there are 3 now"):
        Curriculum([1, 2, 3], Competence(steps=2)).load_state_dict(state)
    with pytest.raises(UserError, match="less than 1"):
        Curriculum([1, 2], Competence(steps=2)).back_off("why", factor=2.0)
