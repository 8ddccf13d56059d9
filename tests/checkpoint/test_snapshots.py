"""The ring of snapshots: what becomes good, what is dropped, what is never used up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trimtab.checkpoint import TrainingState
from trimtab.checkpoint.snapshots import RETRIES, Ring, Snapshots
from trimtab.errors import UserError


def ring(every=10, keep=3, clean=4, streams=("main",)):
    torch.manual_seed(0)
    models = {name: nn.Linear(2, 2) for name in streams}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for name, model in models.items()}
    return Snapshots(TrainingState(models, optimizers), every=every, keep=keep, clean=clean), models


def goes_on(snapshots, steps, *, first=0, streams=("main",), troubled=lambda: False):
    """Take in the updates `first` to `steps - 1` of each stream in turn."""
    for step in range(first, steps):
        for place, stream in enumerate(streams):
            now = {name: step if index <= place else step - 1 for index, name in enumerate(streams)}
            snapshots.updated(stream, now, troubled)


def steps_of(snapshots):
    return [one.steps["main"] for one in snapshots._good]


def test_the_one_from_before_the_first_update_is_good_at_once():
    snapshots, _ = ring()
    snapshots.begin({"main": -1})
    assert snapshots.newest_good().steps == {"main": -1}


def test_one_is_taken_every_so_often_and_becomes_good_after_so_many_clean_updates():
    snapshots, _ = ring()
    snapshots.begin({"main": -1})
    goes_on(snapshots, 13)
    assert steps_of(snapshots) == [-1]
    goes_on(snapshots, 14, first=13)
    assert steps_of(snapshots) == [-1, 9]
    goes_on(snapshots, 54, first=14)
    assert steps_of(snapshots) == [29, 39, 49]
    assert snapshots.taken == 6


def test_what_was_seen_since_the_trouble_began_is_dropped_and_the_oldest_stays():
    snapshots, _ = ring()
    snapshots.begin({"main": -1})
    goes_on(snapshots, 41)
    assert steps_of(snapshots) == [9, 19, 29]
    snapshots.trouble("main", 29)
    assert steps_of(snapshots) == [9, 19]
    goes_on(snapshots, 45, first=41)
    assert steps_of(snapshots) == [9, 19]  # the one of step 39 was not yet good
    snapshots.trouble("main", 0)
    assert steps_of(snapshots) == [9]


def test_while_something_is_wrong_none_is_taken_and_none_becomes_good():
    snapshots, _ = ring()
    snapshots.begin({"main": -1})
    goes_on(snapshots, 12)
    goes_on(snapshots, 40, first=12, troubled=lambda: True)
    assert (steps_of(snapshots), snapshots.taken) == ([-1], 2)
    goes_on(snapshots, 41, first=40)
    assert snapshots.taken == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_with_a_number_that_is_not_finite_never_becomes_good(value):
    snapshots, models = ring()
    snapshots.begin({"main": -1})
    goes_on(snapshots, 9)
    models["main"].bias.data[0] = value
    goes_on(snapshots, 30, first=9)
    assert steps_of(snapshots) == [-1]


def test_a_buffer_that_holds_infinity_from_the_beginning_is_no_fault():
    snapshots, models = ring()
    models["main"].register_buffer("mask", torch.tensor([0.0, -float("inf")]))
    snapshots.begin({"main": -1})
    goes_on(snapshots, 14)
    assert steps_of(snapshots) == [-1, 9]


def test_one_that_did_not_help_gives_way_to_an_older_one_and_the_last_never_goes():
    snapshots, _ = ring()
    snapshots.begin({"main": -1})
    goes_on(snapshots, 44)
    seen = []
    for _ in range(4 * RETRIES):
        snapshot = snapshots.newest_good()
        seen.append(snapshot.steps["main"])
        snapshots.went_back(snapshot)
    assert seen == [39, 39, 29, 29, 19, 19, 19, 19]


def test_going_back_forgets_what_lies_after():
    snapshots, _ = ring()
    snapshots.begin({"main": -1})
    goes_on(snapshots, 44)
    snapshots.went_back(snapshots._good[0])
    assert steps_of(snapshots) == [19]
    goes_on(snapshots, 34, first=20)
    assert steps_of(snapshots) == [19, 29]


def test_of_several_streams_they_are_taken_after_the_last_one():
    streams = ("first", "second")
    snapshots, _ = ring(streams=streams)
    snapshots.begin(dict.fromkeys(streams, -1))
    goes_on(snapshots, 14, streams=streams)
    newest = snapshots.newest_good()
    assert (newest.stream, newest.steps) == ("second", {"first": 9, "second": 9})


def test_a_stream_that_no_longer_steps_does_not_hold_them_up():
    streams = ("first", "second")
    snapshots, _ = ring(streams=streams)
    snapshots.begin(dict.fromkeys(streams, -1))
    goes_on(snapshots, 14, streams=streams)
    for step in range(14, 60):
        snapshots.updated("first", {"first": step, "second": 13})
    assert snapshots.newest_good().steps["first"] > 30


def test_memory_is_used_again():
    snapshots, _ = ring(keep=1)
    snapshots.begin({"main": -1})
    goes_on(snapshots, 34)
    places = {one.captured.tensors["model/main/weight"].data_ptr() for one in snapshots._good}
    goes_on(snapshots, 104, first=34)
    assert snapshots.taken == 11
    held = [*snapshots._good, *snapshots._pending]
    places |= {one.captured.tensors["model/main/weight"].data_ptr() for one in held}
    assert len(places) <= 4


def test_the_best_moment_has_a_place_of_its_own():
    snapshots, models = ring()
    snapshots.watch_best("validation/accuracy", "higher", min_delta=0.1)
    for step, value in enumerate([0.5, 0.55, float("nan"), 0.7, 0.6]):
        models["main"].bias.data.fill_(step)
        snapshots.recorded({"validation/accuracy": value}, {"main": step})
    assert (snapshots.best.value, snapshots.best.steps) == (0.7, {"main": 3})
    assert snapshots.best.captured.tensors["model/main/bias"].tolist() == [3.0, 3.0]


def test_one_taken_under_inference_mode_can_be_written_to_later():
    snapshots, _ = ring()
    snapshots.watch_best("loss", "lower")
    with torch.inference_mode():
        snapshots.recorded({"loss": 2.0}, {"main": 0})
    snapshots.recorded({"loss": 1.0}, {"main": 1})
    assert snapshots.best.value == 1.0


def test_a_training_that_consists_of_other_things_begins_anew():
    snapshots, models = ring()
    snapshots.begin({"main": -1})
    goes_on(snapshots, 14)
    snapshots.state.models["main"] = nn.Linear(2, 2)
    snapshots.begin({"main": 13})
    assert steps_of(snapshots) == [13]
    assert models


@pytest.mark.parametrize("wrong", [{"every": 0}, {"keep": 0}, {"clean": -1}])
def test_settings_out_of_range_are_errors(wrong):
    with pytest.raises(UserError, match="expected every >= 1"):
        Ring(**wrong)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["update", "update", "update", "trouble", "back", "broken", "whole"]), max_size=80))
def test_whatever_happens_a_good_one_stays_once_there_was_one_and_all_are_finite(happenings):
    snapshots, models = ring(every=3, keep=2, clean=1)
    snapshots.begin({"main": -1})
    step = -1
    for happening in happenings:
        if happening == "update":
            step += 1
            snapshots.updated("main", {"main": step})
        elif happening == "trouble":
            snapshots.trouble("main", max(step - 2, 0))
        elif happening == "back":
            snapshot = snapshots.newest_good()
            snapshots.state.restore(snapshot.captured)
            snapshots.went_back(snapshot)
            step = snapshot.steps["main"]
        else:
            models["main"].bias.data[0] = float("nan") if happening == "broken" else 1.0
        newest = snapshots.newest_good()
        assert newest is not None
        assert newest.steps["main"] <= step
        assert all(t.isfinite().all() for t in newest.captured.tensors.values() if t.is_floating_point())


def test_eight_bits_and_complex_numbers_are_looked_at_too():
    snapshots, models = ring()
    models["main"].register_buffer("quantised", torch.ones(4).to(torch.float8_e4m3fn))
    models["main"].phases = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    snapshots.begin({"main": -1})
    with torch.no_grad():
        models["main"].phases[0] = complex(0.0, float("nan"))
    snapshots.take({"main": 0}, good=True)
    assert steps_of(snapshots) == [-1]
