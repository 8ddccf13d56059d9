"""Silencing on real runs: pyproject.toml and --ignore; what was left out, why, and what never matched, is said."""

import json
import textwrap

import pytest
import yaml

from tests.cli.commands import alone, run, start
from tests.cli.test_watch import script
from trimtab.report.html import write
from trimtab.run import list_runs

TABLE = """
[tool.trimtab]
every = 4
overhead = 0.5
ignore = [
    { code = "gradients-accumulate", because = "this script sums on purpose" },
    "gradient-exploding", "learning-rate-zero@7",
]
[tool.trimtab.detectors.gradients-accumulate]
confirm = 2
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pyproject.toml").write_text(TABLE)
    return tmp_path


def one_line(text):
    return " ".join(text.split())


def test_what_the_project_says_holds_under_watch_and_every_report_lists_it(folder, capsys):
    path = script(folder, clear="pass")
    said = start("watch", "--root", "runs", "--fail-on", "error", "train.py", cwd=folder)
    assert said.out == alone(capsys, path)
    assert "gradients-accumulate: left out 1 finding, because this script sums on purpose" in said.err
    assert "learning-rate-zero@7: never matched" in said.err
    (found,) = list_runs(folder / "runs")
    ours = yaml.safe_load((found.path / "config.yaml").read_text())["trimtab"]
    assert (ours["every"], ours["overhead"]) == (4, 0.5)
    assert ours["detectors"]["gradients-accumulate"]["confirm"] == 2
    assert ours["pyproject"] == str(folder / "pyproject.toml")
    assert {"rule": "gradients-accumulate", "because": "this script sums on purpose"} in ours["ignore"]
    text = run(capsys, "diagnose", found.path, "--fail-on", "never").out
    assert "gradients-accumulate left out 1 finding this script sums on purpose" in one_line(text)
    assert "learning-rate-zero@7 never matched" in one_line(text)
    document = json.loads(run(capsys, "diagnose", found.path, "--format", "json", "--fail-on", "never").out)
    ignored = {one["rule"]: one for one in document["verdict"]["ignored"]}
    assert ignored["gradients-accumulate"]["count"] == 1
    assert ignored["learning-rate-zero@7"]["count"] == 0
    page = write(found).read_text()
    assert "left out 1 finding: this script sums on purpose" in page
    assert "never matched" in page


def test_a_slip_in_the_table_is_said_and_the_script_is_watched_all_the_same(tmp_path, capsys):
    (tmp_path / "pyproject.toml").write_text("[tool.trimtab]\nignor = ['gradients-accumulate']\n")
    path = script(tmp_path, clear="pass")
    said = start("watch", "--root", "runs", "train.py", cwd=tmp_path)
    assert said.out == alone(capsys, path)
    assert said.code == 1
    assert "what pyproject.toml says is left out: " in said.err
    assert "no setting 'ignor'. Did you mean 'ignore'?" in said.err
    assert "gradients-accumulate" in said.err


def test_diagnose_leaves_out_what_it_is_told_to(runs, capsys):
    before = json.loads(run(capsys, "diagnose", "last", "--format", "json").out)["verdict"]
    codes = {finding["code"] for finding in before["findings"]}
    words = [word for code in sorted(codes) for word in ("--ignore", code)]
    said = run(capsys, "diagnose", "last", "--format", "json", *words)
    after = json.loads(said.out)["verdict"]
    assert said.code == 0
    assert after["findings"] == []
    assert {one["rule"] for one in after["ignored"] if one["count"]} >= codes
    wrong = run(capsys, "diagnose", "last", "--ignore", "gradient-explodes")
    assert wrong.code == 2
    assert "Did you mean 'gradient-exploding'?" in wrong.err


def test_judging_again_takes_todays_table(runs, capsys, tmp_path, monkeypatch):
    before = json.loads(run(capsys, "diagnose", "last", "--rejudge", "--format", "json").out)["verdict"]
    code = before["findings"][0]["code"]
    (tmp_path / "pyproject.toml").write_text(
        textwrap.dedent(f"[tool.trimtab]\nignore = [{{ code = '{code}', because = 'seen' }}]\n")
    )
    monkeypatch.chdir(tmp_path)
    after = json.loads(run(capsys, "diagnose", "last", "--rejudge", "--format", "json").out)["verdict"]
    assert code not in {finding["code"] for finding in after["findings"]}
    assert {"rule": code, "because": "seen", "count": 1} in after["ignored"]


def test_train_takes_ignores(tmp_path, capsys):
    words = ["separability", "--fault", "random-sequences", "steps=85", "--root", tmp_path]
    said = run(capsys, "train", *words, "--ignore", "milestone-missed", "--fail-on", "never")
    assert said.code == 0, said
    assert "ignored on request: milestone-missed: left out" in said.out
    assert run(capsys, "train", *words, "--ignore", "milestone-mist").code == 2
