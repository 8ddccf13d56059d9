"""Printing: plain where nobody looks, tables and colours on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from trimtab.records import Severity

PIPE_WIDTH = 160
"""Columns where the output is no terminal and COLUMNS is not set."""

COLOURS = {"info": "blue", "warning": "yellow", "error": "red", "fatal": "bold magenta", "clear": "green"}


def console() -> Console:
    """Return a console on standard output that takes brackets in texts for what they are."""
    from rich.console import Console

    class Pipe(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # for `main` to answer; rich would end the process with 1

    terminal = sys.stdout.isatty()
    columns = os.environ.get("COLUMNS", "")
    width = None if terminal else int(columns) if columns.isdecimal() and int(columns) > 20 else PIPE_WIDTH
    plain = not terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Pipe(
        file=sys.stdout, force_terminal=terminal, color_system=None if plain else "auto", width=width, markup=False,
        highlight=False, emoji=False,
    )  # fmt: skip


def document(value: Any) -> None:
    """Print one JSON document; NaN and infinities as words."""
    from trimtab.run import safe_json

    print(safe_json(value))


def table(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = (), wrap: str = ""
) -> Table:
    """Return a table; columns in `right` are set to the right, only the column `wrap` may be broken into lines."""
    from rich.table import Table

    made = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
        show_header=any(heading.strip() for heading in headings),
    )
    for heading in headings:
        justify: Any = "right" if heading in right else "left"
        made.add_column(heading, justify=justify, no_wrap=heading != wrap, overflow="fold")
    for row in rows:
        made.add_row(*(cell if not isinstance(cell, str) else text(cell) for cell in row))
    return made


def text(words: object, style: str = "") -> Text:
    """Return words with a style; their brackets mean nothing."""
    from rich.text import Text

    return Text(str(words), style=style)


def coloured(severity: Severity | None) -> Text:
    """Return a severity in its colour, '-' for none."""
    return text("-", "dim") if severity is None else text(severity, COLOURS[str(severity)])


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int, float], None] | None]:
    """Show a progress bar on standard error while the block runs; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, loss="-")
        yield lambda done, planned, loss: bar.update(task, completed=done, total=planned, loss=f"{loss:.4g}")
