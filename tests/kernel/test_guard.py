"""The Guard in real loops: it writes what happened, judges it once, acts only when asked, and stays out of the way."""

from __future__ import annotations

import errno
import json
import math
import os
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trimtab import Guard, Notify, Stop, TrainingStopped
from trimtab.detectors import DETECTORS
from trimtab.errors import UserError
from trimtab.judge import replay
from trimtab.milestone import Milestone
from trimtab.records import Finding, Severity
from trimtab.run import Run
from trimtab.sensors import SENSORS


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def batch(index=0, rows=32):
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(rows, 6, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def loop(model, optimizer, steps, *, guard=None, zero=True, break_at=None, clip=None):
    """An ordinary loop; `break_at` makes the loss NaN at that step."""
    for index in range(steps):
        x, y = batch(index)
        loss = F.cross_entropy(model(x), y)
        if index == break_at:
            loss = loss * float("nan")
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        if guard is None or guard.allows(batch=(x, y)):
            optimizer.step()
        if zero:
            optimizer.zero_grad()


def recorded(path, **what):
    with Guard(path) as guard:
        guard.record(**what)


def train_on(guard, model, optimizer, **metrics):
    guard.record(**metrics)
    loop(model, optimizer, 10, guard=guard)


def codes(events, severity=Severity.WARNING):
    return {e.code for e in events if isinstance(e, Finding) and e.event == "opened" and e.severity >= severity}


def test_two_lines_write_a_run_folder_with_a_row_for_each_update(tmp_path):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with Guard(tmp_path / "a", model, optimizer, overhead=None) as guard:
        loop(model, optimizer, 60, guard=guard)
    run = Run(tmp_path / "a")
    rows = [row for row in run.rows() if "loss" in row.values]
    assert [row.step for row in rows] == list(range(60))
    assert run.status == "finished"
    assert run.facts.updates == 60
    assert run.facts.cost["seconds"] > 0
    assert run.settings()["optimizers"]["main"]["groups"][0]["lr"] == 0.01
    assert "loss-not-finite" in run.config()["trimtab"]["detectors"]
    assert not codes(run.events())


@pytest.mark.parametrize("kind", ["plain", "clip", "scaler", "accumulate"])
def test_a_watched_training_is_bit_identical_to_an_unwatched_one(tmp_path, kind):
    def train(guarded):
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", enabled=kind == "scaler", init_scale=256.0)
        guard = Guard(tmp_path / kind, model, optimizer, every=1) if guarded else None
        for index in range(40):
            x, y = batch(index)
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "scaler"):
                loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            if kind == "clip":
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            if kind == "accumulate" and index % 4 != 3:
                continue
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        if guard is not None:
            guard.close()
        return [p.detach().clone() for p in model.parameters()], torch.get_rng_state()

    (bare, bare_random), (seen, seen_random) = train(False), train(True)
    assert all(torch.equal(a, b) for a, b in zip(bare, seen, strict=True))
    assert torch.equal(bare_random, seen_random)


@pytest.mark.parametrize("fault", ["none", "zero", "nan"])
def test_replay_of_the_stored_rows_gives_exactly_the_events_of_the_live_run(tmp_path, fault):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Guard(tmp_path / "a", model, optimizer, overhead=None) as guard:
        guard.note("data-change", steps=5)
        loop(model, optimizer, 70, guard=guard, zero=fault != "zero", break_at=40 if fault == "nan" else None)
        guard.record(accuracy=0.5, split="validation", better="higher")
    run = Run(tmp_path / "a")
    events, judge = replay(DETECTORS, run.rows(), run.notes(), run.outcomes())
    assert repr(events) == repr(run.events()) == repr(guard.events)  # NaN is not equal to itself
    assert judge.coverage() == guard.judge.coverage()
    assert bool(codes(events)) == (fault != "none")


def test_a_missing_zero_grad_opens_one_finding_and_not_one_a_step(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with Guard(tmp_path / "a", model, optimizer) as guard:
        loop(model, optimizer, 60, guard=guard, zero=False)
    opened = [e for e in guard.events if isinstance(e, Finding) and e.code == "gradients-accumulate"]
    assert [e.event for e in opened] == ["opened"]
    assert opened[0].step < 10


def test_nan_and_infinity_come_back_as_they_were(tmp_path):
    with Guard(tmp_path / "a") as guard:
        guard.record(a=math.nan, b=math.inf, c=-math.inf, d=[1.0, math.nan])
    row = next(row for row in Run(tmp_path / "a").rows() if "a" in row.values)
    assert math.isnan(row.values["a"])
    assert (row.values["b"], row.values["c"]) == (math.inf, -math.inf)
    assert row.values["d"][0] == 1.0
    assert math.isnan(row.values["d"][1])


def test_nothing_acts_unless_asked(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Guard(tmp_path / "a", model, optimizer) as guard:
        loop(model, optimizer, 30, guard=guard, break_at=10)
    assert not guard.outcomes
    assert "loss-not-finite" in codes(guard.events)


def test_stop_leaves_the_weights_of_the_last_good_update(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with (
        pytest.raises(TrainingStopped, match="not-finite"),
        Guard(tmp_path / "a", model, optimizer, respond={"*": Stop()}) as guard,
    ):
        loop(model, optimizer, 30, guard=guard, break_at=10)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    run = Run(tmp_path / "a")
    assert run.status == "stopped"
    assert [(o.action, o.result, o.step) for o in run.outcomes()] == [("stop", "done", 10)]


def test_a_spent_budget_stops_the_run_and_says_so(tmp_path):
    class Shrug(Notify):
        name = "shrug"

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    milestones = [Milestone(metric=name, comparison=">=", value=1.0, by_step=2) for name in ("a", "b")]
    with (
        pytest.raises(TrainingStopped, match="came again"),
        Guard(
            tmp_path / "a",
            model,
            optimizer,
            respond={"milestone-missed": Shrug(at_most=1)},
            milestones=milestones,
        ) as guard,
    ):
        train_on(guard, model, optimizer, a=0.0, b=0.0)
    assert "response-budget-spent" in codes(guard.events)


def test_a_command_is_told_about_a_finding_and_a_missing_one_is_a_failed_outcome(tmp_path):
    target = tmp_path / "told.json"
    script = "import os, sys; open(sys.argv[1], 'w').write(os.environ['TRIMTAB_FINDING'])"
    tell = Notify(command=("python3", "-c", script, str(target)))
    missing = Notify(command=("/no/such/command",))
    milestones = [Milestone(metric="a", comparison=">=", value=1.0, by_step=0)]
    outcomes = {}
    for name, action in (("there", tell), ("missing", missing)):
        with Guard(tmp_path / name, respond={"milestone-missed": action}, milestones=milestones) as guard:
            guard.record(a=0.0)
            guard.record(b=0.0)
        outcomes[name] = [outcome.result for outcome in guard.outcomes]
    assert outcomes == {"there": ["done"], "missing": ["failed"]}
    for _ in range(200):
        if target.exists() and target.read_text():
            break
        time.sleep(0.05)
    assert json.loads(target.read_text())["code"] == "milestone-missed"


def test_a_rule_that_fails_in_a_batch_of_calm_rows_costs_itself_alone(tmp_path):
    class Detector:
        code, version, reads, folds, confirm, release = "planted", 1, ("loss",), (), 1, 1
        excused_by, per_stream = (), True

        def detect(self, trace):
            if trace.step == 100:
                raise RuntimeError("planted")

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Guard(tmp_path / "a", model, optimizer, detectors=(*DETECTORS, Detector())) as guard:
        loop(model, optimizer, 200)
    failures = [note.facts["part"] for note in guard.history.notes if note.kind == "trimtab-failed"]
    assert failures == ["detector planted"]
    assert [row.step for row in Run(tmp_path / "a").rows() if "loss" in row.values] == list(range(200))


@pytest.mark.parametrize("part", ["sensor", "detector", "writer", "measure"])
def test_a_planted_failure_leaves_the_training_alone_and_is_a_finding(tmp_path, monkeypatch, part):
    def plain():
        model = net()
        loop(model, torch.optim.SGD(model.parameters(), lr=0.05), 30)
        return [p.detach().clone() for p in model.parameters()]

    bare = plain()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    options = {}
    if part == "sensor":

        class Sensor:
            name, points, tier, axes, sparse, copies_weights = "planted", ("after",), "step", {}, (), False

            def read(self, live):
                if live.step == 5:
                    raise RuntimeError("planted")
                return {}

        options["sensors"] = (*SENSORS, Sensor())
    if part == "detector":

        class Detector:
            code, version, reads, folds, confirm, release = "planted", 1, ("loss",), (), 1, 1
            excused_by, per_stream = (), True

            def detect(self, trace):
                if trace.step == 5:
                    raise RuntimeError("planted")

        options["detectors"] = (*DETECTORS, Detector())
    guard = Guard(tmp_path / "a", model, optimizer, **options)
    if part == "writer":

        def full(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(guard._folder.writer, "row", full)
    if part == "measure":
        monkeypatch.setattr(guard.measure, "_finish", lambda stream: 1 / 0)
        guard.step_ended = guard.measure.step_ended
    loop(model, optimizer, 30, guard=guard)
    guard.close()
    assert all(torch.equal(a, p) for a, p in zip(bare, model.parameters(), strict=True))
    found = [e for e in guard.events if isinstance(e, Finding) and e.code == "trimtab-failed"]
    assert found
    assert part in found[0].subject or part == "measure"


def test_a_folder_that_cannot_be_made_does_not_stop_the_training(tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Guard(None, model, optimizer, root=blocked) as guard:
        loop(model, optimizer, 40, guard=guard, zero=False)
    assert guard.run_path is None
    assert "gradients-accumulate" in codes(guard.events)


def test_an_existing_folder_is_left_alone(tmp_path):
    with Guard(tmp_path / "a") as first:
        first.record(x=1.0)
    with Guard(tmp_path / "a") as second:
        second.record(x=2.0)
    assert second.run_path == tmp_path / "a-2"
    assert next(iter(Run(tmp_path / "a").rows())).values["x"] == 1.0


def test_a_declared_milestone_that_is_missed_is_an_error_and_one_that_is_met_is_not(tmp_path):
    milestones = [Milestone(metric="validation/accuracy", comparison=">=", value=0.9, by_step=10)]
    for name, accuracy in (("low", 0.5), ("high", 0.95)):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with Guard(tmp_path / name, model, optimizer, milestones=milestones) as guard:
            for _ in range(4):
                loop(model, optimizer, 5, guard=guard)
                guard.record(accuracy=accuracy, split="validation", better="higher")
        assert ("milestone-missed" in codes(guard.events, Severity.ERROR)) == (name == "low")


def test_ignored_findings_are_left_out_and_counted(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with Guard(tmp_path / "a", model, optimizer, ignore=["gradients-accumulate"]) as guard:
        loop(model, optimizer, 40, guard=guard, zero=False)
    assert "gradients-accumulate" not in codes(guard.events)
    assert Run(tmp_path / "a").facts.ignored["gradients-accumulate"] > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda path: Guard(path, ignore=["gradient-exploded"]), "Did you mean 'gradient-exploding'"),
        (lambda path: Guard(path, respond={"los-not-finite": Stop()}), "Did you mean 'loss-not-finite'"),
        (lambda path: Guard(path, model="resnet"), "must be a torch.nn.Module"),
        (lambda path: Guard(nn.Linear(1, 1)), "the first argument is the run's folder"),
        (lambda path: Guard(path, nn.Linear(1, 1), 3), "must be a torch.optim.Optimizer"),
        (lambda path: recorded(path, accuracy="high"), "'accuracy' must be a number"),
        (lambda path: recorded(path, accuracy=1.0, better="up"), "expected 'higher' or 'lower'"),
    ],
)
def test_bad_input_is_a_clear_error(tmp_path, wrong, says):
    with pytest.raises(UserError, match=says):
        wrong(tmp_path / "a")


def test_how_a_run_ended_is_written(tmp_path):
    for name, error, status in (
        ("failed", ValueError("no"), "failed"),
        ("interrupted", KeyboardInterrupt(), "interrupted"),
        ("finished", SystemExit(0), "finished"),
        ("exited", SystemExit(3), "failed"),
    ):

        def leave_by(error, name):
            with Guard(tmp_path / name) as guard:
                guard.record(x=1.0)
                raise error

        with pytest.raises(type(error)):
            leave_by(error, name)
        assert Run(tmp_path / name).status == status
    assert "ValueError: no" in Run(tmp_path / "failed").facts.how["reason"]


def test_after_fifty_updates_one_line_says_what_was_judged(tmp_path, caplog):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with caplog.at_level("INFO", logger="trimtab"), Guard(tmp_path / "a", model, optimizer) as guard:
        loop(model, optimizer, 60, guard=guard)
    lines = [r.message for r in caplog.records if "judged" in r.message]
    assert len(lines) == 1
    assert "step 50: no wiring fault; judged" in lines[0]
    assert "; not judged: " in lines[0]
    assert "no wiring fault" in (tmp_path / "a" / "log.txt").read_text()


def test_tensors_are_kept_only_when_asked(tmp_path):
    with Guard(tmp_path / "a") as guard:
        for index in range(4):
            guard.keep("attention", torch.full((2, 2), float(index)), every=2)
    samples = sorted((tmp_path / "a" / "samples").iterdir())
    assert len(samples) >= 1
    assert not (tmp_path / "a" / "checkpoints").exists()


def test_a_forked_child_does_not_touch_the_run_of_its_parent(tmp_path):
    guard = Guard(tmp_path / "a")
    guard.record(x=1.0)
    pid = os.fork()
    if pid == 0:
        guard.close("failed")
        os._exit(0)
    os.waitpid(pid, 0)
    assert Run(tmp_path / "a").status == "running"
    guard.close()
    assert Run(tmp_path / "a").status == "finished"


def test_a_finding_that_is_silenced_later_is_replayed_as_it_was(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with Guard(tmp_path / "a", model, optimizer, overhead=None) as guard:
        loop(model, optimizer, 20, guard=guard, zero=False)
        guard.ignore("gradients-accumulate", because="known")
        guard.ignore("loss-not-finite", because="the logging is broken")
        loop(model, optimizer, 20, guard=guard, zero=False, break_at=3)
    run = Run(tmp_path / "a")
    events, judge = replay(DETECTORS, run.rows(), run.notes(), run.outcomes())
    assert repr(events) == repr(guard.events)
    assert judge.ignored == guard.judge.ignored
    assert "gradients-accumulate" in codes(events)
    assert "loss-not-finite" not in codes(events)
