"""`trimtab watch` around real scripts: output and exit code stay their own, the last lines say what was found."""

import importlib
import json
import signal
import sys
import textwrap

import pytest

from tests.cli.commands import alone, run, start
from trimtab.cli import _watching
from trimtab.run import Run, list_runs
from trimtab.watch import Watched

SCRIPT = """
import sys, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
print("arguments", sys.argv[1:])
for step in range(60):
    x = torch.randn(16, 4)
    loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
    {clear}
    loss.backward()
    optimizer.step()
print("weights", [round(float(p.detach().sum()), 8) for p in model.parameters()])
{after}
"""


def script(folder, *, clear="optimizer.zero_grad()", after=""):
    path = folder / "train.py"
    path.write_text(textwrap.dedent(SCRIPT).format(clear=clear, after=after))
    return path


def test_a_healthy_script_keeps_its_output_arguments_and_exit_code(tmp_path, capfd):
    path = script(tmp_path)
    words = ["--lr", "3e-4", "--fail-on", "info", "--", "-q"]  # all of these belong to the script
    said = start("watch", "--root", tmp_path / "runs", "--tag", "one", "--project", "p", path, *words)
    assert said.code == 0, said
    assert said.out == alone(capfd, path, *words)
    (found,) = list_runs(tmp_path / "runs")
    assert (found.facts.name, found.facts.project, found.facts.tags) == ("train", "p", ("one",))
    assert "trimtab: nothing wrong found; judged" in said.err
    assert "trimtab: no findings; judged" in said.err
    assert f"trimtab: details: trimtab diagnose {tmp_path / 'runs' / found.path.name}\n" in said.err
    assert f"trimtab: plots: trimtab report {tmp_path / 'runs' / found.path.name}\n" in said.err


def test_a_broken_script_gives_1_and_the_lines_name_the_cause(tmp_path, capfd):
    path = script(tmp_path, clear="pass")
    said = start("watch", path, env={"TRIMTAB_RUNS": str(tmp_path / "runs")})
    assert said.code == 1, said
    assert said.out == alone(capfd, path)
    assert "most likely cause: missing-zero-grad" in said.err
    assert "trimtab: do next: " in said.err
    (found,) = list_runs(tmp_path / "runs")
    assert f"trimtab diagnose {found.path.name}\n" in said.err  # what can be typed here


def test_the_scripts_own_failure_comes_through_and_is_never_covered_by_ours(tmp_path):
    path = script(tmp_path, clear="pass", after="sys.exit(7)")
    said = start("watch", "--root", tmp_path / "runs", "--", sys.executable, path)
    assert said.code == 7
    assert "gradients-accumulate" in said.err


def test_json_says_all_in_one_line_on_standard_error_also_where_nothing_else_is_said(tmp_path):
    path = script(tmp_path, clear="pass")
    said = start("watch", "--root", tmp_path / "runs", "--quiet", "--format", "json", path)
    assert said.code == 1
    (line,) = said.err.splitlines()
    document = json.loads(line)
    assert document["exit_code"] == 0
    assert document["runs"][0]["verdict"]["severity"] == "error"


def test_what_is_ignored_is_no_reason_to_fail_and_quiet_says_nothing(tmp_path):
    path = script(tmp_path, clear="pass")
    words = ["--ignore", "gradients-accumulate", "--milestone", "loss <= 9 by 20", "-q"]
    said = start("watch", "--root", tmp_path / "runs", *words, path)
    assert (said.code, said.err) == (0, ""), said
    (found,) = list_runs(tmp_path / "runs")
    assert found.facts.ignored["gradients-accumulate"] > 0
    assert "milestone-missed" in found.facts.judged


def test_a_response_stops_the_script_with_its_own_exit_code(tmp_path):
    said = start(
        "watch", "--root", tmp_path / "runs", "--respond", "gradients-accumulate=stop", script(tmp_path, clear="pass")
    )
    assert said.code == 1
    assert "training stopped: gradients-accumulate" in said.err
    assert "weights" not in said.out
    (found,) = list_runs(tmp_path / "runs")
    assert found.status == "stopped"


def test_the_safe_answers_keep_the_weights_of_a_script_whose_loss_breaks(tmp_path, capfd):
    path = script(tmp_path, clear="optimizer.zero_grad(); loss = loss * (float('nan') if step in (20, 22) else 1.0)")
    assert "nan" in alone(capfd, path)
    said = start("watch", "--root", tmp_path / "runs", "--respond", "safe", "--fail-on", "never", path)
    assert said.code == 0, said
    assert "nan" not in said.out
    assert "skip-step done" in said.err
    (found,) = list_runs(tmp_path / "runs")
    assert [(one.action, one.step, one.result) for one in found.outcomes()] == [
        ("skip-step", 20, "done"), ("skip-step", 22, "done"),
    ]  # fmt: skip
    assert found.status == "finished"


def test_a_killed_script_gives_the_code_of_its_signal_and_a_run_that_says_so(tmp_path):
    path = script(tmp_path, after="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    said = start("watch", "--root", tmp_path / "runs", path)
    assert said.code == 128 + signal.SIGKILL
    (found,) = list_runs(tmp_path / "runs")
    assert found.status == "killed"
    assert "was killed" in said.err


@pytest.mark.parametrize(
    ("code", "exit_code", "why"), [("", 0, "no optimizer of torch took a step"), ("3/0", 1, "ended with code 1")]
)
def test_a_program_without_a_training_is_told_apart_from_a_clean_one(tmp_path, code, exit_code, why):
    path = tmp_path / "plain.py"
    path.write_text(f"print('hello')\n{code}\n")
    said = start("watch", path, env={"TRIMTAB_RUNS": str(tmp_path / "runs")})
    assert (said.code, said.out) == (exit_code, "hello\n")
    assert "no training was seen" in said.err
    assert why in said.err


@pytest.mark.parametrize("exit_code", [0, 5])
def test_our_own_failure_at_the_end_does_not_change_the_scripts_code(
    monkeypatch, capsys, tmp_path, recorded, exit_code
):
    broken = recorded[1]["broken"]

    def fail(*args, **kwargs):
        raise ZeroDivisionError("inside")

    watched = Watched(exit_code=exit_code, runs=(Run(broken.path),))
    monkeypatch.setattr(importlib.import_module("trimtab.watch"), "run_command", lambda *args: watched)
    monkeypatch.setattr(importlib.import_module("trimtab.diagnose"), "diagnose", fail)
    said = run(capsys, "watch", sys.executable)
    assert said.code == exit_code
    assert "cannot sum up what was recorded (ZeroDivisionError: inside)" in said.err


def test_a_script_that_removes_its_own_run_folder_keeps_its_exit_code(tmp_path):
    path = script(tmp_path, after=f"import shutil; shutil.rmtree({str(tmp_path / 'runs')!r}); sys.exit(4)")
    said = start("watch", "--root", tmp_path / "runs", path)
    assert said.code == 4
    assert "Traceback" not in said.err
    assert "trimtab: cannot close the run" in said.err


def test_a_word_that_ends_in_py_is_run_by_this_python_and_any_other_is_a_command(tmp_path):
    path = script(tmp_path)
    assert _watching.command_of([str(path), "-x"]) == ([sys.executable, str(path), "-x"], "train")
    assert _watching.command_of(["torchrun", "--nproc", "2", "a/b.py"]) == (["torchrun", "--nproc", "2", "a/b.py"], "b")
    assert _watching.command_of(["make", "it"]) == (["make", "it"], "make")


def test_a_misspelt_script_is_answered_with_the_nearest_one(tmp_path, capsys):
    script(tmp_path)
    assert f"Did you mean '{tmp_path / 'train.py'}'?" in run(capsys, "watch", tmp_path / "trian.py").err
