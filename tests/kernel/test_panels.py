"""What a Guard is shown is in the run folder as it was handed over, and nothing about it reaches the loop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trimtab
from tests.kernel.kit import net, train
from tests.run.kit import FLOATS, TEXTS
from trimtab.errors import UserError
from trimtab.guard import Guard
from trimtab.panels import MOST_VALUES, Map, Scatter, Table
from trimtab.run import Run, RunWriter

TABLE = Table("By length", "Exact match", ("length", "share"), (("short", 0.5), ("NaN", math.nan), ("all", 3)))
MAP = Map("Confusion", "Rows are true", ("a", "b"), ("x", "y", "z"), ((1.0, math.inf, 0.0), (-math.inf, 2.0, 0.5)))
SCATTER = Scatter("Words", "t-SNE", ((0.0, 1.0, "walk", "action"), (math.nan, 1.0, "left", "direction")))

TITLES = TEXTS.filter(str.strip)
ROWS = st.integers(1, 3).flatmap(
    lambda width: st.tuples(
        st.lists(TEXTS, min_size=width, max_size=width).map(tuple),
        st.lists(st.tuples(*[TEXTS | FLOATS | st.integers()] * width), max_size=3).map(tuple),
    )
)


@pytest.fixture
def guard(tmp_path):
    model = net()
    with Guard(tmp_path / "run", model, torch.optim.SGD(model.parameters(), 0.1), pyproject=False) as made:
        yield made


@settings(max_examples=25, deadline=None)
@given(title=TITLES, caption=TEXTS, table=ROWS, closing=st.booleans())
def test_a_table_comes_back_as_it_was_down_to_every_float_and_text(tmp_path_factory, title, caption, table, closing):
    columns, rows = table
    writer = RunWriter.create(path=tmp_path_factory.mktemp("run") / "run")
    shown = Table(title, caption, columns, rows, closing)
    writer.panel("it", 3, shown)
    assert repr(Run(writer.path).panels()) == repr({"it": shown})


@pytest.mark.parametrize("panel", [TABLE, MAP, SCATTER], ids=["table", "map", "scatter"])
def test_a_panel_comes_back_with_its_nan_and_its_step(guard, tmp_path, panel):
    model = net()
    train(model, torch.optim.SGD(model.parameters(), 0.1), [1.0] * 3)
    guard.show("it", panel)
    run = Run(tmp_path / "run")
    assert repr(run.panels()) == repr({"it": panel})
    text = (tmp_path / "run/panels/it.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert run.remarks == []


def test_the_step_is_that_of_the_training(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Guard(tmp_path / "run", model, optimizer, pyproject=False) as guard:
        train(model, optimizer, [1.0] * 3)
        guard.show("it", TABLE)
    assert Run(tmp_path / "run").shown()["it"].step == 2


def test_a_later_panel_replaces_that_of_its_name_and_keeps_its_place(guard, tmp_path):
    guard.show("z", TABLE)
    guard.show("a", MAP)
    guard.show("z", SCATTER)
    assert [(name, type(panel)) for name, panel in Run(tmp_path / "run").panels().items()] == [
        ("z", Scatter),
        ("a", Map),
    ]


def test_a_run_that_is_gone_on_with_keeps_its_panels_and_their_places(tmp_path):
    first = RunWriter.create(path=tmp_path / "run")
    first.panel("z", 0, TABLE)
    first.panel("b", 0, MAP)
    first.close("interrupted")
    again = RunWriter.reopen(first.path, 0)
    again.panel("a", 5, SCATTER)
    again.panel("z", 5, MAP)
    assert [(name, shown.step) for name, shown in Run(first.path).shown().items()] == [("z", 5), ("b", 0), ("a", 5)]


@pytest.mark.parametrize("name", ["", "By-Length", "a b", "../a", "a--b", "-a", "a.json", "ä", "a" * 81, 3, "a\n"])
def test_a_name_that_is_no_plain_word_is_refused(guard, name):
    with pytest.raises(UserError, match=r"^show: .* is no name of a panel; write small letters"):
        guard.show(name, TABLE)


def test_what_is_no_panel_is_refused(guard):
    with pytest.raises(UserError, match=r"show: 'it' is a dict; expected a Table, a Map or a Scatter"):
        guard.show("it", {"title": "x"})


def test_a_disk_that_refuses_costs_the_panel_and_not_the_training(guard, tmp_path, caplog):
    (tmp_path / "run/panels").write_text("a file where the folder should be")
    guard.show("it", TABLE)
    assert "could not write a panel" in caplog.text
    guard.record(mine=1.0)
    run = Run(tmp_path / "run")
    assert run.panels() == {}
    assert "mine" in {name for row in run.rows() for name in row.values}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "film"}, "'film' is no kind of panel that this Trimtab knows"),
        ({"format": 2}, "has format 2, this Trimtab reads formats up to 1"),
        ({"rows": [["a"]]}, "row 0 has 1 cells, and there are 2 columns"),
        ({"rows": 3}, "rows: Input should be"),
        ({"columns": [1, 2]}, "columns.0: Input should be"),
        ({"title": None}, "title: Input should be"),
    ],
)
def test_a_panel_that_cannot_be_read_is_a_remark_and_the_others_stand(guard, tmp_path, change, said):
    guard.show("good", MAP)
    guard.show("it", TABLE)
    path = tmp_path / "run/panels/it.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change, "of-a-later-version": 1}))
    run = Run(tmp_path / "run")
    assert list(run.panels()) == ["good"]
    assert len(run.remarks) == 1
    assert run.remarks[0].startswith("panels/it.json is left out: ")
    assert said in run.remarks[0]


@pytest.mark.parametrize("text", ["{", "[]", "", "\xff"])
def test_a_damaged_panel_is_a_remark_and_can_be_shown_anew(guard, tmp_path, text):
    guard.show("it", TABLE)
    (tmp_path / "run/panels/it.json").write_text(text, encoding="latin-1")
    run = Run(tmp_path / "run")
    assert run.panels() == {}
    assert "panels/it.json is left out" in run.remarks[0]
    guard.show("it", MAP)
    assert Run(tmp_path / "run").panels() == {"it": MAP}


def test_a_key_of_a_later_version_is_passed_over_and_a_half_written_file_too(guard, tmp_path):
    guard.show("it", MAP)
    path = tmp_path / "run/panels/it.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colours": "viridis"}))
    path.with_name(".it.json.7.tmp").write_text("{")
    path.with_name(".other.json").write_text("{")
    run = Run(tmp_path / "run")
    assert (run.panels(), run.remarks) == ({"it": MAP}, [])


def test_lists_arrays_and_tensors_become_plain_values():
    values = torch.tensor([[0.5, 1.0]], requires_grad=True)
    shown = Map("m", "", ["a"], np.array(["x", "y"]), values, low=np.float32(0), high=torch.tensor(1))
    assert shown == Map("m", "", ("a",), ("x", "y"), ((0.5, 1.0),), 0.0, 1.0)
    assert [type(one) for one in (*shown.values[0], shown.low, shown.high)] == [float] * 4
    table = Table("t", "", ["a", "b", "c"], [[np.int64(3), np.bool_(True), torch.tensor(0.5)]])
    assert table.rows == ((3, "yes", 0.5),)
    points = Scatter("s", "", [(np.float64(1), 2, 3, None)]).points
    assert points == ((1.0, 2.0, "3", "None"),)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Table("t", "", (), ()), "Table 't': it has no columns"),
        (lambda: Table(" ", "", ("a",), ()), "Table: the title is empty"),
        (lambda: Table("t", "", ("a", "b"), ((1, 2), (3,))), "row 1 has 1 cells, and there are 2 columns (a, b)"),
        (lambda: Table("t", "", ("a",), ((None,),)), "rows must hold texts and numbers, got None of type NoneType"),
        (lambda: Table("t", "", ("a",), ("x",)), "rows must be a sequence of sequences; one of them is 'x'"),
        (lambda: Table("t", "", "abc", ()), "columns must be a sequence of texts, got 'abc'"),
        (lambda: Table("t", "", ("a",), ((0.0,),) * (MOST_VALUES + 1)), "100,001 cells, and a panel holds at most"),
        (lambda: Map("m", "", ("a",), ("x",), ()), "values has 0 rows of no values, and there are 1 names of rows"),
        (lambda: Map("m", "", ("a", "b"), ("x",), ((1.0,), (1.0, 2.0))), "2 rows of 1 or 2 values"),
        (lambda: Map("m", "", (), (), ()), "at least one of each"),
        (lambda: Map("m", "", ("a",), ("x",), (("1",),)), "values must hold numbers, got '1' of type str"),
        (lambda: Map("m", "", ("a",), ("x",), 3), "values must be a sequence of sequences; one of them is 3"),
        (lambda: Scatter("s", "", ((1.0, 2.0, "a"),)), "point 0 is (1.0, 2.0, 'a'); expected (x, y, label, group)"),
        (lambda: Scatter("s", "", ((None, 2.0, "a", "b"),)), "points must hold numbers, got None"),
    ],
)
def test_a_panel_that_cannot_be_drawn_says_what_is_wrong_where_it_is_made(make, said):
    with pytest.raises(UserError) as error:
        make()
    assert said in str(error.value)


def test_the_panels_are_public_names():
    assert (trimtab.Table, trimtab.Map, trimtab.Scatter) == (Table, Map, Scatter)
