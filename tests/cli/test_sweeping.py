"""A sweep while it runs, and its folder afterwards: `report` and `runs` take it as they take a run."""

import io
import json
import os
import pty
import re

import pytest

from tests.cli.commands import run
from tests.report.recorded import record, training
from tests.report.swept import result
from trimtab.cli import _swept
from trimtab.cli._sweeping import Lines, Table, duration, live, sentence
from trimtab.sweep import Arm, Phase, Plan
from trimtab.sweep.folder import FACTS, open_folder, store_of
from trimtab.sweep.store import Store
from trimtab.trial import Trial, TrialResult


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self):
        return self.now


def trial(arm, seed=0):
    return Trial(target="t", phase="one", arm=arm, seed=seed)


def ended(arm, status="finished", **facts):
    given = {"metric": "m", "points": ((0, 0.5), (10, 0.75), (20, 0.25)), "wall_seconds": 4.0}
    return TrialResult(trial=trial(arm), status=status, **{**given, **facts})


def test_a_pipe_gets_one_line_for_each_trial_that_ended(capsys):
    with live("name", 3, before=[ended("zero")]) as show:
        assert isinstance(show, Lines)
        show.phase("one", 3, 1)
        show.began(trial("a"), "host:1")
        show.moved(trial("a"), 10, 20, 0.5)
        show.ended(ended("a"))
        show.ended(ended("b", "failed", attempts=3, points=(), error="RuntimeError: boom"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "phase one: 3 trials, 1 of them done before",
        "[2/3] one: a seed 0 finished: m best 0.75, final 0.25 (4.0 s)",
        "[3/3] one: b seed 0 failed after 3 attempts: RuntimeError: boom",
    ]


def test_a_terminal_gets_a_table_that_leaves_nothing_behind(monkeypatch):
    ours, theirs = pty.openpty()
    with open(theirs, "w", buffering=1, encoding="utf-8") as terminal, open(ours, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        with live("name", 3) as show:
            assert isinstance(show, Table)
            show.began(trial("lr=0.1 [x]"), "host:1")
        os.set_blocking(ours, False)
        seen = b"".join(iter(lambda: screen.read(65536), None))
    words = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert seen.rstrip().endswith(b"\x1b[2K")  # the last thing is that a line is wiped out
    assert "lr=0.1 [x]" in words
    assert "0 of 3 trials" in words


def test_the_table_says_how_far_each_running_trial_is_and_how_long_it_may_take():
    from rich.console import Console

    clock = Clock()
    table = Table("name", 6, clock, 1)
    table.phase("one", 6, 1)
    for arm in ("a", "b", "c", "d"):
        table.began(trial(arm), "host:7")
    clock.now = 10.0
    table.moved(trial("c"), 1500, 2000, 0.125)
    table.moved(trial("c"), 1600)
    table.moved(trial("unknown"), 5)
    table.ended(ended("a"))
    assert table.remaining is None  # one trial says too little
    table.ended(ended("b", "failed", points=(), error="boom"))
    assert table.remaining == pytest.approx(15.0)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    lines = console.export_text().splitlines()
    assert lines[0].rstrip() == ("name  3 of 6 trials; 1 failed; phase one: 3 of 6; 10.0 s so far; about 15.0 s left")
    assert [line.split() for line in lines[1:4]] == [
        ["running", "seed", "updates", "metric", "time", "worker"],
        ["c", "0", "1,600", "of", "2,000", "0.125", "10.0", "s", "host:7"],
        ["d", "0", "-", "-", "10.0", "s", "host:7"],
    ]
    assert lines[4].strip() == "last: one: b seed 0 failed: boom"


def test_a_trial_that_goes_back_to_waiting_has_not_ended():
    lines = Lines("name", 2, Clock())
    lines.began(trial("a"))
    lines.ended(ended("a", "waiting", points=(), error="interrupted"))
    assert (lines.done, lines.running) == (0, {})
    assert sentence(ended("a", "waiting", error="interrupted")) == "one: a seed 0 goes back to waiting: interrupted"


def test_a_time_is_said_as_a_person_says_it():
    assert [duration(seconds) for seconds in (4.24, 59.9, 185, 3750)] == ["4.2 s", "59.9 s", "3:05 min", "1:02:30 h"]


# --- its folder ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a sweep of two trials; one has its run there."""
    folder = tmp_path_factory.mktemp("sweeps") / "lr"
    arms = tuple(Arm(name=f"lr={lr}", settings={"lr": lr}) for lr in (0.1, 0.2))
    plan = Plan(target="t", phases=(Phase(arms=arms),), seeds=(0,), metric="validation/hierarchy", better="lower")
    open_folder(folder, plan, command="trimtab sweep t lr=0.1,0.2", paths={})
    kept = record(folder / "runs", training(40), name="kept")
    with Store.open(store_of(folder)) as store:
        store.add("lr", plan.trials(plan.phases[0]))
        for name in ("here", "gone"):
            claim = store.claim("lr", "host:1")
            made = result(claim.trial.arm, 0, run=kept.path.name if name == "here" else "gone")
            store.finish(claim, TrialResult.from_dict({**made.as_dict(), "trial": claim.trial.as_dict()}))
    return folder, kept.path.name


def test_report_writes_the_page_of_a_sweep(sweep, capsys):
    said = run(capsys, "report", sweep[0], "--fail-on", "never")
    assert (said.code, said.out, said.err) == (0, f"{sweep[0] / 'report.html'}\n", "")
    assert "trimtab sweep t lr=0.1,0.2" in (sweep[0] / "report.html").read_text()
    said = run(capsys, "report", sweep[0], "--format", "json", "--fail-on", "never")
    document = json.loads(said.out)
    assert document["sweep"]["name"] == "lr"
    assert document["report"] == str(sweep[0] / "report.html")
    assert len(document["trials"]) == 2


def test_runs_lists_the_runs_of_a_sweep_with_arm_and_seed(sweep, capsys):
    folder, name = sweep
    said = run(capsys, "runs", folder)
    heading, row = (line.split() for line in said.out.splitlines())
    assert heading[:4] == ["run", "phase", "arm", "seed"]
    assert row[:3] == [name, "lr=0.1", "0"]
    (listed,) = json.loads(run(capsys, "runs", folder, "--format", "json").out)["runs"]
    assert (listed["id"], listed["phase"], listed["arm"], listed["seed"]) == (name, "", "lr=0.1", 0)


def test_a_sweep_is_known_by_the_file_that_it_is_written_with(sweep, tmp_path):
    assert _swept.FACTS == FACTS
    assert _swept.is_sweep(sweep[0])
    assert not _swept.is_sweep(tmp_path)
    assert not _swept.is_sweep(None)
