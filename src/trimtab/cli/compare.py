"""`trimtab compare`: what differs between two runs."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli._options import Format, Output, Root, examples


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "compare",
        short_help="Say what differs between two runs.",
        epilog=examples("trimtab compare 20260301-1412 last", "trimtab compare runs/a runs/b --format json"),
    )(_compare)


def _compare(
    a: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare with.")],
    b: Annotated[str, typer.Argument(metavar="RUN", help="The other run.")] = "last",
    root: Root = None,
    format: Format = Output.TEXT,
) -> int:
    """Say which settings of two runs differ and at which step their signals part; unfinished runs too."""
    from trimtab.cli import _show
    from trimtab.cli._comparison import print_comparison
    from trimtab.compare import compare
    from trimtab.run import find_run

    found = compare(find_run(a, root), find_run(b, root))
    if format is Output.JSON:
        _show.document(found.as_dict())
    else:
        print_comparison(_show.console(), found)
    return 0
