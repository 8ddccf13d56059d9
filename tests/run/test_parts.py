"""A sealed part holds exactly the rows of the JSONL part that it replaces, and never takes its place half written."""

import os
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.run.kit import SIGNALS, exactly, row
from trimtab.errors import RunError
from trimtab.run import Run, RunWriter
from trimtab.run.parts import Columns, read_part


@pytest.fixture
def sealed(tmp_path):
    """A part of ten rows."""
    columns = Columns()
    for step in range(10):
        columns.add(row(step, loss=1.0 / (step + 1), norms=(float(step), float("nan")), labels={"norms": ("a", "b")}))
    columns.write(tmp_path / "part-000001.npz")
    return tmp_path / "part-000001.npz"


@settings(deadline=None)
@given(st.lists(SIGNALS, max_size=12))
def test_a_sealed_part_gives_every_row_back_exactly(tmp_path_factory, signals):
    path = tmp_path_factory.mktemp("part") / "part.npz"
    columns = Columns()
    for signal in signals:
        columns.add(signal)
    columns.write(path)
    assert exactly(read_part(path)) == exactly(signals)


@settings(deadline=None, max_examples=20)
@given(signals=st.lists(SIGNALS, min_size=1, max_size=12), seal_rows=st.integers(1, 5))
def test_a_run_reads_the_same_whether_or_not_its_parts_were_sealed(tmp_path_factory, signals, seal_rows):
    root = tmp_path_factory.mktemp("runs")
    for name, size in (("open", 4096), ("sealed", seal_rows)):
        writer = RunWriter.create(path=root / name)
        writer.seal_rows = size
        for signal in signals:
            writer.row(signal)
        writer.close()
    assert len(list((root / "sealed" / "signals").glob("*.npz"))) == len(signals) // seal_rows
    assert exactly(Run(root / "open").rows()) == exactly(Run(root / "sealed").rows()) == exactly(signals)


def test_labels_are_shared_between_rows_and_stored_once(sealed):
    rows = list(read_part(sealed))
    assert rows[0].labels is rows[9].labels
    columns = Columns()
    names = tuple(f"layer-{index}" for index in range(1000))
    for step in range(500):
        columns.add(row(step, labels={"norms": names}))
    columns.write(sealed)
    with np.load(sealed, allow_pickle=False) as archive:
        assert archive["header"].size < 20_000
        assert all(array.dtype in (np.uint8, np.int64, np.float64) for array in archive.values())


def test_numpy_reads_the_columns_as_the_documentation_says(sealed):
    with np.load(sealed, allow_pickle=False) as archive:
        assert archive["step"].tolist() == list(range(10))
        assert archive["values-0"].tolist() == [1.0 / (step + 1) for step in range(10)]
        np.testing.assert_array_equal(archive["values-1"].reshape(10, 2)[:, 0], np.arange(10.0))


def test_a_part_cut_at_any_byte_is_an_error_that_names_it(sealed):
    data = sealed.read_bytes()
    for size in range(0, len(data), 7):
        sealed.write_bytes(data[:size])
        with pytest.raises(RunError, match=r"part-000001.npz is damaged .*expected a sealed part of signals"):
            list(read_part(sealed))


def test_a_part_with_a_column_too_short_is_an_error(sealed):
    with np.load(sealed, allow_pickle=False) as archive:
        arrays = dict(archive)
    np.savez(sealed, **{**arrays, "values-0": arrays["values-0"][:-1]})
    with pytest.raises(RunError, match="the columns do not hold 10 rows"):
        list(read_part(sealed))
    np.savez(sealed, **{**arrays, "stream": arrays["stream"] + 1})
    with pytest.raises(RunError, match="an index points past its list"):
        list(read_part(sealed))


def test_nothing_is_unpickled_from_a_part(sealed):
    class Bomb:
        def __reduce__(self):
            return (os._exit, (3,))

    with np.load(sealed, allow_pickle=False) as archive:
        arrays = dict(archive)
    np.savez(sealed, **{**arrays, "time": np.array([Bomb()] * 10, dtype=object)})
    with pytest.raises(RunError, match="Object arrays cannot be loaded"):
        list(read_part(sealed))


def test_a_part_of_a_newer_format_asks_for_an_upgrade(sealed):
    with zipfile.ZipFile(sealed) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["header.npy"] = entries["header.npy"].replace(b'"format": 1', b'"format": 2')
    with zipfile.ZipFile(sealed, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(RunError, match="has format 2, this Trimtab reads formats up to 1; upgrade Trimtab"):
        list(read_part(sealed))


# --- what a kill can leave behind -----------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """A run of ten rows whose first part of eight is both open and sealed; the rows."""
    writer = RunWriter.create(path=tmp_path / "run")
    rows = [row(step, norms=(step / 3, float("nan")), labels={"norms": ("a", "b")}) for step in range(10)]
    writer.seal_rows = 8
    for signal in rows[:7]:
        writer.row(signal)
    signals = tmp_path / "run" / "signals"
    shutil.copy(signals / "part-000001.jsonl", tmp_path / "seven")
    for signal in rows[7:]:
        writer.row(signal)
    writer.close()
    with open(tmp_path / "seven", "ab") as file:
        file.write(b'[0,7,7,"main",0.875,{"norms":[2.3333333333333335,"NaN"]}]\n')
    os.rename(tmp_path / "seven", signals / "part-000001.jsonl")
    return Run(tmp_path / "run"), rows


def test_killed_between_naming_the_sealed_part_and_removing_the_open_one_no_row_comes_twice(written):
    run, rows = written
    assert exactly(run.rows()) == exactly(rows)
    assert run.remarks == []


def test_killed_while_the_sealed_part_was_written_the_open_one_is_read(written):
    run, rows = written
    sealed = run.path / "signals" / "part-000001.npz"
    data = sealed.read_bytes()
    sealed.unlink()
    for size in (0, 1, len(data) // 2, len(data)):
        sealed.with_name("part-000001.npz.4711.tmp").write_bytes(data[:size])
        assert exactly(run.rows()) == exactly(rows)


def test_a_damaged_sealed_part_beside_a_whole_open_one_costs_a_remark(written):
    run, rows = written
    (run.path / "signals" / "part-000001.npz").write_bytes(b"PK nothing")
    assert exactly(run.rows()) == exactly(rows)
    assert len(run.remarks) == 1
    assert run.remarks[0].startswith("part-000001.npz is damaged, part-000001.jsonl was read instead")


def test_a_part_that_is_sealed_between_two_looks_is_still_read(written, monkeypatch):
    run, rows = written
    sealed, unsealed = (run.path / "signals" / f"part-000001{suffix}" for suffix in (".npz", ".jsonl"))
    sealed.rename(run.path / "waiting")
    truly = Run._open_part

    def sealed_just_now(self, path):
        if path == unsealed:
            (run.path / "waiting").rename(sealed)
            unsealed.unlink()
        return truly(self, path)

    monkeypatch.setattr(Run, "_open_part", sealed_just_now)
    assert exactly(run.rows()) == exactly(rows)


def test_a_missing_part_is_an_error_and_not_a_gap(written):
    run, _ = written
    for path in (run.path / "signals").glob("part-000001.*"):
        path.unlink()
    with pytest.raises(RunError, match=r"part-000001 is missing as .jsonl and as .npz"):
        list(run.rows())


def test_a_disk_that_fails_while_sealing_leaves_the_open_part(tmp_path, monkeypatch, caplog):
    def fail(fd):
        raise OSError(28, "No space left on device")

    writer = RunWriter.create(path=tmp_path / "run")
    writer.seal_rows = 3
    rows = [row(step) for step in range(7)]
    monkeypatch.setattr("trimtab.run.parts.os.fsync", fail)
    for signal in rows:
        writer.row(signal)
    writer.wait()
    monkeypatch.undo()
    writer.close()
    assert sorted(path.name for path in (tmp_path / "run" / "signals").iterdir()) == [
        f"part-00000{number}.jsonl" for number in (1, 2, 3)
    ]
    assert exactly(Run(tmp_path / "run").rows()) == exactly(rows)
    assert "stays unsealed: OSError" in caplog.text


def test_a_row_that_columns_cannot_hold_keeps_its_part_open(tmp_path, caplog):
    writer = RunWriter.create(path=tmp_path / "run")
    writer.seal_rows = 2
    rows = [row(0), row(2**70), row(2), row(3)]
    for signal in rows:
        writer.row(signal)
    writer.close()
    assert exactly(Run(tmp_path / "run").rows()) == exactly(rows)
    assert not list((tmp_path / "run" / "signals").glob("*.npz"))
    assert "stays unsealed" in caplog.text
