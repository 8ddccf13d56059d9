"""What a run says about its machine: enough to explain a difference, never the environment at large."""

import json
import os
import shutil
import subprocess

import pytest

from trimtab.run import RunWriter, facts


def run_git(*arguments, cwd):
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env={**os.environ, **identity}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with one tracked file, as the working directory."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    run_git("init", "-q", cwd=folder)
    return folder


def test_commit_and_dirty_flag_are_those_of_the_working_directory(checkout):
    assert facts.git() is None  # no commit yet
    (checkout / "train.py").write_text("lr = 1\n")
    run_git("add", ".", cwd=checkout)
    run_git("commit", "-qm", "first", cwd=checkout)
    commit = run_git("rev-parse", "HEAD", cwd=checkout)
    assert facts.git() == {"commit": commit, "dirty": False}
    made = RunWriter.create(checkout / "runs")
    assert facts.git() == {"commit": commit, "dirty": False}  # a run folder makes nothing dirty
    assert json.loads((made.path / "run.json").read_text())["git"] == {"commit": commit, "dirty": False}
    (checkout / "train.py").write_text("lr = 2\n")
    assert facts.git() == {"commit": commit, "dirty": True}


def test_outside_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert facts.git() is None
    assert "git" not in json.loads((RunWriter.create(tmp_path).path / "run.json").read_text())


@pytest.mark.parametrize("problem", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 2.0)])
def test_a_git_that_is_absent_or_hangs_costs_no_run(monkeypatch, problem):
    def fail(*command, **options):
        assert options["timeout"] <= 2.0
        raise problem

    monkeypatch.setattr("trimtab.run.facts.subprocess.run", fail)
    assert facts.git() is None


def test_only_the_listed_environment_variables_are_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MY_PRIVATE_THING", "xyzzy-plugh")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "xyzzy-plugh")
    made = RunWriter.create(tmp_path)
    stored = json.loads((made.path / "environment.json").read_text())
    assert stored["variables"]["OMP_NUM_THREADS"] == "1"
    assert set(stored["variables"]) <= set(facts.ENVIRONMENT_VARIABLES)
    assert all("xyzzy" not in path.read_text() for path in made.path.rglob("*") if path.is_file())


def test_the_machine_is_described_and_not_named(tmp_path, monkeypatch):
    monkeypatch.setattr("trimtab.run.facts.platform.node", lambda: "adas-laptop")
    made = RunWriter.create(tmp_path)
    stored = json.loads((made.path / "environment.json").read_text())
    assert stored["cores"] == os.cpu_count()
    assert stored["memory_bytes"] > 2**20
    assert stored["packages"].keys() >= {"trimtab", "torch", "numpy"}
    assert len(json.loads((made.path / "run.json").read_text())["host"]) == 12
    assert all("adas-laptop" not in path.read_text() for path in made.path.rglob("*") if path.is_file())


def test_two_machines_have_two_hashes(monkeypatch):
    here = facts.host()
    assert here == facts.host()
    monkeypatch.setattr("trimtab.run.facts.platform.node", lambda: "another")
    assert facts.host() != here
