"""Every record comes back from its JSON line as what it was, NaN and infinities included."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.run.kit import FINDINGS, FLOATS, NOTES, OUTCOMES, SIGNALS, TEXTS, UNKNOWNS, exactly, row
from trimtab import records
from trimtab.records import Finding, Severity, Signal
from trimtab.run import codec, models

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def strict(line):
    """Parse JSON and refuse the words that only Python's parser knows."""

    def refuse(word):
        raise ValueError(f"{word} is not JSON")

    return json.loads(line, parse_constant=refuse)


@given(FINDINGS | UNKNOWNS | NOTES | OUTCOMES)
def test_a_record_comes_back_as_it_was(record):
    line = codec.record_line(record)
    assert line.count(b"\n") == 1
    assert exactly([models.record_of(strict(line), ("finding", "unknown", "note", "outcome"))]) == exactly([record])


@given(SIGNALS)
def test_a_row_comes_back_as_it_was(signal):
    line = codec.signal_line(signal)
    assert line.count(b"\n") == 1
    places = tuple(range(len(codec.COLUMNS)))
    assert exactly([codec.signal_of(strict(line), {signal.stream: signal.labels}, places)]) == exactly([signal])


@given(PLAIN)
def test_plain_data_comes_back_as_it_was(value):
    assert repr(codec.decode(strict(codec.safe_json(value)))) == repr(value)


def test_numbers_that_are_not_finite_are_written_as_their_words():
    line = codec.signal_line(row(3, loss=math.nan, norms=(math.inf, -math.inf, -0.0), time=0.5))
    assert line == b'[0,3,3,"main",0.5,{"loss":"NaN","norms":["Infinity","-Infinity",-0.0]}]\n'


def test_a_text_that_reads_like_a_number_is_told_from_the_number():
    finding = Finding(
        code="x", severity=Severity.ERROR, step=1, summary="NaN", measured=math.nan, threshold=0.0,
        evidence={"number": math.nan, "word": "NaN"},
    )  # fmt: skip
    line = strict(codec.record_line(finding))
    assert line["evidence"] == {"number": "NaN", "word": "\\NaN"}
    assert (line["summary"], line["measured"], line["severity"]) == ("NaN", "NaN", "error")


def test_numpy_numbers_are_written_as_numbers_and_other_objects_are_refused():
    line = codec.signal_line(row(0, loss=np.float32(0.5), steps=np.int64(3)))
    assert strict(line)[5] == {"loss": 0.5, "steps": 3}
    with pytest.raises(TypeError, match=r"a record holds a .*object; expected numbers and texts"):
        codec.signal_line(row(0, loss=object()))
    with pytest.raises(TypeError, match="expected one of Finding, Unknown, Note, Outcome, got Signal"):
        codec.record_line(row(0))


def test_any_object_of_a_program_can_be_shown_as_json():
    class Mode(Enum):
        FAST = "fast"

    @dataclass
    class Options:
        where: Path
        mode: Mode

    class Broken:
        def __repr__(self):
            raise RuntimeError("no")

    shown = strict(
        codec.safe_json(
            {
                "options": Options(where=Path("a/b"), mode=Mode.FAST),
                "worst": Severity.FATAL,
                "set": {2, 1},
                "array": np.zeros((2, 3), np.float32),
                "number": np.float64(1.5),
                "flag": np.bool_(True),
                "object": object(),
                "broken": Broken(),
                3: "a key that is a number",
            }
        )
    )
    assert shown["options"] == {"where": "a/b", "mode": "fast"}
    assert (shown["worst"], shown["set"], shown["number"], shown["flag"]) == ("fatal", [1, 2], 1.5, True)
    assert shown["array"] == "<numpy.ndarray of shape (2, 3), float32>"
    assert shown["object"] == "<object object>"  # without an address, which differs in each process
    assert shown["broken"].endswith("Broken>")
    assert shown["3"] == "a key that is a number"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ([0, 1, 1, "main", 0.0], "expected a row of attempt, step"),
        ([0, "1", 1, "main", 0.0, {}], "must be whole numbers"),
        ([0, 1, 1, 7, 0.0, {}], "stream a text"),
        ([0, 1, 1, "main", 0.0, {"loss": "abc"}], "could not convert"),
        ([0, 1, 1, "main", 0.0, [1.0]], "expected a row of"),
        ([0, 1, 1, "main", None, {}], "expected a row of"),
    ],
)
def test_a_line_of_another_shape_is_no_row(line, wrong):
    with pytest.raises(ValueError, match=wrong):
        codec.signal_of(line, {}, tuple(range(6)))


def test_columns_may_stand_in_another_order_and_beside_new_ones():
    places = codec.places_of(["values", "host", "time", "stream", "update", "step", "attempt"])
    line = [{"loss": 1.0}, "new", 2.0, "main", 5, 4, 3]
    assert codec.signal_of(line, {}, places) == Signal(attempt=3, step=4, update=5, time=2.0, values={"loss": 1.0})
    with pytest.raises(ValueError, match="lacks the columns stream, values"):
        codec.places_of(["attempt", "step", "update", "time"])


@pytest.mark.parametrize("name", ["Finding", "Unknown", "Note", "Outcome"])
def test_the_model_of_a_file_has_the_fields_and_defaults_of_its_record(name):
    record, model = getattr(records, name), getattr(models, name)
    assert list(model.model_fields) == ["record", *(field.name for field in fields(record))]
    required = {field.name for field in fields(record) if field.default is field.default_factory}
    assert {key for key, field in model.model_fields.items() if field.is_required()} == {"record", *required}


def test_importing_and_writing_loads_neither_numpy_nor_pydantic_nor_yaml_nor_torch(tmp_path):
    program = """
import sys
from trimtab.records import Note, Signal
from trimtab.run import RunWriter
writer = RunWriter.create(sys.argv[1], name="light")
writer.settings({"argv": ["train.py"]})
writer.row(Signal(step=0, update=0, time=0.0, values={"loss": float("nan"), "norms": (1.0, 2.0)}))
writer.note(Note(kind="data-change", step=0))
writer.close()
print(sorted({"numpy", "pydantic", "yaml", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
