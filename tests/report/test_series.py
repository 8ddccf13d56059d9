"""What is drawn keeps what a reader looks for: extremes, values that are no number, every tensor."""

import math

import numpy as np
import pytest

from tests.report.recorded import TENSORS, metric, training
from trimtab.records import Signal
from trimtab.report.series import MOST_COLUMNS, MOST_LABELS, MOST_POINTS, Heat, gather, medians, thin


def test_a_short_line_is_not_thinned():
    steps, values = np.arange(5.0), np.array([1.0, math.nan, 2.0, 3.0, 4.0])
    assert thin(steps, values)[0] is steps


def test_a_thinned_line_keeps_the_highest_and_lowest_value_and_its_ends():
    steps = np.arange(100_000.0)
    values = np.sin(steps / 5000)
    values[61_803], values[27_182] = 9.0, -9.0
    kept_steps, kept = thin(steps, values)
    assert len(kept) <= MOST_POINTS
    assert {61_803.0, 27_182.0, 0.0, 99_999.0} <= set(kept_steps)
    assert list(kept_steps) == sorted(set(kept_steps))
    assert np.array_equal(kept, values[kept_steps.astype(int)])


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_thinned_line_keeps_a_single_value_that_is_no_number(odd):
    values = np.ones(50_000)
    values[31_415] = odd
    steps, kept = thin(np.arange(50_000.0), values)
    assert steps[~np.isfinite(kept)].tolist() == [31_415.0]


def test_a_line_of_nothing_but_nan_is_thinned_too():
    steps, values = thin(np.arange(9000.0), np.full(9000, math.nan))
    assert 2 <= len(steps) <= MOST_POINTS
    assert np.isnan(values).all()


def test_medians_pass_over_what_is_no_number_and_leave_short_lines_alone():
    values = np.repeat([1.0, 2.0, math.nan], 400)
    values[5] = math.inf
    smoothed = medians(np.arange(1200.0), values, bins=3)
    assert smoothed is not None
    steps, middle = smoothed
    assert middle[:2].tolist() == [1.0, 2.0]
    assert math.isnan(middle[2])
    assert steps.tolist() == [199.5, 599.5, 999.5]
    assert medians(np.arange(10.0), np.ones(10), bins=3) is None


def test_measured_and_recorded_quantities_are_told_apart():
    ours = Signal(step=9, update=9, time=1.0, values={"trimtab_seconds": 0.5})
    found = gather([*training(10), metric(9, validation__accuracy=0.5, attention_max=3.0), ours])
    assert set(found.lines) == {"loss", "gradient_norm", "learning_rate", "update_ratio"}
    assert set(found.metrics) == {"validation/accuracy", "attention_max"}
    assert found.heat["main"].labels == list(TENSORS)
    assert (found.rows, found.last) == (12, {"main": 9})


def test_an_attempt_that_was_given_up_is_a_faint_line_of_its_own():
    rows = [Signal(attempt=a, step=s, update=s, time=0.0, values={"loss": 1.0}) for a, s in [(0, 0), (0, 1), (1, 1)]]
    assert [(line.attempt, line.faint, len(line.steps)) for line in gather(rows).lines["loss"]] == [
        (0, True, 2),
        (1, False, 1),
    ]


def test_of_many_parameter_groups_the_first_are_drawn_and_the_rest_counted():
    rates = tuple(float(place) for place in range(20))
    labels = {"learning_rate": tuple(f"group {place}" for place in range(20))}
    found = gather([Signal(step=0, update=0, time=0.0, values={"learning_rate": rates}, labels=labels)])
    assert [line.label for line in found.lines["learning_rate"]] == [f"group {place}" for place in range(MOST_LABELS)]
    assert found.left_out == {"learning_rate": 20 - MOST_LABELS}


def test_a_heat_map_of_a_long_run_doubles_its_bins_and_keeps_the_largest_norm():
    heat = Heat()
    for step in range(1000):
        heat.add(step, ("a", "b"), (1.0, 50.0 if step == 777 else 2.0))
    assert heat.columns <= MOST_COLUMNS
    assert heat.width * heat.columns >= 1000
    row = heat.cells[1]
    assert np.flatnonzero(row == 50.0).tolist() == [777 // heat.width]
    assert set(heat.cells[0]) == {1.0}


def test_a_norm_that_is_no_number_outweighs_its_bin_and_a_gap_holds_the_last_one():
    heat = Heat()
    for step in (0, 1, 4):
        heat.add(step, ("a",), (math.nan if step == 1 else 3.0,))
    heat.add(5, ("a", "late"), (3.0, 7.0))
    shown = np.where(np.isnan(heat.cells), -9, heat.cells).tolist()
    assert shown == [[3, -9, -9, -9, 3, 3], [-1, -1, -1, -1, -1, 7]]


def test_a_tensor_that_is_no_longer_measured_is_blank_while_others_are():
    heat = Heat()
    for step, label in enumerate(("old", "new", "new", "new")):
        heat.add(step, (label,), (1.0,))
    assert heat.cells.tolist() == [[1, -1, -1, -1], [-1, 1, 1, 1]]
