"""A JSONL file keeps every line that was written, whatever the disk did in between."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import RunError
from trimtab.run import lines
from trimtab.run.codec import header_line
from trimtab.run.lines import LineFile, read_lines

HEADER = header_line("notes")


class Disk:
    """Stands in for `os`: each write takes the next of `allowed` bytes, or everything when none is left."""

    def __init__(self, allowed=()):
        self.allowed = list(allowed)

    def __getattr__(self, name):
        return getattr(os, name)

    def write(self, fd, data):
        size = self.allowed.pop(0) if self.allowed else len(data)
        if size == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, bytes(data)[:size])


@pytest.fixture
def disk(monkeypatch):
    """A disk whose next writes are cut to the given sizes; 0 means that it is full."""
    stand_in = Disk()
    monkeypatch.setattr(lines, "os", stand_in)
    return stand_in


def contents(path):
    remarks: list[str] = []
    return [line for _, line in read_lines(path, "notes", remarks)][1:], remarks


@given(
    cuts=st.lists(st.integers(0, 30), max_size=40),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=12),
    pairs=st.booleans(),
)
def test_a_line_is_read_exactly_when_its_write_did_not_fail(tmp_path_factory, cuts, sizes, pairs):
    path = tmp_path_factory.mktemp("disk") / "notes.jsonl"
    disk = Disk(cuts)
    file = LineFile(path, HEADER)
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "os", disk)
        for index, size in enumerate(sizes):
            before = b'{"labels":%d}\n' % index if pairs else b""
            try:
                file.append(before + b'["%d%s"]\n' % (index, b"x" * size))
            except OSError:
                continue
            written.append([f"{index}{'x' * size}"])
        disk.allowed.clear()
        file.append(b'["last"]\n')
    file.close()
    read, _ = contents(path)
    assert [line for line in read if isinstance(line, list)] == [*written, ["last"]]


def test_a_full_disk_raises_and_the_next_line_announces_the_damage(tmp_path, disk):
    file = LineFile(tmp_path / "notes.jsonl", HEADER)
    file.append(b"[1]\n")
    disk.allowed = [4, 0]
    with pytest.raises(OSError, match="No space left"):
        file.append(b'["two"]\n')
    file.append(b"[3]\n")
    assert (tmp_path / "notes.jsonl").read_bytes() == HEADER + b'[1]\n["tw\n{"torn":4}\n[3]\n'
    read, remarks = contents(tmp_path / "notes.jsonl")
    assert read == [[1], [3]]
    assert remarks == ["notes.jsonl line 3: a line that was cut short is left out"]


def test_a_line_that_lacks_only_its_newline_counts_as_written(tmp_path, disk):
    file = LineFile(tmp_path / "notes.jsonl", HEADER)
    file.append(b"[1]\n")
    disk.allowed = [3, 0]
    file.append(b"[2]\n")
    assert contents(tmp_path / "notes.jsonl") == ([[1], [2]], [])
    file.append(b"[3]\n")
    assert contents(tmp_path / "notes.jsonl") == ([[1], [2], [3]], [])


def test_a_write_that_takes_several_calls_is_whole(tmp_path, disk):
    file = LineFile(tmp_path / "notes.jsonl", HEADER)
    disk.allowed = [5, 1, 2]
    file.append(b"[1]\n")
    assert contents(tmp_path / "notes.jsonl") == ([[1]], [])


def test_a_file_cut_at_any_byte_gives_a_prefix_of_its_lines(tmp_path):
    path = tmp_path / "notes.jsonl"
    file = LineFile(path, HEADER)
    whole = [[index, "ü" * index] for index in range(6)]
    for index, text in whole:
        file.append(f'[{index},"{text}"]\n'.encode())
    data = path.read_bytes()
    lengths = set()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        read, remarks = contents(path)
        assert read == whole[: len(read)]
        assert len(remarks) == (not _ends_a_line(data, size))
        lengths.add(len(read))
    assert lengths == set(range(7))


def _ends_a_line(data, size):
    return size == 0 or data[size - 1 : size] == b"\n" or data[size : size + 1] == b"\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER + b"[1]\n[2,\n[3]\n", r"notes.jsonl line 3 is damaged .*Restore the file"),
        (HEADER + b"[1]\n\x00\x00\n[3]\n", "line 3 is damaged"),
        (HEADER + b'[1]\n["tw\n{"torn":9}\n[3]\n', "line 3 is damaged"),
        (HEADER + b"[1]\n[2,\n", "line 3 is damaged"),
        (b"[1]\n", "line 1: expected a header with format and kind"),
        (header_line("outcomes"), "line 1: expected a file of notes, got one of outcomes"),
        (HEADER.replace(b"1", b"2"), "line 1 has format 2, this Trimtab reads formats up to 1; upgrade Trimtab"),
        (HEADER.replace(b"1", b'"x"'), "expected a format number from 1 to 1, got 'x'"),
    ],
)
def test_damage_in_the_middle_is_an_error_that_names_file_and_line(tmp_path, data, message):
    path = tmp_path / "notes.jsonl"
    path.write_bytes(data)
    with pytest.raises(RunError, match=message):
        contents(path)


def test_zeros_that_a_power_failure_left_at_the_end_are_a_torn_line(tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_bytes(HEADER + b"[1]\n[2" + bytes(300))
    assert contents(path) == ([[1]], ["notes.jsonl line 3: the last line is torn and left out"])
