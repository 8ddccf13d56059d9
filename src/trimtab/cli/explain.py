"""`trimtab explain`: what a code means."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli._options import Format, Output, examples


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "explain",
        short_help="Say what a code means.",
        epilog=examples("trimtab explain gradients-accumulate", "trimtab explain learning-rate-too-high"),
    )(_explain)


def _explain(
    code: Annotated[
        str, typer.Argument(metavar="CODE", help="The code of a finding, the name of a cause, or a claim.")
    ],
    format: Format = Output.TEXT,
) -> int:
    """Say what a rule sees, why it matters, with which thresholds, and which causes it speaks for."""
    from dataclasses import asdict

    from trimtab.cli import _show
    from trimtab.report.catalogue import explain
    from trimtab.report.page import show

    entry = explain(code)
    if format is Output.JSON:
        _show.document(asdict(entry))
        return 0
    console = _show.console()
    console.print(_show.text(entry.code, "bold"), _show.text(f"({entry.kind})", "dim"))
    console.print(entry.summary)
    for heading, text in entry.headings.items():
        console.print()
        if heading:
            console.print(_show.text(heading, "bold"))
        console.print(text, soft_wrap=not console.is_terminal)
    if entry.thresholds:
        rows = [(one.name, show(one.value), one.text) for one in entry.thresholds]
        console.print()
        console.print(
            _show.table(
                ["setting" if entry.kind == "probe" else "threshold", "default", "meaning"],
                rows,
                right=["default"],
                wrap="meaning",
            )
        )
    if entry.causes:
        weights = [(cause, f"{decibans:+g} dB", when) for cause, decibans, when in entry.causes]
        console.print()
        console.print(_show.table(["speaks for or against", "weight", "seen"], weights, right=["weight"], wrap="seen"))
    if entry.facts:
        console.print()
        console.print(_show.table(["", " "], list(entry.facts.items()), wrap=" "))
    return 0
