"""What the pages point at exists: files, headings, tests, and paths of the project."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.kit import PAGES, ROOT, WRITTEN, name_of, without_blocks

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def slug(heading: str) -> str:
    """Return the anchor that a heading gets when the page is rendered."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    text = without_blocks(page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@cache
def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the links of a page that lead to nothing in this project."""
    broken = []
    for target in [*LINK.findall(without_blocks(text)), *PICTURE.findall(without_blocks(text))]:
        if re.match(r"https?:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    return broken


def missing_paths(text: str) -> list[str]:
    """Return the paths of the project, tests in them included, that a page names and that do not exist."""
    missing = []
    for path, test in re.findall(r"`((?:src|tests|docs|examples|benchmarks)/[\w./-]+)(?:::(\w+))?`", text):
        file = ROOT / path
        if not file.exists() or (test and test not in functions_of(file)):
            missing.append(f"{path}::{test}" if test else path)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_every_path_and_every_test_that_is_named_exists(page):
    assert missing_paths(page.read_text(encoding="utf-8")) == []


def test_every_page_of_docs_can_be_reached_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        links = LINK.findall(without_blocks(page.read_text(encoding="utf-8")))
        todo += [(page.parent / link.partition("#")[0]).resolve() for link in links if not link.startswith("http")]
    assert sorted(name_of(page) for page in PAGES if page not in seen and page.is_relative_to(ROOT / "docs")) == []


def test_every_decision_is_in_the_list_and_says_what_was_rejected():
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    for page in sorted(folder.glob("0*.md")):
        text = page.read_text(encoding="utf-8")
        number, title = re.findall(r"\A# (\d+)\. (.+)\n", text)[0]
        assert f"{number}. [{title}]({page.name})" in listed
        assert page.name.startswith(f"{int(number):04d}-")
        assert [
            part for part in ("Context", "Decision", "Consequences", "Rejected") if f"\n**{part}.**" not in text
        ] == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](design.md) [b](design.md#1-the-words) [c](https://example.org/x) [d](#here)\n# Here\n", []),
        ("[a](nowhere.md)", ["nowhere.md"]),
        ("[a](design.md#no-such-heading)", ["design.md#no-such-heading"]),
        ("![a](pictures/nothing.png)", ["pictures/nothing.png"]),
        ("```\n[a](nowhere.md)\n```", []),
    ],
)
def test_a_link_that_leads_nowhere_is_noticed(text, broken, tmp_path):
    (tmp_path / "design.md").write_text("# 1. The words\n", encoding="utf-8")
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    assert broken_links(tmp_path / "page.md", text) == broken


def test_a_path_or_a_test_that_does_not_exist_is_noticed():
    here = "tests/docs/test_links.py"
    named = f"`{here}` `{here}::test_every_link_leads_somewhere` `src/gone.py` `{here}::gone`"
    assert missing_paths(named) == ["src/gone.py", f"{here}::gone"]
