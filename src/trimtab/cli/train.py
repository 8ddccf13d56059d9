"""`trimtab train`: train a System under a Guard."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli._options import FailOn, Format, IgnoreRules, Level, Output, Respond, Root, examples
from trimtab.cli._watching import responses


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "train",
        short_help="Train a reference system.",
        epilog=examples(
            "trimtab train separability",
            "trimtab train separability --preset reference lr=1e-3 batch=64",
            "trimtab train separability --fault random-sequences",
        ),
    )(_train)


def _train(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="The name of an installed system.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that differ from the preset.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", metavar="NAME", help="The configuration to start from.")] = "tiny",
    fault: Annotated[str | None, typer.Option("--fault", metavar="NAME", help="Break it in this known way.")] = None,
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="A YAML file of settings.")] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of weights, data and every random number.")] = 0,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the run.")] = None,
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

    with _show.progress(system) as progress:
        run = train(
            system, preset=preset, fault=fault, config_file=config, overrides=settings or (), seed=seed, root=root,
            name=name, respond=policy(responses(respond or ())) or None, progress=progress,
            guard_options={"ignore": tuple(ignore or ())},
        )  # fmt: skip
    verdict = diagnose(run)
    if format is Output.JSON:
        _show.document(as_json(run, verdict))
    else:
        for line in text.closing(run, verdict):
            print(line)
    return fail_on.code(verdict.severity)
