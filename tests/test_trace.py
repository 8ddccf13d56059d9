"""The past of a stream: what is kept, what a window shows, how folds and rewinds agree with starting again."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detectors.kit import row
from trimtab import trace as module
from trimtab.detectors import DETECTORS
from trimtab.records import Note, Signal
from trimtab.trace import Best, Ema, Fold, Last, Rolling, Trace

FOLDS: tuple[Fold[Any], ...] = (
    Ema("loss"), Best("loss"), Best("loss", better="higher"), Rolling("loss", 5), Rolling("loss", 1), Last("loss"),
)  # fmt: skip
ALL_FOLDS: tuple[Fold[Any], ...] = tuple(
    dict.fromkeys([*FOLDS, *(fold for detector in DETECTORS for fold in detector.folds)])
)


def trace_of(*values, folds=()):
    """A trace with one row for each dictionary of values, at the steps 0, 1, 2, ..."""
    trace = Trace(folds=folds)
    for step, each in enumerate(values):
        trace.append(row(step, each))
    return trace


def losses(*values, folds=()):
    return trace_of(*({"loss": value} for value in values), folds=folds)


# --- reading ----------------------------------------------------------------------------------------


def test_an_empty_trace_knows_nothing():
    trace = Trace()
    assert (trace.step, trace.row, trace.names()) == (-1, None, ())
    assert not trace.has("loss")
    assert trace.scalar("loss") is None
    assert trace.vector("norms") is None
    assert trace.labels("norms") == ()
    assert trace.count("loss") == 0
    assert trace.last_step("loss") == -1
    for read in (trace.window("loss", 5), trace.first("loss", 5), trace.last("loss", 5)):
        assert tuple(map(tuple, read)) == ((), ())


def test_a_window_is_in_steps_and_counts_the_current_one():
    trace = Trace()
    for step in (0, 3, 6, 9):
        trace.append(row(step, {"loss": 10.0 - step}))
    assert trace.window("loss", 1) == ([9], [1.0])
    assert trace.window("loss", 6) == ([6, 9], [4.0, 1.0])
    assert trace.window("loss", 7) == ([3, 6, 9], [7.0, 4.0, 1.0])


def test_first_and_last_are_in_measurements():
    trace = losses(5.0, 4.0, 3.0, 2.0)
    assert trace.first("loss", 2) == ([0, 1], [5.0, 4.0])
    assert trace.last("loss", 2) == ([2, 3], [3.0, 2.0])
    assert trace.last("loss", 9) == ([0, 1, 2, 3], [5.0, 4.0, 3.0, 2.0])
    assert tuple(map(tuple, trace.last("loss", 0))) == ((), ())


def test_the_latest_value_stays_readable_while_other_signals_go_on():
    trace = trace_of({"loss": 2.0, "chance_level": 2.3}, {"loss": 1.0})
    assert trace.scalar("chance_level") == 2.3
    assert trace.last_step("chance_level") == 0
    assert trace.last_step("loss") == 1


def test_a_vector_is_read_by_label_and_a_scalar_is_not_one():
    trace = Trace()
    trace.append(row(0, {"norms": [1.0, 2.0], "loss": 3.0}, {"norms": ("a", "b")}))
    assert trace.vector("norms") == {"a": 1.0, "b": 2.0}
    assert trace.labels("norms") == ("a", "b")
    with pytest.raises(TypeError, match=r"'norms' is a vector; read it with vector\(\)"):
        trace.scalar("norms")
    with pytest.raises(TypeError, match=r"'loss' is a scalar; read it with scalar\(\)"):
        trace.vector("loss")


def test_a_vector_whose_entries_mean_something_else_starts_a_new_history():
    trace = Trace()
    trace.append(row(0, {"norms": [1.0, 2.0]}, {"norms": ("a", "b")}))
    trace.append(row(1, {"norms": [1.0, 2.0, 3.0]}, {"norms": ("a", "b", "c")}))
    assert trace.count("norms") == 1
    assert trace.first("norms", 5) == ([1], [(1.0, 2.0, 3.0)])
    assert trace.labels("norms") == ("a", "b", "c")


def test_the_first_and_the_latest_rows_are_kept_and_all_are_counted(monkeypatch):
    monkeypatch.setattr(module, "HEAD", 3)
    monkeypatch.setattr(module, "RING", 4)
    trace = losses(*map(float, range(100)))
    steps, _ = trace.window("loss", 1000)
    assert steps[:3] == [0, 1, 2]
    assert steps[-4:] == [96, 97, 98, 99]
    assert len(steps) <= 3 + 2 * 4
    assert trace.count("loss") == 100
    assert trace.first("loss", 50) == ([0, 1, 2], [0.0, 1.0, 2.0])
    assert trace.last("loss", 50)[0] == [96, 97, 98, 99]


def test_a_note_is_heard_by_its_kind_while_it_holds():
    notes = [Note(kind="data-change", step=2, until=3), Note(kind="freeze", step=0)]
    trace = Trace(notes=notes)
    heard = []
    for step in range(5):
        trace.append(row(step, {"loss": 1.0}))
        heard.append(trace.noted(("data-change", "restart")) is not None)
    assert heard == [False, False, True, True, False]
    assert trace.noted(("freeze",)) is notes[1]
    assert Trace().noted(("freeze",)) is None


# --- writing ----------------------------------------------------------------------------------------


def test_a_row_of_another_stream_is_refused():
    with pytest.raises(ValueError, match="stream 'main' was given a row of stream 'critic'"):
        Trace().append(row(0, {"loss": 1.0}, stream="critic"))


def test_a_row_of_the_past_is_refused_until_the_trace_is_rewound():
    trace = losses(3.0, 2.0, 1.0)
    with pytest.raises(
        ValueError, match=r"expected a row of attempt 0 at step 2 or later, got attempt 0 step 1; call rew"
    ):
        trace.append(row(1, {"loss": 1.0}))
    trace.rewind(0)
    with pytest.raises(ValueError, match="expected a row of attempt 1"):
        trace.append(row(1, {"loss": 1.0}))
    trace.append(row(1, {"loss": 1.5}, attempt=1))
    assert trace.window("loss", 9) == ([0, 1], [3.0, 1.5])


def test_several_rows_of_one_step_are_all_kept():
    trace = trace_of({"loss": 1.0})
    trace.append(row(0, {"accuracy": 0.5}))
    trace.append(row(0, {"accuracy": 0.6}))
    assert trace.last("accuracy", 5) == ([0, 0], [0.5, 0.6])
    assert trace.rows == 3


def test_a_rewind_forgets_what_came_later_and_begins_the_next_attempt():
    trace = losses(5.0, 4.0, 3.0, 2.0, folds=[Best("loss")])
    trace.rewind(1)
    assert (trace.attempt, trace.step, trace.row) == (1, 1, None)
    assert trace.window("loss", 9) == ([0, 1], [5.0, 4.0])
    assert trace.count("loss") == 2
    assert trace.fold(Best("loss")) == (1, 4.0)
    trace.rewind(-1)
    assert trace.attempt == 2
    assert not trace.has("loss")
    assert trace.names() == ()
    assert trace.fold(Best("loss"))[0] == -1


def test_a_rewind_into_what_is_no_longer_kept_still_counts_about_right(monkeypatch):
    monkeypatch.setattr(module, "HEAD", 10)
    monkeypatch.setattr(module, "RING", 20)
    trace = losses(*map(float, range(1000)))
    trace.rewind(499)
    assert trace.count("loss") == pytest.approx(500, abs=15)
    trace.rewind(299)
    assert trace.count("loss") == pytest.approx(300, abs=15)
    for step in range(300, 400):
        trace.append(row(step, {"loss": 1.0}, attempt=2))
    assert trace.count("loss") == pytest.approx(400, abs=15)
    trace.rewind(4)
    assert trace.count("loss") == 5


# --- folds ------------------------------------------------------------------------------------------


def test_the_average_has_no_start_bias_and_passes_over_what_is_not_finite():
    trace = losses(4.0, math.nan, 4.0, folds=[Ema("loss")])
    assert Ema.value(trace.fold(Ema("loss"))) == pytest.approx(4.0)
    assert math.isnan(Ema.value(Ema("loss").start()))


def test_the_average_forgets_half_in_its_half_life():
    trace = losses(*[1.0] * 400, *[0.0] * 10)
    assert Ema.value(trace.fold(Ema("loss", half_life=10.0))) == pytest.approx(0.5)


def test_of_equal_bests_the_earlier_one_stays():
    trace = losses(3.0, 1.0, math.nan, 1.0, -math.inf, 2.0)
    assert trace.fold(Best("loss")) == (1, 1.0)
    assert trace.fold(Best("loss", better="higher")) == (0, 3.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_median_and_quantiles_are_those_of_the_last_values(values):
    state = losses(*values, folds=[Rolling("loss", 7)]).fold(Rolling("loss", 7))
    lately = values[-7:]
    middle = statistics.median(lately)
    assert state == tuple(lately)
    assert Rolling.median(state) == pytest.approx(middle)
    assert Rolling.mad(state) == pytest.approx(statistics.median(abs(v - middle) for v in lately), abs=1e-6)
    assert (Rolling.quantile(state, 0.0), Rolling.quantile(state, 1.0)) == (min(lately), max(lately))


def test_an_empty_window_has_no_median():
    assert math.isnan(Rolling.median(()))
    assert math.isnan(Rolling.mad(()))


def test_a_fold_that_is_asked_for_late_catches_up():
    trace = losses(3.0, 1.0, 2.0)
    assert trace.fold(Best("loss")) == (1, 1.0)
    trace.append(row(3, {"loss": 0.5}))
    assert trace.fold(Best("loss")) == (3, 0.5)


def test_a_fold_of_scalars_passes_over_vectors():
    trace = Trace(folds=[Last("norms")])
    trace.append(row(0, {"norms": [1.0, 2.0]}, {"norms": ("a", "b")}))
    trace.append(row(1, {"norms": 3.0}))
    trace.rewind(1)
    assert trace.fold(Last("norms")) == (1, 1, 3.0)


@dataclass(frozen=True, slots=True)
class Everything:
    """The slow obvious fold: every value with its step."""

    reads: str

    def start(self):
        return ()

    def advance(self, state, step, value):
        return (*state, (step, value))


VALUES = st.one_of(st.floats(allow_nan=True, allow_infinity=True, width=16), st.sampled_from([0.0, 1.0, 2.0]))
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys(sorted({fold.reads for fold in ALL_FOLDS}), VALUES))
MOVES: st.SearchStrategy[Any] = st.lists(
    st.one_of(
        st.tuples(st.just("row"), st.integers(0, 3), ROW),
        st.tuples(st.just("back"), st.integers(0, 4) | st.integers(0, 60), st.just({})),
    ),
    max_size=150,
)  # fmt: skip


def play(moves, folds):
    """Append and rewind; return the trace and the rows that are left on its path."""
    trace, path = Trace(folds=folds), []
    for kind, number, values in moves:
        if kind == "row":
            signal = row(max(trace.step, 0) + number, values, attempt=trace.attempt)
            trace.append(signal)
            path.append(signal)
        else:
            to_step = max(trace.step - number, -1)
            trace.rewind(to_step)
            path = [signal for signal in path if signal.step <= to_step]
    return trace, path


def from_scratch(fold, path: list[Signal]):
    state = fold.start()
    for signal in path:
        if fold.reads in signal.values:
            state = fold.advance(state, signal.step, signal.values[fold.reads])
    return state


@settings(max_examples=120, deadline=None)
@given(MOVES)
def test_after_any_rewinds_every_fold_is_what_it_would_be_from_scratch(moves):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SNAPSHOT_EVERY", 2)
        trace, path = play(moves, ALL_FOLDS)
    for fold in ALL_FOLDS:
        assert repr(trace.fold(fold)) == repr(from_scratch(fold, path))


@settings(max_examples=60, deadline=None)
@given(MOVES)
def test_after_any_rewinds_every_series_is_what_it_would_be_from_scratch(moves):
    trace, path = play(moves, ())
    for name in {name for signal in path for name in signal.values}:
        kept = [(signal.step, signal.values[name]) for signal in path if name in signal.values]
        assert repr(list(zip(*trace.window(name, 10**6), strict=True))) == repr(kept)
        assert trace.count(name) == len(kept)


def test_a_rewind_to_a_step_with_several_rows_keeps_all_of_them(monkeypatch):
    monkeypatch.setattr(module, "SNAPSHOT_EVERY", 1)
    trace = Trace(folds=[Everything("loss")])
    for step in (0, 1, 1, 1, 2):
        trace.append(row(step, {"loss": float(trace.rows)}))
    trace.rewind(1)
    assert trace.fold(Everything("loss")) == ((0, 0.0), (1, 1.0), (1, 2.0), (1, 3.0))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(17, 120), st.integers(0, 16)), min_size=1, max_size=6))
def test_rewinds_within_the_ring_are_exact_although_the_middle_is_forgotten(blocks):
    """Blocks of new rows, each followed by a rewind of at most as many rows as the ring holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HEAD", 8)
        patch.setattr(module, "RING", 32)
        patch.setattr(module, "SNAPSHOT_EVERY", 4)
        folds: list[Fold[Any]] = [*FOLDS, Everything("loss")]
        trace, path = Trace(folds=folds), []
        for length, back in blocks:
            for _ in range(length):
                signal = row(trace.step + 1, {"loss": float(trace.rows)}, attempt=trace.attempt)
                trace.append(signal)
                path.append(signal)
            trace.rewind(trace.step - back)
            path = path[: trace.step + 1]
            for fold in folds:
                assert repr(trace.fold(fold)) == repr(from_scratch(fold, path))
            assert trace.count("loss") == len(path)
            assert list(trace.first("loss", 8)[0]) == list(range(min(8, len(path))))
            assert len(trace._snapshots) <= 2 * 32 // 4


def test_a_rewind_beyond_the_ring_gives_the_same_each_time(monkeypatch):
    monkeypatch.setattr(module, "HEAD", 4)
    monkeypatch.setattr(module, "RING", 8)
    monkeypatch.setattr(module, "SNAPSHOT_EVERY", 2)
    pictures = []
    for _ in range(2):
        trace = losses(*(float(value % 7) for value in range(200)), folds=FOLDS)
        trace.rewind(100)
        trace.append(row(101, {"loss": 1.0}, attempt=1))
        pictures.append([trace.fold(fold) for fold in FOLDS] + [trace.window("loss", 500)])
    assert pictures[0] == pictures[1]
    assert pictures[0][1] == (0, 0.0)
