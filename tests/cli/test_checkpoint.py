"""`trimtab checkpoint`: what a checkpoint holds, whether it is whole, how two differ, and one made of a plain file."""

import json

import pytest
import torch
from torch import nn

from tests.cli.commands import run
from trimtab.checkpoint import TrainingState, load, save
from trimtab.checkpoint.rotation import Checkpoints


class Net(nn.Sequential):
    def __init__(self, dropout=0.1):
        super().__init__(nn.Linear(2, 3), nn.Dropout(dropout), nn.Linear(3, 1))
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.5)


@pytest.fixture
def folder(tmp_path):
    """A folder of three checkpoints, the middle one good."""
    model = Net()
    state = TrainingState({"model": model}, {"main": torch.optim.SGD(model.parameters(), lr=0.1)})
    with Checkpoints(tmp_path / "checkpoints", keep=3, good_after=2) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(state, step, metrics={"loss": 0.25 / step}, config={"dropout": 0.1})
            model[0].bias.data += 1.0
            checkpoints.mark_clean(step + 2, clean=step == 20)
    return tmp_path


def test_inspect_says_what_a_checkpoint_holds(folder, capsys):
    said = run(capsys, "checkpoint", "inspect", folder / "checkpoints" / "step-000000000030")
    assert said.code == 0
    words = " ".join(said.out.split())
    for expected in ("step 30", "good not marked", "0.weight float32 (3, 2)", "main (torch.optim.sgd.SGD)", "0.0083"):
        assert expected in words
    document = json.loads(run(capsys, "checkpoint", "inspect", folder, "--format", "json").out)
    assert (document["step"], document["good"], document["config"]) == (20, True, {"dropout": 0.1})
    assert document["models"]["model"]["tensors"]["0.weight"]["shape"] == [3, 2]


def test_verify_looks_at_all_and_ends_with_1_when_one_is_damaged(folder, capsys):
    said = run(capsys, "checkpoint", "verify", folder)
    assert said.code == 0
    assert said.out.count(": whole: 3 files, ") == 3
    weights = folder / "checkpoints" / "step-000000000020" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    said = run(capsys, "checkpoint", "verify", folder / "checkpoints")
    assert said.code == 1
    assert "step-000000000020: DAMAGED: " in said.out
    assert run(capsys, "checkpoint", "verify", folder / "checkpoints" / "step-000000000010").code == 0
    said = run(capsys, "checkpoint", "verify", weights.parent, "--format", "json")
    assert said.code == 1
    assert [one["ok"] for one in json.loads(said.out)] == [False]


def test_diff_names_what_differs(folder, capsys):
    first, second = (folder / "checkpoints" / f"step-{step:012d}" for step in (10, 20))
    said = run(capsys, "checkpoint", "diff", first, second)
    assert said.code == 0
    words = " ".join(said.out.split())
    assert "0.bias values float32 (3,) float32 (3,) 2" in words
    assert "3 tensors are the same, 1 differ" in words
    assert "4 tensors are the same\n" in run(capsys, "checkpoint", "diff", first, first).out
    save(folder / "other", Net(dropout=0.3))
    document = json.loads(run(capsys, "checkpoint", "diff", first, folder / "other", "--format", "json").out)
    assert document["equal"] is False
    assert "1.p" in [setting["key"] for setting in document["settings"]]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_convert_makes_a_checkpoint_of_a_plain_file(tmp_path, capsys, suffix):
    from safetensors.torch import save_file

    file = tmp_path / f"weights{suffix}"
    tensors = Net().state_dict()
    torch.save(tensors, file) if suffix == ".pt" else save_file(tensors, file)
    said = run(capsys, "checkpoint", "convert", file, tmp_path / "made")
    assert said.code == 0, said
    assert "4 tensors, 13 numbers" in said.out
    model = Net()
    model[0].bias.data.zero_()
    assert load(tmp_path / "made", model).loaded
    assert model[0].bias.tolist() == [0.5] * 3
    assert "exists already" in run(capsys, "checkpoint", "convert", file, tmp_path / "made").err


class Evil:
    def __reduce__(self):
        return (print, ("this must never be run",))


def test_what_cannot_be_used_is_one_line_that_says_what_to_do(folder, tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    for words, expected in [
        (("inspect", tmp_path / "none"), "there is no such folder; give the folder that holds manifest.json"),
        (("verify", tmp_path / "none"), "there is no such folder"),
        (("inspect", tmp_path / "run"), "is a run without checkpoints; train with --checkpoint-every N"),
        (("diff", folder, tmp_path / "none"), "there is no such f"),
        (("convert", tmp_path / "evil.pt", tmp_path / "made"), "this is no plain state_dict"),
        (("convert", tmp_path / "none.pt", tmp_path / "made"), "this file is missing"),
        (("inspekt",), "No such command 'inspekt'"),
    ]:
        said = run(capsys, "checkpoint", *words)
        assert (said.code, said.out) == (2, ""), said
        assert expected in said.err, said
        assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "made").exists()
