"""What is on the disk is what the schemas and the page promise; every format that ever was still opens."""

import json
import math
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.run.kit import exactly, row
from trimtab.panels import Map, Scatter, Table
from trimtab.records import Finding, Note, Outcome, Severity, Signal, Unknown
from trimtab.run import FORMAT, Run, RunWriter, models
from trimtab.run.codec import header_line

STORED = Path(__file__).parent.parent / "runs"
SCHEMAS = Path(models.__file__).parent / "schemas"
RATIOS = {"update_ratio": ("stem.weight", "head.weight")}


@pytest.fixture(params=["stored", "fresh"])
def folder(request, tmp_path):
    """A copy of the stored run folder of this format, then one that was written just now."""
    if request.param == "stored":
        return shutil.copytree(STORED / f"format-{FORMAT}", tmp_path / "run")
    made = RunWriter.create(path=tmp_path / "run", seed=3, config={"lr": 0.1})
    made.settings({"argv": ["train.py"]})
    for step in range(4):
        made.row(row(step, loss=math.nan, norms=(math.inf, 1.0), labels={"norms": ("a", f"b{step // 2}")}))
    made.event(Finding(code="c", severity=Severity.FATAL, step=1, summary="s", measured=math.nan, threshold=-math.inf))
    made.event(Unknown(code="c", reason="r", step=1))
    made.note(Note(kind="k", step=1, facts={"a": math.nan, "b": "NaN"}))
    made.outcome(Outcome(action="stop", code="c", step=1, result="done", changes="nothing", stops=True))
    made.close()
    Run(made.path).write_diagnosis({"causes": []})
    return made.path


def schema_of(name):
    return jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def test_the_stored_schemas_are_current():
    stored = {path.name: json.loads(path.read_text()) for path in SCHEMAS.iterdir()}
    assert stored == models.schemas(), 'remake them: python -c "from trimtab.run import models; models.write_schemas()"'


@pytest.mark.parametrize("name", ["run", "environment", "settings", "diagnosis"])
def test_a_json_file_obeys_its_schema(folder, name):
    schema_of(name).validate(json.loads((folder / f"{name}.json").read_text()))


@pytest.mark.parametrize(
    "panel",
    [
        Table("t", "c", ("a", "b"), (("NaN", math.nan), (1, "x")), closing=True),
        Map("t", "c", ("a",), ("b", "c"), ((math.inf, 0.5),), low=0.0),
        Scatter("t", "c", ((math.nan, 1.0, "a", "b"),)),
    ],
    ids=["table", "map", "scatter"],
)
def test_the_file_of_a_panel_obeys_its_schema(tmp_path, panel):
    path = RunWriter.create(path=tmp_path / "run").panel("it", 1, panel)
    schema_of("panels").validate(json.loads(path.read_text()))


@pytest.mark.parametrize("name", ["signals", "findings", "notes", "outcomes"])
def test_each_line_of_a_jsonl_file_obeys_its_schema(folder, name):
    schema = schema_of(name)
    paths = list((folder / "signals").glob("*.jsonl")) if name == "signals" else [folder / f"{name}.jsonl"]
    checked = 0
    for path in paths:
        lines = path.read_text().splitlines()
        for place, line in enumerate(lines):
            torn = place + 1 < len(lines) and lines[place + 1].startswith('{"torn"')
            if not torn and not (place + 1 == len(lines) and line.endswith("ma")):
                schema.validate(json.loads(line))
                checked += 1
    assert checked >= 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("signals", [0, 1, 1, "main", 0.0, {"loss": "nan"}]),
        ("signals", [0, 1, 1, "main", 0.0]),
        ("findings", {"record": "finding", "code": "c"}),
        ("findings", {"record": "unknown", "code": "c", "reason": "r", "step": "1"}),
        ("notes", {"record": "outcome"}),
        ("outcomes", {"format": 2, "kind": "outcomes"}),
        ("panels", {"format": 1, "kind": "film", "title": "t", "caption": ""}),
        ("panels", {"format": 1, "kind": "table", "title": "t", "caption": "", "columns": ["a"], "rows": [[None]]}),
        ("run", {"format": 1, "id": "x", "status": "lost", "started": "2026-01-01T00:00:00Z"}),
    ],
)
def test_the_schemas_refuse_what_is_wrong(name, line):
    with pytest.raises(jsonschema.ValidationError):
        schema_of(name).validate(line)


def test_every_jsonl_file_begins_with_the_format_number(folder):
    paths = [*folder.glob("*.jsonl"), *(folder / "signals").glob("*.jsonl")]
    assert len(paths) >= 4
    for path in paths:
        first = json.loads(path.read_text().splitlines()[0])
        assert (first["format"], first["kind"]) == (1, "signals" if path.parent.name == "signals" else path.stem)


def test_there_is_a_stored_run_of_every_format():
    assert sorted(path.name for path in STORED.glob("format-*")) == [f"format-{n}" for n in range(1, FORMAT + 1)]
    assert header_line("notes").startswith(b'{"format":%d,' % FORMAT)


# --- format 1, for ever ---------------------------------------------------------------------------


def test_the_stored_run_of_format_1_opens_with_all_that_it_holds():
    path = STORED / "format-1"
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    run = Run(path)
    facts = run.facts
    assert (facts.id, facts.name, facts.seed) == ("20260102-030405-stored-example-1f0a", "stored example", 7)
    assert (run.status, facts.how, facts.mark, facts.tags) == ("finished", {"steps": 10}, "good", ("stored", "ünïcode"))
    assert facts.ended is not None
    assert ((facts.ended - facts.started).total_seconds(), facts.more) == (1.75, {"overhead": 0.004})
    assert facts.git is not None
    assert (facts.git.commit[:8], facts.git.dirty) == ("01234567", True)
    assert run.config() == {
        "model": {"width": 64, "depth": 2},
        "rate": 0.001,
        "clip": None,
        "limit": math.inf,
        "names": ["NaN", "b"],
    }
    assert repr(run.settings()) == repr(
        {
            "argv": ["train.py", "--lr", "1e-3", "--token", "[redacted]"],
            "optimizer": [{"kind": "SGD", "lr": 0.001, "momentum": 0.9}],
            "worst": math.nan,
            "text": "NaN",
        }
    )
    assert run.environment()["packages"] == {"trimtab": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6"}
    assert (run.diagnosis() or {})["causes"][1] == {"cause": "bad-data", "score": -math.inf}
    np.testing.assert_array_equal(np.load(run.samples("attention")[3], allow_pickle=False), [[0, 1, 2], [3, 4, 5]])
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_rows_of_format_1_are_exact_and_what_was_torn_is_left_out():
    run = Run(STORED / "format-1")
    expected = []
    for update in range(10):
        attempt, step = (0, update) if update < 8 else (1, update - 2)
        values: dict[str, float | tuple[float, ...]] = {"loss": math.nan if update == 7 else 1 / (step + 1)}
        if update % 2 == 0:
            values["update_ratio"] = (0.5**step, -0.0)
        expected.append(
            Signal(attempt=attempt, step=step, update=update, time=update / 8, values=values, labels=RATIOS)
        )
    critic = {"loss": 5e-324, "largest": math.inf}
    expected.insert(4, Signal(step=0, update=4, stream="critic", time=0.40625, values=critic))
    expected.append(Signal(attempt=1, step=8, update=10, time=1.25, values={"loss": 0.125}, labels=RATIOS))
    assert exactly(run.rows()) == exactly(expected)
    assert len(run.remarks) == 2


def test_the_records_of_format_1_are_exact():
    run = Run(STORED / "format-1")
    opened = Finding(
        code="loss-not-finite",
        severity=Severity.ERROR,
        step=7,
        since_step=7,
        summary="the loss is NaN at step 7",
        measured=math.nan,
        threshold=0.0,
        evidence={"last": 1 / 7, "word": "NaN", "steps": (5.0, 6.0, math.nan), "names": ("a", "-Infinity")},
        event="opened",
        id="F0001",
    )
    assert exactly(run.findings()[:1]) == exactly([opened])
    assert [(type(event).__name__, event.step) for event in run.events()] == [
        ("Finding", 7),
        ("Unknown", 0),
        ("Finding", 7),
    ]
    facts: dict[str, float | str] = {"share": 0.25, "from": "b"}
    assert run.notes() == [Note(kind="data-change", step=4, after_rows=5, until=200, text="new files", facts=facts)]
    assert run.outcomes() == [
        Outcome(
            action="roll-back",
            code="loss-not-finite",
            step=7,
            after_rows=9,
            result="done",
            changes="weights",
            because="the loss is NaN",
            to_step=5,
        )
    ]
