"""`trimtab mark`: name the last good run."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli._options import Format, Output, Root, RunName, examples


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "mark",
        short_help="Name the last good run.",
        epilog=examples("trimtab mark last good", "trimtab mark 20260301-1412 good", "trimtab mark last --remove"),
    )(_mark)


def _mark(
    run: RunName = "last",
    word: Annotated[str, typer.Argument(metavar="WORD", help="The mark.")] = "good",
    remove: Annotated[bool, typer.Option("--remove", help="Take the mark away.")] = False,
    root: Root = None,
    format: Format = Output.TEXT,
) -> int:
    """Mark a run with a word. The newest run marked 'good' is what `diagnose` compares settings with."""
    from trimtab.cli import _show
    from trimtab.run import find_run

    found = find_run(run, root)
    found.mark("" if remove else word)
    if format is Output.JSON:
        _show.document({"run": found.id, "mark": found.facts.mark})
    else:
        print(f"{found.id} is marked {found.facts.mark}" if found.facts.mark else f"{found.id} has no mark")
    return 0
