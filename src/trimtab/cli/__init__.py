"""The command line: one verb in each file, which parses, calls one function of the library, and prints.

Exit codes: 0 nothing at or above `--fail-on`, 1 something found, 2 Trimtab failed or was used wrongly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from trimtab.cli import check, checkpoint, compare, diagnose, explain, mark, report, rules, runs, sweep, train, watch
from trimtab.cli._options import examples
from trimtab.errors import TrimtabError

FAILED = 2
"""Exit code when Trimtab itself failed or was used wrongly."""

_app = typer.Typer(
    name="trimtab",
    help="Watches PyTorch trainings, finds what goes wrong in them, and says why.",
    epilog=examples("trimtab watch train.py --lr 3e-4", "trimtab diagnose", "trimtab report --open"),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (watch, diagnose, report, compare, runs, mark, rules, explain, train, sweep, check, checkpoint):
    verb.add_to(_app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; what goes wrong is one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot write a sign gets a question mark
            stream.reconfigure(errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = typer.main.get_command(_app).main(args=given or ["--help"], prog_name="trimtab", standalone_mode=False)
        sys.stdout.flush()
    except TrimtabError as error:
        return _fail(str(error), error)
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except typer.Abort:
        return 130
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets exit code 2 and one line
        said = getattr(error, "format_message", None)  # a misused option, as typer reports it
        if said is not None:
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "trimtab"
            text = said().replace("Value error, ", "").rstrip(".")
            return _fail(f"{text}. Try: {command} --help", None)
        hint = "" if _debug() else " (TRIMTAB_DEBUG=1 shows where; please report it)"
        return _fail(f"failed unexpectedly: {type(error).__name__}: {error}{hint}", error)
    return code if isinstance(code, int) else 0


def _print_version(wanted: bool) -> None:
    if wanted:
        from trimtab import __version__

        print(__version__)
        raise typer.Exit


@_app.callback()
def _global(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (or set TRIMTAB_DEBUG).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    if debug:
        os.environ["TRIMTAB_DEBUG"] = "1"


def _debug() -> bool:
    return bool(os.environ.get("TRIMTAB_DEBUG"))


def _fail(text: str, error: BaseException | None) -> int:
    if error is not None and _debug():
        import traceback

        traceback.print_exception(error)
    print("trimtab: " + " ".join(text.split()), file=sys.stderr)
    return FAILED
