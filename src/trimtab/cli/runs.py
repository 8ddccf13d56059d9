"""`trimtab runs`: the runs of a folder, or of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli._options import Format, Output, examples

if TYPE_CHECKING:
    from trimtab.trial import Trial


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "runs",
        short_help="List the runs of a folder.",
        epilog=examples("trimtab runs", "trimtab runs sweeps/lr-1a2b3c4d --most 100"),
    )(_runs)


def _runs(
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="Of runs, or of a sweep: TRIMTAB_RUNS or ./runs by default.")
    ] = None,
    most: Annotated[int, typer.Option("--most", metavar="N", min=1, help="Show so many at most.")] = 30,
    format: Format = Output.TEXT,
) -> int:
    """List the runs of a folder, the newest first, with the worst that was found in each; of a sweep by their arms."""
    from trimtab.cli import _show
    from trimtab.cli._swept import is_sweep
    from trimtab.report.listing import listing
    from trimtab.run import list_runs

    remarks: list[str] = []
    trials = _trials_of(folder) if folder is not None and is_sweep(folder) else None
    found = list_runs(folder if trials is None else f"{folder}/runs", remarks=remarks)
    rows = listing(found[:most], remarks)
    if format is Output.JSON:
        runs = [row.as_dict() | _facts(row.id, trials) for row in rows]
        _show.document({"runs": runs, "more": len(found) - len(rows), "remarks": remarks})
        return 0
    if rows:
        own = [] if trials is None else ["phase", "arm", "seed"]
        _show.console().print(
            _show.table(
                ["run", *own, "status", "steps", "worst", "finding", "mark", "started (UTC)"],
                [
                    (
                        row.id,
                        *(str(value) for value in _facts(row.id, trials).values()),
                        row.status,
                        f"{row.steps:,}",
                        _show.coloured(row.severity),
                        row.worst or "-",
                        row.mark,
                        row.started,
                    )
                    for row in rows
                ],
                right=["steps", "seed"],
            )
        )
    else:
        print(f"no runs in {folder or 'the folder of runs'}; record one with `trimtab watch SCRIPT.py`")
    if len(found) > len(rows):
        print(f"and {len(found) - len(rows)} older ones; --most {len(found)} shows all")
    for remark in remarks:
        print(f"trimtab: {remark}", file=sys.stderr)
    return 0


def _trials_of(folder: str) -> dict[str, Trial]:
    """Return the name of a run folder -> the trial of a sweep that it is from; earlier attempts are not known."""
    from trimtab.sweep.folder import read_sweep

    return {result.run: result.trial for result in read_sweep(folder).results if result.run}


def _facts(run: str, trials: Mapping[str, Trial] | None) -> dict[str, str | int]:
    """Return what a sweep knows of a run; nothing where there is none."""
    if trials is None:
        return {}
    trial = trials.get(run)
    return {
        "phase": trial.phase if trial else "",
        "arm": trial.arm if trial else "",
        "seed": trial.seed if trial else "",
    }
