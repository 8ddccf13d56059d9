"""Every command that a page shows could be typed: its verb and its options exist. The Python of the how-tos runs."""

from __future__ import annotations

import re
import shlex
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import typer.main
from torch import nn

import trimtab
from tests.docs.kit import PAGES, ROOT, blocks, commands, name_of
from trimtab import cli

VERBS: dict[str, Any] = vars(typer.main.get_command(cli._app))["commands"]


def mistake_in(command: str) -> str:
    """Return what is wrong with a command line, parsed as `trimtab` parses it; an empty string if nothing is."""
    words = shlex.split(command, comments=True)[1:]
    if "|" in words:
        words = words[: words.index("|")]
    if not words or words in (["--help"], ["--version"]):
        return ""
    verb, *arguments = words
    if verb not in VERBS:
        return f"there is no verb {verb!r}"
    if not arguments or "..." in arguments:
        return ""  # the verb itself is meant, or the rest is left to the reader
    try:
        VERBS[verb].make_context(verb, list(arguments))
    except Exception as error:  # noqa: BLE001 - whatever the parser says is the mistake
        return str(getattr(error, "message", error)) or type(error).__name__
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_could_be_typed(page):
    text = page.read_text(encoding="utf-8")
    assert {command: said for command in commands(text) if (said := mistake_in(command))} == {}


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_a_first_page_shows_how_to_watch(name):
    shown = commands((ROOT / name).read_text(encoding="utf-8"))
    assert any(command.startswith("trimtab watch ") for command in shown)


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("trimtab watch train.py --lr 3e-4", False),
        ("trimtab watch --fail-on never -- torchrun train.py", False),
        ("trimtab diagnose last --format json   # a comment", False),
        ("trimtab rules", False),
        ("trimtab wach train.py", True),
        ("trimtab diagnose --no-such-option", True),
        ("trimtab report --format html", True),
        ("trimtab watch --lr 3e-4 train.py", True),
    ],
)
def test_a_command_that_could_not_be_typed_is_noticed(command, wrong):
    assert bool(mistake_in(command)) is wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_that_is_imported_from_trimtab_exists(page):
    code = "\n".join(block.text for block in blocks(page.read_text(encoding="utf-8")) if block.language == "python")
    for module, names in re.findall(r"^\s*from (trimtab[\w.]*) import ([\w, ]+)$", code, re.MULTILINE):
        home = trimtab if module == "trimtab" else __import__(module, fromlist=["*"])
        assert [name for name in re.findall(r"\w+", names) if not hasattr(home, name)] == []


def yours():
    """Return what a how-to says is the reader's: model, optimizer, loader, loss_of."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(60, 8, 6)
    loader = [(x_BI, (x_BI[:, 0] > 0).long()) for x_BI in x]
    return {
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters(), lr=1e-2),
        "loader": loader,
        "loss_of": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
    }


HOW_TOS = [page for page in sorted((ROOT / "docs" / "how-to").glob("*.md")) if page.name != "README.md"]


@pytest.mark.parametrize("page", HOW_TOS, ids=name_of)
def test_the_python_of_a_how_to_runs(page, tmp_path, monkeypatch):
    """All blocks of a page, one after the other, as a reader would type them; the Guards are closed at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIMTAB_RUNS", raising=False)
    module = type(sys)("how_to")
    monkeypatch.setitem(sys.modules, "how_to", module)
    module.__dict__.update(yours())
    made = []
    begin = trimtab.Guard.__init__

    def remember(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(trimtab.Guard, "__init__", remember)
    try:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.language == "python":
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), module.__dict__)
    finally:
        for guard in made:
            guard.close()
    if "Guard(" in page.read_text(encoding="utf-8"):
        assert made, "a how-to that names a Guard shows it at work"
    assert [event for guard in made for event in guard.events if event.code == "trimtab-failed"] == []
