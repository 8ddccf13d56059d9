"""What every detector of the catalogue must keep, on stored traces of its own and of all others."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

import trimtab.detectors
from tests.detectors.kit import BY_CODE, Story, row, stories
from tests.traces.make import files
from trimtab.detectors import DETECTORS, Detector, MilestoneMissed
from trimtab.judge import History, Judge, replay
from trimtab.milestone import Milestone
from trimtab.records import Finding, Severity, Signal, Unknown
from trimtab.sensors import SENSORS
from trimtab.trace import Fold, Trace

HEADINGS = ("What it sees.", "Why it matters.", "Evidence it shows.", "False alarms.", "What to try.", "Since.")
OF_THE_GUARD = {"trimtab_failures", "trimtab_seconds", "responses_spent"}
"""Signals that the Guard writes itself."""
FIRES, SILENT = stories("fires"), stories("silent")
PICTURED = 8
"""Of so many rows one has its whole trace compared, and so has each of those after which the verdict changes."""
MILESTONE = Milestone(metric="validation/accuracy", comparison=">=", value=0.5, by_step=3)


def name_of(story: Story) -> str:
    return "/".join(story.path.parts[-3:]).removesuffix(".jsonl")


def alarms(story: Story) -> list[Finding]:
    """Opened and worsened findings at warning or above; a rule that raised fails the test."""
    happened, judge = replay(story.detectors(), story.rows, story.notes)
    assert judge.disabled == {}
    return [e for e in happened if isinstance(e, Finding) and e.event != "resolved" and e.severity >= Severity.WARNING]


@pytest.fixture(params=DETECTORS, ids=lambda detector: detector.code)
def detector(request):
    return request.param


def test_the_catalogue_holds_every_file_of_the_folder_and_nothing_twice():
    stems = {path.stem for path in Path(trimtab.detectors.__file__).parent.glob("[a-z]*.py")}
    assert sorted(detector.code.replace("-", "_") for detector in DETECTORS) == sorted(stems)


def test_its_code_is_the_stem_of_its_file(detector):
    assert Path(inspect.getfile(type(detector))).stem == detector.code.replace("-", "_")
    assert type(detector).code == detector.code


def test_it_tells_its_story_under_the_fixed_headings_in_order(detector):
    lines = inspect.cleandoc(type(detector).__doc__ or "").splitlines()
    places = [lines.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    assert lines[0].endswith(".")
    assert all(lines[place + 1].strip() for place in places)
    assert lines[0] == (inspect.getmodule(type(detector)).__doc__ or "").strip()


def test_each_of_its_own_thresholds_says_where_it_comes_from(detector):
    shared = {field.name for field in dataclasses.fields(Detector)}
    source = inspect.getsource(type(detector)).splitlines()
    for field in dataclasses.fields(detector):
        if field.name not in shared:
            place = next(i for i, line in enumerate(source) if line.startswith(f"    {field.name}: "))
            assert source[place + 1].strip().startswith('"""'), field.name


def test_it_is_frozen_and_equal_to_another_of_its_kind(detector):
    assert type(detector)() == detector
    assert hash(type(detector)()) == hash(detector)
    with pytest.raises(dataclasses.FrozenInstanceError):
        detector.confirm = 2


def test_somebody_writes_the_signals_that_it_reads(detector):
    if isinstance(detector, MilestoneMissed):
        detector = dataclasses.replace(detector, milestones=(MILESTONE,))
    documented = " ".join(inspect.getdoc(type(sensor)) or "" for sensor in SENSORS)
    wanted = {*detector.reads, *(fold.reads for fold in detector.folds)} - OF_THE_GUARD - {MILESTONE.metric}
    assert [name for name in sorted(wanted) if f"`{name}`" not in documented] == []


def test_it_has_traces_on_which_it_fires_and_on_which_it_stays_silent(detector):
    assert len(stories("fires", detector.code)) >= 2
    assert len(stories("silent", detector.code)) >= 3


def test_the_stored_traces_are_what_make_writes():
    stored = {path: path.read_text(encoding="utf-8") for path in Path("tests/traces").absolute().rglob("*.jsonl")}
    assert stored == files()
    assert max(len(text) for text in stored.values()) < 40_000


@pytest.mark.parametrize("story", FIRES, ids=name_of)
def test_it_fires_in_time_on_its_fault(story):
    code = story.path.parts[-3]
    own = [alarm for alarm in alarms(story) if alarm.code == code]
    assert own
    assert own[0].step <= story.by
    assert own[0].event == "opened"


@pytest.mark.parametrize("story", FIRES, ids=name_of)
def test_what_it_says_shows_its_numbers(story):
    code = story.path.parts[-3]
    finding = next(alarm for alarm in alarms(story) if alarm.code == code)
    assert "step" in finding.summary
    assert any(character.isdigit() for character in finding.summary)
    assert len(finding.summary) < 400
    assert finding.evidence
    assert 0 <= finding.since_step <= finding.step


@pytest.mark.parametrize("story", SILENT, ids=name_of)
def test_nobody_fires_on_a_healthy_trace(story):
    assert [(alarm.code, alarm.step, alarm.summary) for alarm in alarms(story)] == []


@pytest.mark.parametrize("story", SILENT, ids=name_of)
def test_a_silent_trace_is_judged_by_the_rule_whose_it_is(story):
    code = story.path.parts[-3]
    _, judge = replay([story.fit(BY_CODE[code])], story.rows, story.notes)
    assert judge.coverage().judged == [code]


@pytest.mark.parametrize("story", [*FIRES, *SILENT], ids=name_of)
def test_judging_changes_nothing_and_says_the_same_twice(story):
    detector = story.fit(BY_CODE[story.path.parts[-3]])
    history = History(Judge([detector]))
    for note in story.notes:
        history.tell(note)
    verdict: type = object
    for place, each in enumerate(story.rows):
        history.add(each)
        trace = history.traces[each.stream]
        folds = set(trace._folds)
        before = picture(trace, folds) if place % PICTURED == 0 else None
        first = detector.detect(trace)
        if before is None and type(first) is not verdict:  # it reached code that it had not reached before
            before, verdict = picture(trace, folds), type(first)
        assert repr(first) == repr(detector.detect(trace))
        assert before is None or picture(trace, folds) == before


def picture(trace: Trace, known: set[Fold[Any]]) -> str:
    """Everything that a trace remembers, as text (NaN equals itself there).

    A summary of a metric whose name nobody knew beforehand is begun when it is first asked for; it is no change.
    """
    series = {name: (entry.steps[-4:], entry.values[-4:], entry.count) for name, entry in trace._series.items()}
    folds = {fold: kept.state for fold, kept in trace._folds.items() if fold in known}
    return repr((trace.step, trace.rows, trace.row, series, folds, trace.notes))


@pytest.mark.parametrize("story", [s for s in FIRES if "milestone" in name_of(s)][:1] + SILENT[:1], ids=name_of)
def test_it_declares_every_fold_that_it_reads(story):
    for detector in story.detectors():
        history = History(Judge([detector]))
        for each in story.rows:
            history.add(each)
        for trace in history.traces.values():
            assert set(trace._folds) == set(detector.folds)


def test_it_cannot_judge_what_was_never_measured(detector):
    trace = Trace()
    assert isinstance(detector.detect(trace), Unknown)
    trace.append(row(0, {"something_else": 1.0}))
    verdict = detector.detect(trace)
    silent_by_nature = {"trimtab-failed", "response-budget-spent"}  # nothing noted is nothing to report
    assert isinstance(verdict, Unknown) or detector.code in silent_by_nature
    if isinstance(verdict, Unknown):
        assert len(verdict.reason) > 10
        assert verdict.code == detector.code


def without(story: Story, gone: str) -> list[Signal]:
    """The first rows of a story, in which one signal was never measured."""
    return [
        dataclasses.replace(each, values={name: value for name, value in each.values.items() if name != gone})
        for each in story.rows[:64]
    ]


def names_in(story: Story) -> list[str]:
    return sorted({name for each in story.rows for name in each.values})


@pytest.mark.parametrize("story", [*FIRES, *SILENT], ids=name_of)
def test_a_rule_does_not_raise_on_its_own_traces_when_any_one_signal_is_missing(story):
    detector = story.fit(BY_CODE[story.path.parts[-3]])
    for gone in names_in(story):
        _, judge = replay([detector], without(story, gone), story.notes)
        assert judge.disabled == {}, gone


def carriers() -> list[tuple[str, Story]]:
    """Each signal of the stored traces, with the two of them that hold it beside the most others."""
    stored = [*FIRES, *SILENT]
    held = {id(story): set(names_in(story)) for story in stored}
    rich = sorted(stored, key=lambda story: -len(held[id(story)]))
    every = sorted(set().union(*held.values()))
    return [(name, story) for name in every for story in [one for one in rich if name in held[id(one)]][:2]]


@pytest.mark.parametrize(("gone", "story"), carriers(), ids=lambda value: value if isinstance(value, str) else "")
def test_no_rule_raises_when_one_signal_is_missing(gone, story):
    _, judge = replay(story.detectors(), without(story, gone), story.notes)
    assert judge.disabled == {}


@pytest.mark.slow
@pytest.mark.parametrize("story", [*FIRES, *SILENT], ids=name_of)
def test_no_rule_raises_on_any_trace_when_any_one_signal_is_missing(story):
    for gone in names_in(story):
        _, judge = replay(story.detectors(), without(story, gone), story.notes)
        assert judge.disabled == {}, gone
