"""The course of the loss in blocks: the same from scratch, and near what a plain look at the losses says."""

from __future__ import annotations

import math
import statistics

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detectors.kit import row
from trimtab.detectors._course import BLOCK, LOSS, course_of, travelled
from trimtab.trace import Trace

LOSSES = st.lists(st.floats(-100, 100) | st.sampled_from([math.nan, math.inf, 1e9]), max_size=200)


def folded(losses):
    state = LOSS.start()
    for step, loss in enumerate(losses):
        state = LOSS.advance(state, step, loss)
    return state


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=BLOCK, max_size=120))
def test_blocks_hold_what_a_plain_look_finds(losses):
    values, course = folded(losses)
    finite = [loss for loss in losses if loss <= 10]
    blocks = [finite[place : place + BLOCK] for place in range(0, len(finite) - BLOCK + 1, BLOCK)]
    if course.spikes == 0 and course.spike.since < 0:
        assert course.medians == tuple(statistics.median(block) for block in blocks)
        assert course.highs == tuple(max(block) for block in blocks)
        assert course.lowest == min(loss for block in blocks for loss in block)
        assert course.best == min(course.medians)
        assert list(values) == finite[len(blocks) * BLOCK :]


@settings(max_examples=60, deadline=None)
@given(LOSSES)
def test_it_takes_anything_and_is_a_value(losses):
    state = folded(losses)
    assert state == folded(losses)
    hash(state)
    assert len(state[0]) < BLOCK


def test_a_leap_is_kept_out_of_the_blocks():
    _, course = folded([1.0] * 40 + [500.0] * 3 + [1.0] * 40)
    assert set(course.medians) == set(course.highs) == {1.0}
    assert (course.spike.since, course.spike.steps, course.spike.over, course.spikes) == (40, 3, True, 1)


def test_a_new_level_is_no_leap_for_long():
    _, course = folded([1.0] * 40 + [500.0] * 60)
    assert course.medians[-1] == 500.0
    assert course.spikes == 0


def test_an_update_that_was_not_measured_counts_as_the_one_before():
    trace = Trace(folds=[LOSS])
    for step in range(10):
        trace.append(row(step, {"loss": 1.0, **({"update_ratio": [0.01, 0.02]} if step in (0, 8) else {})}))
    assert travelled(trace) == 10 * 0.02
    assert course_of(trace).first == 1.0
