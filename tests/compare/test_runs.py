"""Two runs side by side: what was set differently, and the first step at which a signal parts."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from trimtab.compare import Difference, Moment, compare
from trimtab.records import Finding, Outcome, Severity, Signal
from trimtab.run import Run, RunWriter, safe_json

NAN = math.nan
NAMES = {"norms": ("stem", "head")}


@pytest.fixture
def record(tmp_path):
    """Make a finished run out of rows, each (step, values) or (step, values, changes of the row)."""
    count = iter(range(99))

    def made(*rows, close=True, seal_rows=4096, config=None, settings=None, findings=(), **facts):
        writer = RunWriter.create(path=tmp_path / f"run-{next(count)}", config=config, **facts)
        writer.seal_rows = seal_rows
        for step, values, *changes in rows:
            row = Signal(step=step, update=step, time=0.0, values=values, labels=NAMES)
            writer.row(dataclasses.replace(row, **changes[0]) if changes else row)
        for code in findings:
            writer.event(Finding(code=code, severity=Severity.ERROR, step=1, summary="s", measured=1.0, threshold=0.0))
        if settings is not None:
            writer.settings(settings)
        if close:
            writer.close()
        return Run(writer.path)

    return made


def parting(comparison, signal, stream="main"):
    (found,) = [one for one in comparison.partings if (one.signal, one.stream) == (signal, stream)]
    return found


# --- signals --------------------------------------------------------------------------------------


def test_a_run_is_the_same_as_itself(record):
    run = record(*[(step, {"loss": 1 / (step + 1), "norms": (NAN, math.inf)}) for step in range(5)])
    comparison = compare(run, run)
    assert (comparison.first, comparison.beyond) == (None, None)
    assert [(one.signal, one.compared) for one in comparison.partings] == [("loss", 5), ("norms", 5)]
    differences = (comparison.facts, comparison.settings, comparison.config, comparison.environment)
    assert differences == ((), (), (), ())


def test_time_and_memory_are_those_of_the_machine(record):
    runs = [
        record(*[(step, {"loss": 1.0, "step_seconds": time, "memory_bytes": time}) for step in range(3)])
        for time in (0.1, 0.2)
    ]
    assert compare(*runs).first is None


def test_the_last_bit_and_the_tolerance_are_told_apart(record):
    drift = [0.0, 0.0, 2**-50, 1e-9, 3e-6, 0.5]
    a = record(*[(step, {"loss": 1.0}) for step in range(6)])
    b = record(*[(step, {"loss": 1.0 + more}) for step, more in enumerate(drift)], seal_rows=2)
    loss = parting(compare(a, b), "loss")
    assert loss.first == Moment(attempt=0, step=2, update=2, label="", a=1.0, b=1.0 + 2**-50)
    assert loss.beyond == Moment(attempt=0, step=4, update=4, label="", a=1.0, b=1.0 + 3e-6)
    loose = parting(compare(a, b, tolerance=0.1), "loss")
    assert (loose.first, loose.beyond.step if loose.beyond else None) == (loss.first, 5)
    assert parting(compare(a, b, tolerance=1.0), "loss").beyond is None


@pytest.mark.parametrize(
    ("one", "other", "bit", "beyond"),
    [
        (NAN, NAN, False, False),
        (math.inf, math.inf, False, False),
        (0.0, -0.0, True, False),
        (0.0, 5e-324, True, True),
        (NAN, 1.0, True, True),
        (1.0, NAN, True, True),
        (math.inf, 1.7e308, True, True),
        (math.inf, -math.inf, True, True),
        (-1.7e308, 1.7e308, True, True),
        (1e-300, 1e-300 * (1 + 1e-9), True, False),
    ],
)
def test_numbers_that_are_not_ordinary_are_compared_too(record, one, other, bit, beyond):
    loss = parting(compare(record((0, {"loss": one})), record((0, {"loss": other}))), "loss")
    assert (loss.first is not None, loss.beyond is not None) == (bit, beyond)


def test_the_signal_that_parts_first_is_named(record):
    a = record(*[(step, {"loss": 1.0, "norms": (1.0, 2.0)}) for step in range(6)])
    b = record(*[(step, {"loss": 1.0 + (step > 3), "norms": (1.0, 2.0 + 1e-9 * (step > 1))}) for step in range(6)])
    comparison = compare(a, b)
    assert comparison.first is not None
    assert comparison.beyond is not None
    assert (comparison.first.signal, comparison.beyond.signal) == ("norms", "loss")
    moment = comparison.first.first
    assert moment == Moment(attempt=0, step=2, update=2, label="head", a=2.0, b=2.0 + 1e-9)


def test_only_steps_that_both_runs_measured_are_compared(record):
    a = record(*[(step, {"loss": float(step)}) for step in range(0, 20, 2)])
    b = record(*[(step, {"loss": float(step)}) for step in range(0, 20, 3)], (21, {"loss": 0.0}))
    assert parting(compare(a, b), "loss").compared == 4
    b = record(*[(step, {"loss": 9.0}) for step in range(1, 20, 2)])
    loss = parting(compare(a, b), "loss")
    assert (loss.compared, loss.first) == (0, None)


def test_signals_of_one_step_may_come_in_several_rows(record):
    a = record((0, {"loss": 1.0}), (0, {"accuracy": 0.5}), (1, {"loss": 2.0, "accuracy": 0.5}))
    b = record((0, {"loss": 1.0, "accuracy": 0.4}), (1, {"loss": 3.0}), (1, {"accuracy": 0.5}))
    comparison = compare(a, b)
    assert [(one.signal, one.compared, one.first and one.first.step) for one in comparison.partings] == [
        ("loss", 2, 1),
        ("accuracy", 2, 0),
    ]


def test_vectors_are_compared_by_label(record):
    swapped = {"labels": {"norms": ("head", "stem")}}
    a = record((0, {"norms": (1.0, 2.0)}), (1, {"norms": (1.0, 2.0)}), (2, {"norms": (1.0, 2.0)}))
    b = record((0, {"norms": (2.0, 1.0)}, swapped), (1, {"norms": (7.0,)}, {"labels": {"norms": ("new",)}}))
    norms = parting(compare(a, b), "norms")
    assert (norms.compared, norms.first) == (1, None)
    unlabelled = record((0, {"norms": (1.0, 3.0)}, {"labels": {}}), (1, {"norms": (1.0, 4.0)}, {"labels": {}}))
    norms = parting(compare(unlabelled, record((0, {"norms": (1.0, 2.0)}, {"labels": {}}))), "norms")
    assert norms.first == Moment(attempt=0, step=0, update=0, label="1", a=3.0, b=2.0)


def test_a_signal_that_only_one_run_has_parts_nowhere(record):
    comparison = compare(record((0, {"loss": 1.0, "mine": 1.0})), record((0, {"loss": 1.0, "theirs": 1.0})))
    assert [one.signal for one in comparison.partings] == ["loss"]


def test_streams_are_compared_each_for_itself(record):
    def two(drift):
        rows: list[tuple[object, ...]] = []
        for step in range(4):
            rows.append((step, {"loss": 1.0}, {"update": 2 * step}))
            rows.append((step, {"loss": 1.0 + drift * (step == 2)}, {"stream": "critic", "update": 2 * step + 1}))
        return record(*rows)

    comparison = compare(two(0.0), two(1.0))
    assert parting(comparison, "loss").first is None
    assert parting(comparison, "loss", "critic").first == Moment(attempt=0, step=2, update=5, label="", a=1.0, b=2.0)
    assert [one.stream for one in comparison.lengths] == ["main", "critic"]
    alone = compare(two(0.0), record((0, {"loss": 1.0})))
    assert [one.stream for one in alone.partings] == ["main"]
    assert [(one.stream, one.rows_a, one.rows_b, one.last_step_b) for one in alone.lengths] == [
        ("main", 4, 1, 0),
        ("critic", 4, 0, -1),
    ]


def test_after_a_rollback_attempts_are_compared_with_their_like(record):
    def went_back(value):
        return record(
            *[(step, {"loss": 1.0}) for step in range(4)],
            *[(step, {"loss": value}, {"attempt": 1, "update": step + 2}) for step in range(2, 5)],
        )

    loss = parting(compare(went_back(1.0), went_back(2.0)), "loss")
    assert loss.first == Moment(attempt=1, step=2, update=4, label="", a=1.0, b=2.0)
    straight = record(*[(step, {"loss": 1.0}) for step in range(5)])
    comparison = compare(went_back(2.0), straight)
    assert parting(comparison, "loss").first is None
    (length,) = comparison.lengths
    assert (length.attempts_a, length.attempts_b, length.last_step_a, length.rows_a) == (2, 1, 4, 7)


# --- lengths, findings, last values ---------------------------------------------------------------


def test_a_killed_run_is_compared_as_far_as_it_came(record):
    a = record(*[(step, {"loss": 1.0}) for step in range(10)])
    b = record(*[(step, {"loss": 1.0}) for step in range(4)], close=False)
    with open(b.path / "signals" / "part-000001.jsonl", "ab") as file:
        file.write(b'[0,4,4,"ma')
    comparison = compare(a, b)
    (length,) = comparison.lengths
    assert (length.rows_a, length.rows_b, length.last_step_a, length.last_step_b) == (10, 4, 9, 3)
    assert (comparison.status_a, comparison.status_b) == ("finished", "running")
    assert parting(comparison, "loss").compared == 4
    assert comparison.remarks == (f"{b.id}: part-000001.jsonl line 7: the last line is torn and left out",)


def test_runs_without_a_row_can_be_compared(record):
    comparison = compare(record(), record((0, {"loss": 1.0})))
    assert (comparison.partings, comparison.first, comparison.last_values) == ((), None, ())
    assert (comparison.lengths[0].last_step_a, comparison.lengths[0].attempts_a) == (-1, 0)


def test_findings_are_told_by_whose_they_are(record):
    comparison = compare(record(findings=["b", "a", "both", "a"]), record(findings=["both", "c"]))
    assert (comparison.findings_only_a, comparison.findings_only_b) == (("a", "b"), ("c",))
    assert comparison.findings_both == ("both",)


def test_what_actions_did_is_told_of_each_run(tmp_path):
    def acted(name, *outcomes):
        writer = RunWriter.create(path=tmp_path / name)
        for action, step, result in outcomes:
            writer.outcome(Outcome(action=action, code="loss-spike", step=step, result=result, changes="weights"))
        writer.close()
        return Run(writer.path)

    one = acted("one", ("skip-step", 3, "done"), ("roll-back", 4, "done"), ("skip-step", 9, "done"))
    comparison = compare(one, acted("other", ("roll-back", 3, "declined")))
    assert comparison.answers_a == ("skip-step done, 2 times, first at step 3", "roll-back done at step 4")
    assert comparison.answers_b == ("roll-back declined at step 3",)


def test_last_values_are_those_of_shared_scalars(record):
    a = record((0, {"loss": 1.0, "accuracy": 0.1, "mine": 1.0}), (7, {"loss": NAN, "norms": (1.0, 2.0)}))
    b = record((3, {"loss": 0.25, "accuracy": 0.2, "norms": (1.0, 2.0)}))
    last = {one.signal: (one.step_a, one.a, one.step_b, one.b) for one in compare(a, b).last_values}
    assert repr(last) == repr({"loss": (7, NAN, 3, 0.25), "accuracy": (0, 0.1, 3, 0.2)})


# --- settings -------------------------------------------------------------------------------------


def test_what_was_set_differently_is_listed_by_dotted_key(record):
    a = record(
        config={"model": {"width": 64, "same": 1}, "limit": NAN, "amp": True, "layers": [1, 2], "old": None},
        settings={"argv": ["x.py", "--lr", "1"], "optimizer": [{"lr": 0.1, "eps": NAN}], "empty": {}},
        seed=1,
    )
    b = record(
        config={"model": {"width": 32, "same": 1}, "limit": NAN, "amp": 1, "layers": [1, 3], "new": "missing"},
        settings={"argv": ["x.py", "--lr", "2"], "optimizer": [{"lr": 0.2, "eps": NAN}, {"lr": 1}], "empty": {}},
        seed=2,
    )
    comparison = compare(a, b)
    assert comparison.config == (
        Difference(key="model.width", a=64, b=32),
        Difference(key="amp", a=True, b=1),
        Difference(key="layers", a=[1, 2], b=[1, 3]),
        Difference(key="old", a=None, b="missing"),
        Difference(key="new", a="missing", b="missing"),
    )
    assert [one.key for one in comparison.settings] == ["argv", "optimizer.0.lr", "optimizer.1.lr"]
    assert comparison.settings[2] == Difference(key="optimizer.1.lr", a="missing", b=1)
    assert comparison.facts == (Difference(key="seed", a=1, b=2),)


def test_another_environment_is_a_difference(record):
    a, b = record(), record()
    stored = json.loads((b.path / "environment.json").read_text())
    stored["packages"]["torch"] = "1.0"
    (b.path / "environment.json").write_text(json.dumps(stored))
    (difference,) = compare(a, b).environment
    assert (difference.key, difference.b) == ("packages.torch", "1.0")


def test_a_comparison_becomes_plain_values_and_strict_json(record):
    a = record((0, {"loss": 1.0}), findings=["x"])
    b = record((0, {"loss": NAN}), config={"rate": NAN})
    plain = compare(a, b, tolerance=0.5).as_dict()
    assert (plain["a"], plain["b"], plain["tolerance"], plain["findings_only_a"]) == (a.id, b.id, 0.5, ("x",))
    assert plain["first"] == plain["partings"][0]
    assert plain["first"]["first"]["step"] == 0
    shown = json.loads(safe_json(plain), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert shown["beyond"]["beyond"]["b"] == "NaN"
    assert compare(a, a).as_dict()["first"] is None


def test_the_stored_run_of_format_1_can_be_compared():
    stored = Run(Path(__file__).parents[1] / "runs" / "format-1")
    comparison = compare(stored, stored)
    assert comparison.first is None
    assert [(one.stream, one.rows_a) for one in comparison.lengths] == [("main", 11), ("critic", 1)]
