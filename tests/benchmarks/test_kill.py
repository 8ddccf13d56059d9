"""Killed trainings: what the bench counts, and ten real kills."""

import pytest

from benchmarks import kill
from benchmarks.stored import load


def test_the_stored_result_is_whole():
    figures = load("kill")["figures"]
    assert figures == {
        "kills": kill.KILLS, "resumed": kill.KILLS, "corrupted_accepted": 0, "good_lost": 0, "bit_identical": 1,
    }  # fmt: skip


def test_weights_that_differ_in_one_bit_have_another_fingerprint():
    first, second = kill.build(kill.Config(), 0), kill.build(kill.Config(), 0)
    second.model.load_state_dict(first.model.state_dict())
    assert kill.fingerprint(first) == kill.fingerprint(second)
    second.parts["restarts"].step()
    assert kill.fingerprint(first) != kill.fingerprint(second)


@pytest.mark.slow
def test_ten_killed_trainings_go_on():
    counts, wrong, _ = kill.measure(10)
    assert wrong == []
    assert (counts.kills, counts.resumed, counts.identical) == (10, 10, 10)
    assert (counts.corrupted_accepted, counts.good_lost) == (0, 0)
