"""`trimtab train`: train a System under a Guard."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli._options import FailOn, Format, IgnoreRules, Level, Output, Respond, Root, examples
from trimtab.cli._watching import responses
from trimtab.errors import UserError


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "train",
        short_help="Train a reference system.",
        epilog=examples(
            "trimtab train separability",
            "trimtab train separability --preset reference lr=1e-3 batch=64",
            "trimtab train separability --fault random-sequences",
            "trimtab train --resume last",
        ),
    )(_train)


def _train(
    system: Annotated[
        str | None,
        typer.Argument(metavar="SYSTEM", help="The name of an installed system; left out with --resume."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that differ from the preset.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="The configuration to start from; tiny.")
    ] = None,
    fault: Annotated[str | None, typer.Option("--fault", metavar="NAME", help="Break it in this known way.")] = None,
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="A YAML file of settings.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of weights, data and every random number; 0.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the run.")] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="Go on with a run that ended early, from its checkpoint."),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option("--checkpoint-every", metavar="N", min=0, help="Updates between two checkpoints; steps / 10."),
    ] = None,
    keep: Annotated[
        int, typer.Option("--keep", metavar="N", min=1, help="Checkpoints to keep, and the last good one.")
    ] = 3,
    ignore: IgnoreRules = None,
    respond: Respond = None,
    root: Root = None,
    fail_on: FailOn = Level.ERROR,
    format: Format = Output.TEXT,
) -> int:
    """Train a reference system into a run folder, healthy or broken on purpose, and say what was found."""
    from trimtab.cli import _show
    from trimtab.diagnose import diagnose
    from trimtab.report import text
    from trimtab.report.as_json import as_json
    from trimtab.train import train
    from trimtab.watch import policy

    settings = list(settings or ())
    if system is not None and "=" in system and resume is not None:
        settings.insert(0, system)
        system = None
    if system is None and resume is None:
        raise UserError("Missing argument 'SYSTEM': name a system, or a run to go on with by --resume RUN")
    with _show.progress(system or str(resume)) as progress:
        run = train(
            system, preset=preset, fault=fault, config_file=config, overrides=settings, seed=seed, root=root,
            name=name, respond=policy(responses(respond or ())) or None, progress=progress,
            resume=resume, checkpoint_every=checkpoint_every, keep=keep,
            guard_options={"ignore": tuple(ignore or ())},
        )  # fmt: skip
    verdict = diagnose(run)
    if format is Output.JSON:
        _show.document(as_json(run, verdict))
    else:
        for line in (*text.tables(run), *text.closing(run, verdict)):
            print(line)
    return fail_on.code(verdict.severity)
