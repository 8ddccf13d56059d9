"""What the tests of the pages share: which pages there are, and what stands in their code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("src/trimtab_systems/*/README.md"),
    ]
)
"""Every page for a reader."""

WRITTEN = [page for page in PAGES if page.parent.name != "catalogue"]
"""The pages that are written by hand."""


def name_of(page: Path) -> str:
    """Return a page's path below the root, for the name of a test."""
    return str(page.relative_to(ROOT))


class Block(NamedTuple):
    """A fenced block of code: its language (may be empty), its text, and the line it begins at."""

    language: str
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        indent, language, body = match.groups()
        lines = (line.removeprefix(indent) for line in body.splitlines())
        yield Block(language, "\n".join(lines) + "\n", text[: match.start()].count("\n") + 2)


def without_blocks(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^( *)```\w*\n.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[str]:
    """Yield every `trimtab VERB ...` that a page shows: lines of blocks (fenced or indented), and inline code.

    Lines of a block that begin with a prompt count, too; blocks of Python do not.
    """
    for block in blocks(text):
        if block.language != "python":
            for line in block.text.replace("\\\n", " ").splitlines():
                yield from _command(line)
    rest = without_blocks(text)
    for line in rest.splitlines():
        if line.startswith("    "):
            yield from _command(line)
    for code in re.findall(r"`([^`\n]+)`", rest):
        yield from _command(code)


def _command(line: str) -> Iterator[str]:
    match = re.fullmatch(r"\s*(?:[$] )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(trimtab(?: .*)?)", line)
    if match:
        yield match[1]
