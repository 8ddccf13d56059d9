"""Real scripts under `watch`: what they print, return and compute is what they would without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from trimtab.errors import UserError
from trimtab.records import Finding, Severity
from trimtab.run import Run, list_runs
from trimtab.watch import Options, run_command

TRAIN = """
import sys, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(40):
    x = torch.randn(16, 4)
    loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    {inside}
print("weights", [round(float(p.sum()), 8) for p in model.parameters()], torch.rand(1).item())
{after}
"""


def script(folder: Path, inside: str = "pass", after: str = "") -> Path:
    path = folder / "train.py"
    path.write_text(textwrap.dedent(TRAIN).format(inside=inside, after=after))
    return path


def run_bare(path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(path), *args], capture_output=True, text=True, check=False)


def watched(path: Path, root: Path, *args: str, **options):
    return run_command([sys.executable, str(path), *args], Options(root=str(root), **options))


def the_run(root: Path) -> Run:
    runs = list_runs(root)
    assert len(runs) == 1
    return runs[0]


ENDINGS = {
    "to its end": ("pass", "", 0, "finished"),
    "sys.exit": ("pass", "sys.exit(7)", 7, "failed"),
    "sys.exit in the loop": ("sys.exit(0) if step == 20 else None", "", 0, "finished"),
    "an exception": ("1 / (20 - step)", "", 1, "failed"),
    "os._exit": ("__import__('os')._exit(3) if step == 20 else None", "", 3, "failed"),
    "Ctrl-C": ("__import__('os').kill(__import__('os').getpid(), 2) if step == 20 else None", "", 130, "interrupted"),
    "SIGTERM": ("__import__('os').kill(__import__('os').getpid(), 15) if step == 20 else None", "", 143, "killed"),
    "SIGKILL": ("__import__('os').kill(__import__('os').getpid(), 9) if step == 20 else None", "", 137, "killed"),
}


REACHES_ITS_END = ("to its end", "sys.exit")
"""The others end in the loop, before anything is printed."""


@pytest.fixture(scope="module")
def printed_alone(tmp_path_factory) -> str:
    """What the script prints at its end without us."""
    return run_bare(script(tmp_path_factory.mktemp("alone"))).stdout


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_endings_are_what_they_are_without_us(tmp_path, ending, printed_alone):
    inside, after, code, _ = ENDINGS[ending]
    bare = run_bare(script(tmp_path, inside, after))
    assert (128 - bare.returncode if bare.returncode < 0 else bare.returncode) == code
    assert bare.stdout == (printed_alone if ending in REACHES_ITS_END else "")


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_a_script_ends_its_run_is_whole_and_its_exit_code_its_own(tmp_path, ending, capfd, printed_alone):
    inside, after, code, status = ENDINGS[ending]
    result = watched(script(tmp_path, inside, after), tmp_path / "runs")
    assert printed_alone.startswith("weights [")
    assert result.exit_code == code
    assert capfd.readouterr().out == (printed_alone if ending in REACHES_ITS_END else "")
    run = the_run(tmp_path / "runs")
    assert run.status == status
    assert run.facts.how["exit_code"] == code or (status == "finished" and code == 0)
    steps = [row.step for row in run.rows() if "loss" in row.values]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 20
    if code > 128:
        assert run.facts.how["signal"] == signal.Signals(code - 128).name


def test_the_namespace_of_argparse_is_kept_with_the_run_and_secrets_are_not(tmp_path, capfd):
    after = """
import argparse
"""
    path = tmp_path / "train.py"
    head = (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--lr', type=float)\n"
        "parser.add_argument('--api-key')\nargs = parser.parse_args()\n"
    )
    path.write_text(head + textwrap.dedent(TRAIN).format(inside="pass", after=after))
    watched(path, tmp_path / "runs", "--lr", "0.3", "--api-key", "hunter2")
    run = the_run(tmp_path / "runs")
    assert run.settings()["arguments"]["lr"] == 0.3
    assert "hunter2" not in "".join(p.read_text() for p in run.path.rglob("*.json"))


def test_a_script_that_never_trains_leaves_no_run(tmp_path, capfd):
    path = tmp_path / "hello.py"
    path.write_text("import torch\nprint('hello')\n")
    result = watched(path, tmp_path / "runs")
    assert (result.exit_code, result.runs) == (0, ())
    assert not (tmp_path / "runs").exists() or not list_runs(tmp_path / "runs")


def test_nothing_is_imported_earlier_than_without_us(tmp_path, capfd):
    path = tmp_path / "modules.py"
    path.write_text(
        "import sys\nheavy = [m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules]\n"
        "print(heavy, __name__, sys.argv[1:])\n"
        "print([p for p in sys.path if 'trimtab' in p and 'bootstrap' in p])\n"
    )
    bare = run_bare(path, "--x")
    watched(path, tmp_path / "runs", "--x")
    assert capfd.readouterr().out == bare.stdout == "[] __main__ ['--x']\n[]\n"


def test_a_sitecustomize_of_the_machine_still_runs(tmp_path, capfd, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("print('site was here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    path = script(tmp_path)
    watched(path, tmp_path / "runs")
    assert capfd.readouterr().out.startswith("site was here\nweights")
    assert the_run(tmp_path / "runs").status == "finished"


def test_workers_of_a_loader_are_left_alone(tmp_path, capfd):
    path = tmp_path / "train.py"
    path.write_text(
        textwrap.dedent("""
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        if __name__ == "__main__":
            torch.manual_seed(0)
            x = torch.randn(64, 4)
            loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 16, shuffle=True, num_workers=2)
            model = nn.Linear(4, 2)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in range(2):
                for x, y in loader:
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    optimizer.step()
                with torch.no_grad():
                    nn.functional.cross_entropy(model(x), y)
            print(float(model.weight.sum()))
        """)
    )
    bare = run_bare(path)
    result = watched(path, tmp_path / "runs")
    assert result.exit_code == 0
    assert capfd.readouterr().out == bare.stdout
    run = the_run(tmp_path / "runs")
    assert len([row for row in run.rows() if "loss" in row.values]) == 8


def test_a_response_asked_for_stops_the_script_with_one_line(tmp_path, capfd):
    path = script(tmp_path, "p0 = model[0].weight.data.fill_(float('nan')) if step == 20 else None")
    result = watched(path, tmp_path / "runs", respond={"*": "stop"})
    captured = capfd.readouterr()
    assert result.exit_code == 1
    assert "training stopped" in captured.err
    assert "Traceback" not in captured.err
    run = the_run(tmp_path / "runs")
    assert run.status == "stopped"
    assert [o.step for o in run.outcomes()] == [21]


def test_a_finding_is_said_when_it_opens_and_judged_like_any_other(tmp_path, capfd):
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(TRAIN).replace("optimizer.zero_grad()", "pass").format(inside="pass", after=""))
    watched(path, tmp_path / "runs")
    assert "opened error gradients-accumulate" in capfd.readouterr().err
    events = the_run(tmp_path / "runs").events()
    assert any(isinstance(e, Finding) and e.severity >= Severity.ERROR for e in events)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"milestones": ("loss < 1",)}, "expected 'METRIC >= VALUE by STEP'"), ({"respond": {"*": "stpo"}}, "'stop'")],
)
def test_wrong_options_are_an_error_before_anything_starts(tmp_path, options, says):
    marker = tmp_path / "ran"
    path = tmp_path / "touch.py"
    path.write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(UserError, match=says):
        watched(path, tmp_path / "runs", **options)
    assert not marker.exists()


def test_a_command_that_does_not_exist_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="cannot start '/no/such/program'"):
        run_command(["/no/such/program"], Options(root=str(tmp_path)))


def test_a_run_killed_while_it_writes_opens_and_holds_every_whole_row(tmp_path):
    path = script(tmp_path, "__import__('time').sleep(0.01)")
    environment = {**os.environ, "TRIMTAB_RUNS": str(tmp_path / "runs")}
    code = f"from trimtab.watch import *; import sys; run_command([sys.executable, {str(path)!r}], Options())"
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        runs = list_runs(tmp_path / "runs") if (tmp_path / "runs").exists() else []
        if runs and sum(1 for _ in runs[0].rows()) > 5:
            break
        time.sleep(0.02)
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait()
    run = the_run(tmp_path / "runs")
    while run.status != "died" and time.monotonic() < deadline:  # the killed grandchild takes a moment to be gone
        time.sleep(0.02)
    assert run.status == "died"
    assert len([row for row in run.rows() if "loss" in row.values]) > 5


def test_a_notebook_cell_is_watched_and_a_second_call_closes_the_first(tmp_path):
    code = textwrap.dedent(f"""
        import trimtab, torch, json
        from torch import nn
        first = trimtab.watch(root={str(tmp_path / "runs")!r}, name="one")
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        def train():
            for _ in range(3):
                model(torch.ones(2, 4)).sum().backward(); optimizer.step(); optimizer.zero_grad()
        train()
        with trimtab.watch(root={str(tmp_path / "runs")!r}, name="two") as second:
            train()
        print(json.dumps([first.run_path.name, second.run_path.name]))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = json.loads(done.stdout)
    for name in names:
        run = Run(tmp_path / "runs" / name)
        assert run.status == "finished"
        assert len([row for row in run.rows() if "loss" in row.values]) == 3
