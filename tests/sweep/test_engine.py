"""Trials as processes: what comes of one, however it ends; nothing outlives the sweep."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

from trimtab import Run
from trimtab.errors import UserError
from trimtab.sweep.child import arguments_of
from trimtab.sweep.engine import LocalEngine, environment_of, usable_cores
from trimtab.sweep.job import Job, result_path
from trimtab.trial import Trial

TOY = "tests.sweep.toy:SYSTEM"
SLOW = {"steps": 10**6}
METRIC = "validation/distance"

SCRIPT = """
    import argparse, torch
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float); parser.add_argument("--seed", type=int)
    parser.add_argument("--fail", action=argparse.BooleanOptionalAction)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
    for step in range(6):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(torch.ones(4, 2)), torch.zeros(4, 1))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch.nn.functional.mse_loss(model(torch.ones(2, 2)), torch.zeros(2, 1))
    assert not options.fail, "asked to fail"
"""


def toy(tmp_path, seed=0, *, arm="a", metric=METRIC, options=None, **settings):
    trial = Trial(target=TOY, arm=arm, seed=seed, settings=settings)
    return Job(trial=trial, root=tmp_path / "sweep", metric=metric, better="lower", options=options or {})


def wait(handle, seconds=120.0):
    until = time.monotonic() + seconds
    while (ended := handle.poll()) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    return ended


def result_of(engine, job):
    ended = wait(engine.start(job))
    assert ended.result is not None, ended
    return ended.result


@pytest.fixture(scope="module")
def engine():
    with LocalEngine(2, fresh=False) as local:
        yield local


def test_a_trial_gives_its_metrics_its_best_weights_and_its_run(engine, tmp_path):
    progress = tmp_path / "progress.json"
    job = toy(tmp_path, lr=0.7, steps=5, options={"progress": str(progress)})
    result = result_of(engine, job)
    assert (result.status, result.steps, result.error, result.trial) == ("finished", 5, "", job.trial)
    assert [step for step, _ in result.points] == [0, 2, 4, 5]
    assert [step for step, _ in result.others["validation/x"]] == [0, 2, 4, 5]
    assert result.evaluations_again == (result.best, result.best)
    assert result.cpu_seconds > result.train_cpu_seconds > 0
    assert len(result.losses_hash) == len(result.config_hash) == len(result.checkpoint_hash) == 16
    run = Run(job.runs / result.run)
    assert run.facts.seed == 0
    assert run.config()["config"]["steps"] == 5
    assert (run.path / result.checkpoint / "GOOD").exists() is False
    assert (run.path / result.checkpoint / "model.safetensors").is_file()
    assert json.loads(progress.read_text()) == {
        "updates": 5, "planned": 5, "points": [list(point) for point in result.points],
    }  # fmt: skip
    assert "trial " + job.trial.key in job.log.read_text()


def test_the_best_weights_are_those_of_the_best_evaluation_that_the_guard_allows(engine, tmp_path):
    away = toy(tmp_path, lr=1.2, steps=4)  # every update takes it further from 1
    first = result_of(engine, away)
    assert first.best_step == 0
    assert first.evaluations_again == (first.points[0][1],) * 2
    bound = first.points[0][1] * 1.5
    guarded = result_of(engine, dataclasses.replace(away, options={"guard": f"{METRIC} > {bound}"}))
    allowed = [value for _, value in guarded.points if value > bound]
    assert guarded.evaluations_again == (min(allowed),) * 2
    assert guarded.losses_hash == first.losses_hash


@pytest.mark.slow
def test_forked_or_fresh_a_trial_is_the_same_bit_for_bit(engine, tmp_path):
    forked = result_of(engine, toy(tmp_path, 3, lr=0.3))
    with LocalEngine(1, fresh=True) as local:
        fresh = result_of(local, toy(tmp_path, 3, lr=0.3))
    assert fresh.checkpoint_hash == forked.checkpoint_hash
    own = {"run": "", "cpu_seconds": 0.0, "wall_seconds": 0.0, "train_cpu_seconds": 0.0, "code": ""}
    assert dataclasses.replace(fresh, **own) == dataclasses.replace(forked, **own)
    other = result_of(engine, toy(tmp_path, 4, lr=0.3))
    assert other.losses_hash != forked.losses_hash
    assert other.config_hash == forked.config_hash


def test_a_training_that_raises_is_a_failed_trial_with_what_it_had(engine, tmp_path):
    job = toy(tmp_path, crash=True)
    ended = wait(engine.start(job))
    assert (ended.returncode, ended.lost, ended.error) == (1, False, "RuntimeError: the disk is full")
    assert ended.result.status == "failed"
    assert [step for step, _ in ended.result.points] == [0, 2]
    assert Run(job.runs / ended.result.run).status == "failed"
    assert "Traceback" in job.log.read_text()


def test_wrong_settings_fail_the_trial_and_say_why(engine, tmp_path):
    result = result_of(engine, toy(tmp_path, learning_rate=1.0))
    assert result.status == "failed"
    assert "there is no setting 'learning_rate'" in result.error


def test_a_metric_that_never_came_fails_the_trial_and_says_which_did(engine, tmp_path):
    result = result_of(engine, toy(tmp_path, metric="validation/accuracy"))
    assert result.status == "failed"
    assert result.error == (
        "the metric 'validation/accuracy' was never recorded; recorded: validation/distance, validation/x"
    )


def test_a_value_that_stands_for_a_path_is_replaced(engine, tmp_path):
    job = toy(tmp_path, checkpoint="checkpoint:1234", options={"paths": {"checkpoint:1234": "/somewhere"}})
    result = result_of(engine, job)
    assert Run(job.runs / result.run).config()["config"]["checkpoint"] == "/somewhere"
    assert result.trial.settings == {"checkpoint": "checkpoint:1234"}


def begun(job, seconds=120.0):
    """Wait until a trial trains."""
    until = time.monotonic() + seconds
    path = job.options["progress"]
    while not os.path.exists(path):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_stopped_trial_closes_its_run(engine, tmp_path):
    job = toy(tmp_path, **SLOW, options={"progress": str(tmp_path / "progress.json")})
    handle = engine.start(job)
    begun(job)
    handle.stop()
    ended = wait(handle)
    assert (ended.returncode, ended.error, ended.lost) == (130, "interrupted", False)
    assert ended.result.points[0][0] == 0
    assert Run(job.runs / ended.result.run).status == "interrupted"


def test_a_killed_trial_has_failed_and_says_by_what(engine, tmp_path):
    job = toy(tmp_path, **SLOW, options={"progress": str(tmp_path / "progress.json")})
    handle = engine.start(job)
    begun(job)
    os.kill(handle._process.pid, signal.SIGKILL)
    ended = wait(handle)
    assert (ended.returncode, ended.result.status) == (-9, "failed")
    assert ended.error.startswith("killed by SIGKILL; it said last: ")
    assert ended.result.points[0][0] == 0


def test_a_trial_that_does_not_want_to_end_is_killed(engine, tmp_path, monkeypatch):
    from trimtab.sweep import engine as module

    monkeypatch.setattr(module, "LAST_GRACE", 0.2)
    job = toy(tmp_path, **SLOW, options={"progress": str(tmp_path / "progress.json")})
    handle = engine.start(job)
    begun(job)
    os.killpg(handle._process.pid, signal.SIGSTOP)
    handle.stop(grace=0.1)
    ended = wait(handle, 20.0)
    assert (ended.returncode, ended.result, ended.error) == (-9, None, "interrupted")


def sleeper(tmp_path, name="sleeper"):
    """A script that says which process it is, and sleeps: it needs no torch."""
    path = tmp_path / f"{name}.py"
    text = f"""
        import os, pathlib, time
        here = pathlib.Path({str(tmp_path)!r})
        (here / "part").write_text(str(os.getpid()))
        (here / "part").rename(here / "{name}.pid")
        time.sleep(1000)
    """
    path.write_text(textwrap.dedent(text))
    return Job(trial=Trial(target=str(path), arm="a", seed=0), root=tmp_path / "sweep", metric="loss")


def pid_of(tmp_path, name="sleeper"):
    path = tmp_path / f"{name}.pid"
    until = time.monotonic() + 120.0
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    return int(path.read_text())


def gone(pid):
    until = time.monotonic() + 20.0
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_when_the_server_is_gone_its_trials_are_lost_and_the_next_one_has_a_server(tmp_path):
    local = LocalEngine(1, fresh=False)
    handle: Any = local.start(sleeper(tmp_path))
    first = pid_of(tmp_path)
    local._server._process.kill()
    ended = wait(handle)
    assert (ended.lost, ended.result) == (True, None)
    assert gone(handle._process.pid)
    assert gone(first)
    again: Any = local.start(sleeper(tmp_path, "again"))
    second = pid_of(tmp_path, "again")
    local.close()
    assert again.poll().error == "interrupted"
    assert gone(again._process.pid)
    assert gone(second)


@pytest.mark.parametrize("fresh", [False, True])
def test_no_trial_outlives_its_sweep_however_that_ends(tmp_path, fresh):
    program = f"""
        import time
        from pathlib import Path
        from tests.sweep.test_engine import sleeper
        from trimtab.sweep.engine import LocalEngine
        local = LocalEngine(1, fresh={fresh})
        handle = local.start(sleeper(Path({str(tmp_path)!r})))
        time.sleep(1000)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)]) as sweep:
        pid = pid_of(tmp_path)
        sweep.kill()
    assert gone(pid)


def script(tmp_path, *, metric="evaluation/loss", **settings):
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(SCRIPT))
    trial = Trial(target=str(path), arm="lr=0.1", seed=1, settings=settings)
    return Job(trial=trial, root=tmp_path / "sweep", metric=metric, better="lower")


def test_a_script_is_watched_and_its_metric_read(engine, tmp_path):
    job = script(tmp_path, lr=0.1, metric="")
    result = result_of(engine, job)
    assert (result.status, result.metric, result.better, result.steps) == ("finished", "evaluation/loss", "lower", 6)
    assert [step for step, _ in result.points] == list(range(1, 1 + len(result.points)))
    run = Run(job.runs / result.run)
    assert run.settings()["arguments"] == {"lr": 0.1, "seed": 1, "fail": None}
    assert result.checkpoint == ""
    assert len(result.losses_hash) == 16


@pytest.mark.slow
def test_a_script_that_fails_is_a_failed_trial(engine, tmp_path):
    result = result_of(engine, script(tmp_path, lr=0.1, fail=True))
    assert result.status == "failed"
    assert "asked to fail" in result.error
    assert len(result.points) > 0


def test_settings_become_the_words_of_a_command_line(tmp_path):
    job = script(tmp_path, lr=1e-5, name="a b", on=True, off=False, none=None, many=[1, 2.5], folder="checkpoint:1")
    job = dataclasses.replace(job, options={"paths": {"checkpoint:1": "/there"}})
    assert arguments_of(job) == [
        "--lr", "1e-05", "--name", "a b", "--on", "--no-off", "--many", "1", "2.5", "--folder", "/there", "--seed", "1",
    ]  # fmt: skip
    assert arguments_of(dataclasses.replace(job, options={"argv": ["seed=1", 2]})) == ["seed=1", "2"]


def test_a_job_comes_back_from_its_file_and_two_attempts_have_two_files(tmp_path):
    job = toy(tmp_path, lr=float("inf"), text="NaN")
    first, second = job.write(), job.write()
    assert first != second
    assert Job.read(first) == job
    assert result_path(first).parent == first.parent


def test_slots_and_threads(monkeypatch):
    assert LocalEngine().slots == usable_cores()
    with pytest.raises(UserError, match="expected how many trials may run at once, 1 or more, got 0"):
        LocalEngine(0)
    assert environment_of(3)["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environment_of(3)["OMP_NUM_THREADS"] == "3"
