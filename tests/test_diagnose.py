"""A verdict says what a run's record says: findings, coverage, causes, what to do; and it can be stored."""

import json
import math
import sys
from dataclasses import replace

import pytest

from trimtab.detectors import DETECTORS, LoggedLossNotFinite, MilestoneMissed
from trimtab.diagnose import diagnose, settings_changed
from trimtab.errors import RunError, UserError
from trimtab.hypotheses import NONE_OF_THESE, Gate, Hypothesis, Weight
from trimtab.hypotheses._weigh import SETTINGS_DECIBANS
from trimtab.judge import History, Judge
from trimtab.milestone import Milestone
from trimtab.records import Finding, Note, Outcome, Remedy, Severity, Signal, Unknown
from trimtab.report.catalogue import explain, own_entries
from trimtab.report.page import answer_rows, finding_rows
from trimtab.run import Run, RunWriter, safe_json
from trimtab.system import find_system

JUDGED = ("gradients-accumulate", "loss-not-finite", "gradient-exploding")
PLAIN = {"loss": 1.0, "gradient_norm": 0.5, "gradients_carried": 0.0}


def finding(code="gradients-accumulate", severity=Severity.ERROR, *, event="opened", id="F0001", **facts):
    plain = Finding(
        code=code, severity=severity, step=4, since_step=1, summary=f"{code} it is", measured=4.0, threshold=4.0,
        event=event, id=id,
    )  # fmt: skip
    return replace(plain, **facts)


def write(root, events=(), *, ended="finished", how=None, judged=JUDGED, not_judged=None, notes=(), outcomes=(),
          rows=(), config=None, settings=None, ignored=None, **facts):  # fmt: skip
    """A run folder with exactly these records."""
    writer = RunWriter.create(root, config=config or {}, **{"name": "net", **facts})
    if settings is not None:
        writer.settings(settings)
    for row in rows:
        writer.row(row)
    for event in events:
        writer.event(event)
    for note in notes:
        writer.note(note)
    for outcome in outcomes:
        writer.outcome(outcome)
    if ended is not None:
        writer.update(judged=list(judged), not_judged=dict(not_judged or {}), ignored=dict(ignored or {}))
        writer.close(ended, how)
    writer.wait()
    return Run(writer.path)


def signals(steps, **changes):
    """Plain rows; a value in `changes` is a function of the step."""
    for step in range(steps):
        values = PLAIN | {name: value(step) for name, value in changes.items()}
        yield Signal(step=step, update=step, time=float(step), values=values)


def watched(root, rows, *, milestones=(), close=True, detectors=DETECTORS):
    """A run as a Guard writes it: its rows, what today's rules said about them, and what was judged."""
    rules = [replace(d, milestones=milestones) if isinstance(d, MilestoneMissed) else d for d in detectors]
    declared = [
        {"metric": m.metric, "comparison": m.comparison, "value": m.value, "by_step": m.by_step} for m in milestones
    ]
    writer = RunWriter.create(root, config={"trimtab": {"detectors": {"milestone-missed": {"milestones": declared}}}})
    history = History(Judge(rules))
    for row in rows:
        writer.row(row)
        for event in history.add(row):
            writer.event(event)
    if close:
        coverage = history.judge.coverage()
        writer.update(judged=coverage.judged, not_judged=coverage.unknown, ignored={})
        writer.close("finished")
    writer.wait()
    return Run(writer.path)


def cause(name, *weights, prior=0.0):
    return Hypothesis(
        cause=name, summary=f"It is {name}.", gate=Gate.REST, prior=prior, evidence=weights, probe=f"{name}-is-not-so",
        remedies=(Remedy(kind="text", text="mend it"),),
    )  # fmt: skip


# --- what is said -----------------------------------------------------------------------------------


def test_a_clean_run_says_what_was_judged(tmp_path):
    verdict = diagnose(write(tmp_path, not_judged={"double-softmax": "no loss function was recognised"}))
    assert verdict.headline == "nothing wrong found; judged 3 of 4"
    assert verdict.next_action == "nothing"
    assert verdict.severity is None
    assert verdict.diagnoses == ()
    assert verdict.judged == JUDGED
    assert verdict.unknown == {"double-softmax": "no loss function was recognised"}


def test_a_run_without_measurements_is_not_called_healthy(tmp_path):
    verdict = diagnose(write(tmp_path, judged=(), not_judged={"loss-not-finite": "loss was not measured"}))
    assert verdict.headline == "nothing could be judged: no rule had what it reads"


def test_a_fault_is_named_with_its_cause_and_remedy(tmp_path):
    verdict = diagnose(write(tmp_path, [finding()]))
    assert verdict.headline == "error: gradients accumulate since step 1; most likely cause: missing-zero-grad"
    assert verdict.next_action == verdict.diagnoses[0].remedies[0].text
    assert "zero_grad" in verdict.next_action
    assert verdict.severity is Severity.ERROR
    assert [(d.cause, d.score) for d in verdict.diagnoses] == [("missing-zero-grad", 20.0), (NONE_OF_THESE, 0.0)]


@pytest.mark.parametrize(
    ("ended", "how", "words"),
    [
        ("failed", {"reason": "RuntimeError: boom"}, "; the program failed (RuntimeError: boom)"),
        ("killed", {"reason": "killed by SIGKILL"}, "; the program was killed (killed by SIGKILL)"),
        ("failed", None, "; the program failed"),
        ("stopped", {"reason": "asked"}, ""),
    ],
)
def test_how_the_program_ended_is_part_of_the_headline(tmp_path, ended, how, words):
    assert diagnose(write(tmp_path, ended=ended, how=how)).headline == f"nothing wrong found; judged 3 of 3{words}"


def test_info_alone_gives_no_causes(tmp_path):
    verdict = diagnose(write(tmp_path, [finding("same-batch-repeated", Severity.INFO)]))
    assert verdict.headline.startswith("nothing wrong found")
    assert verdict.severity is Severity.INFO
    assert verdict.diagnoses == ()


def test_an_excused_finding_is_info(tmp_path):
    excused = finding("gradient-exploding", Severity.INFO, excused_by="data-change")
    verdict = diagnose(write(tmp_path, [excused]))
    assert verdict.severity is Severity.INFO
    assert verdict.findings == (excused,)


def test_the_headline_names_what_the_leading_cause_explains(tmp_path):
    nan = finding("loss-not-finite", since_step=7, measured=math.nan, id="F0002")
    verdict = diagnose(write(tmp_path, [replace(nan, since_step=0), finding()]))
    assert verdict.headline == "error: gradients accumulate since step 1; most likely cause: missing-zero-grad"


def test_two_close_causes_are_told_apart_by_a_probe(tmp_path):
    run = write(tmp_path, [finding("smoke")])
    fire, steam = (cause(name, Weight("smoke", size, why="")) for name, size in (("fire", 12.0), ("steam", 8.0)))
    verdict = diagnose(run, hypotheses=[fire, steam])
    assert verdict.next_action == (
        'test the claim "fire is not so", which tells fire from steam; if it is the first, mend it'
    )
    assert diagnose(run, hypotheses=[fire, replace(steam, prior=-2.0)]).next_action == "mend it"


def test_a_cause_close_to_none_of_these_is_tested_first(tmp_path):
    run = write(tmp_path, [finding("smoke")])
    verdict = diagnose(run, hypotheses=[cause("fire", Weight("smoke", 3.0, why=""))])
    assert verdict.next_action == 'test the claim "fire is not so", which decides; if it fails, mend it'


def test_without_a_likely_cause_the_verdict_says_so(tmp_path):
    run = write(tmp_path, [finding("smoke")])
    verdict = diagnose(run, hypotheses=[cause("fire", Weight("smoke", 3.0, why=""), prior=-9.0)])
    assert [d.cause for d in verdict.diagnoses] == [NONE_OF_THESE, "fire"]
    assert verdict.headline == "error: smoke since step 1; no known cause explains it well"
    assert verdict.next_action == 'test the claim "fire is not so": it says whether fire is the cause'
    assert diagnose(run, hypotheses=[]).next_action == "look at the evidence of the findings; no known cause fits them"


# --- which findings count ----------------------------------------------------------------------------


def test_the_last_event_of_each_finding_stands_with_the_step_of_its_opening(tmp_path):
    events = [
        finding("loss-not-finite", Severity.ERROR, step=5),
        finding("gradients-accumulate", id="F0002", step=6),
        finding("loss-not-finite", Severity.FATAL, event="worsened", step=8),
        finding("loss-not-finite", Severity.FATAL, event="resolved", step=20),
    ]
    verdict = diagnose(write(tmp_path, events))
    assert [(f.id, f.event, f.step) for f in verdict.findings] == [("F0001", "resolved", 20), ("F0002", "opened", 6)]
    assert verdict.opened_at == {"F0001": 5, "F0002": 6}
    assert verdict.severity is Severity.FATAL


def test_causes_are_weighed_by_how_a_finding_was_opened(tmp_path):
    nan = {"loss": math.nan, "gradient_norm": math.nan, "input_nonfinite": 0.0, "update_ratio": 1e-3}
    events = [
        finding("loss-not-finite", evidence=nan | {"nonfinite_weights": 0.0}),
        finding("loss-not-finite", Severity.FATAL, event="worsened", evidence=nan | {"nonfinite_weights": 6.0}),
    ]
    verdict = diagnose(write(tmp_path, events))
    assert verdict.headline.startswith("fatal: loss not finite")
    assert verdict.diagnoses[0].cause == "numerical-fault-in-loss"


def test_findings_about_trimtab_itself_feed_no_cause(tmp_path):
    broken = finding("trimtab-failed", Severity.WARNING, summary="sensor x failed at step 3")
    run = write(tmp_path, [broken])
    verdict = diagnose(run, hypotheses=[cause("fire", Weight("trimtab-failed", 30.0, why=""))])
    assert verdict.diagnoses == ()
    assert verdict.severity is Severity.WARNING
    assert verdict.next_action == "read what trimtab-failed says: sensor x failed at step 3"


def test_after_a_rollback_the_new_attempt_alone_is_judged(tmp_path):
    back = Outcome(action="roll-back", code="loss-not-finite", step=9, result="done", changes="weights", to_step=3)
    events = [finding("loss-not-finite", Severity.FATAL)]
    verdict = diagnose(write(tmp_path, events, outcomes=[back]))
    assert verdict.severity is None
    assert [f.attempt for f in verdict.findings] == [0]
    assert "attempt 2 of the training is judged; findings of earlier ones are only listed" in verdict.remarks
    declined = replace(back, result="declined")
    assert diagnose(write(tmp_path, events, outcomes=[declined])).severity is Severity.FATAL


def test_what_a_training_went_back_for_is_told_and_explained_although_it_is_over(tmp_path):
    back = Outcome(action="roll-back", code="loss-not-finite", step=9, result="done", changes="weights", to_step=3)
    fire = cause("fire", Weight("loss-not-finite", 20.0, why=""))
    events = [finding("loss-not-finite", Severity.FATAL, step=9, since_step=8)]
    verdict = diagnose(write(tmp_path, events, outcomes=[back]), hypotheses=[fire])
    assert verdict.headline == (
        "nothing wrong since the training went back to step 3; until then fatal: loss not finite since step 8; "
        "most likely cause: fire"
    )
    assert verdict.diagnoses[0].cause == "fire"
    assert verdict.outcomes == (back,)
    (row,) = finding_rows(verdict, {"main": 50})
    assert (row.when, row.open, row.earlier) == ("steps 8 to 9", False, True)
    again = finding("loss-not-finite", step=30, since_step=30, attempt=1, id="F0002")
    verdict = diagnose(write(tmp_path, [*events, again], outcomes=[back]), hypotheses=[fire])
    assert verdict.headline == "error: loss not finite since step 30; most likely cause: fire"
    resumed = diagnose(write(tmp_path, events, outcomes=[replace(back, action="resume")]), hypotheses=[fire])
    assert resumed.headline.startswith("nothing wrong since the training was gone on with from step 3; until then")


def test_the_action_that_ended_a_run_is_named(tmp_path):
    stop = Outcome(action="early-stop", code="patience-spent", step=9, result="done", changes="weights", stops=True)
    assert diagnose(write(tmp_path, outcomes=[stop], ended="stopped")).headline.endswith(
        "; ended by early-stop at step 9"
    )


def test_the_same_answer_many_times_is_one_line(tmp_path):
    skip = Outcome(action="skip-step", code="loss-spike", step=3, result="done", changes="weights", because="left out")
    skips = [replace(skip, step=step) for step in range(3, 9)]
    rows = answer_rows([*skips, replace(skip, step=9, result="declined")])
    assert [(row.steps, row.action) for row in rows] == [
        ("3 to 8", "skip-step done, 6 times"),
        ("9", "skip-step declined"),
    ]


def test_what_the_user_ignores_does_not_count_as_absent(tmp_path):
    nan = finding("loss-not-finite", evidence={"gradient_norm": math.nan})
    cold = cause(
        "fire", Weight("loss-not-finite", 9.0, why=""), Weight("gradients-accumulate", 5.0, absent=True, why="")
    )
    seen = diagnose(write(tmp_path, [nan]), hypotheses=[cold])
    assert seen.diagnoses[0].score == 14.0
    ignored = diagnose(write(tmp_path, [nan], ignored={"gradients-accumulate@main": 2}), hypotheses=[cold])
    assert ignored.diagnoses[0].score == 9.0
    assert ignored.diagnoses[0].unknown == ("gradients-accumulate",)
    assert [str(one) for one in ignored.ignored] == ["gradients-accumulate@main: left out 2 findings"]


def test_an_unknown_is_listed_where_it_could_have_changed_the_score(tmp_path):
    run = write(
        tmp_path, [finding()], judged=["gradients-accumulate"], not_judged={"loss-far-from-chance": "no chance"}
    )
    unknown = {d.cause: d.unknown for d in diagnose(run).diagnoses}
    assert unknown["missing-zero-grad"] == ()
    exploding = finding("gradient-exploding", evidence={"update_ratio": 0.5})
    run = write(tmp_path, [exploding], judged=["gradient-exploding"], not_judged={"loss-far-from-chance": "no chance"})
    unknown = {d.cause: d.unknown for d in diagnose(run).diagnoses}
    assert unknown["learning-rate-too-high"] == ("loss-far-from-chance",)


# --- records that are not whole ------------------------------------------------------------------------


def test_a_run_that_never_closed_is_judged_from_its_rows(tmp_path):
    run = watched(tmp_path, signals(60), close=False)
    whole = watched(tmp_path, signals(60))
    verdict, expected = diagnose(run), diagnose(whole)
    assert verdict.judged == expected.judged != ()
    assert verdict.unknown == expected.unknown
    assert any("judging its rows again" in remark for remark in verdict.remarks)
    assert not expected.remarks


def test_a_killed_run_keeps_its_findings(tmp_path):
    run = watched(tmp_path, signals(30, gradients_carried=lambda step: 1.0), close=False)
    verdict = diagnose(run)
    assert verdict.diagnoses[0].cause == "missing-zero-grad"
    assert [f.code for f in verdict.findings] == ["gradients-accumulate"]


def test_when_rows_are_lost_too_the_findings_still_speak(tmp_path):
    events = [finding(), Unknown(code="double-softmax", reason="no loss function was recognised", step=0)]
    run = write(tmp_path, events, ended=None, rows=signals(3))
    part = run.path / "signals" / "part-000001.jsonl"
    lines = part.read_text().splitlines()
    part.write_text("\n".join([*lines[:2], "{damaged", *lines[2:]]) + "\n")
    verdict = diagnose(run)
    assert verdict.judged == ("gradients-accumulate",)
    assert verdict.unknown["double-softmax"] == "no loss function was recognised"
    assert verdict.unknown["loss-not-finite"] == "the rows cannot be read"
    assert verdict.diagnoses[0].cause == "missing-zero-grad"
    with pytest.raises(RunError, match="damaged"):
        diagnose(run, rejudge=True)


# --- the last good run -----------------------------------------------------------------------------------


def lr(value, **more):
    return {"argv": ["train.py", "--lr", str(value)], "arguments": {"lr": value, "layers": [1, 2]}, **more}


def test_the_newest_good_run_of_the_same_name_is_compared_with(tmp_path):
    exploding = finding("gradient-exploding", evidence={"update_ratio": 0.5})
    for name, value, mark in (("net", 3e-4, "good"), ("other", 5e-4, "good"), ("net", 7e-4, "")):
        run = write(tmp_path, name=name, settings=lr(value))
        run.mark(mark)
    verdict = diagnose(write(tmp_path, [exploding], settings=lr(0.3)))
    assert verdict.settings_changed == {"arguments.lr": (3e-4, 0.3)}
    assert verdict.good_run.split("-")[2] == "net"
    leading = verdict.diagnoses[0]
    assert leading.cause == "learning-rate-too-high"
    assert leading.terms[-1].decibans == SETTINGS_DECIBANS
    assert leading.terms[-1].what == "setting arguments.lr differs from the last good run"


def test_without_a_good_run_nothing_is_compared(tmp_path):
    write(tmp_path, settings=lr(1.0))
    verdict = diagnose(write(tmp_path, settings=lr(2.0)))
    assert verdict.settings_changed == {}
    assert verdict.good_run == ""


def test_a_good_run_can_be_named(tmp_path):
    good = write(
        tmp_path / "a", name="else", settings=lr(1.0), config={"config": {"width": 64}, "trimtab": {"every": 8}}
    )
    run = write(tmp_path / "b", settings=lr(1.0), config={"config": {"width": 32}, "trimtab": {"every": 4}})
    verdict = diagnose(run, good=good)
    assert verdict.settings_changed == {"config.width": (64, 32)}
    assert verdict.good_run == good.id


def test_arguments_that_were_not_parsed_are_compared_as_typed(tmp_path):
    first = write(tmp_path, settings={"argv": ["/somewhere/train.py", "--lr", "1"]})
    second = write(tmp_path, settings={"argv": ["/elsewhere/train.py", "--lr", "2"], "models": [{"parameters": 5}]})
    assert settings_changed(first, second) == {"argv": ("--lr 1", "--lr 2"), "models.0.parameters": (None, 5)}


def test_nan_is_the_same_setting_as_nan(tmp_path):
    runs = [write(tmp_path, settings={"arguments": {"fill": math.nan, "one": one}}) for one in (1, True)]
    assert settings_changed(*runs) == {"arguments.one": (1, True)}


def test_a_damaged_good_run_is_passed_over_with_a_remark(tmp_path):
    good = write(tmp_path, settings=lr(1.0))
    good.mark("good")
    (good.path / "settings.json").write_text("{")
    verdict = diagnose(write(tmp_path, settings=lr(2.0)))
    assert verdict.settings_changed == {}
    assert any("last good run could not be compared" in remark for remark in verdict.remarks)


# --- judging again -----------------------------------------------------------------------------------------


def test_judging_again_with_the_same_rules_changes_nothing(tmp_path):
    run = watched(tmp_path, signals(40, loss=lambda step: math.nan if step > 20 else 1.0))
    verdict = diagnose(run, rejudge=True)
    assert verdict.rejudged == ()
    assert [f.code for f in verdict.findings] == ["logged-loss-not-finite"]
    assert repr(verdict.findings) == repr(diagnose(run).findings)  # NaN differs from itself
    assert (verdict.judged, verdict.unknown) == (diagnose(run).judged, diagnose(run).unknown)


def test_judging_again_shows_where_todays_rules_differ(tmp_path):
    patient = [replace(d, confirm=9, version=2) if isinstance(d, LoggedLossNotFinite) else d for d in DETECTORS]
    run = watched(tmp_path, signals(40, loss=lambda step: math.nan if step > 20 else 1.0))
    (changed,) = diagnose(run, rejudge=True, detectors=patient).rejudged
    assert changed.stored is not None
    assert changed.now is not None
    assert (changed.stored.step, changed.now.step) == (21, 29)
    assert str(changed) == (
        "logged-loss-not-finite: stored warning at step 21 (version 1), today warning at step 29 (version 2)"
    )


def test_judging_again_lists_findings_that_only_one_side_has(tmp_path):
    without = tuple(d for d in DETECTORS if d.code != "logged-loss-not-finite")
    rows = list(signals(40, loss=lambda step: math.nan if step > 20 else 1.0))
    (new,) = diagnose(watched(tmp_path, rows, detectors=without), rejudge=True).rejudged
    assert str(new) == "logged-loss-not-finite: only by today's rules, warning at step 21"
    gone = diagnose(watched(tmp_path, rows), rejudge=True, detectors=without)
    assert str(gone.rejudged[0]) == "logged-loss-not-finite: only in the stored findings, warning at step 21"
    assert gone.findings == ()


def test_judging_again_keeps_declared_milestones_and_ignores(tmp_path):
    milestone = Milestone(metric="loss", comparison="<=", value=0.5, by_step=10)
    run = watched(tmp_path, signals(40), milestones=[milestone])
    verdict = diagnose(run, rejudge=True)
    assert [f.code for f in verdict.findings] == ["milestone-missed"]
    assert verdict.rejudged == ()
    ignored = write(
        tmp_path, rows=signals(40, gradients_carried=lambda step: 1.0),
        notes=[Note(kind="ignore", step=0, text="meant", facts={"code": "gradients-accumulate", "subject": "*"})],
    )  # fmt: skip
    assert diagnose(ignored, rejudge=True).findings == ()


# --- storing it --------------------------------------------------------------------------------------------


def test_a_verdict_survives_json_with_its_nan(tmp_path):
    nan = finding("loss-not-finite", measured=math.nan, threshold=math.inf, evidence={"gradient_norm": math.nan})
    good = write(tmp_path, settings=lr(1.0))
    run = watched(tmp_path, signals(40, loss=lambda step: math.nan if step > 20 else 1.0))
    for verdict in (
        diagnose(write(tmp_path, [nan, finding(id="F0002")], settings=lr(math.inf)), good=good),
        diagnose(run, rejudge=True, detectors=[d for d in DETECTORS if d.code != "loss-not-finite"]),
    ):
        plain = verdict.as_dict()
        json.loads(safe_json(plain), parse_constant=pytest.fail)
        run.write_diagnosis(plain)
        assert repr(run.diagnosis()) == repr(plain)


def test_a_verdict_as_plain_values_has_words_for_severities_and_opening_steps(tmp_path):
    events = [finding(), finding("loss-not-finite", Severity.FATAL, id="F0002", step=9)]
    plain = diagnose(write(tmp_path, events)).as_dict()
    assert plain["severity"] == "fatal"
    assert [(f["severity"], f["opened_at"]) for f in plain["findings"]] == [("error", 4), ("fatal", 9)]
    first = plain["diagnoses"][0]
    assert first["score"] == sum(term["decibans"] for term in first["terms"])
    assert plain["run_id"]
    assert plain["status"] == "finished"


def test_diagnose_writes_nothing(tmp_path):
    run = watched(tmp_path, signals(40))
    before = {path: path.read_bytes() for path in sorted(run.path.rglob("*")) if path.is_file()}
    diagnose(run, rejudge=True)
    assert {path: path.read_bytes() for path in sorted(run.path.rglob("*")) if path.is_file()} == before


# -- what the run's system knows --------------------------------------------------------------------------------------

SICK = {"events": [finding("gradient-norm-alarming", Severity.WARNING)], "judged": ("gradient-norm-alarming",)}


def test_causes_that_only_the_runs_system_knows_are_weighed(tmp_path):
    """The rule of the system `sci` speaks for a cause that stands in no catalogue."""
    assert diagnose(write(tmp_path / "a", **SICK)).diagnoses[0].cause == NONE_OF_THESE
    named = write(tmp_path / "b", system="sci", **SICK)
    assert "write-up-unstable" in [one.cause for one in diagnose(named).diagnoses]
    assert [one.cause for one in diagnose(named, hypotheses=()).diagnoses] == [NONE_OF_THESE]


def test_the_rules_of_the_runs_system_judge_again(tmp_path):
    values = {"gradient_norm/all": 1000.0}
    rows = [Signal(step=step, update=step, time=float(step), values=values) for step in range(0, 90, 10)]
    verdict = diagnose(write(tmp_path, rows=rows, system="sci"), rejudge=True)
    assert "gradient-norm-alarming" in [one.code for one in verdict.findings]


def test_a_system_that_is_not_installed_is_no_error_and_one_that_cannot_be_loaded_is_remarked_on(tmp_path, monkeypatch):
    verdict = diagnose(write(tmp_path / "a", system="gone", **SICK))
    assert (verdict.diagnoses[0].cause, verdict.remarks) == (NONE_OF_THESE, ())

    def broken(name):
        raise ImportError("no module named 'nowhere'")

    monkeypatch.setattr(sys.modules["trimtab.diagnose"], "find_system", broken)  # the name is that of the function too
    verdict = diagnose(write(tmp_path / "b", system="sci", **SICK))
    assert verdict.diagnoses[0].cause == NONE_OF_THESE
    assert any("'sci' cannot be loaded" in remark and "nowhere" in remark for remark in verdict.remarks)
    assert diagnose(write(tmp_path / "c", system="sci")).remarks == ()


def test_the_report_says_what_a_rule_of_the_runs_system_is(tmp_path):
    verdict = diagnose(write(tmp_path, system="sci", **SICK))
    (row,) = finding_rows(verdict, {}, "sci")
    assert row.label == "F1"
    assert explain("gradient-norm-alarming").code == "gradient-norm-alarming"
    assert "write-up-unstable" in [cause for cause, _, _ in explain("gradient-norm-alarming").causes]
    assert explain("write-up-unstable").kind == "hypothesis"
    with pytest.raises(UserError, match="nothing is called"):
        explain("write-up-unstable", ())
    own = own_entries(find_system("sci"), "hypotheses")
    assert {entry.kind for entry in own} == {"hypothesis"}
