"""`trimtab sweep` in real processes: interrupted, gone on with, listed, and what its exit code says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import run
from trimtab.sweep import read_sweep

REPOSITORY = Path(__file__).parents[2]
TOY = "tests.sweep.toy:SYSTEM"
JOBS = """# what is tried
quick: steps=4

- [ ] crash: crash=true
slow: pause=0.4
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder, from which the toy can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ["PYTHONPATH"]]))
    return tmp_path


def standing(path):
    return {one.trial.arm: one.status for one in read_sweep(path).results}


def test_an_interrupted_sweep_leaves_with_130_and_the_same_command_goes_on(elsewhere, capsys):
    Path("jobs.txt").write_text(JOBS)
    words = ["sweep", TOY, "--jobs", "jobs.txt", "--seeds", "1", "--workers", "1", "--name", "a", "--tick"]
    words += ["--metric", "distance", "--better", "lower"]
    process = subprocess.Popen(
        [sys.executable, "-m", "trimtab", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    began = time.monotonic()
    while not Path("sweeps/a/trials.sqlite").exists() or standing("sweeps/a").get("slow") != "running":
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 120
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "[1/3] quick seed 0 finished: validation/distance best" in err
    assert "[2/3] crash seed 0 failed: RuntimeError: the disk is full" in err
    assert "interrupted: what was running waits again, what has ended is kept; the same command goes on" in err
    assert standing("sweeps/a") == {"quick": "finished", "crash": "failed", "slow": "waiting"}
    assert Path("jobs.txt").read_text() == JOBS

    said = run(capsys, *words)
    assert said.code == 1, said  # a trial failed
    assert "a: 3 trials, 2 of them ended before (1 failed; --retry-failed runs those again); in sweeps/a" in said.err
    assert "quick" not in said.err
    assert standing("sweeps/a") == {"quick": "finished", "crash": "failed", "slow": "finished"}
    assert "report: sweeps/a/report.html" in said.out
    assert "<html" in Path("sweeps/a/report.html").read_text()
    assert json.loads(Path("sweeps/a/summary.json").read_text())["summary"]["totals"]["counts"]["failed"] == 1
    assert Path("jobs.txt").read_text() == (
        "# what is tried\n[x] quick: steps=4\n\n- [ ] crash: crash=true\n[x] slow: pause=0.4\n"
    )

    listed = run(capsys, "sweep", "--list", "a")
    assert listed.code == 0
    assert [line.split()[:3] for line in listed.out.splitlines()[1:]] == [
        ["quick", "0", "finished"], ["crash", "0", "failed"], ["slow", "0", "finished"],
    ]  # fmt: skip
    assert "-crash-seed-0-" in listed.out
    assert run(capsys, "sweep", "--list").out.splitlines()[1].split()[:5] == ["a", TOY, "3", "2", "1"]
