"""`trimtab watch`: run an unchanged program and say what its trainings did."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from trimtab.cli._options import FailOn, Format, IgnoreRules, Level, Output, Respond, Root, examples
from trimtab.cli._watching import closing, command_of, ignored, responses


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "watch",
        short_help="Run a program, watching its trainings.",
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
        epilog=examples(
            "trimtab watch train.py --lr 3e-4",
            "trimtab watch --milestone 'loss <= 0.5 by 500' --respond '*=stop' train.py",
            "trimtab watch -- torchrun --nproc-per-node 2 train.py",
        ),
    )(_watch)


def _watch(
    command: Annotated[list[str], typer.Argument(metavar="SCRIPT.py [ARGS]... | -- COMMAND", help="What to run.")],
    name: Annotated[str, typer.Option("--name", metavar="WORD", help="Name of the run; the script's by default.")] = "",
    project: Annotated[str, typer.Option("--project", metavar="WORD", help="What the run belongs to.")] = "",
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="A sentence about it.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="WORD", help="A word to find it by; repeatable.")
    ] = None,
    root: Root = None,
    milestone: Annotated[
        list[str] | None,
        typer.Option(
            "--milestone",
            metavar="CHECK",
            help="Must be reached: 'loss <= 0.5 by 500', or hold 'at 500'; repeatable.",
        ),
    ] = None,
    ignore: IgnoreRules = None,
    respond: Respond = None,
    every: Annotated[
        int | None,
        typer.Option("--every", metavar="N", min=1, help="Measure in full every so many steps; 8 by default."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but errors; the exit code still tells.")
    ] = False,
    fail_on: FailOn = Level.ERROR,
    format: Format = Output.TEXT,
) -> int:
    """Run a PyTorch program unchanged, with every training in it watched.

    Options of Trimtab stand before the script; all that follows belongs to it. Its output and exit code stay its own:
    Trimtab writes to standard error, and exits with 1 only when the program itself exits with 0 and something was
    found. With --format json the last line on standard error is one JSON document.
    """
    from trimtab.watch import Options, run_command

    words, program = command_of(command)
    watched = run_command(
        words,
        Options(
            root=root,
            name=name or program,
            project=project,
            description=description,
            tags=tuple(tag or ()),
            milestones=tuple(milestone or ()),
            ignore=ignored(ignore or ()),
            respond=responses(respond or ()),
            every=every,
            quiet=quiet,
        ),
    )
    lines, facts, severity = closing(watched)
    if format is Output.JSON:
        print(json.dumps(facts), file=sys.stderr)
    elif not quiet:
        for line in lines:
            print(f"trimtab: {line}", file=sys.stderr)
    return watched.exit_code or fail_on.code(severity)
