"""A checkpoint is there whole or not at all, and what it holds comes back bit for bit."""

import builtins
import errno
import json
import os
import stat
import struct
import threading

import pytest
import torch
from torch import nn

from tests.checkpoint.kit import Small, Training, same, seal
from trimtab.checkpoint import Constructor, Measured, TrainingState, inspect, load, resume, save, verify, writing
from trimtab.checkpoint.reading import read
from trimtab.checkpoint.tensor_file import read as read_tensors
from trimtab.errors import CheckpointError, UserError


def test_a_training_is_resumed_exactly_in_another_process_as_it_were(tmp_path):
    training = Training(seed=3).steps(11)
    save(tmp_path / "step-11", training.state, step=11)
    once = training.steps(8).weights()
    other = Training(seed=99)
    restored = resume(tmp_path / "step-11", other.state)
    assert not restored.left
    assert same(other.steps(8).weights(), once)


def test_a_moment_of_earlier_can_be_saved(tmp_path):
    training = Training().steps(2)
    then = training.state.capture()
    training.steps(2)
    save(tmp_path / "then", training.state, captured=then)
    other = Training(seed=5)
    resume(tmp_path / "then", other.state)
    assert same(other.state.capture().tensors, then.tensors)


def test_what_is_recorded(tmp_path):
    model = Constructor.of(Small, 5, tied=True).build()
    model.first.bias.requires_grad_(False)
    save(
        tmp_path / "a", model, optimizers=torch.optim.Adam(model.parameters()), step=3, seed=7,
        config={"lr": 1e-3, "deep": {"inf": float("inf")}}, facts={"note": ("a", None)},
        metrics={"accuracy": 0.5, "loss": Measured(value=float("nan"), noise=0.1, mode="train")},
    )  # fmt: skip
    seen = inspect(tmp_path / "a")
    assert (seen.step, seen.seed["given"], seen.good, seen.finite, seen.format) == (3, 7, False, True, 1)
    assert seen.config == {"lr": 1e-3, "deep": {"inf": float("inf")}}
    assert seen.facts == {"note": ("a", None)}
    assert seen.metrics["accuracy"] == {"value": 0.5, "noise": 0.0, "mode": "eval"}
    assert seen.metrics["loss"]["mode"] == "train"
    assert set(seen.versions) == {"trimtab", "torch", "numpy", "python"}
    assert seen.optimizers == {"main": "torch.optim.adam.Adam"}
    described = seen.models["model"]
    assert described.build.code == "Small(size=5, hidden=6, eps=0.001, tied=True, kind='plain')"
    assert described.attributes["norm.eps"] == 1e-3
    assert described.attributes["drop.p"] == 0.2
    assert described.attributes["kind"] == "plain"
    assert described.modules["drop"] == "torch.nn.modules.dropout:Dropout"
    assert described.tensors["again.weight"].tied_to == "first.weight"
    assert not described.tensors["scale"].persistent
    assert not described.tensors["first.bias"].trained
    assert described.tensors["norm.num_batches_tracked"].kind == "buffer"
    assert seen.parameters == sum(parameter.numel() for parameter in model.parameters())
    # The weights are a state_dict that other tools read: ties once, hidden buffers elsewhere.
    stored = read_tensors(bytearray((tmp_path / "a" / "model.safetensors").read_bytes()), "")
    assert set(stored) == set(model.state_dict()) - {"again.weight"}
    assert all(torch.equal(stored[name], model.state_dict()[name]) for name in stored)


def test_weights_that_are_not_finite_are_told(tmp_path):
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    assert not inspect(save(tmp_path / "a", model)).finite


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip


def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    tensors = {}
    for dtype in DTYPES:
        for shape in [(), (0,), (3,), (2, 3), (2, 0, 3)]:
            count = torch.Size(shape).numel() * dtype.itemsize
            content = torch.randint(0, 2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8)
            filled = content.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
            tensors[f"{dtype}-{shape}"] = filled
    tensors["turned"] = torch.arange(6.0).reshape(2, 3).t()
    tensors["part"] = torch.arange(10.0)[3:7:2]
    tensors["conjugate"] = torch.tensor([1 + 2j]).conj()
    tensors["expanded"] = torch.ones(1).expand(4)
    save(tmp_path / "a", tensors)
    back = read(tmp_path / "a").tensors["model"]
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        got = back[name]
        assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape), name
        if tensor.numel():
            mine = tensor.resolve_conj().contiguous().reshape(-1).view(torch.uint8)
            assert torch.equal(mine, got.contiguous().reshape(-1).view(torch.uint8)), name
        assert got.data_ptr() % got.dtype.itemsize == 0


def test_the_reference_reader_reads_what_is_written_and_the_other_way_round(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="the package is compared with where it is installed")
    model = Small()
    save(tmp_path / "a", model)
    assert same(safetensors.load_file(tmp_path / "a" / "model.safetensors"), dict(model.state_dict()))
    safetensors.save_file(model.state_dict(), tmp_path / "b.safetensors")
    load(tmp_path / "b.safetensors", Small())


class Failing:
    """The n-th call of `what` fails as a full disk does; counts the calls when n is None."""

    def __init__(self, monkeypatch, number=errno.ENOSPC):
        self.calls, self.fail_at, self.number = 0, None, number
        real_open, real_fsync, real_rename, real_mkdir = builtins.open, os.fsync, os.rename, os.mkdir

        def counted(real):
            def call(*args, **kwargs):
                self.tick()
                return real(*args, **kwargs)

            return call

        def opened(path, mode="r", *args, **kwargs):
            if "x" in mode:
                self.tick()
            file = real_open(path, mode, *args, **kwargs)
            return _Counting(file, self) if "x" in mode else file

        monkeypatch.setattr(writing, "open", opened, raising=False)
        monkeypatch.setattr(os, "fsync", counted(real_fsync))
        monkeypatch.setattr(os, "rename", counted(real_rename))
        monkeypatch.setattr(os, "mkdir", counted(real_mkdir))

    def tick(self):
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(self.number, os.strerror(self.number))


class _Counting:
    def __init__(self, file, failing):
        self.file, self.failing = file, failing

    def write(self, content):
        self.failing.tick()
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written to"), (errno.EIO, "could not be written")],
)
def test_a_failure_at_any_point_of_writing_leaves_nothing_and_says_why(tmp_path, monkeypatch, number, words):
    save(tmp_path / "before", nn.Linear(2, 2))
    failing = Failing(monkeypatch, number)
    model = nn.Linear(2, 2)
    save(tmp_path / "counted", model)
    points = failing.calls
    assert points > 12
    for point in range(1, points + 1):
        failing.calls, failing.fail_at = 0, point
        with pytest.raises(CheckpointError, match=words) as refusal:
            save(tmp_path / f"try-{point}", model)
        assert "nothing that was there was touched" in str(refusal.value)
        failing.fail_at = None
        assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "counted"]
    assert verify(tmp_path / "before").ok


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere; the test above does it without the system")
        with pytest.raises(CheckpointError, match="cannot be written to"):
            save(folder / "a", nn.Linear(1, 1))
    finally:
        folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("there", ["full", "empty", "file", "link"])
def test_what_exists_is_never_written_over(tmp_path, there):
    target = tmp_path / "a"
    if there == "full":
        save(target, nn.Linear(2, 2))
    elif there == "empty":
        target.mkdir()
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    with pytest.raises(CheckpointError, match="exists already"):
        save(target, nn.Linear(2, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert there != "full" or verify(target).ok


def test_of_two_writers_of_one_name_one_wins_and_the_other_is_told(tmp_path, monkeypatch):
    real, met = os.rename, threading.Barrier(2)

    def together(*args):
        met.wait(20)
        return real(*args)

    monkeypatch.setattr(os, "rename", together)
    told = []

    def write(seed):
        try:
            save(tmp_path / "a", nn.Linear(2, 2), step=seed)
        except CheckpointError as error:
            told.append(str(error))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(told) == 1
    assert "another process wrote" in told[0]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert verify(tmp_path / "a").ok


def test_a_failure_of_the_training_itself_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="config/f"):
        save(tmp_path / "a", nn.Linear(1, 1), config={"f": print})
    with pytest.raises(UserError, match="part 'p'"):
        save(tmp_path / "a", TrainingState({"m": nn.Linear(1, 1)}, {}, {"p": iter([])}))
    with pytest.raises(UserError, match="plain values only"):
        save(tmp_path / "a", nn.Linear(1, 1), facts={"t": torch.ones(1)})
    with pytest.raises(UserError, match="expected a model"):
        save(tmp_path / "a", [nn.Linear(1, 1)])
    with pytest.raises(UserError, match="lazy"):
        save(tmp_path / "a", nn.LazyLinear(1))
    assert not list(tmp_path.iterdir())


def test_several_models_lie_in_one_file_under_their_names(tmp_path):
    save(tmp_path / "a", {"g": nn.Linear(2, 2), "d": nn.Linear(2, 1)})
    stored = read_tensors(bytearray((tmp_path / "a" / "model.safetensors").read_bytes()), "")
    assert set(stored) == {"g/weight", "g/bias", "d/weight", "d/bias"}
    with pytest.raises(CheckpointError, match="the models g, d"):
        load(tmp_path / "a", nn.Linear(2, 2))
    load(tmp_path / "a", nn.Linear(2, 1), name="d")


def test_a_compiled_or_wrapped_model_is_saved_under_its_own_names(tmp_path):
    model = Small()
    compiled = torch.compile(model, backend="eager")
    save(tmp_path / "a", compiled)
    other = Small()
    load(tmp_path / "a", other)
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    load(tmp_path / "a", torch.compile(Small(), backend="eager"))
    load(tmp_path / "a", nn.DataParallel(Small()))


def test_the_header_is_padded_so_that_tensors_stand_at_multiples_of_eight(tmp_path):
    save(tmp_path / "a", {"a": torch.ones(3, dtype=torch.int8), "b": torch.ones(1, dtype=torch.float64)})
    raw = (tmp_path / "a" / "model.safetensors").read_bytes()
    length = struct.unpack_from("<Q", raw)[0]
    assert length % 8 == 0
    assert json.loads(raw[8 : 8 + length])["b"]["data_offsets"] == [0, 8]


def test_a_checkpoint_of_a_newer_format_is_told(tmp_path):
    folder = save(tmp_path / "a", nn.Linear(1, 1))
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "format": 2}))
    seal(folder)
    with pytest.raises(CheckpointError, match="format 2, this Trimtab reads up to 1; install a newer"):
        inspect(folder)
