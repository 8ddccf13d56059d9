"""The options that several verbs share, and what they mean for the exit code."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from trimtab.records import Severity


class Output(StrEnum):
    """How a verb prints."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """From which severity on a finding makes the exit code 1."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    FATAL = "fatal"
    NEVER = "never"

    def code(self, severity: Severity | None) -> int:
        """Return the exit code for a run whose worst finding has this severity."""
        return int(self is not Level.NEVER and severity is not None and severity >= Severity.parse(self))


RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", show_default=False, help="A run: its folder, the beginning of its id, or 'last' (the default)."
    ),
]
Root = Annotated[
    str | None, typer.Option("--root", metavar="DIR", help="The folder of runs: TRIMTAB_RUNS or ./runs by default.")
]
Format = Annotated[
    Output, typer.Option("--format", metavar="text|json", help="Text for a person or one JSON document.")
]
FailOn = Annotated[
    Level,
    typer.Option(
        "--fail-on",
        metavar="LEVEL",
        help="Exit with 1 when a finding is at least info, warning, error, fatal; or never.",
    ),
]
Respond = Annotated[
    list[str] | None,
    typer.Option(
        "--respond",
        metavar="safe|[CODE=]ACTION",
        help="Act on findings, 'safe' or one of `trimtab rules action`; repeatable, later wins.",
    ),
]
IgnoreRules = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="CODE[@SUBJECT]", help="Leave this finding out; repeatable.")
]


def examples(*lines: str) -> str:
    """Return the examples at the foot of a verb's help, one on each line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
