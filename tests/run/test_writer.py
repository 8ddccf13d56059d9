"""Writing a run: a folder of its own, every row with the system at once, nothing lost by a kill."""

import json
import os
import shutil
import signal as signals
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.run.kit import exactly, row
from trimtab.errors import RunError
from trimtab.records import Finding, Note, Outcome, Severity, Signal, Unknown
from trimtab.run import Run, RunWriter, find_run, writer
from trimtab.run.codec import header_line
from trimtab.run.lines import LineFile, read_lines


def finding(step, severity=Severity.ERROR):
    return Finding(
        code="loss-not-finite",
        severity=severity,
        step=step,
        summary="loss is NaN",
        measured=float("nan"),
        threshold=0.0,
    )


# --- the folder -----------------------------------------------------------------------------------


def test_a_run_has_a_folder_named_after_time_name_and_chance(tmp_path):
    before = datetime.now()
    made = RunWriter.create(tmp_path / "deep" / "runs", name="Größe ../ of  BATCH")
    stamp, clock, *word, chance = made.id.split("-")
    assert made.path == tmp_path / "deep" / "runs" / made.id
    assert abs(datetime.strptime(stamp + clock, "%Y%m%d%H%M%S") - before) < timedelta(minutes=1)
    assert word == ["gr", "e", "of", "batch"]
    assert len(chance) == 4
    assert Run(made.path).facts.name == "Größe ../ of  BATCH"


def test_the_root_is_an_environment_variable_or_the_folder_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIMTAB_RUNS", raising=False)
    assert RunWriter.create().path.parent.resolve() == tmp_path / "runs"
    monkeypatch.setenv("TRIMTAB_RUNS", str(tmp_path / "elsewhere"))
    assert RunWriter.create().path.parent == tmp_path / "elsewhere"


def test_two_runs_of_one_second_never_share_a_folder(tmp_path, monkeypatch):
    chances = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(writer, "_fresh_id", lambda word: f"20260101-000000-{word}-{next(chances)}")
    assert RunWriter.create(tmp_path).id.endswith("aaaa")
    assert RunWriter.create(tmp_path).id.endswith("bbbb")


def test_a_folder_given_by_path_must_be_new_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new" / "run", tmp_path / "empty"):
        made = RunWriter.create(path=path)
        assert made.path == path
        assert find_run(str(path)).id == made.id
    with pytest.raises(RunError, match=r"empty holds a run already; expected a new or empty folder\. Remove it"):
        RunWriter.create(path=tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(RunError, match=r"mine holds 'thesis\.tex'"):
        RunWriter.create(path=tmp_path / "mine")
    with pytest.raises(RunError, match=r"thesis\.tex is a file; expected a new or empty folder"):
        RunWriter.create(path=tmp_path / "mine" / "thesis.tex")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["thesis.tex"]


def test_what_is_known_before_the_first_step_is_written_at_once(tmp_path):
    made = RunWriter.create(
        tmp_path, name="a", project="p", description="d", tags=["x", "y"], system="ternary", seed=7,
        config={"model": {"width": 64, "rate": 1e-05, "limit": float("inf")}, "names": ("NaN", "b"), "api_key": "k3y"},
    )  # fmt: skip
    run = Run(made.path)
    facts = run.facts
    assert (facts.format, facts.id, facts.project, facts.tags, facts.system, facts.seed) == (
        1, made.id, "p", ("x", "y"), "ternary", 7,
    )  # fmt: skip
    assert (facts.status, run.status, facts.pid, facts.ended, facts.how) == (
        "running",
        "running",
        os.getpid(),
        None,
        None,
    )
    assert abs(facts.started - datetime.now(UTC)) < timedelta(minutes=1)
    assert run.config() == {
        "model": {"width": 64, "rate": 1e-05, "limit": float("inf")},
        "names": ["NaN", "b"],
        "api_key": "[redacted]",
    }
    assert run.environment()["packages"]["numpy"] == np.__version__
    assert (list(run.rows()), run.events(), run.notes(), run.outcomes()) == ([], [], [], [])
    assert (run.settings(), run.diagnosis()) == ({}, None)


def test_a_run_without_config_has_an_empty_one(tmp_path):
    assert Run(RunWriter.create(tmp_path).path).config() == {}


# --- appending ------------------------------------------------------------------------------------


def test_a_row_can_be_read_the_moment_it_was_written(tmp_path):
    made = RunWriter.create(tmp_path)
    run = Run(made.path)
    made.seal_rows = 7
    rows = []
    for step in range(30):
        rows.append(row(step, attempt=step // 12, labels={"norms": ("a", "b")} if step % 2 else {}, norms=(1.0, 2.0)))
        made.row(rows[-1])
        assert exactly(run.rows()) == exactly(rows)
        assert made.rows == len(rows)
    made.close()
    assert exactly(run.rows()) == exactly(rows)
    assert len(list((made.path / "signals").glob("*.npz"))) == 4
    assert run.remarks == []


def test_labels_are_written_when_they_change_and_named_when_they_return(tmp_path):
    made = RunWriter.create(tmp_path)
    first, other = {"norms": ("a", "b")}, {"norms": ("c", "d")}
    rows = [
        row(step, labels=labels, norms=(1.0, 2.0)) for step, labels in enumerate([first, dict(first), other, first])
    ]
    for signal in [*rows, row(4, stream="critic"), row(5)]:
        made.row(signal)
    written = [json.loads(line) for line in (made.path / "signals" / "part-000001.jsonl").read_text().splitlines()]
    assert [line for line in written if isinstance(line, dict)][1:] == [
        {"labels": {"main": {"norms": ["a", "b"]}}, "set": 0},
        {"labels": {"main": {"norms": ["c", "d"]}}, "set": 1},
        {"labels": {"main": 0}},
        {"labels": {"main": {}}, "set": 2},
    ]
    assert [signal.labels for signal in Run(made.path).rows()] == [first, first, other, first, {}, {}]


@pytest.mark.parametrize("cut", [0, 5, len(b'{"labels":{"main":{"norms":["c","d"]}},"set":1}\n') + 3])
@pytest.mark.parametrize("afterwards", [("first", "other"), ("other", "first"), ("other", "other")])
def test_labels_survive_a_write_that_failed(tmp_path, monkeypatch, cut, afterwards):
    made = RunWriter.create(tmp_path)
    first, other = {"norms": ("a", "b")}, {"norms": ("c", "d")}
    made.row(row(0, labels=first, norms=(1.0, 2.0)))
    write, room = os.write, [cut, 0] if cut else [0]

    def full(fd, data):
        if not room:
            return write(fd, data)
        size = room.pop(0)
        if not size:
            raise OSError(28, "No space left on device")
        return write(fd, data[:size])

    monkeypatch.setattr("trimtab.run.lines.os.write", full)
    with pytest.raises(OSError, match="No space left"):
        made.row(row(1, labels=other, norms=(1.0, 2.0)))
    assert made.rows == 1
    labels = [{"first": first, "other": other}[name] for name in afterwards]
    for step, its in enumerate([*labels, {}], 2):
        made.row(row(step, labels=its, norms=(1.0, 2.0)))
    run = Run(made.path)
    assert [(signal.step, signal.labels) for signal in run.rows()] == [(0, first), *enumerate([*labels, {}], 2)]
    assert len(run.remarks) == (cut > 0)


def test_a_part_is_sealed_after_so_many_bytes_too(tmp_path):
    made = RunWriter.create(tmp_path)
    made.seal_bytes = 1000
    for step in range(100):
        made.row(row(step))
    made.close()
    assert len(list((made.path / "signals").glob("*.npz"))) > 3
    assert [signal.step for signal in Run(made.path).rows()] == list(range(100))


def test_a_part_is_sealed_here_and_now_where_no_thread_can_be_had(tmp_path, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    made = RunWriter.create(tmp_path)
    made.seal_rows = 4
    for step in range(9):
        made.row(row(step))
    made.close()
    assert sorted(path.suffix for path in (made.path / "signals").iterdir()) == [".jsonl", ".npz", ".npz"]
    assert [signal.step for signal in Run(made.path).rows()] == list(range(9))


def test_findings_notes_and_outcomes_come_back_in_order(tmp_path):
    made = RunWriter.create(tmp_path)
    unknown = Unknown(code="attention-collapse", reason="no attention here", step=3)
    note = Note(kind="data-change", step=4, after_rows=4, until=9, facts={"part": "a", "share": 0.5})
    outcome = Outcome(
        action="roll-back", code="loss-not-finite", step=5, after_rows=6, result="done", changes="weights", to_step=2
    )
    for event in (finding(1), unknown, finding(2, Severity.FATAL)):
        made.event(event)
    made.note(note)
    made.outcome(outcome)
    run = Run(made.path)
    assert exactly(run.events()) == exactly([finding(1), unknown, finding(2, Severity.FATAL)])
    assert exactly(run.findings()) == exactly([finding(1), finding(2, Severity.FATAL)])
    assert run.notes() == [note]
    assert run.outcomes() == [outcome]


def test_the_log_has_one_time_for_each_text(tmp_path):
    made = RunWriter.create(tmp_path)
    made.say("first")
    made.say("a traceback\n  of two lines\n")
    first, second, third = (made.path / "log.txt").read_text().splitlines()
    assert datetime.fromisoformat(first.partition(" ")[0]).tzinfo is UTC
    assert first.endswith(" first")
    assert second.endswith(" a traceback")
    assert third == "      of two lines"


def test_samples_are_kept_by_name_and_step(tmp_path):
    made = RunWriter.create(tmp_path)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert made.keep("attention", 12, array).name == "attention-000000012.npy"
    made.keep("attention", 3, array + 1)
    strange = made.keep("../../head 1", 0, array)
    assert strange.parent == made.path / "samples"
    made.keep("__head_1", 0, array)
    run = Run(made.path)
    assert list(run.samples("attention")) == [3, 12]
    np.testing.assert_array_equal(np.load(run.samples("attention")[12], allow_pickle=False), array)
    assert run.samples("../../head 1") == {0: strange}
    assert run.samples("never") == {}
    with pytest.raises(RunError, match="sample 'things' holds Python objects"):
        made.keep("things", 0, np.array([object()]))
    assert not list((made.path / "samples").glob("things*"))


# --- facts and the end ----------------------------------------------------------------------------


def test_facts_are_merged_and_a_mark_that_came_between_stays(tmp_path):
    made = RunWriter.create(tmp_path, name="NaN")
    Run(made.path).mark("good")
    made.update(overhead=0.004, coverage={"judged": 24, "worst": float("nan"), "hf_token": "hf_abc"})
    facts = Run(made.path).facts
    assert (facts.name, facts.mark, facts.more["overhead"]) == ("NaN", "good", 0.004)
    assert repr(facts.more["coverage"]) == "{'judged': 24, 'worst': nan, 'hf_token': '[redacted]'}"
    with pytest.raises(RunError, match="id cannot be changed"):
        made.update(id="other")


def test_closing_says_how_and_when_and_only_once(tmp_path):
    made = RunWriter.create(tmp_path)
    made.row(row(0))
    made.close("failed", {"error": "ValueError", "text": "login with --api-key 1234 failed"})
    made.close("finished")
    facts = Run(made.path).facts
    assert facts.status == "failed"
    assert facts.how == {"error": "ValueError", "text": "login with --api-key [redacted] failed"}
    assert facts.ended is not None
    assert facts.started <= facts.ended <= datetime.now(UTC)
    with pytest.raises(RunError, match="is closed; a row of step 1 came too late"):
        made.row(row(1))


def test_a_disk_that_fails_while_closing_can_be_tried_again(tmp_path, monkeypatch):
    made = RunWriter.create(tmp_path)

    def fail(*names):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("trimtab.run.writer.os.replace", fail)
    with pytest.raises(OSError, match="Read-only"):
        made.close()
    monkeypatch.undo()
    assert sorted(path.name for path in made.path.iterdir() if path.name.endswith(".tmp")) == []
    made.close()
    assert Run(made.path).status == "finished"


def test_settings_are_replaced_whole_and_hold_no_secret(tmp_path):
    made = RunWriter.create(tmp_path)
    made.settings({"argv": ["train.py"]})
    made.settings(
        {"argv": ["train.py", "--token", "abc", "--lr=1"], "optimizer": [{"lr": float("nan"), "name": "NaN"}]}
    )
    settings = Run(made.path).settings()
    assert settings["argv"] == ["train.py", "--token", "[redacted]", "--lr=1"]
    assert repr(settings["optimizer"]) == "[{'lr': nan, 'name': 'NaN'}]"
    assert "abc" not in (made.path / "settings.json").read_text()


# --- killed ---------------------------------------------------------------------------------------

ENDLESS = """
import sys
from trimtab.records import Signal
from trimtab.run import RunWriter
writer = RunWriter.create(path=sys.argv[1])
writer.seal_rows = 40
print("ready", flush=True)
labels = {"norms": tuple("abcdefgh")}
step = 0
while True:
    writer.row(Signal(step=step, update=step, time=0.0, values={"loss": 0.5, "norms": (0.1,) * 8}, labels=labels))
    if step % 100 == 0:
        print(step, flush=True)
    step += 1
"""


@pytest.mark.parametrize("lines_to_read", [1, 2, 4, 9])
def test_a_killed_process_loses_no_row_that_was_written(tmp_path, lines_to_read):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines_to_read)]
    process.send_signal(signals.SIGKILL)
    said += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    run = Run(tmp_path / "run")
    steps = [signal.step for signal in run.rows()]
    assert steps == list(range(len(steps)))
    counts = [int(line) for line in said if line.endswith("\n") and line.strip().isdecimal()]
    assert len(steps) > max(counts, default=-1)
    assert run.status == "died"
    assert run.close_as("killed", {"signal": "SIGKILL"})
    assert (run.status, run.facts.how) == ("killed", {"signal": "SIGKILL"})
    assert not run.close_as("finished")
    assert Run(tmp_path / "run").status == "killed"


# --- a run that is gone on with -------------------------------------------------------------------


def some_row(step, **values):
    return Signal(step=step, update=step, time=float(step), values={"loss": 1.0, **values})


def test_a_run_that_is_reopened_goes_on_in_a_part_of_its_own(tmp_path):
    writer = RunWriter.create(tmp_path, name="a")
    writer.row(some_row(0))
    writer.note(Note(kind="before", step=0))
    writer.close("interrupted")
    again = RunWriter.reopen(writer.path, rows=1)
    reader = Run(writer.path)
    assert (reader.status, reader.facts.ended) == ("running", None)
    again.row(some_row(1))
    again.note(Note(kind="after", step=1))
    assert (again.rows, again.id) == (2, writer.id)
    again.close()
    reader.reload()
    assert reader.status == "finished"
    assert [row.step for row in reader.rows()] == [0, 1]
    assert [note.kind for note in reader.notes()] == ["before", "after"]
    assert [one["status"] for one in reader.facts.more["resumed"]] == ["interrupted"]
    assert reader.remarks == []


def test_a_run_killed_at_any_byte_is_gone_on_with(tmp_path):
    """Whatever a killed process left half written at the end of a file is left out, and what follows is read."""
    whole = RunWriter.create(tmp_path, name="a")
    for step in range(2):
        whole.row(some_row(step))
        whole.note(Note(kind=f"n{step}", step=step))
    files = ["signals/part-000001.jsonl", "notes.jsonl"]
    contents = [(whole.path / file).read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        for size in sorted({*range(0, len(content) + 1, 9), *range(len(content) - 20, len(content) + 1)}):
            folder = tmp_path / f"{file.partition('/')[0]}-{size}"
            shutil.copytree(whole.path, folder)
            (folder / file).write_bytes(content[:size])
            rows, notes = list(Run(folder).rows()), Run(folder).notes()
            writer = RunWriter.reopen(folder, rows=len(rows))
            for step in (7, 8):
                writer.row(some_row(step))
                writer.note(Note(kind=f"n{step}", step=step))
            writer.close()
            reader = Run(folder)
            assert [row.step for row in reader.rows()] == [*(row.step for row in rows), 7, 8]
            assert [note.kind for note in reader.notes()] == [*(note.kind for note in notes), "n7", "n8"]


def test_lines_that_a_full_disk_cut_short_before_a_kill_are_mended(tmp_path):
    path = tmp_path / "notes.jsonl"
    header = header_line("notes")
    for tail in (b'{"a', b'{"a\n{"tor', b'{"a\n{"torn":3}\n{"b', b'{"a\n{"torn":3}\n{"b\n{"to'):
        path.write_bytes(header + b"1\n" + tail)
        file = LineFile(path, header, again=True)
        file.append(b"2\n")
        file.append(b"3\n")
        file.close()
        assert [line for _, line in read_lines(path, "notes", [])][1:] == [1, 2, 3], tail
