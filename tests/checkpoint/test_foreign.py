"""Plain files of others: read whatever they are called, refused when they hold more than tensors."""

import io
import os
import pickle
import struct
import zipfile
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.checkpoint.kit import Runs, Small, damaged, same
from trimtab.checkpoint import load, read_plain, save
from trimtab.errors import CheckpointError


def test_plain_files_are_read_whatever_they_are_called(tmp_path):
    tensors = dict(Small().state_dict())
    torch.save(tensors, tmp_path / "a.bin")
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "b.pt")
    torch.save({"mine": tensors, "other": {}, "epoch": 3}, tmp_path / "c.pt")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save(tmp_path / "d", tensors)
    assert same(read_plain(tmp_path / "a.bin"), tensors)
    assert same(read_plain(tmp_path / "b.pt"), tensors)
    assert same(read_plain(tmp_path / "c.pt", key="mine"), tensors)
    assert same(read_plain(tmp_path / "old.pt"), tensors)
    assert same(read_plain(tmp_path / "d" / "model.safetensors"), tensors)
    with pytest.raises(CheckpointError, match="Say key="):
        read_plain(tmp_path / "c.pt")


def bomb(path, *, compressed: bool, overlapping: bool = False):
    torch.save({"a": torch.zeros(10)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in entries.items():
            archive.writestr(name, bytes(20_000_000) if name.endswith("data/0") and compressed else content)
    if overlapping:  # the directory lists one file a thousand times, each with the size of the whole
        raw = bytearray(path.read_bytes())
        end = raw.rfind(b"PK\x05\x06")
        begin, entry = struct.unpack_from("<I", raw, end + 16)[0], 0
        first = raw[begin : begin + 46 + sum(struct.unpack_from("<HHH", raw, begin + 28))]
        struct.pack_into("<II", first, 20, 10**6, 10**6)
        many = 1000
        tail = bytearray(raw[end:])
        struct.pack_into("<HHII", tail, 8, many, many, many * len(first), begin)
        path.write_bytes(raw[:begin] + first * many + tail)
        assert entry == 0


@pytest.mark.parametrize("kind", ["compressed", "overlapping"])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, kind):
    path = tmp_path / "bomb.pt"
    bomb(path, compressed=kind == "compressed", overlapping=kind == "overlapping")
    assert path.stat().st_size < 200_000
    with pytest.raises(CheckpointError, match="would become"):
        read_plain(path)
    with pytest.raises(CheckpointError, match="would become"):
        load(path, nn.Linear(1, 1))


def test_a_file_with_objects_is_not_opened_and_its_advice_not_passed_on(tmp_path):
    for name, content in {"a": Runs(), "b": {"w": torch.ones(1), "o": Small()}, "c": [torch.ones(1)]}.items():
        for new in (True, False):
            torch.save(content, tmp_path / f"{name}{new}.pt", _use_new_zipfile_serialization=new)
            with pytest.raises(CheckpointError) as refusal:
                read_plain(tmp_path / f"{name}{new}.pt")
            assert "weights_only" not in str(refusal.value)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(CheckpointError, match="no plain state_dict"):
        read_plain(tmp_path / "raw.pt")
    assert not os.path.exists("/tmp/trimtab-unpickled")


@given(data=st.data(), new=st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_damage_to_a_file_of_torch_is_refused_or_read(data, new):
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(6.0), "b": torch.ones(2, 2)}, buffer, _use_new_zipfile_serialization=new)
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"trimtab-fuzz-{os.getpid()}.pt")
    try:
        with open(path, "wb") as file:
            file.write(damaged(buffer.getvalue(), data.draw))
        with suppress(CheckpointError):
            assert all(isinstance(value, torch.Tensor) for value in read_plain(path).values())
    finally:
        os.remove(path)
