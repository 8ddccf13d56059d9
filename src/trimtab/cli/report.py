"""`trimtab report`: one HTML file about a run or a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli._options import FailOn, Format, Level, Output, Root, examples

if TYPE_CHECKING:
    from trimtab.records import Severity


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "report",
        short_help="Write the report of a run or a sweep as one HTML file.",
        epilog=examples(
            "trimtab report --open", "trimtab report last -o run.html", "trimtab report sweeps/lr-1a2b3c4d"
        ),
    )(_report)


def _report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SWEEP",
            show_default=False,
            help="A run: its folder, the beginning of its id, or 'last' (the default). Or the folder of a sweep.",
        ),
    ] = "last",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; report.html in its folder by default."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    root: Root = None,
    fail_on: FailOn = Level.ERROR,
    format: Format = Output.TEXT,
) -> int:
    """Write a report of a run, or of a sweep: one HTML file that needs no network.

    That of a run has its verdict, causes, findings and plots; that of a sweep what its seeds can tell apart.
    """
    from trimtab.cli import _show
    from trimtab.cli._swept import is_sweep

    if is_sweep(run):
        path, document, severity = _of_sweep(Path(run), output)
    else:
        path, document, severity = _of_run(run, root, output)
    if format is Output.JSON:
        _show.document({**document, "report": str(path)})
    else:
        print(path)
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return fail_on.code(severity)


def _of_run(run: str, root: str | None, output: Path | None) -> tuple[Path, dict[str, Any], Severity | None]:
    from trimtab.diagnose import diagnose
    from trimtab.report.as_json import as_json
    from trimtab.report.html import write
    from trimtab.run import find_run

    found = find_run(run, root)
    verdict = diagnose(found)
    return write(found, output, verdict), as_json(found, verdict), verdict.severity


def _of_sweep(folder: Path, output: Path | None) -> tuple[Path, dict[str, Any], Severity | None]:
    from trimtab.cli._swept import about_of, severity_of, summary_of
    from trimtab.report.sweep import as_json, write
    from trimtab.sweep.folder import read_sweep

    stored = read_sweep(folder)
    summary, about = summary_of(stored), about_of(stored)
    path = write(summary, stored.results, about, output)
    return path, as_json(summary, stored.results, about), severity_of(summary, stored)
