"""`trimtab diagnose`: what is wrong with a run, why, and what to do."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trimtab.cli._options import FailOn, Format, IgnoreRules, Level, Output, Root, RunName, examples


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "diagnose",
        short_help="Say what is wrong with a run, and why.",
        epilog=examples(
            "trimtab diagnose",
            "trimtab diagnose 20260301-1412 --format json",
            "trimtab diagnose --rejudge",
            "trimtab diagnose --ignore learning-rate-zero@0",
        ),
    )(_diagnose)


def _diagnose(
    run: RunName = "last",
    good: Annotated[
        str | None, typer.Option("--good", metavar="RUN", help="A good run to compare the settings with.")
    ] = None,
    rejudge: Annotated[bool, typer.Option("--rejudge", help="Judge the stored rows again by today's rules.")] = False,
    ignore: IgnoreRules = None,
    root: Root = None,
    fail_on: FailOn = Level.ERROR,
    format: Format = Output.TEXT,
) -> int:
    """Say what was found in a run, rank the causes by sums one can redo, and name what to do next.

    With --rejudge the thresholds and ignores of this folder's pyproject.toml hold too.
    """
    from trimtab.cli import _show
    from trimtab.cli._verdict import print_verdict
    from trimtab.cli._watching import ignored
    from trimtab.config import Project, find_project
    from trimtab.detectors import DETECTORS
    from trimtab.diagnose import diagnose
    from trimtab.judge import Ignore
    from trimtab.report.as_json import as_json
    from trimtab.run import find_run

    found = find_run(run, root)
    project = find_project() if rejudge else Project()
    declared = (found.config().get("trimtab") or {}).get("detectors") or ()
    rules = project.thresholds(DETECTORS, known=declared)
    left_out = [Ignore.parse(rule) for rule in ignored(ignore or ())]
    left_out += [Ignore(code=one.code, subject=one.subject, because=one.because) for one in project.ignore]
    verdict = diagnose(
        found, good=find_run(good, root) if good else None, rejudge=rejudge, detectors=rules, ignore=left_out
    )
    try:
        found.write_diagnosis(verdict.as_dict())
    except OSError as error:
        print(f"trimtab: diagnosis.json could not be written ({error})", file=sys.stderr)
    if format is Output.JSON:
        _show.document(as_json(found, verdict))
    else:
        print_verdict(_show.console(), found, verdict)
    return fail_on.code(verdict.severity)
