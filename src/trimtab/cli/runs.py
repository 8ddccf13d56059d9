"""`trimtab runs`: the runs of a folder."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trimtab.cli._options import Format, Output, examples


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "runs",
        short_help="List the runs of a folder.",
        epilog=examples("trimtab runs", "trimtab runs sweeps/lr --most 100"),
    )(_runs)


def _runs(
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="The folder of runs: TRIMTAB_RUNS or ./runs by default.")
    ] = None,
    most: Annotated[int, typer.Option("--most", metavar="N", min=1, help="Show so many at most.")] = 30,
    format: Format = Output.TEXT,
) -> int:
    """List the runs of a folder, the newest first, with the worst that was found in each."""
    from trimtab.cli import _show
    from trimtab.report.listing import listing
    from trimtab.run import list_runs

    remarks: list[str] = []
    found = list_runs(folder, remarks=remarks)
    rows = listing(found[:most], remarks)
    if format is Output.JSON:
        _show.document({"runs": [row.as_dict() for row in rows], "more": len(found) - len(rows), "remarks": remarks})
        return 0
    if rows:
        _show.console().print(
            _show.table(
                ["run", "status", "steps", "worst", "finding", "mark", "started (UTC)"],
                [
                    (
                        row.id,
                        row.status,
                        f"{row.steps:,}",
                        _show.coloured(row.severity),
                        row.worst or "-",
                        row.mark,
                        row.started,
                    )
                    for row in rows
                ],
                right=["steps"],
            )
        )
    else:
        print(f"no runs in {folder or 'the folder of runs'}; record one with `trimtab watch SCRIPT.py`")
    if len(found) > len(rows):
        print(f"and {len(found) - len(rows)} older ones; --most {len(found)} shows all")
    for remark in remarks:
        print(f"trimtab: {remark}", file=sys.stderr)
    return 0
