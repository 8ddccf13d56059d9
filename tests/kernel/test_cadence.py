"""When to measure: full rows at first, thin ones later, full ones again when something looks wrong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.cadence import BURST, FIRST, SLOWEST, Budget, Burst


def test_the_first_steps_are_measured_in_full():
    burst = Burst()
    assert all(burst.due("norms", step, 64) for step in range(FIRST))
    assert [step for step in range(FIRST, 200) if burst.due("norms", step, 64)] == [64, 128, 192]


def test_the_often_tier_is_every_step_at_the_usual_cadence_and_thins_with_it():
    burst = Burst()
    assert all(burst.due("often", step, 8) for step in range(40, 60))
    assert [step for step in range(40, 60) if burst.due("often", step, 64)] == [40, 48, 56]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (-math.inf, 1.0)])
def test_trouble_is_seen_and_followed_by_full_rows(loss, norm):
    burst = Burst()
    assert burst.saw(100, loss, norm)
    assert [step for step in range(101, 120) if burst.due("norms", step, 1000)] == list(range(101, 101 + BURST))


def test_a_sudden_large_gradient_is_followed_by_full_rows_and_a_slow_rise_is_not():
    sudden, slow = Burst(), Burst()
    for step in range(50):
        sudden.saw(step, 1.0, 1.0)
        slow.saw(step, 1.0, 1.05**step)
    assert not sudden.saw(50, 1.0, 30.0)
    assert sudden.due("norms", 51, 1000)
    assert not slow.due("norms", 51, 1000)


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.floats(allow_nan=True)), max_size=60))
def test_what_is_due_depends_on_the_past_values_alone(values):
    one, other = Burst(), Burst()
    for step, (loss, norm) in enumerate(values):
        assert one.saw(step, loss, norm) == other.saw(step, loss, norm)
        assert one.due("norms", step + 1, 8) == other.due("norms", step + 1, 8)


def test_the_budget_thins_while_measuring_is_dear_and_recovers():
    budget = Budget(8, 0.01)
    for _ in range(10):
        budget.spent(cost=0.05, elapsed=1.0)
    assert budget.every == SLOWEST
    for _ in range(10):
        budget.spent(cost=0.001, elapsed=1.0)
    assert budget.every == 8


def test_without_a_budget_the_cadence_never_moves():
    budget = Budget(3, None)
    budget.spent(cost=10.0, elapsed=1.0)
    assert budget.every == 3


@pytest.mark.parametrize("every", [1, 8, 64])
def test_layers_are_looked_into_at_first_and_then_seldom(every):
    burst = Burst()
    looks = [step for step in range(1100) if burst.due("layers", step, every)]
    assert looks[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 28]
    assert looks[14:] == list(range(math.ceil(32 / (4 * every)) * 4 * every, 1100, 4 * every))
    assert all(burst.due("norms", step, every) and burst.due("often", step, every) for step in looks)


def test_a_pair_is_a_look_and_the_step_after_it():
    burst = Burst()
    assert [step for step in range(200, 400) if burst.due("pairs", step, 8)] == [
        224, 225, 256, 257, 288, 289, 320, 321, 352, 353, 384, 385,
    ]  # fmt: skip


def test_at_the_slowest_layers_are_looked_into_once_in_256_steps():
    burst = Burst()
    assert [step for step in range(32, 1000) if burst.due("layers", step, SLOWEST)] == [256, 512, 768]


def test_something_suspicious_lets_the_layers_be_looked_into():
    burst = Burst()
    burst.saw(101, math.nan, 1.0)
    assert [step for step in range(102, 120) if burst.due("layers", step, 64)] == [104, 108]
