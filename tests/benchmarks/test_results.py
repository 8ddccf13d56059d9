"""The benches of the catalogue: what their figures count, records that replay, thresholds of each rule."""

import dataclasses
import logging

import pytest

from benchmarks import detection, false_alarms, margins, recorded, watching
from benchmarks.cases.faults import ANCHORS, WAITING
from benchmarks.watching import Job
from trimtab.detectors import DETECTORS

CODES = [detector.code for detector in DETECTORS]


def fault_run(name="weights-x12", *, caught=True, top1=True, delay=3, extra=()):
    return {
        "name": name, "family": "mlp", "seed": 0, "caught": caught, "top1": caught and top1, "top3": caught,
        "delay": delay if caught else None, "code": "gradient-exploding" if caught else "", "ranked": ["a"] * caught,
        "extra": list(extra), "early": [], "none_of_these_first": caught, "judged": 3, "not_judged": 1,
        "cpu_seconds": 1.0,
    }  # fmt: skip


def healthy_run(name="gan", *, alarm=False, unannounced=False):
    opened = [{"code": "loss-spike", "severity": "warning", "step": 5, "stream": "main", "summary": ""}]
    return {
        "name": name, "family": "", "seed": 0, "unannounced": unannounced, "steps": 400, "cpu_seconds": 1.0,
        "reached_target": True, "final": {}, "alarm": alarm, "opened": opened * alarm,
        "judged": ["loss-spike"], "not_judged": {"dead-units": "no layer"},
    }  # fmt: skip


def test_a_run_that_nobody_caught_counts_in_every_share():
    runs = [fault_run(), fault_run(delay=7, extra=["loss-spike"]), fault_run(top1=False), fault_run(caught=False)]
    figures = detection.figures_of(runs)
    assert figures["fault_runs"] == 4
    assert figures["detected_share"] == figures["top3_share"] == 0.75
    assert figures["top1_share"] == 0.5
    assert figures["median_delay_steps"] == 3
    assert figures["wrong_extra_findings_per_run"] == 0.25
    assert figures["detected_wilson_lower"] < 0.75


def test_an_alarm_counts_once_a_run_and_unannounced_changes_are_no_healthy_runs():
    runs = [
        healthy_run(),
        healthy_run(alarm=True),
        healthy_run("jump"),
        healthy_run("jump", alarm=True, unannounced=True),
    ]
    figures = false_alarms.figures_of(runs)
    assert figures["runs"] == 3
    assert figures["false_alarm_rate"] == pytest.approx(1 / 3)
    assert figures["announced_silent_share"] == figures["unannounced_found_share"] == 1.0
    assert figures["unknown_share"] == 0.5
    (alarm,) = false_alarms.alarms_of(runs)
    assert (alarm["name"], alarm["code"]) == ("gan", "loss-spike")


def test_each_of_the_44_faults_has_cases_or_says_what_it_waits_for():
    assert set(ANCHORS) | set(WAITING) == set(detection.NUMBERS)
    assert not set(ANCHORS) & set(WAITING)
    named = {case for cases in ANCHORS.values() for case in cases}
    assert named <= set(watching.CASES)
    assert detection.by_anchor([fault_run()])["10"]["caught"] == 1


def test_a_record_replays_to_what_was_said_live(tmp_path):
    logging.getLogger("trimtab").setLevel(logging.CRITICAL)
    job = Job(name="weights-x12", family="mlp", seed=100)
    recorded.record(job, tmp_path)
    (one,) = recorded.records(tmp_path)
    assert one.job == job
    events, _ = one.judged_by(DETECTORS)
    assert [(e.code, e.step) for e in events] == [(e.code, e.step) for e in one.run.events()]
    judged = recorded.judge(one)
    assert any(recorded.caught(judged, code) for code in watching.CASES[job.name].right_codes)
    assert recorded.caught(judged, "double-softmax") is None
    assert "loss" in recorded.show(one, [])


def test_a_change_of_data_that_is_announced_has_a_run_without_the_announcement():
    jobs = watching.unannounced_jobs([0])
    assert jobs
    training, _ = jobs[0].build()
    announced, _ = dataclasses.replace(jobs[0], unannounced=False).build()
    assert announced.announcements
    assert not training.announcements


# Thresholds


def test_each_rule_has_thresholds_that_are_scaled_or_says_why_not():
    assert set(margins.THRESHOLDS) | set(margins.EXACT) == set(CODES)
    assert not set(margins.THRESHOLDS) & set(margins.EXACT)


@pytest.mark.parametrize("detector", [d for d in DETECTORS if d.code in margins.THRESHOLDS], ids=lambda d: d.code)
def test_thresholds_are_fields_and_scaling_leaves_the_rest(detector):
    scaled = margins.THRESHOLDS[detector.code]
    same = scaled(detector, 1.0)
    assert scaled.fields(same) == scaled.fields(detector) != {}
    strict = scaled(detector, 2.0)
    assert strict.code == f"{detector.code}@2"
    assert scaled.fields(strict) != scaled.fields(detector)
