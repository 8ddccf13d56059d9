"""Knobs that move only while the training is healthy; the write-up's gate beside it, and where that one fails."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trimtab import Guard
from trimtab.errors import UserError
from trimtab.judge import Coverage, Judge, replay
from trimtab.records import Finding, Severity, Unknown
from trimtab.run import Run
from trimtab.stabilizers._health import HealthGate, Look
from trimtab.stabilizers.staged_escalation import Knob, StagedEscalation

HEALTHY, UNHEALTHY, UNKNOWN = (Look(state=s, because=s) for s in ("healthy", "unhealthy", "unknown"))


@dataclass
class Scripted:
    """A gate that says what it is told, and healthy behind the end."""

    looks: list[Look] = field(default_factory=list)

    def look(self):
        return self.looks.pop(0) if self.looks else HEALTHY


@dataclass
class Told:
    """A guard that only listens."""

    notes: list[Any] = field(default_factory=list)

    def note(self, kind, *, steps=None, text="", **facts):
        self.notes.append((kind, steps, text, facts))


def made(looks=(), *, steps=10, **more):
    holder = SimpleNamespace(scale=0.05)
    escalation = StagedEscalation([Knob.of(holder, "scale", target=0.3)], steps, gate=Scripted(list(looks)), **more)
    return holder, escalation


def run(escalation, holder, times):
    values = []
    for _ in range(times):
        escalation.step()
        values.append(holder.scale)
    return values


# -- the course of a healthy training ------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "target"), [(0.05, 0.3), (1.0, 0.1), (0.1, 0.1)])
@pytest.mark.parametrize(
    ("schedule", "half_way"),
    [("linear", 0.5), ("cosine", 0.5), (lambda part: part**2, 0.25)],
    ids=["linear", "cosine", "own"],
)
def test_a_healthy_training_goes_from_base_to_target_and_stays_there(schedule, half_way, base, target):
    seen = []
    escalation = StagedEscalation([Knob("k", base, target, seen.append)], 10, schedule=schedule)
    assert escalation.values == {"k": base}
    values = []
    for _ in range(15):
        escalation.step()
        values.append(escalation.values["k"])
    assert values[4] == pytest.approx(base + half_way * (target - base))
    assert values[9:] == [target] * 6  # exactly, not to a rounding
    assert seen == [base, *values]
    assert escalation.progress == 1
    assert [entry["what"] for entry in escalation.log] == ["going", "complete"]


def test_several_knobs_move_together():
    a, b = [], []
    escalation = StagedEscalation([Knob("a", 0, 1, a.append), Knob("b", 10, 0, b.append)], 2)
    escalation.step()
    assert (a, b) == ([0, 0.5], [10, 5])


# -- three states --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [UNHEALTHY, UNKNOWN], ids=["unhealthy", "unknown"])
def test_unhealthy_and_unknown_hold_the_progress(bad):
    holder, escalation = made([HEALTHY] * 4 + [bad] * 5)
    values = run(escalation, holder, 9)
    assert values[3:] == [pytest.approx(0.15)] * 6
    assert escalation.progress == 0.4
    assert escalation.stands == ("held" if bad is UNHEALTHY else "unknown")


def test_it_never_moves_when_nothing_was_ever_known():
    holder, escalation = made([UNKNOWN] * 100)
    assert set(run(escalation, holder, 100)) == {0.05}


@pytest.mark.parametrize("clear_for", [1, 3, 7])
def test_it_goes_on_after_so_many_healthy_looks_in_a_row(clear_for):
    holder, escalation = made([HEALTHY, UNHEALTHY], clear_for=clear_for)
    values = run(escalation, holder, 2 + clear_for)
    assert values[:-1] == [values[0]] * (1 + clear_for)
    assert values[-1] > values[0]


def test_a_flickering_gate_does_not_let_it_through():
    holder, escalation = made([HEALTHY, *[UNHEALTHY, HEALTHY, HEALTHY] * 20], clear_for=3)
    run(escalation, holder, 61)
    assert escalation.progress == 0.1
    assert len(escalation.log) == 2  # and each flicker is no entry of its own


def test_a_pause_costs_the_looks_that_it_lasts_and_no_jump_follows():
    holder, escalation = made([HEALTHY] * 3 + [UNHEALTHY] * 50, clear_for=2)
    values = run(escalation, holder, 70)
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert max(steps) <= 0.025 + 1e-12
    assert values.index(pytest.approx(0.3)) == 3 + 50 + 1 + 7 - 1


# -- the write-up's gate, and its two defects ------------------------------------------------------------------------


class AsWritten:
    """The gate of the write-up (`rlan.md` 1.9): the schedule runs by the epoch, a pause is closed by 5 % of the gap."""

    def __init__(self, base, target, begin, epochs):
        self.base, self.target, self.begin, self.epochs = base, target, begin, epochs
        self.value, self.paused = base, False

    def epoch(self, epoch, record):
        part = min(max((epoch - self.begin) / self.epochs, 0.0), 1.0)
        scheduled = self.base + part * (self.target - self.base)
        stable = record.get("nan_streak", 0) <= 0 and record.get("attention_max", 1.0) >= 0.1  # missing reads healthy
        if not stable:
            self.paused = True
        elif self.paused:
            self.value += 0.05 * (scheduled - self.value)
            self.paused = abs(scheduled - self.value) >= 0.001
        else:
            self.value = scheduled
        return self.value


def test_one_nan_disables_the_gate_of_the_write_up_for_a_hundred_epochs_and_ours_for_three():
    theirs = AsWritten(0.05, 0.3, begin=0, epochs=12)
    theirs.epoch(0, {"nan_streak": 1})
    epochs = next(epoch for epoch in range(1, 500) if not (theirs.epoch(12, {}), theirs.paused)[1])
    assert epochs == 108
    holder, ours = made([UNHEALTHY], steps=12, clear_for=3)
    values = run(ours, holder, 1 + 2 + 12)
    assert values[-1] == 0.3


def test_the_write_up_reads_a_missing_number_as_healthy_and_ours_does_not():
    theirs = AsWritten(0.05, 0.3, begin=0, epochs=12)
    assert [theirs.epoch(epoch, {}) for epoch in range(13)][-1] == pytest.approx(0.3)  # attention_max never came
    source = Source(codes=("attention-uniform",))
    holder = SimpleNamespace(scale=0.05)
    ours = StagedEscalation([Knob.of(holder, "scale", 0.3)], 12, gate=HealthGate(source, ("attention-uniform",)))
    assert set(run(ours, holder, 13)) == {0.05}
    assert ours.log[-1]["what"] == "unknown"
    assert "attention-uniform has not judged yet: attention/peak was not measured" in ours.log[-1]["because"]


# -- backing off -----------------------------------------------------------------------------------------------------


def test_it_backs_off_toward_the_base_rests_and_restores_before_it_goes_on():
    holder, escalation = made(
        [HEALTHY] * 4 + [UNHEALTHY], on_unhealthy="back off", factor=0.5, cooldown=3, restore=0.25, clear_for=2
    )
    values = run(escalation, holder, 4 + 1 + 3 + 3)
    assert values[3] == pytest.approx(0.15)
    assert values[4:8] == [pytest.approx(0.10)] * 4  # half of the way from the base, for the cooldown
    assert values[8:10] == [pytest.approx(0.125), pytest.approx(0.15)]  # restored by a quarter each
    assert values[10] == pytest.approx(0.175)  # and only then on
    assert [entry["what"] for entry in escalation.log] == ["going", "backed off", "going", "restored"]


def test_what_stays_unhealthy_is_backed_off_once_each_cooldown():
    holder, escalation = made([HEALTHY] * 4 + [UNHEALTHY] * 8, on_unhealthy="back off", cooldown=3)
    values = run(escalation, holder, 12)
    assert values[4:] == [pytest.approx(0.1)] * 4 + [pytest.approx(0.075)] * 4
    assert escalation.progress == 0.4


def test_what_is_unknown_is_never_backed_off():
    holder, escalation = made([HEALTHY] * 4 + [UNKNOWN] * 8, on_unhealthy="back off", cooldown=1)
    assert run(escalation, holder, 12)[-1] == pytest.approx(0.15)


def test_pause_and_back_off_can_be_asked_for():
    holder, escalation = made(clear_for=1, cooldown=2)
    run(escalation, holder, 4)
    escalation.pause("a person said so", looks=3)
    assert run(escalation, holder, 4) == [pytest.approx(0.15)] * 3 + [pytest.approx(0.175)]
    escalation.back_off("the policy said so", factor=0.0)
    assert holder.scale == 0.05
    assert [e["because"] for e in escalation.log if e["what"] in ("paused", "backed off")] == [
        "a person said so", "the policy said so",
    ]  # fmt: skip


# -- the late phase --------------------------------------------------------------------------------------------------


def test_a_stricter_gate_counts_from_where_it_was_asked_for():
    holder = SimpleNamespace(scale=0.0)
    escalation = StagedEscalation(
        [Knob.of(holder, "scale", 1.0)], 10, gate=Scripted(), late_from=0.5, late_gate=Scripted([UNHEALTHY] * 100)
    )
    assert run(escalation, holder, 50)[-1] == 0.5
    assert escalation.stands == "held"


# -- one writer ------------------------------------------------------------------------------------------------------


def test_a_knob_that_somebody_else_wrote_is_an_error():
    holder, escalation = made()
    escalation.step()
    holder.scale = 0.2
    with pytest.raises(UserError, match=r"knob 'scale' is 0\.2 where 0\.075 was written.*on_foreign='assert again'"):
        escalation.step()


def test_or_it_is_written_again_and_logged():
    holder, escalation = made(on_foreign="assert again")
    escalation.step()
    holder.scale = 0.2
    escalation.step()
    assert holder.scale == pytest.approx(0.1)
    assert "somebody else" in escalation.log[-1]["because"]


def test_two_escalations_of_one_knob_notice_each_other():
    holder, one = made()
    other = StagedEscalation([Knob.of(holder, "scale", target=1.0)], 3)
    with pytest.raises(UserError, match="somebody else writes it too"):
        [e.step() for _ in range(2) for e in (one, other)]


def test_a_knob_in_single_precision_is_no_foreign_one():
    weight = torch.tensor(0.1)
    knob = Knob("weight", 0.1, 0.7, weight.fill_, weight.item)
    escalation = StagedEscalation([knob], 7)
    run(escalation, SimpleNamespace(scale=0), 7)
    assert weight.item() == pytest.approx(0.7)


# -- memory and notes ------------------------------------------------------------------------------------------------


def test_its_state_goes_through_json_and_back_bit_for_bit():
    looks = [HEALTHY] * 3 + [UNHEALTHY] * 2 + [UNKNOWN] + [HEALTHY] * 40
    how = {"steps": 17, "on_unhealthy": "back off", "cooldown": 4, "restore": 0.3, "schedule": "cosine"}
    holder, escalation = made(looks, **how)
    whole = run(escalation, holder, 40)
    for cut in range(40):
        first, one = made(looks, **how)
        run(one, first, cut)
        stored = json.loads(json.dumps(one.state_dict(), allow_nan=False))
        second, other = made(looks[cut:], **how)
        other.load_state_dict(stored)
        assert second.scale == first.scale
        assert run(other, second, 40 - cut) == whole[cut:]
        assert other.state_dict() == escalation.state_dict()


def test_a_state_of_other_knobs_or_steps_is_refused():
    _, escalation = made()
    with pytest.raises(UserError, match="counts to 10 steps, this one to 11"):
        made(steps=11)[1].load_state_dict(escalation.state_dict())
    with pytest.raises(UserError, match="has the knobs"):
        StagedEscalation([Knob("k", 0, 1, print)], 10).load_state_dict(escalation.state_dict())


def test_each_entry_of_the_log_is_a_note_that_excuses_nothing_by_itself():
    told = Told()
    holder, escalation = made([HEALTHY, UNHEALTHY], guard=told, clear_for=1)
    run(escalation, holder, 12)
    assert [(kind, steps, facts["what"]) for kind, steps, _, facts in told.notes] == [
        ("escalation", 0, what) for what in ("going", "held", "going", "complete")
    ]
    assert told.notes[-1][3]["scale"] == 0.3
    escalation.load_state_dict(escalation.state_dict())
    assert len(told.notes) == 4  # going back to a state announces nothing


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "steps must be 1 or more"),
        ({"clear_for": 0}, "clear_for must be 1 or more"),
        ({"schedule": "sine"}, "expected one of linear, cosine"),
        ({"on_unhealthy": "stop"}, "expected 'hold' or 'back off'"),
        ({"on_foreign": "ignore"}, "expected 'raise' or 'assert again'"),
        ({"factor": 1.0}, "less than 1"),
        ({"restore": 0.0}, "restore=0.0"),
        ({"late_from": 0.5}, "belong together"),
        ({"late_from": 5, "late_gate": Scripted()}, "between 0 and 1"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(wrong, says):
    with pytest.raises(UserError, match=says):
        made(**wrong)


def test_a_wrong_knob_says_what_was_expected():
    with pytest.raises(UserError, match="no attribute 'scael'"):
        Knob.of(SimpleNamespace(scale=1.0), "scael", target=2.0)
    with pytest.raises(UserError, match="finite"):
        Knob("k", 0.0, math.inf, print)
    with pytest.raises(UserError, match="its own name"):
        StagedEscalation([Knob("k", 0, 1, print), Knob("k", 0, 1, print)], 10)
    with pytest.raises(UserError, match="expected 0 to 1"):
        StagedEscalation([Knob("k", 0, 1, print)], 10, schedule=lambda part: 2.0)


# -- the gate reads findings -----------------------------------------------------------------------------------------


class Source:
    """Findings, events and a judge without a training."""

    def __init__(self, codes=("metric-dropped", "loss-diverging"), judged=()):
        self.findings, self.events = [], []
        self.judged, self.disabled = set(judged), {}
        self.detectors = [SimpleNamespace(code=code) for code in (*codes, "loss-not-finite", "trimtab-failed")]
        self.judge = self

    def coverage(self):
        left = {rule.code: "attention/peak was not measured" for rule in self.detectors if rule.code not in self.judged}
        return Coverage(judged=sorted(self.judged), unknown=left)


def found(code="metric-dropped", severity=Severity.WARNING, **more):
    return Finding(
        code=code, severity=severity, step=9, since_step=7, summary="it fell", measured=1, threshold=0, **more
    )


BOTH = ("metric-dropped", "loss-diverging")


def test_it_is_healthy_when_its_rules_judged_and_nothing_is_open():
    assert HealthGate(Source(judged=BOTH), BOTH).look() == Look(state="healthy")


def test_a_rule_that_has_not_judged_makes_it_unknown():
    seen = HealthGate(Source(judged=("metric-dropped",)), BOTH).look()
    assert seen.state == "unknown"
    assert seen.because == "loss-diverging has not judged yet: attention/peak was not measured"


def test_a_rule_that_cannot_judge_any_more_makes_it_unknown_until_it_can():
    source = Source(judged=BOTH)
    gate = HealthGate(source, BOTH)
    source.events.append(Unknown(code="metric-dropped", reason="no metric", step=5))
    assert gate.look().because == "metric-dropped cannot judge now [main]: no metric"
    source.events.append(Unknown(code="metric-dropped", reason="", step=8))
    assert gate.look().state == "healthy"
    source.disabled["loss-diverging"] = "ZeroDivisionError"
    assert gate.look().because == "loss-diverging cannot judge: the rule itself failed"


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (found(), "unhealthy"),
        (found(severity=Severity.INFO), "healthy"),
        (found(severity=Severity.INFO, excused_by="escalation"), "unhealthy"),  # what it announced does not hold it off
        (found(severity=Severity.INFO, excused_by="data-change"), "healthy"),
        (found("loss-not-finite"), "healthy"),  # a warning of a rule that it does not depend on
        (found("loss-not-finite", Severity.ERROR), "unhealthy"),
        (found("trimtab-failed", subject="sensor loss"), "healthy"),
        (found("trimtab-failed", subject="trimtab"), "unknown"),
    ],
)
def test_what_counts_and_what_does_not(finding, state):
    source = Source(judged=BOTH)
    source.findings = [finding]
    assert HealthGate(source, BOTH).look().state == state


def test_the_worst_finding_is_named():
    source = Source(judged=BOTH)
    source.findings = [found(), found("loss-not-finite", Severity.FATAL)]
    assert HealthGate(source, BOTH).look().because == "loss-not-finite since step 7: it fell and 1 more"


def test_a_code_that_no_rule_has_is_an_error():
    with pytest.raises(UserError, match=r"'metric-droped'\. Did you mean 'metric-dropped'"):
        HealthGate(Source(), ("metric-droped",))
    with pytest.raises(UserError, match="always be open"):
        HealthGate(Source(), ())
    with pytest.raises(UserError, match="Source has none"):
        HealthGate(Source(), BOTH, fresh={"accuracy": 3})


# -- with a real Guard -----------------------------------------------------------------------------------------------


def test_a_metric_that_falls_holds_the_escalation_and_one_that_recovers_lets_it_go_on(tmp_path):
    """The accuracy of the write-up's collapse, 93 -> 79, recorded at every update of a small training."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    holder = SimpleNamespace(scale=0.05)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, 4, generator=generator)
    y = (x[:, 0] > 0).long()
    with Guard(tmp_path / "a", model, optimizer, overhead=None, pyproject=False) as guard:
        gate = HealthGate(guard, ("metric-dropped",), others=None, fresh={"validation/accuracy": 4})
        escalation = StagedEscalation([Knob.of(holder, "scale", 0.3)], 400, gate=gate, clear_for=2, guard=guard)
        progress = []
        for step in range(145):
            F.cross_entropy(model(x), y).backward()
            guard.allows(batch=x)
            optimizer.step()
            optimizer.zero_grad()
            fallen = 48 <= step < 68
            if step < 94:  # then nobody records it any more
                value = 0.79 if fallen else min(0.55 + 0.01 * step, 0.93)
                guard.record(accuracy=value, split="validation", better="higher")
            escalation.step()
            progress.append(escalation.progress)
        said = [entry["what"] for entry in escalation.log]
    assert progress[0] == 0  # nothing had judged yet
    assert progress[47] == 41 / 400  # from the first judgement on; a healthy rise never paused it
    assert progress[67] - progress[47] <= 9 / 400  # the rule judges at every eighth update
    assert progress[93] > progress[68]
    assert progress[144] == progress[134]  # rows of a calm run are handed on together, 32 at most
    assert said == ["unknown", "going", "held", "going", "unknown"]
    stored = Run(tmp_path / "a")
    notes = [note for note in stored.notes() if note.kind == "escalation"]
    assert [note.facts["what"] for note in notes] == said
    events, _ = replay(guard.judge.detectors, stored.rows(), stored.notes(), stored.outcomes())
    assert [replace(e) for e in events] == guard.events


def test_a_real_judge_says_what_it_has_not_judged():
    from trimtab.detectors import DETECTORS

    source = Source(judged=())
    source.judge = Judge(DETECTORS)
    seen = HealthGate(source, ("metric-dropped",)).look()
    assert seen.state == "unknown"
    assert "metric-dropped has not judged yet" in seen.because
