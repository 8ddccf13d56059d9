"""`trimtab check`: test claims about a training before it runs."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli._options import FailOn, Format, Level, Output, examples

if TYPE_CHECKING:
    from trimtab.experiment import Checkup

_COLOUR = {"holds": "green", "fails": "red", "unknown": "yellow"}


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "check",
        short_help="Test a training before it runs.",
        epilog=examples(
            "trimtab check separability",
            "trimtab check my_package.recipe:make lr=0.01",
            "trimtab check ternary --only settings-have-effect",
        ),
    )(_check)


def _check(  # the level is lower than elsewhere: a claim fails from a warning on, and a failed claim is a 1
    target: Annotated[
        str, typer.Argument(metavar="SYSTEM|MODULE:FUNCTION", help="An installed system, or what makes a training.")
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that differ from the preset.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="The configuration to start from; tiny.")
    ] = None,
    fault: Annotated[str | None, typer.Option("--fault", metavar="NAME", help="Break it in this known way.")] = None,
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="A YAML file of settings.")] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The seed to check.")] = 0,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="DIR", help="A checkpoint for the claims about one.")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="'METRIC <= VALUE'", help="A condition on the start; repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CLAIM", help="Test this claim alone; repeatable.")
    ] = None,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", help="CPU seconds for all claims, building not counted.")
    ] = 60.0,
    fail_on: FailOn = Level.WARNING,
    format: Format = Output.TEXT,
) -> int:
    """Test claims about a training on copies of it: is everything trained, do its settings act, does it repeat."""
    from trimtab.cli import _show
    from trimtab.experiment import check

    if ":" in target and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python` does it for a script that lies there
    checkup = check(
        target, preset=preset, fault=fault, config_file=config, overrides=settings or (), seed=seed,
        checkpoint=checkpoint, accept=accept or (), only=only or (), budget=budget,
    )  # fmt: skip
    if format is Output.JSON:
        _show.document(_plain(checkup))
    else:
        _print(checkup)
    return fail_on.code(checkup.severity)


def _plain(checkup: Checkup) -> dict[str, Any]:
    """Return a checkup as plain values, severities as words."""
    plain = asdict(checkup)
    for finding in (*plain["findings"], *(one for result in plain["results"] for one in result["findings"])):
        finding["severity"] = str(finding["severity"])
    return {"severity": None if checkup.severity is None else str(checkup.severity), **plain}


def _print(checkup: Checkup) -> None:
    from trimtab.cli import _show

    console = _show.console()
    rows = [
        (one.claim, _show.text(one.verdict, _COLOUR[one.verdict]), one.summary or one.reason, f"{one.seconds:.1f} s")
        for one in checkup.results
    ]
    console.print(_show.table(["claim", "verdict", "what was seen", "CPU"], rows, right=["CPU"], wrap="what was seen"))
    if checkup.findings:
        console.print()
        found = [(_show.coloured(one.severity), one.code, one.summary) for one in checkup.findings]
        console.print(_show.table(["severity", "finding", "what"], found, wrap="what"))
    counts = [f"{word} {sum(one.verdict == word for one in checkup.results)}" for word in _COLOUR]
    console.print()
    console.print(_show.text(f"{checkup.name}: {', '.join(counts)}; {checkup.seconds:.1f} CPU seconds", "dim"))
