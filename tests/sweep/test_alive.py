"""A worker that ended with claims is known by its lock, at once; one that is alive never is."""

import subprocess
import sys
import time

from tests.sweep.pretended import Engine
from tests.sweep.test_sweep import plan
from trimtab.sweep import Store, Sweep
from trimtab.sweep.alive import SUFFIX, alive, has_ended
from trimtab.sweep.folder import open_folder

HOLD = """
import sys, time
from pathlib import Path
from trimtab.sweep.alive import alive
with alive(Path(sys.argv[1]), "there-1"):
    print("held", flush=True)
    time.sleep(600)
"""


def killed(folder):
    """A worker "there-1" that holds its lock, and is killed after it was looked at."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        before = has_ended(folder, "there-1")
        process.kill()
    return before


def test_a_worker_that_was_killed_has_ended_and_one_that_runs_has_not(tmp_path):
    assert killed(tmp_path) is False
    assert has_ended(tmp_path, "there-1") is True
    with alive(tmp_path, "here-2"):
        assert has_ended(tmp_path, "here-2") is False
    assert has_ended(tmp_path, "here-2") is False  # it gave all its claims back: there is nothing to say
    assert [path.name for path in tmp_path.iterdir()] == ["there-1" + SUFFIX]


def test_the_claims_of_a_killed_worker_are_free_at_once(tmp_path):
    sweep = Sweep(plan(seeds=(0,)), root=tmp_path, name="a", engine=Engine(), stale_seconds=600.0)
    open_folder(sweep.path, sweep.plan, paths={})
    killed(sweep.path / "jobs")
    with Store.open(sweep.path / "trials.sqlite") as store:
        store.add("a", sweep.plan.trials(sweep.plan.phases[0]))
        assert store.claim("a", "there-1").trial.arm == "lr=0.1"
    began = time.monotonic()
    results = sweep.run()
    assert [(one.status, one.attempts) for one in results] == [("finished", 2), ("finished", 1)]
    assert time.monotonic() - began < 60.0
