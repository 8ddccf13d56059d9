"""`trimtab train`: a reference system, healthy or broken on purpose, from the command line."""

import dataclasses
import importlib
import json
import sys

import pytest

from tests.cli.commands import run
from tests.report.recorded import NAN
from tests.sweep import toy
from trimtab.cli import _show
from trimtab.panels import Table
from trimtab.run import list_runs


def test_a_short_training_is_recorded_and_summed_up(tmp_path, capsys):
    words = [
        "separability",
        "steps=45",
        "warmup=5",
        "--seed",
        "3",
        "--name",
        "mine",
        "--root",
        tmp_path,
        "--fail-on",
        "never",
    ]
    said = run(capsys, "train", *words, "--format", "json")
    assert said.code == 0, said
    document = json.loads(said.out)
    (found,) = list_runs(tmp_path)
    assert document["run"]["id"] == found.id
    assert (found.facts.name, found.facts.seed, found.facts.system) == ("mine", 3, "separability")
    assert found.config()["config"]["steps"] == 45
    assert found.status == "finished"


def test_a_fault_on_purpose_gives_exit_code_1_and_the_next_command(tmp_path, capsys):
    said = run(capsys, "train", "separability", "--fault", "random-sequences", "steps=85", "--root", tmp_path)
    assert said.code == 1, said
    assert "milestone missed" in said.out
    assert f"trimtab diagnose {list_runs(tmp_path)[0].path}" in said.out


def test_a_file_of_settings_is_honoured_and_a_wrong_key_refused(tmp_path, capsys):
    (tmp_path / "good.yaml").write_text("steps: 12\nwarmup: 2\n")
    words = ["train", "separability", "--root", tmp_path / "runs", "--fail-on", "never"]
    assert run(capsys, *words, "--config", tmp_path / "good.yaml").code == 0
    (tmp_path / "bad.yaml").write_text("stepz: 12\n")
    said = run(capsys, *words, "--config", tmp_path / "bad.yaml")
    assert said.code == 2
    assert "Did you mean 'steps'?" in said.err


def test_the_bar_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    with _show.progress("x") as nothing:
        assert nothing is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with _show.progress("separability") as progress:
        assert progress is not None
        progress(3, 10, 0.25)
    assert capsys.readouterr().out == ""


def test_an_unknown_system_is_answered_before_anything_is_made(tmp_path, capsys):
    assert run(capsys, "train", "nope", "--root", tmp_path / "runs").code == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("setting", ["steps", "steps=", "=3", "steps=many"])
def test_a_setting_that_cannot_be_read_is_one_line(tmp_path, capsys, setting):
    said = run(capsys, "train", "separability", setting, "--root", tmp_path / "runs")
    assert said.code == 2
    assert len(said.err.splitlines()) == 1


def test_a_run_that_was_interrupted_is_gone_on_with(tmp_path, capsys, monkeypatch):
    words = ["train", "separability", "steps=20", "warmup=2", "--checkpoint-every", 5, "--keep", 2, "--root", tmp_path]
    monkeypatch.setattr("trimtab_systems.separability.recipe.next_token_loss", interrupted_at(14))
    assert run(capsys, *words).code == 130
    (found,) = list_runs(tmp_path)
    assert found.status == "interrupted"
    monkeypatch.undo()
    assert run(capsys, "train", "--resume", "last", "steps=20", "--root", tmp_path).code == 2  # warmup=2 is missing
    assert run(capsys, "train", "--resume", "nope", "--root", tmp_path).code == 2
    said = run(capsys, "train", "--resume", "last", "--root", tmp_path, "--fail-on", "never", "--format", "json")
    assert said.code == 0, said
    assert json.loads(said.out)["run"]["id"] == found.id
    assert [outcome.because for outcome in found.outcomes()] == ["went on after update 5"]
    again = run(capsys, "train", "--resume", "last", "--root", tmp_path)
    assert again.code == 2
    assert "has finished; there is nothing to go on with" in again.err


def interrupted_at(call):
    """Return a loss during whose `call`-th computation somebody presses Ctrl-C."""
    from trimtab_systems.separability.losses import next_token_loss

    calls = iter(range(1, call + 1))

    def loss(*args):
        if next(calls) == call:
            raise KeyboardInterrupt
        return next_token_loss(*args)

    return loss


@pytest.fixture
def showing(monkeypatch):
    """`trimtab train toy` trains the toy, which shows a panel after each update and closing tables."""

    def build(config, seed):
        training = toy.SYSTEM.build(config, seed)

        def observe(guard, done):
            guard.show("so-far", Table("So far", "", ("updates",), ((done,),)))
            guard.show("final", Table("Final", "c", ("what", "updates"), (("done", done), ("lost", NAN)), closing=True))

        return dataclasses.replace(training, observe=observe)

    system = dataclasses.replace(toy.SYSTEM, build=build)
    monkeypatch.setattr(importlib.import_module("trimtab.train"), "find_system", lambda name: system)


def test_closing_tables_are_printed_before_the_verdict(showing, tmp_path, capsys):
    said = run(capsys, "train", "toy", "steps=5", "--root", tmp_path, "--fail-on", "never")
    assert said.code == 0, said
    assert said.out.startswith("Final (step 4; panel final)\n  what  updates\n  done        5\n  lost      NaN\n\n")
    assert "So far" not in said.out
    assert "trimtab diagnose" in said.out.splitlines()[-2]


def test_the_document_of_a_training_holds_its_panels(showing, tmp_path, capsys):
    words = ["train", "toy", "steps=5", "--root", tmp_path, "--fail-on", "never", "--format", "json"]
    document = json.loads(run(capsys, *words).out)
    assert list(document["panels"]) == ["so-far", "final"]
    assert document["panels"]["final"]["rows"] == [["done", 5], ["lost", "NaN"]]
    assert (document["panels"]["final"]["closing"], document["panels"]["final"]["kind"]) == (True, "table")
