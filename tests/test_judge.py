"""The one place that judges: the life of findings, excuses and ignores, broken rules; and a replay says the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detectors.kit import row
from trimtab.detectors import DETECTORS, Detector, MilestoneMissed
from trimtab.judge import Coverage, Event, History, Ignore, Judge, failed, replay
from trimtab.milestone import Milestone
from trimtab.records import Finding, Note, Outcome, Severity, Signal, Unknown
from trimtab.trace import Best, Trace


@dataclass(frozen=True, kw_only=True)
class Hot(Detector):
    """The temperature is high: a warning above 10, an error above 100; unknown below zero."""

    reads: tuple[str, ...] = ("heat",)

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        heat = trace.scalar("heat")
        if heat is None or heat < 0:
            return self.unknown(trace, "there is no thermometer")
        if heat <= 10:
            return None
        return self.finding(
            trace,
            severity=Severity.ERROR if heat > 100 else Severity.WARNING,
            summary=f"heat {heat} at step {trace.step}",
            measured=heat,
            threshold=10.0,
        )


@dataclass(frozen=True, kw_only=True)
class HotParts(Detector):
    """Which parts are hot."""

    reads: tuple[str, ...] = ("parts",)

    def detect(self, trace: Trace) -> list[Finding]:
        parts = trace.vector("parts") or {}
        return [
            self.finding(
                trace, severity=Severity.WARNING, subject=name, summary=f"{name} at step {trace.step}",
                measured=heat, threshold=10.0,
            )
            for name, heat in parts.items()
            if heat > 10
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Breaks(Detector):
    """Raises when the heat is 13."""

    def detect(self, trace: Trace) -> None:
        if trace.scalar("heat") == 13:
            raise ZeroDivisionError("thirteen")


def heats(*values, start=0):
    return [row(step, {"heat": value}) for step, value in enumerate(values, start)]


def life(detector, values, notes=(), ignores=()):
    """What happened, as (event, severity, step), or the reason of an Unknown."""
    happened, _ = replay([detector], heats(*values), notes, ignores=ignores)
    return [(e.event, str(e.severity), e.step) if isinstance(e, Finding) else e.reason for e in happened]


# --- the life of a finding --------------------------------------------------------------------------


def test_a_finding_opens_worsens_and_resolves_once_each():
    assert life(Hot(), [1, 20, 30, 500, 600, 50, 1, 1, 20]) == [
        ("opened", "warning", 1), ("worsened", "error", 3), ("resolved", "error", 6), ("opened", "warning", 8),
    ]  # fmt: skip


def test_it_opens_after_so_many_judgements_in_a_row_and_keeps_its_first_step():
    happened, _ = replay([Hot(confirm=3)], heats(20, 20, 1, 20, 20, 20))
    assert [(e.event, e.step, e.since_step) for e in happened if isinstance(e, Finding)] == [("opened", 5, 3)]


def test_it_resolves_after_so_many_clear_judgements_in_a_row():
    assert life(Hot(release=3), [20, 1, 1, 20, 1, 1, 1, 1]) == [("opened", "warning", 0), ("resolved", "warning", 6)]


def test_a_pause_shorter_than_the_release_does_not_move_its_beginning():
    happened, _ = replay([Hot(release=3)], heats(20, 1, 20, 500))
    assert [(e.event, e.since_step) for e in happened if isinstance(e, Finding)] == [("opened", 0), ("worsened", 0)]


def test_a_rule_may_say_itself_since_when():
    @dataclass(frozen=True, kw_only=True)
    class Since(Hot):
        def detect(self, trace: Trace) -> Finding | Unknown | None:
            verdict = super().detect(trace)
            return replace(verdict, since_step=1) if isinstance(verdict, Finding) else verdict

    (opened,), _ = replay([Since(confirm=2)], heats(1, 1, 1, 20, 20))
    assert isinstance(opened, Finding)
    assert (opened.step, opened.since_step) == (4, 1)


def test_the_judge_fills_in_who_when_and_where():
    rows = [row(step, {"heat": heat}, stream="critic") for step, heat in enumerate([1, 20])]
    (opened,), _ = replay([Hot(version=7)], rows)
    assert isinstance(opened, Finding)
    assert (opened.id, opened.code, opened.stream, opened.version) == ("F0001", "hot", "critic", 7)


def test_subjects_live_side_by_side():
    labels = {"parts": ("a", "b")}
    rows = [row(step, {"parts": parts}, labels) for step, parts in enumerate([(20, 1), (20, 20), (1, 20), (1, 1)])]
    happened, _ = replay([HotParts()], rows)
    assert [(e.event, e.subject, e.step, e.id) for e in happened if isinstance(e, Finding)] == [
        ("opened", "a", 0, "F0001"), ("opened", "b", 1, "F0002"), ("resolved", "a", 2, "F0001"),
        ("resolved", "b", 3, "F0002"),
    ]  # fmt: skip


def test_streams_live_side_by_side_and_a_rule_about_the_run_is_asked_in_main_alone():
    rows = [row(0, {"heat": 20}, stream=stream) for stream in ("main", "critic")]
    both, _ = replay([Hot()], rows)
    one, _ = replay([Hot(per_stream=False)], rows)
    assert [e.stream for e in both] == ["main", "critic"]
    assert [e.stream for e in one] == ["main"]


def test_a_rule_is_asked_only_when_one_of_its_signals_arrives():
    rows = [row(0, {"heat": 20}), row(1, {"loss": 1.0}), row(2, {"heat": 20})]
    happened, _ = replay([Hot(confirm=2), Breaks()], rows)
    assert [e.step for e in happened] == [2]


def test_open_findings_can_be_asked_for():
    history = History(Judge([Hot()]))
    for each in heats(20, 30):
        history.add(each)
    assert [finding.step for finding in history.judge.open()] == [0]
    history.add(heats(1, start=2)[0])
    assert history.judge.open() == []


# --- unknown ----------------------------------------------------------------------------------------


def test_not_being_able_to_judge_is_said_once_and_so_is_being_able_again():
    assert life(Hot(), [-1, -1, 1, -1]) == ["there is no thermometer", "", "there is no thermometer"]


def test_an_unknown_in_between_neither_opens_nor_resolves():
    assert life(Hot(confirm=2), [20, -1, 20]) == ["there is no thermometer", "", ("opened", "warning", 2)]
    assert life(Hot(), [20, -1, 20]) == [("opened", "warning", 0), "there is no thermometer", ""]


def test_the_coverage_says_who_judged_and_why_others_did_not():
    never_asked = Hot(code="hotter", reads=("more heat",))
    _, judge = replay([Hot(), HotParts(), never_asked], heats(-1))
    assert judge.coverage() == Coverage(
        judged=[],
        unknown={
            "hot": "there is no thermometer",
            "hot-parts": "parts was not measured",
            "hotter": "there is no thermometer",
        },
    )
    _, judge = replay([Hot(), HotParts()], heats(-1, 5))
    assert str(judge.coverage()) == "judged 1 of 2; not judged: hot-parts (parts was not measured)"
    _, judge = replay([Hot()], heats(5))
    assert str(judge.coverage()) == "judged 1 of 1"


def test_many_rules_that_could_not_judge_are_counted_and_not_all_named():
    never_asked = [Hot(code=f"hot-{name}", reads=("more heat",)) for name in "abcd"]
    _, judge = replay([Hot(), *never_asked], heats(5))
    because = "there is no thermometer"
    assert str(judge.coverage()) == (
        f"judged 1 of 5; not judged: hot-a ({because}), hot-b ({because}) and 2 more, which `trimtab diagnose` lists"
    )


# --- excuses and ignores ----------------------------------------------------------------------------


def test_what_was_announced_is_only_info_and_the_excuse_expires():
    notes = [Note(kind="summer", step=1, until=3, after_rows=1)]
    detector = Hot(excused_by=("summer",))
    assert life(detector, [1, 20, 20, 20, 20], notes) == [("opened", "info", 1), ("worsened", "warning", 4)]
    (opened, *_), _ = replay([detector], heats(1, 20), notes)
    assert isinstance(opened, Finding)
    assert opened.excused_by == "summer"


def test_a_note_of_another_kind_excuses_nothing():
    assert life(Hot(excused_by=("summer",)), [20], [Note(kind="winter", step=0)]) == [("opened", "warning", 0)]


def test_an_ignored_finding_is_left_out_and_counted_once_for_each_time_it_would_have_opened():
    ignores = [Ignore(code="hot", because="it is a stove")]
    happened, judge = replay([Hot()], heats(20, 20, 500, 1, 20), ignores=ignores)
    assert happened == []
    assert judge.ignored == {"hot": 2}


def test_an_ignore_may_name_subjects_by_pattern():
    labels = {"parts": ("head.a", "body.b")}
    rows = [row(0, {"parts": (20, 20)}, labels)]
    happened, judge = replay([HotParts()], rows, ignores=[Ignore.parse("hot-parts@head.*")])
    assert [e.subject for e in happened if isinstance(e, Finding)] == ["body.b"]
    assert judge.ignored == {"hot-parts@head.*": 1}


@pytest.mark.parametrize("text", ["hot", "hot@head.*"])
def test_an_ignore_is_written_as_it_is_read(text):
    assert str(Ignore.parse(text, because="why")) == text


# --- failing open -----------------------------------------------------------------------------------


def test_a_rule_that_raises_is_left_out_and_noted_and_the_others_go_on():
    happened, judge = replay([Breaks(), Hot()], heats(1, 13, 20, 13))
    assert [(e.code, e.step) for e in happened] == [("hot", 1)]
    assert [(note.kind, note.step, note.facts["part"], note.text) for note in judge.failures] == [
        ("trimtab-failed", 1, "detector breaks", "ZeroDivisionError: thirteen")
    ]
    assert "ZeroDivisionError" in judge.disabled["breaks"]
    assert judge.coverage().unknown == {"breaks": "the rule itself failed"}


def test_a_rule_that_returns_something_else_is_left_out_too():
    @dataclass(frozen=True, kw_only=True)
    class Odd(Detector):
        def detect(self, trace: Trace) -> Any:
            return ["hot"]

    _, judge = replay([Odd()], heats(1))
    assert "detector odd returned a sequence with a str in it; return a Finding" in judge.failures[0].text


def test_two_rules_of_one_code_are_refused():
    with pytest.raises(ValueError, match="two detectors share the code hot; give each its own"):
        Judge([Hot(), Hot(confirm=2)])


def test_a_failure_has_a_text_of_bounded_length():
    assert len(failed("sensor loss", ValueError("x" * 9999), 3).text) == 500


# --- going back -------------------------------------------------------------------------------------


def rollback(to_step, after_rows, step=9):
    return Outcome(
        action="roll-back", code="hot", step=step, result="done", changes="weights", to_step=to_step,
        after_rows=after_rows,
    )  # fmt: skip


def test_after_a_rollback_the_next_attempt_begins_with_a_clean_record():
    rows = [*heats(1, 1, 20), *(row(step, {"heat": 20}, attempt=1) for step in (1, 2))]
    happened, judge = replay([Hot()], rows, outcomes=[rollback(0, 3)])
    assert [(e.event, e.attempt, e.step) for e in happened if isinstance(e, Finding)] == [
        ("opened", 0, 2), ("opened", 1, 1),
    ]  # fmt: skip
    assert [finding.attempt for finding in judge.open()] == [1]


def test_a_stream_that_first_appears_after_a_rollback_belongs_to_that_attempt():
    rows = [*heats(1, 1), row(1, {"heat": 20}, attempt=1), row(0, {"heat": 20}, stream="critic", attempt=1)]
    happened, _ = replay([Hot()], rows, outcomes=[rollback(0, 2)])
    assert [(e.stream, e.attempt) for e in happened] == [("main", 1), ("critic", 1)]


@pytest.mark.parametrize("outcome", [replace(rollback(0, 1), result="declined"), replace(rollback(0, 1), to_step=None)])
def test_an_outcome_that_did_not_go_back_changes_nothing(outcome):
    happened, _ = replay([Hot()], heats(20, 20), outcomes=[outcome])
    assert [e.step for e in happened] == [0]


# --- replay equals live -----------------------------------------------------------------------------

NUMBERS = st.one_of(st.floats(width=32, allow_nan=True, allow_infinity=True), st.sampled_from([0.0, 1.0, 2.0, 20.0]))
VECTORS = st.lists(st.sampled_from([0.0, 1.0, 0.5]), min_size=3, max_size=3)
SCALARS = (
    "loss", "gradient_norm", "gradients_carried", "chance_level", "loss_terms", "squashed_before_loss", "heat",
    "target_fingerprint", "input_fingerprint", "batch_rows", "loader_rows", "update_skipped", "nonfinite_weights",
    "trimtab_failures", "responses_spent", "trimtab_seconds",
)  # fmt: skip
SERIES = (
    "learning_rate", "update_ratio", "update_norms", "gradient_norms", "gradient_missing", "parameter_trainable",
    "parameter_held", "parameter_reached",
)  # fmt: skip
LABELS = dict.fromkeys(SERIES, ("a", "b", "c"))
KINDS = ("trimtab-failed", "response-budget-spent", "data-change", "freeze", "metric")
STEP: st.SearchStrategy[Any] = st.tuples(
    st.just("row"),
    st.fixed_dictionaries({}, optional=dict.fromkeys(SCALARS, NUMBERS) | dict.fromkeys(SERIES, VECTORS)),
    st.sampled_from(["main", "critic"]),
    st.integers(0, 2),
)
SAID: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.just("note"), st.sampled_from(KINDS), st.sampled_from(["", "hot", "loss"]), st.integers(0, 9)),
    st.tuples(st.just("back"), st.integers(0, 12), st.sampled_from(["done", "declined", "failed"])),
)
WIRED = tuple(
    replace(d, milestones=(Milestone(metric="loss", comparison="<=", value=0.5, by_step=5),))
    if isinstance(d, MilestoneMissed)
    else replace(d, confirm=1 + i % 2, release=1 + i % 3)
    for i, d in enumerate(DETECTORS)
)
RULES = (*WIRED, Hot(excused_by=("data-change",), folds=(Best("heat"),)), Breaks())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(STEP, STEP, STEP, SAID), max_size=80))
def test_a_replay_of_what_was_written_says_exactly_what_was_said_live(story):
    history = History(Judge(RULES, [Ignore.parse("hot")]))
    live: list[Event] = []
    rows: list[Signal] = []
    notes: list[Note] = []
    outcomes: list[Outcome] = []

    def note(record: Note) -> None:
        notes.append(replace(record, after_rows=len(rows)))
        history.tell(notes[-1])

    for kind, *facts in story:
        if kind == "row":
            values, stream, ahead = facts
            trace = history.traces.get(stream)
            step = max(trace.step if trace is not None else 0, 0) + ahead
            rows.append(row(step, values, LABELS, stream, update=len(rows), attempt=history.attempt))
            live += history.add(rows[-1])
            failures, history.judge.failures = history.judge.failures, []
            for failure in failures:
                note(failure)
        elif kind == "note":
            word, code, steps = facts
            at = max((trace.step for trace in history.traces.values()), default=0)
            told = {"part": code, "code": code, "action": "stop", "at_most": float(steps)}
            note(Note(kind=word, step=at, until=at + steps, facts=told))
        else:
            steps, result = facts
            at = max((trace.step for trace in history.traces.values()), default=0)
            outcomes.append(replace(rollback(at - steps, len(rows), at), result=result))
            history.tell(outcomes[-1])

    again, judge = replay(RULES, rows, notes, outcomes, [Ignore.parse("hot")])
    assert repr(again) == repr(live)
    assert judge.coverage() == history.judge.coverage()
    assert judge.ignored == history.judge.ignored
    assert repr(judge.open()) == repr(history.judge.open())
    assert set(judge.disabled) <= {"breaks"}
