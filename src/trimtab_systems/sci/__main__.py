"""Type a command and see what a trained model makes of it: `python -m trimtab_systems.sci "walk left twice"`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from functools import partial

from trimtab_systems.sci.data import train_of
from trimtab_systems.sci.evaluate import RUN_HELP, Trained, answered, open_run
from trimtab_systems.sci.model import SCILoop
from trimtab_systems.sci.program import Program, answer_of, program_of, text, words_of

COMMAND = "python -m trimtab_systems.sci"
EXAMPLE = "walk around left thrice and jump"


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command that was given, or one after the other as they are typed; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description=(__doc__ or "").partition(":")[0],
        epilog=f'Example: {COMMAND} "{EXAMPLE}". Without a command it asks for one; an empty line ends.',
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="words of the command")
    parser.add_argument("--run", default="last", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="for a person, or one JSON document")
    given = parser.parse_args(arguments)
    as_json = given.format == "json"
    if given.command:
        return answered(lambda: _once(given.run, given.command, as_json))
    return answered(lambda: _asking(given.run, as_json))


def program_from(trained: Trained, words: Sequence[str]) -> Program:
    """Return what a model makes of a command, with its calls where the model has some."""
    if isinstance(trained.model, SCILoop):
        return program_of(trained.model, words)
    return answer_of(trained.predict, words)


def _once(run: str, command: Sequence[str], as_json: bool) -> list[str]:
    words = words_of(command)  # what is misspelt is said before a model is loaded
    trained = open_run(run)
    return _answer(trained, words, as_json)


def _answer(trained: Trained, words: Sequence[str], as_json: bool) -> list[str]:
    program = program_from(trained, words)
    if as_json:
        return [json.dumps({"run": trained.run, **program.as_dict()})]
    return [_where(trained, words), "", *text(program)]


def _where(trained: Trained, words: Sequence[str]) -> str:
    split = trained.config.split
    known = any(example.words == tuple(words) for example in train_of(split, trained.config.split_seed))
    heard = "a training command" if known else "never a training command"
    return f"run {trained.run}, preset {trained.preset}; of its split {split!r} this is {heard}"


def _asking(run: str, as_json: bool) -> list[str]:
    """Ask for commands until an empty line, or the end of the input; what is wrong with one is said."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history and its editing keys
    trained = open_run(run)
    if sys.stdin.isatty():
        sys.stdout.write(f"run {trained.run}; a command such as: {EXAMPLE}. An empty line ends.\n")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            break
        if not line:
            break
        answered(partial(_told, trained, line, as_json))
    return []


def _told(trained: Trained, line: str, as_json: bool) -> list[str]:
    return _answer(trained, words_of(line), as_json) + ([] if as_json else [""])


if __name__ == "__main__":
    sys.exit(main())
