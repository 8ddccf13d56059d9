"""A drawing is an element of a page: text stays text, colours follow the page, ids are its own, bytes repeat."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from trimtab.report.ink import number
from trimtab.report.plots import Mark, Target, draw
from trimtab.report.series import Line


def line(values, **facts):
    values = np.array(values, dtype=float)
    return Line(**{"name": "loss", "steps": np.arange(float(len(values))), "values": values, **facts})


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def parse(svg):
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_a_drawing_holds_text_variables_for_colours_and_no_reference_outside_itself():
    svg = draw("loss", "Training <loss>", [line([3, 2, 1])], marks=[Mark(step=1, severity="error", label="F1")], last=2)
    parse(svg)
    assert {"step", "F1", "0", "2"} <= set(texts(svg))
    assert '<title id="loss-title">Training &lt;loss&gt;</title>' in svg
    assert "var(--series-0)" in svg
    assert "var(--error)" in svg
    assert not re.search(r"#[0-9a-f]{6}", svg)
    assert "font-family" not in svg
    assert "://" not in svg


def test_the_ids_of_two_drawings_never_meet():
    one, other = (draw(key, "t", [line([1, math.nan, 2])], last=2) for key in ("a", "b"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, known in zip((one, other), ids, strict=True):
        used = {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)}
        assert used
        assert used <= known


def test_the_same_data_give_the_same_bytes():
    made = [
        draw("x", "t", [line(np.linspace(1, 9, 50))], targets=[Target(step=9, value=2, label="≤ 2")], last=49)
        for _ in "ab"
    ]
    assert made[0] == made[1]


def test_values_that_are_no_number_are_marked_once_and_not_dropped():
    svg = draw("x", "t", [line([1, 2, math.nan, math.inf, 3]), line([1, math.nan, 1, 1, 1], name="other")], last=4)
    assert texts(svg).count("not finite") == 1
    assert svg.count("var(--fatal)") >= 3


def test_several_lines_have_a_legend_and_one_line_has_none():
    two = [line([1, 2], stream="generator"), line([2, 1], stream="critic")]
    assert {"generator", "critic"} <= set(texts(draw("x", "t", two, last=1)))
    assert "generator" not in texts(draw("x", "t", two[:1], last=1))


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [math.nan],
        [0.0, 0.0],
        [-1e9, 5, 1e9],
        [1e-300, 1e300],
        [5e-324, 1.7e308],
        [math.inf, 1.0],
        [-3.0, -2.0],
    ],
    ids=str,
)
@pytest.mark.parametrize("scale", ["auto", "log", "linear"])
def test_any_values_can_be_drawn(values, scale):
    parse(draw("x", "t", [line(values)] if values else [], scale=scale, last=len(values)))


def test_more_lines_than_colours_differ_by_their_dashes():
    svg = draw("x", "t", [line([1, 2], label=str(place)) for place in range(8)], last=1)
    assert "stroke-dasharray" in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.001, "0.001"), (3e-5, "3e-5"), (250.0, "250"), (12_000.0, "12k"), (1e6, "1e6"), (2.5e9, "2.5e9")],
)
def test_numbers_of_an_axis_are_short(value, text):
    assert number(value) == text
