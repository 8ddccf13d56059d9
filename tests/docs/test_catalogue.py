"""The pages of docs/catalogue say what the plug-ins say now."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from trimtab.actions import ACTIONS, safe
from trimtab.detectors import DETECTORS, GradientsAccumulate
from trimtab.hypotheses import HYPOTHESES
from trimtab.probes import PROBES
from trimtab.report.catalogue import entries, sections
from trimtab.sensors import SENSORS
from trimtab.stabilizers import STABILIZERS

ROOT = Path(__file__).parent.parent.parent
CATALOGUE = ROOT / "docs" / "catalogue"


@pytest.fixture(scope="module")
def build():
    """The names of docs/build.py."""
    return runpy.run_path(str(ROOT / "docs" / "build.py"))


def test_the_stored_pages_are_current(build):
    assert build["stale"]() == [], "run: make docs"


@pytest.mark.parametrize(
    ("page", "codes"),
    [
        ("detectors", [detector.code for detector in DETECTORS]),
        ("hypotheses", [hypothesis.cause for hypothesis in HYPOTHESES]),
        ("sensors", [sensor.name for sensor in SENSORS]),
        ("actions", [action.name for action in ACTIONS]),
        ("probes", [probe.claim for probe in PROBES]),
        ("stabilizers", [entry.code for entry in entries("stabilizer")]),
    ],
)
def test_every_member_has_its_section_in_the_order_of_the_tuple(page, codes):
    lines = (CATALOGUE / f"{page}.md").read_text(encoding="utf-8").splitlines()
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == codes


def test_a_stabilizer_is_called_what_it_is_called_in_python():
    words = [entry.code.replace("-", "") for entry in entries("stabilizer")]
    assert words == [member.__name__.replace("_", "").lower() for member in STABILIZERS]


def test_the_sections_of_a_docstring_are_told_apart():
    summary, texts = sections(
        """Return a
        thing.

            code(1)
            code(2)

        More about
        it.

        Args:
            one: first,
                and more.
            two, three: the rest.

        Raises:
            ValueError: never.

        And more.

        Source: Somebody,
        1999.
        """
    )
    assert summary == "Return a thing."
    assert texts == {
        "": "    code(1)\n    code(2)\n\nMore about it.\n\nAnd more.",
        "Arguments": "- `one`: first, and more.\n- `two, three`: the rest.",
        "Raises": "- `ValueError`: never.",
        "Source": "Somebody, 1999.",
    }


def page_of(name):
    """Return the text of a page of the catalogue."""
    return (CATALOGUE / f"{name}.md").read_text(encoding="utf-8")


def section_of(page, code):
    """Return the part of a page that describes one member."""
    return page.split(f"\n## {code}\n")[1].split("\n## ")[0]


def test_thresholds_are_printed_with_their_values():
    section = section_of(page_of("detectors"), "gradients-accumulate")
    assert f"| `updates` | `{GradientsAccumulate().updates}` |" in section


def test_every_weight_is_printed_with_its_reason():
    page = page_of("hypotheses")
    for hypothesis in HYPOTHESES:
        section = section_of(page, hypothesis.cause)
        for weight in hypothesis.evidence:
            assert f"| {weight.decibans:+g} | " in section
            assert f"| {weight.why} |" in section


def test_a_changed_page_and_a_page_too_many_are_noticed_and_mended(build, tmp_path, monkeypatch):
    stale, write = build["stale"], build["write"]
    monkeypatch.setitem(stale.__globals__, "FOLDER", tmp_path / "catalogue")
    assert write() == sorted(build["pages"]())
    assert stale() == []
    (tmp_path / "catalogue" / "actions.md").write_text("# Actions\n", encoding="utf-8")
    (tmp_path / "catalogue" / "runs.md").write_text("# Runs\n", encoding="utf-8")
    assert stale() == ["actions.md", "runs.md"]
    assert write() == ["actions.md", "runs.md"]
    assert stale() == []
    assert not (tmp_path / "catalogue" / "runs.md").exists()


def test_the_readme_counts_what_there_is():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{len(DETECTORS)} detectors, {len(SENSORS)} sensors, {len(HYPOTHESES)} causes" in readme


def test_the_table_of_safe_answers_is_printed_row_by_row():
    table = page_of("actions").split("\n# What safe does\n")[1]
    for row in safe.SAFE:
        (line,) = (line for line in table.splitlines() if line.startswith(f"| [{row.code}]"))
        assert row.because in line
        assert all(f"[`{type(action).__name__}(" in line for action in row.actions)
