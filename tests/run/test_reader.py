"""Opening, finding and listing runs: also killed ones, damaged ones and folders that are none."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.run.kit import exactly, row
from trimtab.errors import RunError
from trimtab.records import Finding, Note, Severity
from trimtab.run import Run, RunWriter, facts, find_run, list_runs


def facts_of(path, **changes):
    """Change run.json behind the back of its writer."""
    target = path / "run.json"
    target.write_text(json.dumps({**json.loads(target.read_text()), **changes}))


# --- killed at any byte ---------------------------------------------------------------------------


def test_a_run_cut_at_any_byte_of_its_last_part_gives_a_prefix_of_its_rows(tmp_path):
    made = RunWriter.create(path=tmp_path / "run")
    made.seal_rows = 4
    rows = [
        row(step, attempt=step // 6, stream=("main", "critic")[step % 2], labels={"norms": ("ä", f"b{step // 3}")},
            loss=float("nan") if step == 5 else 1 / (step + 1), norms=(step / 7, float("-inf")))
        for step in range(9)
    ]  # fmt: skip
    for signal in rows:
        made.row(signal)
    made.wait()
    last = made.path / "signals" / "part-000003.jsonl"
    made.row(row(9))
    made.row(row(10, labels={"norms": ("ä", "b")}, norms=(1.0, float("nan"))))
    rows += [row(9), row(10, labels={"norms": ("ä", "b")}, norms=(1.0, float("nan")))]
    data = last.read_bytes()
    lengths = set()
    for size in range(len(data) + 1):
        last.write_bytes(data[:size])
        run = Run(made.path)
        read = list(run.rows())
        assert exactly(read) == exactly(rows[: len(read)])
        assert len(run.remarks) <= 1
        lengths.add(len(read))
    assert lengths == {8, 9, 10, 11}


def test_findings_cut_at_any_byte_give_a_prefix(tmp_path):
    made = RunWriter.create(tmp_path)
    for step in range(2):
        made.event(
            Finding(code="c", severity=Severity.INFO, step=step, summary="ü", measured=float("nan"), threshold=1.0)
        )
        made.note(Note(kind="k", step=step))
    for name, read in (("findings.jsonl", Run.findings), ("notes.jsonl", Run.notes)):
        data = (made.path / name).read_bytes()
        for size in range(len(data) + 1):
            (made.path / name).write_bytes(data[:size])
            steps = [record.step for record in read(Run(made.path))]
            assert steps == list(range(len(steps)))


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        (
            "findings.jsonl",
            '{"record":"note","kind":"k","step":1}',
            "line 2 is no line of findings: expected a record of",
        ),
        (
            "findings.jsonl",
            '{"record":"unknown","code":"c","reason":"r"}',
            r"line 2 is no line of findings: .*\n?.*step",
        ),
        ("notes.jsonl", "[1]", "line 2 is no line of notes"),
        ("notes.jsonl", '{"record":"note","kind":"k","step":"1"}', "line 2 is no line of notes"),
        ("outcomes.jsonl", "3", "line 2 is no line of outcomes"),
    ],
)
def test_a_record_of_another_shape_is_an_error_that_names_its_line(tmp_path, name, line, message):
    made = RunWriter.create(tmp_path)
    kind = name.removesuffix(".jsonl")
    (made.path / name).write_text(f'{{"format":1,"kind":"{kind}"}}\n{line}\n')
    with pytest.raises(RunError, match=rf"{name} {message}"):
        Run(made.path)._records(kind, {"findings": ("finding", "unknown")}.get(kind, (kind[:-1],)))


@pytest.mark.parametrize(
    "line",
    ["[0,1,1]", '[0,1,1,"main",0.0,{"loss":"high"}]', '{"labels":{"main":7}}', '{"labels":{"main":{}}}', "7", "{}"],
)
def test_a_signal_line_of_another_shape_is_an_error_that_names_its_line(tmp_path, line):
    made = RunWriter.create(tmp_path)
    made.row(row(0))
    with open(made.path / "signals" / "part-000001.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"part-000001\.jsonl line 3 is no line of signals"):
        list(Run(made.path).rows())


# --- run.json -------------------------------------------------------------------------------------


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    made = RunWriter.create(tmp_path)
    facts_of(made.path, format=2)
    with pytest.raises(RunError, match=r"run\.json has format 2, this Trimtab reads formats up to 1; upgrade Trimtab"):
        Run(made.path)


def test_facts_that_a_later_version_added_are_no_error(tmp_path):
    made = RunWriter.create(tmp_path)
    facts_of(made.path, colour="blue")
    assert Run(made.path).facts.more == {"colour": "blue"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"run\.json is damaged"),
        ("[]", r"expected a JSON object, got list"),
        ('{"format": 1}', r"run\.json is damaged: id: Field required; status: Field required"),
        ('{"format": "1"}', "expected a format number from 1 to 1"),
        ("{}", "expected a format number from 1 to 1, got None"),
    ],
)
def test_a_damaged_run_json_says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=message):
        Run(tmp_path)


def test_a_folder_without_run_json_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError, match=r"is no run folder: it holds no run\.json"):
            Run(path)


@pytest.mark.parametrize(
    ("name", "text", "read", "message"),
    [
        ("config.yaml", "a: [", Run.config, "config.yaml.* is damaged"),
        ("config.yaml", "- 1", Run.config, "expected a YAML mapping, got list"),
        ("settings.json", "{", Run.settings, "settings.json is damaged"),
        ("diagnosis.json", "3", Run.diagnosis, "diagnosis.json: expected a JSON object, got int"),
    ],
)
def test_other_damaged_files_say_what_is_wrong(tmp_path, name, text, read, message):
    made = RunWriter.create(tmp_path)
    (made.path / name).write_text(text)
    with pytest.raises(RunError, match=message):
        read(Run(made.path))


def test_a_run_killed_while_it_was_made_still_opens(tmp_path):
    made = RunWriter.create(tmp_path, config={"a": 1})
    for name in ("environment.json", "config.yaml"):
        (made.path / name).unlink()
    run = Run(made.path)
    assert (run.environment(), run.config()) == ({}, {})


def test_a_diagnosis_comes_back_as_it_was_written(tmp_path):
    run = Run(RunWriter.create(tmp_path).path)
    diagnosis = {"causes": [{"score": float("-inf"), "why": "NaN"}], "note": None}
    run.write_diagnosis(diagnosis)
    assert repr(Run(run.path).diagnosis()) == repr(diagnosis)


def test_a_mark_is_set_and_taken_away(tmp_path):
    run = Run(RunWriter.create(tmp_path).path)
    run.mark("good")
    assert (run.facts.mark, Run(run.path).facts.mark) == ("good", "good")
    run.mark("")
    assert Run(run.path).facts.mark == ""


def test_a_parent_may_correct_how_a_run_ended_but_not_when(tmp_path):
    made = RunWriter.create(tmp_path)
    made.close("finished", {"reason": "the script ended"})
    run = Run(made.path)
    ended = run.facts.ended
    assert not run.close_as("failed", {"exit_code": 3})
    assert (run.status, run.facts.how) == ("finished", {"reason": "the script ended"})
    assert run.close_as("failed", {"exit_code": 3}, even_if_ended=True)
    assert (run.status, run.facts.how, run.facts.ended) == ("failed", {"exit_code": 3}, ended)


def test_what_the_judge_covered_is_read_and_its_absence_can_be_told(tmp_path):
    made = RunWriter.create(tmp_path)
    assert not {"judged", "updates"} & Run(made.path).facts.model_fields_set
    made.update(judged=["a"], not_judged={"b": "no signal"}, ignored={"c": 2}, cost={"seconds": 0.5}, updates=7)
    facts = Run(made.path).facts
    assert (facts.judged, facts.not_judged, facts.ignored) == (("a",), {"b": "no signal"}, {"c": 2})
    assert (facts.cost, facts.updates) == ({"seconds": 0.5}, 7)
    assert {"judged", "updates"} <= facts.model_fields_set


# --- alive or not ---------------------------------------------------------------------------------


def test_a_run_that_says_running_is_dead_when_its_process_is_gone(tmp_path):
    program = "import sys; from trimtab.run import RunWriter; RunWriter.create(path=sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], check=True)
    assert Run(tmp_path / "run").status == "died"
    facts_of(tmp_path / "run", host="another machine")
    assert Run(tmp_path / "run").status == "running"  # what lives there cannot be known here


def test_another_process_with_the_same_number_is_not_taken_for_the_run(tmp_path):
    made = RunWriter.create(tmp_path)
    run = Run(made.path)
    facts_of(made.path, pid_began="1")
    told = [run.status]  # by the facts that were read last
    run.reload()
    told.append(run.status)
    assert told == ["running", "died"]


def test_a_killed_child_that_nobody_waited_for_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = facts.process_start(child.pid)
    assert began is not None
    assert facts.alive(child.pid, began)
    child.kill()
    while facts.alive(child.pid, began):
        time.sleep(0.01)
    assert child.returncode is None  # still a zombie
    child.wait()
    assert not facts.alive(child.pid, began)


def test_a_process_of_somebody_else_counts_as_alive(monkeypatch):
    def forbid(pid, signal):
        raise PermissionError

    monkeypatch.setattr("trimtab.run.facts.os.kill", forbid)
    assert facts.alive(os.getpid(), "")


# --- finding and listing --------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """Three runs, the newest of which has the smallest id; a folder that is no run, a damaged one, a file."""
    root = tmp_path / "runs"
    for place, name in enumerate(["30-gamma", "20-alpha", "20-beta"]):
        made = RunWriter.create(path=root / name)
        facts_of(made.path, id=f"202601{name}-000{place}", started=f"2026-01-0{place + 1}T00:00:00Z")
    (root / "notes").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{")
    (root / ".hidden").mkdir()
    (root / "readme.txt").touch()
    return root


def test_runs_are_listed_newest_first_and_other_folders_passed_over(root):
    remarks: list[str] = []
    assert [run.path.name for run in list_runs(root, remarks=remarks)] == ["20-beta", "20-alpha", "30-gamma"]
    assert len(remarks) == 2
    assert "broken/run.json is damaged" in remarks[0]
    assert "notes is no run folder" in remarks[1]


def test_a_root_that_does_not_exist_has_no_runs(tmp_path):
    assert list_runs(tmp_path / "absent") == []
    with pytest.raises(RunError, match="absent holds no runs; record one first"):
        find_run("last", tmp_path / "absent")


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("last", "20-beta"),
        ("20260130", "30-gamma"),
        ("20260120-b", "20-beta"),
        ("20260120-alpha-0001", "20-alpha"),
        ("30", "30-gamma"),
        ("20-alpha", "20-alpha"),
    ],
)
def test_a_run_is_found_by_last_by_id_by_name_and_by_their_beginnings(root, word, found):
    assert find_run(word, root).path.name == found


def test_a_run_is_found_by_its_path_from_anywhere(root, monkeypatch):
    assert find_run(str(root / "20-beta"), root / "elsewhere").path == root / "20-beta"
    monkeypatch.chdir(root.parent)
    assert find_run("runs/20-beta").path.name == "20-beta"
    monkeypatch.chdir(root)
    assert find_run("20-beta", root / "elsewhere").path.name == "20-beta"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("20260120", "2 runs in .* begin with '20260120': 20-beta, 20-alpha; write more of the name"),
        (
            "20-gamma",
            "no run in .* begins with '20-gamma'. Did you mean '.*gamma'.* There: 20-beta, 20-alpha, 30-gamma",
        ),
        ("runs/missing", "there is no folder 'runs/missing'; give the path of a run folder"),
    ],
)
def test_a_word_that_means_no_run_or_several_lists_the_candidates(root, word, message):
    with pytest.raises(RunError, match=message):
        find_run(word, root)


def test_a_path_to_a_folder_that_is_no_run_says_so(root):
    with pytest.raises(RunError, match="notes is no run folder"):
        find_run(str(root / "notes"))


def test_a_folder_whose_full_name_begins_another_is_meant_itself(root):
    shutil.copytree(root / "20-beta", root / "20-beta-2")
    facts_of(root / "20-beta-2", id="20260120-beta-0002-again")
    assert find_run("20-beta", root).path.name == "20-beta"


def test_a_thousand_runs_are_listed_in_less_than_a_second(tmp_path):
    text = (RunWriter.create(path=tmp_path / "run").path / "run.json").read_text()
    for number in range(1000):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / "run.json").write_text(text)
    began = time.process_time()
    assert len(list_runs(tmp_path)) == 1001
    assert time.process_time() - began < 1.0
