"""What a training showed stands on the page, on the terminal and in the document, and is read without colours too."""

import math
import random
import re

import pytest

from tests.report.recorded import record, training
from tests.report.test_html import Page, page_of
from trimtab.diagnose import diagnose
from trimtab.panels import Map, Scatter, Table
from trimtab.report import text
from trimtab.report.as_json import as_json
from trimtab.report.columns import column_texts, is_numeric
from trimtab.report.html import MOST_BYTES, render
from trimtab.report.panels import MOST_CELLS, MOST_GROUPS, MOST_POINTS, MOST_ROWS, panel_rows
from trimtab.run import Run, RunWriter
from trimtab.run.shown import Shown

TABLE = Table("By <length>", "Exact match.", ("length", "share"), (("1 & 2", 0.5), ("3", 1 / 3), ("4", math.nan)))


def showing(root, **panels):
    """A run that showed these panels."""
    run = record(root, training(3))
    writer = RunWriter(run.path, run.id)
    for name, panel in panels.items():
        writer.panel(name.replace("_", "-"), 29, panel)
    return Run(run.path)


def drawn(panel):
    """The panel as it is set on a page."""
    (row,) = panel_rows({"it": Shown(panel, 7)})
    return row


def shapes(svg, kind):
    """The outlines with this class, without their places."""
    paths = re.findall(rf'<path class="{kind}" d="([^"]*)"', svg)
    return [re.sub(r"M[-\d.]+ [-\d.]+", "M", path) for path in paths]


def test_the_panels_are_a_section_in_the_order_in_which_they_were_shown(tmp_path):
    square = Map("Confusion", "", ("a", "b"), ("a", "b"), ((3.0, 0.0), (1.0, 2.0)))
    run = showing(tmp_path, z=TABLE, a=square, m=Scatter("Words", "", ((0.0, 1.0, "walk", "action"),)))
    page = page_of(run)
    assert [id for id in page.ids if id.startswith("panel-of-")] == ["panel-of-z", "panel-of-a", "panel-of-m"]
    assert "#panels" in page.links
    assert "By <length> Exact match. Shown at step 29. length share 1 & 2 0.5000 3 0.3333 4 NaN" in page.text


def test_a_run_that_showed_nothing_has_no_such_section(tmp_path):
    page = page_of(record(tmp_path, training(3)))
    assert "panels" not in page.ids
    assert "#panels" not in page.links


def test_a_damaged_panel_is_a_remark_on_the_page_and_the_others_are_drawn(tmp_path):
    run = showing(tmp_path, good=TABLE, bad=TABLE)
    (run.path / "panels/bad.json").write_text("{")
    page = page_of(run)
    assert "Panels/bad.json is left out" in page.text
    assert "panel-of-good" in page.ids


def test_numbers_stand_to_the_right_and_texts_to_the_left():
    row = drawn(Table("t", "", ("name", "n", "mixed"), (("a", 1, "-"), ("b", 20, 0.5), ("c", 3, 0.25))))
    assert [cell.right for cell in row.headings] == [False, True, True]
    assert [[cell.text for cell in cells] for cells in row.rows] == [
        ["a", "1", "-"],
        ["b", "20", "0.50"],
        ["c", "3", "0.25"],
    ]
    assert [cell.right for cell in row.rows[1]] == [False, True, True]


@pytest.mark.parametrize(
    ("cells", "written"),
    [
        ([0.5, 1 / 3, 1.0, "all"], ["0.5000", "0.3333", "1.0000", "all"]),
        ([1, 20, 300], ["1", "20", "300"]),
        ([1.0, 2.0, math.nan, math.inf], ["1", "2", "NaN", "∞"]),
        ([12.345678, 0.5], ["12.346", "0.500"]),
        ([-0.25, 0.0], ["\N{MINUS SIGN}0.25", "0.00"]),
        ([1e-9, 0.5], ["1e-9", "0.5"]),
        ([1e12, 0.5], ["1e12", "0.5"]),
        ([math.nan], ["NaN"]),
        ([], []),
    ],
)
def test_the_numbers_of_a_column_have_equally_many_decimals_where_that_can_be(cells, written):
    assert column_texts(cells) == written


def test_a_column_is_one_of_numbers_when_most_of_it_are():
    assert is_numeric([1.0, "-", 2.0])
    assert not is_numeric(["a", "b", 1.0])
    assert not is_numeric([])


def test_a_long_table_is_cut_and_says_so():
    row = drawn(Table("t", "", ("n",), tuple((n,) for n in range(MOST_ROWS + 5))))
    assert (len(row.rows), row.caption) == (MOST_ROWS, f"The first {MOST_ROWS} rows; 5 more are not shown.")


def test_a_map_shades_its_cells_from_low_to_high_and_marks_what_is_not_finite():
    row = drawn(Map("m", "", ("a", "b"), ("x", "y"), ((0.0, 0.5), (1.0, math.nan)), low=0.0, high=1.0))
    kinds = re.findall(r'<path class="(\w+)" d="M([\d.]+) ([\d.]+)', row.svg)
    assert [kind for kind, *_ in kinds] == ["bad", "h0", "h4", "h8"]
    places = {kind: (float(x), float(y)) for kind, x, y in kinds}
    assert places["h0"][0] == places["h8"][0] < places["h4"][0] == places["bad"][0]  # columns go to the right
    assert places["h0"][1] == places["h4"][1] < places["h8"][1] == places["bad"][1]  # rows go down
    assert row.key == ("0", "1", True)
    assert re.findall(r">([\w.]+)</text>", row.svg) == ["a", "b", "x", "y", "0", "0.50", "1", "NaN"]


@pytest.mark.parametrize(
    ("low", "high", "ends"), [(None, None, ("1", "3")), (0.0, None, ("0", "3")), (math.nan, 9.0, ("1", "9"))]
)
def test_the_ends_of_the_colours_are_those_given_or_those_of_the_values(low, high, ends):
    assert drawn(Map("m", "", ("a",), ("x", "y"), ((1.0, 3.0),), low=low, high=high)).key == (*ends, False)


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf, 0.0])
def test_a_map_of_one_cell_can_be_drawn(value):
    assert drawn(Map("m", "", ("a",), ("b",), ((value,),))).svg


def test_a_map_with_more_rows_or_columns_than_fit_joins_neighbours_by_their_mean():
    many = 2 * MOST_CELLS
    values = tuple(tuple(float(row % 2) if column else math.nan for column in range(2)) for row in range(many))
    row = drawn(Map("m", "Here.", tuple(f"r{n}" for n in range(many)), ("x", "y"), values))
    assert row.caption == "Here. Neighbours are joined: a cell is the mean of up to 2 by 1."
    assert set(re.findall(r'class="(bad|h\d)"', row.svg)) == {"bad", "h4"}  # 0 and 1 make 0.5, NaN stays
    names = re.findall(r">(r\d+ …)</text>", row.svg)
    assert names[:2] == ["r0 …", "r2 …"]
    assert len(names) == MOST_CELLS


def test_a_wide_map_takes_the_width_of_the_page_and_is_scrolled_on_a_narrow_one(tmp_path):
    wide = Map("m", "", ("a",), tuple(map(str, range(50))), (tuple(map(float, range(50))),))
    row = drawn(wide)
    assert (row.wide, row.least > 460) == (True, True)
    run = showing(tmp_path, it=wide)
    assert f"min-width:{row.least}px" in render(run, diagnose(run))


def test_each_group_has_its_colour_and_its_marker():
    svg = drawn(Scatter("s", "", tuple((float(n), 0.0, "", f"group {n}") for n in range(8)))).svg
    markers = {f"s{n}": shapes(svg, f"s{n}") for n in range(6)}
    first = {shape[0] for shape in markers.values()}
    assert len(first) == 6  # in grey, too
    assert len(set(markers["s0"])) == len(set(markers["s1"])) == 4  # of the legend and of the points, in both rounds
    assert all(f">group {n}</text>" in svg for n in range(8))


def test_points_lie_where_their_numbers_say_and_those_that_are_not_finite_are_counted():
    points = ((0.0, 0.0, "low", "g"), (1.0, 2.0, "high", "g"), (math.nan, 0.0, "gone", "g"))
    row = drawn(Scatter("s", "Axes.", points))
    assert row.caption == "Axes. 1 more are not finite."
    spots = re.findall(r'd="M([\d.]+) ([\d.]+)[^"]*"><title>(\w+)<', row.svg)
    (x0, y0, _), (x1, y1, _) = sorted(spots, key=lambda spot: spot[2] == "high")
    assert float(x0) < float(x1)
    assert float(y0) > float(y1)
    assert ">low</text>" in row.svg
    assert "gone" not in row.svg


@pytest.mark.parametrize("points", [(), ((math.nan, 1.0, "", ""),)])
def test_a_scatter_without_a_point_says_so(points):
    row = drawn(Scatter("s", "", points))
    assert row.svg is None
    assert "There is no point to draw." in row.caption


@pytest.mark.parametrize("spread", [0.0, 1e-300, 1e300, 1e308])
def test_points_of_any_size_can_be_drawn(spread):
    svg = drawn(Scatter("s", "", ((-spread, 5.0, "a", ""), (spread, 5.0, "b", "")))).svg
    assert "nan" not in svg
    assert "inf" not in svg


def test_labels_never_lie_on_each_other():
    chance = random.Random(0)
    points = tuple((chance.random(), chance.random(), f"word {n}", "g") for n in range(50))
    svg = drawn(Scatter("s", "", points)).svg
    found = re.findall(r'class="name" x="([\d.]+)" y="([\d.]+)"[^>]*>(word \d+)<', svg)
    boxes = [(float(x), float(y) - 6, float(x) + 6.3 * len(word), float(y) + 6) for x, y, word in found]
    assert len(boxes) >= 10
    for place, a in enumerate(boxes):
        assert not [b for b in boxes[:place] if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]


def test_many_points_are_thinned_and_many_groups_are_joined():
    row = drawn(Scatter("s", "", tuple((n, n % 7, "", f"g{n % 30}") for n in range(3 * MOST_POINTS))))
    assert row.caption == f"{MOST_POINTS:,} of {3 * MOST_POINTS:,} points are drawn."
    many = drawn(Scatter("s", "", tuple((n, n % 7, "", f"g{n % 30}") for n in range(300)))).svg
    assert many is not None
    assert len(re.findall(r">g\d+</text>", many)) == MOST_GROUPS - 1
    assert ">other groups</text>" in many


def test_what_a_user_wrote_is_text_and_never_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    run = showing(
        tmp_path,
        a=Table(evil, evil, (evil,), ((evil,),)),
        b=Map(evil, evil, (evil,), (evil,), ((1.0,),)),
        c=Scatter(evil, evil, ((0.0, 0.0, evil, evil),)),
    )
    page = Page(render(run, diagnose(run)))
    assert "script" not in page.tags
    assert page.text.count(evil) >= 7


def test_panels_beyond_what_a_page_holds_are_named_and_not_drawn(tmp_path):
    chance = random.Random(0)
    cloud = Scatter("Cloud", "", tuple((chance.random(), chance.random(), "", "g") for _ in range(MOST_POINTS)))
    run = showing(tmp_path, **{f"c{place}": cloud for place in range(12)}, last=TABLE)
    page = render(run, diagnose(run))
    assert len(page.encode()) < MOST_BYTES
    assert "Not drawn, for the page would be too large: see panels/c11.json of the run." in page
    assert page.count('<svg class="plot panel"') >= 4


def test_closing_tables_are_plain_text_with_numbers_to_the_right(tmp_path):
    closing = Table("Final", "c", ("kind\nof", "n", "share"), (("a b", 1, 0.5), ("c", 20, math.nan)), closing=True)
    lines = text.tables(showing(tmp_path, open=TABLE, final_one=closing))
    assert lines == [
        "Final (step 29; panel final-one)",
        "  kind of   n  share",
        "  a b       1    0.5",
        "  c        20    NaN",
        "",
    ]


def test_the_document_holds_every_panel(tmp_path):
    run = showing(tmp_path, it=TABLE, map=Map("m", "", ("a",), ("x",), ((1.0,),)))
    panels = as_json(run, diagnose(run))["panels"]
    assert list(panels) == ["it", "map"]
    assert (panels["it"]["kind"], panels["it"]["step"], panels["it"]["columns"]) == ("table", 29, ("length", "share"))
    assert panels["map"]["values"] == ((1.0,),)


def test_the_same_panel_gives_the_same_drawing():
    scatter = Scatter("s", "", tuple((n, n, str(n), str(n)) for n in range(20)))
    assert drawn(scatter) == drawn(scatter)
