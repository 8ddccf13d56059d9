"""`trimtab report`: one HTML file about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli._options import FailOn, Format, Level, Output, Root, RunName, examples


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "report",
        short_help="Write a run's report as one HTML file.",
        epilog=examples("trimtab report --open", "trimtab report 20260301-1412", "trimtab report last -o run.html"),
    )(_report)


def _report(
    run: RunName = "last",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; report.html in the run by default."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    root: Root = None,
    fail_on: FailOn = Level.ERROR,
    format: Format = Output.TEXT,
) -> int:
    """Write a report of a run: one HTML file that needs no network, with verdict, causes, findings and plots."""
    from trimtab.cli import _show
    from trimtab.diagnose import diagnose
    from trimtab.report.as_json import as_json
    from trimtab.report.html import write
    from trimtab.run import find_run

    found = find_run(run, root)
    verdict = diagnose(found)
    path = write(found, output, verdict)
    if format is Output.JSON:
        _show.document({**as_json(found, verdict), "report": str(path)})
    else:
        print(path)
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return fail_on.code(verdict.severity)
