"""`trimtab rules`: the catalogues."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer

from trimtab.cli._options import Format, Output, examples


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "rules",
        short_help="List what Trimtab detects, measures, does.",
        epilog=examples("trimtab rules", "trimtab rules detector", "trimtab explain loss-not-finite"),
    )(_rules)


def _rules(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="detector, sensor, hypothesis, action, probe, stabilizer; all.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="NAME", help="Only what this installed system adds of its own.")
    ] = None,
    format: Format = Output.TEXT,
) -> int:
    """List what Trimtab measures, detects, blames, does and tests, with one line for each."""
    from trimtab.cli import _show
    from trimtab.report.catalogue import entries, own_entries
    from trimtab.system import find_system

    found = entries(kind) if system is None else own_entries(find_system(system), kind)
    if format is Output.JSON:
        _show.document([{"kind": entry.kind, "code": entry.code, "summary": entry.summary} for entry in found])
        return 0
    console = _show.console()
    for place, (name, members) in enumerate(groupby(found, key=lambda entry: entry.kind)):
        if place:
            console.print()
        rows = [(_show.text(entry.code, "bold"), entry.summary) for entry in members]
        console.print(_show.table([name, ""], rows, wrap=""))
    return 0
