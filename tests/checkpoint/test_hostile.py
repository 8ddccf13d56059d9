"""Whatever a file is, it is refused with its name, or gives exactly what was saved. Nothing in it is run."""

import hashlib
import json
import os
import pickle
import shutil
import struct
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpoint.kit import Runs, Small, Training, damaged, kept, same, seal
from trimtab.checkpoint import TrainingState, inspect, load, resume, save, verify
from trimtab.checkpoint.reading import read
from trimtab.checkpoint.tensor_file import read as read_tensors
from trimtab.errors import CheckpointError

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    training = Training().steps(2)
    path = save(tmp_path_factory.mktemp("whole") / "a", training.state, step=2, metrics={"loss": 0.5})
    return path, training.state.capture().tensors


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "a")


def is_refused_everywhere(path, words="", where=""):
    """Every way in refuses it, naming the file; the training that it was meant for is as it was."""
    training = Training(seed=8)
    before = training.weights()
    ways = {
        "read": lambda: read(path),
        "resume": lambda: resume(path, training.state),
        "load": lambda: load(path, training.model, name="model"),
    }
    for call in ways.values():
        with pytest.raises(CheckpointError) as refusal:
            call()
        assert words in str(refusal.value), str(refusal.value)
        assert where in str(refusal.value)
    assert verify(path).problem
    assert same(before, training.weights())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer", "link", "pipe", "folder"])
def test_a_file_that_is_not_as_it_was(copied, name, damage):
    file = copied / name
    content = file.read_bytes()
    file.unlink()
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "longer":
        file.write_bytes(content + b"\0")
    elif damage == "link":
        (copied.parent / "elsewhere").write_bytes(content)
        file.symlink_to(copied.parent / "elsewhere")
    elif damage == "pipe":
        os.mkfifo(file)
    elif damage == "folder":
        file.mkdir()
    is_refused_everywhere(copied, where=name)


def test_bits_that_flipped_are_refused_or_change_nothing(whole, tmp_path):
    path, tensors = whole
    path = shutil.copytree(path, tmp_path / "a")
    generator = torch.Generator().manual_seed(0)
    for name in FILES:
        content = (path / name).read_bytes()
        bits = range(0, 8 * len(content), 17) if name == "manifest.json" else range(25)
        for bit in bits:
            if name != "manifest.json":
                bit = int(torch.randint(8 * len(content), (1,), generator=generator))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            (path / name).write_bytes(flipped)
            is_refused_or_right(path, tensors)
        (path / name).write_bytes(content)
    assert verify(path).ok


def is_refused_or_right(path, tensors) -> bool:
    """Whether it was refused; what is accepted must be what was saved."""
    try:
        contents = read(path)
    except CheckpointError as error:
        told = str(error)
    else:
        told = ""
    if told:
        assert str(path) in told
        return True
    assert contents.state["step"] == 2
    assert all(torch.equal(contents.training[key], tensors[key]) for key in contents.training if key in tensors)
    for model, mine in contents.tensors.items():
        assert all(torch.equal(tensor, tensors[f"model/{model}/{name}"]) for name, tensor in mine.items())
    return False


def often(examples):
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )  # fmt: skip


def is_refused_or_harmless(whole, tmp_path, data, name):
    path, tensors = whole
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    (copy / name).write_bytes(damaged((copy / name).read_bytes(), data.draw))
    is_refused_or_right(copy, tensors)


@given(data=st.data(), name=st.sampled_from(FILES))
@often(60)
def test_any_damage_to_any_file_is_refused_or_harmless(whole, tmp_path, data, name):
    is_refused_or_harmless(whole, tmp_path, data, name)


@pytest.mark.slow
@given(data=st.data(), name=st.sampled_from(FILES))
@often(2000)
def test_any_damage_to_any_file_is_refused_or_harmless_at_length(whole, tmp_path, data, name):
    is_refused_or_harmless(whole, tmp_path, data, name)


SIGNED = st.sampled_from(["model.safetensors", "optimizer.safetensors", "state.json"])


@given(data=st.data(), name=SIGNED)
@often(40)
def test_damage_under_a_manifest_that_agrees_with_it_raises_nothing_but_a_refusal(whole, tmp_path, data, name):
    raises_nothing_but_a_refusal(whole, tmp_path, data, name)


@pytest.mark.slow
@given(data=st.data(), name=SIGNED)
@often(2000)
def test_damage_under_a_manifest_that_agrees_with_it_at_length(whole, tmp_path, data, name):
    raises_nothing_but_a_refusal(whole, tmp_path, data, name)


def raises_nothing_but_a_refusal(whole, tmp_path, data, name):
    """A liar can sign what he changed. He gets other numbers in, but no other exception and nothing run."""
    path, _ = whole
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    (copy / name).write_bytes(damaged((copy / name).read_bytes(), data.draw))
    seal(copy)
    training = Training(seed=8)
    before = training.weights()
    try:
        resume(copy, training.state)
    except CheckpointError:
        assert same(before, training.weights())
    with suppress(CheckpointError):
        inspect(copy)


@given(st.binary(max_size=200) | st.binary(max_size=64).map(lambda content: struct.pack("<Q", 24) + b"{" + content))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_tensors_or_refused(content):
    with suppress(CheckpointError):
        read_tensors(bytearray(content), "file")


def edited(path, name, change):
    content = json.loads((path / name).read_text())
    change(content)
    (path / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["files"]["state.json"].update(size=1), "the manifest says 1"),
        (lambda m: m["files"]["state.json"].update(size=True), "size or the hash"),
        (lambda m: m["files"]["model.safetensors"].update(sha256="0" * 64), "not what the manifest says"),
        (lambda m: m["files"]["model.safetensors"].update(sha256=3), "size or the hash"),
        (lambda m: m["files"].update({"../x": m["files"]["state.json"]}), "leads out of the checkpoint"),
        (lambda m: m["files"].update({"/etc/passwd": m["files"]["state.json"]}), "leads out of the checkpoint"),
        (lambda m: m["files"].update({"more.json": m["files"]["state.json"]}), "expected ["),
        (lambda m: m["files"].pop("state.json"), "expected ["),
        (lambda m: m.update(format=99), "install a newer"),
        (lambda m: m.update(format=True), "format number is True"),
        (lambda m: m.pop("format"), "no format number"),
        (lambda m: m.update(more=1), "expected format and files"),
        (lambda m: m.update(files=[]), "expected format and files"),
    ],
)
def test_a_lying_manifest(copied, change, words):
    edited(copied, "manifest.json", change)
    is_refused_everywhere(copied, words, "model.safetensors" if "not what" in words else "")


def test_a_file_that_nobody_listed(copied):
    (copied / "more.bin").write_bytes(b"x")
    is_refused_everywhere(copied, "which the manifest does not list")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_that_is_called_safetensors_is_never_opened(copied, protocol):
    with open(copied / "model.safetensors", "wb") as file:
        pickle.dump(Runs(), file, protocol=protocol)
    seal(copied)
    is_refused_everywhere(copied, "a pickle and no safetensors file")
    torch.save({"a": torch.ones(1)}, copied / "model.safetensors")
    seal(copied)
    is_refused_everywhere(copied, "a zip file")
    assert not os.path.exists("/tmp/trimtab-unpickled")


def file_of(header, data=b"", length=None) -> bytearray:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return bytearray(struct.pack("<Q", len(text) if length is None else length) + text + data)


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (file_of({"a": ONE}, b"1234", length=2**63), "claims"),
        (file_of({"a": ONE}, b"1234", length=10**9), "claims"),
        (file_of({"a": {**ONE, "shape": [2**62, 2**62, 4]}}, b"1234"), "needs other than"),
        (file_of({"a": {**ONE, "shape": [-1]}}, b"1234"), "whole numbers"),
        (file_of({"a": {**ONE, "shape": [True]}}, b"1234"), "whole numbers"),
        (file_of({"a": {**ONE, "shape": 4}}, b"1234"), "damaged"),
        (file_of({"a": {**ONE, "dtype": "F33"}}, b"1234"), "damaged"),
        (file_of({"a": {**ONE, "data_offsets": [4, 8]}}, b"12345678"), "is meant"),
        (file_of({"a": {**ONE, "data_offsets": [0, 4], "more": 1}}, b"1234"), "has the keys"),
        (file_of({"a": ONE, "b": ONE}, b"1234"), "is meant"),
        (file_of({"a": ONE}, b"12345678"), "belong to no tensor"),
        (file_of({"a": ONE}, b"12"), "is meant"),
        (file_of({"a": 3}, b"1234"), "damaged"),
        (file_of(b'{"a": 1, "a": 2}'), "twice"),
        (file_of(b'{"a": NaN}'), "NaN"),
        (file_of(b'{"a": 1e999}'), "too large"),
        (file_of(b'{"a": ' + b"9" * 5000 + b"}"), "digits"),
        (file_of(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "deep"),
        (file_of(b'{"a": "\xff"}'), "utf-8"),
        (file_of({"__metadata__": {"a": 1}}), "not texts"),
        (file_of({"__metadata__": {"trimtab.viewed": '{"a": "complex128"}'}, "a": ONE}, b"1234"), "cannot be bytes"),
        (bytearray(b"12"), "cut off"),
        (bytearray(b"\x1f\x8b" + b"0" * 20), "compressed"),
    ],
    ids=range(23),
)
def test_a_file_of_tensors_that_lies(content, words):
    with pytest.raises(CheckpointError, match=r"x\.safetensors") as refusal:
        read_tensors(content, "x.safetensors")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": 1, "format": 1}', "twice"),
        ('{"format": NaN}', "NaN"),
        ("[" * 10_000, "deep"),
        ("[]", "no object"),
        ("{}", "format number is None"),
        ('{"format": 1}', "expected"),
    ],
)
def test_a_state_that_lies(copied, text, words):
    (copied / "state.json").write_text(text)
    seal(copied)
    is_refused_everywhere(copied, words, "state.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["models"]["model"]["tensors"]["first.weight"].update(sha256="0" * 64),
        lambda s: s["models"]["model"]["tensors"]["first.weight"].update(shape=[1]),
        lambda s: s["models"]["model"]["tensors"]["first.weight"].update(dtype="float33"),
        lambda s: s["models"]["model"]["tensors"]["first.weight"].update(tied_to="first.bias"),
        lambda s: s["models"]["model"]["tensors"].pop("first.weight"),
        lambda s: s["models"]["model"]["tensors"].update(more=s["models"]["model"]["tensors"]["first.weight"]),
        lambda s: s["models"]["model"].update(modules=3),
        lambda s: s["models"]["model"].update(build=[]),
        lambda s: s.update(models=[]),
        lambda s: s.update(models={}),
    ],
    ids=range(10),
)
def test_a_description_that_lies(copied, change):
    edited(copied, "state.json", change)
    seal(copied)
    is_refused_everywhere(copied)


def test_huge_json_is_refused_before_it_is_read(copied):
    os.truncate(copied / "manifest.json", 10**12)
    is_refused_everywhere(copied, "at most", "manifest.json")


@pytest.mark.parametrize("name", ["missing", "file", "runs"])
def test_a_path_that_is_no_checkpoint_says_what_to_give(whole, tmp_path, name):
    (tmp_path / "file").write_text("x")
    shutil.copytree(whole[0], tmp_path / "runs" / "step-1")
    words = {"missing": "no such folder", "file": "a checkpoint is a folder", "runs": "step-1"}[name]
    with pytest.raises(CheckpointError, match=words):
        inspect(tmp_path / name)


def test_the_hash_in_the_manifest_is_that_of_the_file(whole):
    manifest = json.loads((whole[0] / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        content = (whole[0] / name).read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_random_numbers_that_cannot_be_put_back_change_nothing(tmp_path):
    path = save(tmp_path / "a", TrainingState({"model": Small()}))
    edited(path, "state.json", lambda state: state["training"]["random"]["numpy"].update(bit_generator="PCG64"))
    seal(path)
    other = Small()
    before, random = kept(other), torch.get_rng_state()
    with pytest.raises(CheckpointError, match="the random numbers cannot be put back"):
        resume(path, TrainingState({"model": other}))
    assert same(kept(other), before)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("metrics", [{"a": 1}, {"a": {"value": "x", "noise": 0.0, "mode": "eval"}}, {"a": {}}, [1]])
def test_a_metric_that_is_none_is_refused(tmp_path, metrics):
    path = save(tmp_path / "a", Small(), metrics={"a": 1.0})
    edited(path, "state.json", lambda state: state.update(metrics=metrics))
    seal(path)
    for look in (inspect, lambda path: load(path, Small(), verify=lambda _: 1.0)):
        with pytest.raises(CheckpointError, match="a metric is"):
            look(path)
    assert not verify(path).ok
