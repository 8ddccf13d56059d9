"""Each verb prints what a person came for."""

import json
import re

import pytest

from tests.cli.commands import run
from tests.report.recorded import record, training
from trimtab.diagnose import diagnose
from trimtab.report.catalogue import KINDS, entries, headings
from trimtab.report.html import write
from trimtab.run import Run

# --- diagnose ---------------------------------------------------------------------------------------------------


def test_diagnose_prints_verdict_findings_causes_and_what_was_not_judged(runs, capsys):
    out = run(capsys, "diagnose", "last").out
    verdict = diagnose(runs["broken"])
    assert out.lower().startswith(verdict.headline.lower()[:40])
    words = " ".join(out.split())
    for expected in (*[f.code for f in verdict.findings], *[d.cause for d in verdict.diagnoses[:6]], *verdict.unknown):
        assert expected in words
    assert "Do next: " in out
    assert "Would decide: whether " in out
    assert "Try: " in out


def test_the_printed_terms_add_up_to_the_printed_score(runs, capsys):
    out = run(capsys, "diagnose", "last").out
    tables = re.findall(r"how the score adds up\n +dB +what +why *\n((?: *[-+\d.]+  .*\n(?: {6,}.*\n)*)+)", out)
    assert tables
    for table in tables:
        numbers = [float(number) for number in re.findall(r"^ *([-+]?[\d.]+)  ", table, re.MULTILINE)]
        assert sum(numbers[:-1]) == pytest.approx(numbers[-1])
        assert re.search(r"prior", table.splitlines()[0])
        assert re.search(r"score", table.splitlines()[-1])


def test_diagnose_stores_what_it_says(runs, capsys):
    said = json.loads(run(capsys, "diagnose", "last", "--format", "json").out)
    stored = json.loads((runs["broken"].path / "diagnosis.json").read_text())
    assert stored == said["verdict"]
    assert said["run"]["seed"] == 7
    assert said["path"] == str(runs["broken"].path)


def test_a_clean_run_is_said_to_be_clean_and_no_more(runs, capsys):
    out = run(capsys, "diagnose", runs["clean"].path).out
    assert "nothing wrong found; judged" in out.lower()
    assert "Causes" not in out
    assert "no milestone was declared" in " ".join(out.split())


def test_rejudge_and_a_good_run_are_passed_on(runs, capsys):
    out = run(capsys, "diagnose", "last", "--rejudge", "--good", runs["clean"].path).out
    assert f"Different from the good run {runs['clean'].id}" not in out  # the settings are the same
    changed = json.loads(run(capsys, "diagnose", "last", "--good", runs["clean"].path, "--format", "json").out)
    assert changed["verdict"]["good_run"] == runs["clean"].id


def test_a_diagnosis_that_cannot_be_stored_is_still_printed(runs, capsys, monkeypatch):
    def refuse(self, diagnosis):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "write_diagnosis", refuse)
    said = run(capsys, "diagnose", "last")
    assert said.code == 1
    assert "gradient-exploding" in said.out
    assert said.err.startswith("trimtab: diagnosis.json could not be written")


# --- report -----------------------------------------------------------------------------------------------------


def test_report_writes_the_page_and_prints_where_it_is(runs, capsys):
    said = run(capsys, "report", "last")
    target = runs["broken"].path / "report.html"
    assert said.out == f"{target}\n"
    text = target.read_text()
    assert write(Run(target.parent)).read_text() == text


def test_report_opens_the_browser_only_when_asked_to(runs, capsys, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    run(capsys, "report", "last", "-o", tmp_path / "a b.html")
    assert opened == []
    run(capsys, "report", "last", "-o", tmp_path / "a b.html", "--open")
    assert opened == [(tmp_path / "a b.html").as_uri()]


# --- runs, mark, compare ----------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_with_the_worst_finding(runs, capsys):
    run(capsys, "mark", runs["clean"].path, "good")
    lines = run(capsys, "runs").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        runs[name].path.name for name in ("broken", "unfinished", "clean")
    ]
    assert re.search(r" failed +200 +error +gradient-exploding ", lines[1])
    assert re.search(r" running +40 +- +- ", lines[2])
    assert re.search(r" finished +60 +- +- +good +\d{4}-\d\d-\d\d \d\d:\d\d", lines[3])
    run(capsys, "mark", runs["clean"].path, "--remove")


def test_runs_shows_as_many_as_asked_and_says_how_many_more_there_are(runs, capsys, recorded):
    out = run(capsys, "runs", recorded[0], "--most", "1").out
    assert "and 2 older ones; --most 3 shows all" in out
    said = json.loads(run(capsys, "runs", recorded[0], "--most", "2", "--format", "json").out)
    assert (len(said["runs"]), said["more"]) == (2, 1)


def test_runs_passes_over_a_folder_that_is_no_run_and_says_so(capsys, tmp_path):
    record(tmp_path, training(3))
    (tmp_path / "notes").mkdir()
    said = run(capsys, "runs", tmp_path)
    assert said.code == 0
    assert len(said.out.splitlines()) == 2
    assert "passed over" in said.err


def test_mark_names_the_good_run_and_takes_the_name_away(capsys, tmp_path):
    found = record(tmp_path, training(3))
    assert run(capsys, "mark", found.path).out == f"{found.id} is marked good\n"
    assert Run(found.path).facts.mark == "good"
    assert run(capsys, "mark", found.path, "--remove").out == f"{found.id} has no mark\n"
    assert Run(found.path).facts.mark == ""


def test_compare_says_what_was_set_differently_and_where_the_signals_part(capsys, tmp_path):
    a = record(tmp_path, training(40), name="a", seed=1)
    b = record(tmp_path, training(60, loss=lambda s: 2.0 if s >= 10 else 2.3 * 0.5**s, rate=2e-3), name="b", seed=2)
    said = run(capsys, "compare", a.path, b.path)
    assert said.code == 0
    assert re.search(r"^seed +1 +2 *$", said.out, re.MULTILINE)
    assert "The signals part at step 0" in said.out
    assert re.search(r"^loss +40 +step 0 \(2\.4 / 2\.3\)", said.out, re.MULTILINE)
    assert "Last values that differ" in said.out


def test_compare_of_equal_runs_says_that_nothing_differs(capsys, tmp_path):
    a, b = (record(tmp_path, training(20)) for _ in "ab")
    out = run(capsys, "compare", a.path, b.path).out
    assert "No setting differs." in out
    assert "are the same, bit for bit" in out


def test_a_run_is_found_by_the_beginning_of_its_id_and_by_another_root(runs, capsys, recorded, monkeypatch):
    monkeypatch.delenv("TRIMTAB_RUNS")
    whole = runs["clean"].path.name
    assert run(capsys, "diagnose", whole[: whole.index("-clean") + 7], "--root", recorded[0]).code == 0


# --- rules and explain ------------------------------------------------------------------------------------------


def test_rules_lists_every_catalogue_and_each_alone(capsys):
    everything = run(capsys, "rules").out
    for kind in KINDS:
        alone = run(capsys, "rules", kind).out
        codes = [line.split()[0] for line in alone.splitlines()[1:]]
        assert codes == [entry.code for entry in entries(kind)]
        assert len(codes) >= 2
        assert all(code in everything for code in codes)
    assert run(capsys, "rules", "hypotheses").out == run(capsys, "rules", "hypothesis").out
    assert run(capsys, "rules", "sensors").out == run(capsys, "rules", "sensor").out


def test_the_catalogue_read_from_the_sources_is_the_one_that_runs():
    from trimtab.actions import ACTIONS
    from trimtab.sensors import SENSORS

    assert [entry.code for entry in entries("sensor")] == [sensor.name for sensor in SENSORS]
    assert [entry.code for entry in entries("action")] == [action.name for action in ACTIONS]
    assert [entry.facts["changes"] for entry in entries("action")] == [action.changes for action in ACTIONS]


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: f"{entry.kind}: {entry.code}")
def test_every_code_is_explained(capsys, entry):
    out = run(capsys, "explain", entry.code).out
    assert entry.code in out
    assert len(out.splitlines()) >= 4
    if entry.kind == "detector":
        for heading in ("What it sees", "Why it matters", "Evidence it shows", "False alarms", "What to try", "Since"):
            assert f"\n{heading}\n" in out
        assert all(threshold.name in out and threshold.text for threshold in entry.thresholds)
        assert all(cause in out and f"{decibans:+g} dB" in out for cause, decibans, _ in entry.causes)


def test_a_docstring_is_split_at_its_headings_and_freed_of_line_ends():
    text = """A rule.

    What it sees.
    One line
    and another.

    A second paragraph.

    What to try.
    - this
    - that
      in two lines
    """
    assert headings(text) == {
        "What it sees": "One line and another.\n\nA second paragraph.",
        "What to try": "- this\n- that in two lines",
    }


def test_a_name_that_two_kinds_share_means_the_detector():
    codes = [entry.code for entry in entries()]
    assert len(codes) == len(set(codes)), "explain would hide one of them; see `explain` in the catalogue"
