"""The final measurement: what is counted, which run is opened, and what is refused."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trimtab.errors import RunError, UserError
from trimtab.resume import FOLDER
from trimtab.run import Run
from trimtab.train import train
from trimtab_systems.sci import __main__ as typed
from trimtab_systems.sci import evaluate
from trimtab_systems.sci.data import (
    ACTIONS,
    all_examples,
    clauses,
    encode_words,
    interpret,
    open_test,
    seen_clauses,
    train_of,
)
from trimtab_systems.sci.recipe import SYSTEM


def knowing(change=lambda words, actions: actions):
    """Return a model that answers as the grammar says, after `change(words, actions)`."""
    rows = encode_words([example.words for example in all_examples()])
    keys = [tuple(row) for row in rows.tolist()]
    found = {
        key: tuple(map(ACTIONS.index, change(example.words, example.actions)))
        for key, example in zip(keys, all_examples(), strict=True)
    }
    return lambda words_BN: [found[tuple(row)] for row in words_BN.tolist()]


def a_model(predict, split="length"):
    return evaluate.Trained(
        run="a",
        preset="tiny",
        config=SimpleNamespace(split=split, split_seed=0),
        seed=0,
        step=1,
        model=nn.Identity(),
        predict=predict,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(SYSTEM, preset="tiny", seed=3, root=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def live(run):
    """The model that the run of this seed ends with, trained again."""
    built = []
    train(SYSTEM, preset="tiny", seed=3, root=run.path.parent.parent / "again", checkpoint_every=0, built=built.append)
    return built[0].model


# what is counted


def test_a_model_that_knows_the_grammar_is_right_everywhere():
    result = evaluate.final(a_model(knowing()))
    assert (result.all.exact, result.all.n) == (3920, 3920)
    assert {name: one.n for name, one in result.by_clauses.items()} == {"seen clauses": 776, "an unseen clause": 3144}
    assert sum(one.n for one in result.by_length.values()) == 3920
    assert all(not by for by in result.mistakes.values())
    assert not result.examples


def test_a_model_that_knows_whole_clauses_alone_reaches_their_share():
    old = seen_clauses(train_of("length"))

    def only_known(words, actions):
        return actions if all(clause in old for clause in clauses(words)) else ("I_WALK",)

    result = evaluate.final(a_model(knowing(only_known)))
    assert result.all.exact_match == 776 / 3920
    assert result.by_clauses["an unseen clause"].exact == 0


def test_every_mistake_has_one_class_an_amount_and_its_class_an_example():
    result = evaluate.final(a_model(knowing(lambda words, actions: actions[:22])))
    early = result.mistakes["stopped early"]
    assert sum(early.values()) == 3920
    assert early[2] == result.by_length["24"].n
    command, answer, target = result.examples["stopped early"]
    assert target.startswith(answer)
    assert len(target.split()) == len(interpret(command.split()))


def test_a_test_that_was_trained_on_is_refused():
    with pytest.raises(UserError, match=r"test commands of 'addprim-jump' were trained on.*split=addprim-jump"):
        evaluate.final(a_model(knowing()), "addprim-jump")


def test_a_result_becomes_plain_values_and_text():
    wrong = a_model(knowing(lambda words, actions: (*actions, "I_RUN")))
    result = evaluate.final(wrong)
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["exact_match"] == 0
    assert plain["mistakes"]["stopped late"] == {"1": 3920}
    assert plain["by_clauses"]["seen clauses"]["n"] == 776
    lines = evaluate.text(wrong, "length", result)
    assert any(line.split()[:3] == ["all", "0", "3,920"] for line in lines)
    assert any(line.startswith("stopped late") and "1 (3,920 times)" in line for line in lines)


# which run is opened


def test_the_weights_are_those_that_the_training_ended_with(run, live):
    opened = evaluate.open_run(run)
    assert opened.step == SYSTEM.build(opened.config, 3).steps
    assert not opened.model.training
    there = opened.model.state_dict()
    assert live.state_dict().keys() == there.keys()
    assert all(torch.equal(value, there[name]) for name, value in live.state_dict().items())


def test_without_a_run_it_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRIMTAB_RUNS", str(tmp_path))
    assert evaluate.main([]) == 2
    assert "trimtab train sci --preset reference" in capsys.readouterr().err
    assert typed.main(["walk"]) == 2
    assert "trimtab train sci --preset reference" in capsys.readouterr().err


def test_a_run_that_did_not_come_to_its_end_is_refused(run):
    run.close_as("killed", even_if_ended=True)
    try:
        with pytest.raises(RunError, match=r"killed.*--resume"):
            evaluate.open_run(run)
    finally:
        run.close_as("finished", even_if_ended=True)


def test_a_run_whose_last_checkpoint_is_damaged_is_refused(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    newest = max((tmp_path / "copy" / FOLDER).glob("step-*"))
    for file in newest.iterdir():
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(RunError, match="newest whole checkpoint"):
        evaluate.open_run(Run(tmp_path / "copy"))


# the commands


def test_the_command_prints_a_table_and_json(run, monkeypatch, capsys):
    monkeypatch.setenv("TRIMTAB_RUNS", str(run.path.parent))
    monkeypatch.setattr(evaluate, "open_test", lambda split, seed=0: open_test(split, seed)[:60])
    assert evaluate.main([]) == 0
    assert f"run {run.id}" in capsys.readouterr().out
    assert evaluate.main([run.id, "--format", "json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["n"] == 60
    assert plain["split"] == "length"


def test_a_typed_command_is_answered(run, monkeypatch, capsys):
    monkeypatch.setenv("TRIMTAB_RUNS", str(run.path.parent))
    assert typed.main(["walk", "left"]) == 0
    said = capsys.readouterr().out
    assert run.id in said
    assert "a training command" in said
    assert typed.main(["walk lfet"]) == 2
    assert "Did you mean 'left'" in capsys.readouterr().err


def test_commands_are_asked_for_until_an_empty_line(run, monkeypatch, capsys):
    monkeypatch.setenv("TRIMTAB_RUNS", str(run.path.parent))
    lines = iter(["jump twice", "jmup", "look", "", "run"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    assert typed.main(["--format", "json"]) == 0
    heard = capsys.readouterr()
    assert [json.loads(line)["command"] for line in heard.out.splitlines()] == ["jump twice", "look"]
    assert "Did you mean 'jump'" in heard.err
    assert next(lines) == "run"
