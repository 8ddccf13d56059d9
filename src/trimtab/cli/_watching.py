"""The words of `trimtab watch`: what is run, what answers a finding, what is said at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import TrimtabError, UserError, nearest
from trimtab.records import Severity
from trimtab.watch import SAFE

if TYPE_CHECKING:
    from trimtab.watch import Watched


def command_of(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the command that is meant and a name for its run; a word that ends in .py is run by this Python.

    Raises:
        UserError: there is no such script.
    """
    first = Path(words[0])
    if first.suffix != ".py":
        script = next((Path(word) for word in words if word.endswith(".py")), first)
        return list(words), script.stem or "run"
    if not first.is_file():
        beside = [str(path) for path in first.parent.glob("*.py")] if first.parent.is_dir() else []
        raise UserError(f"watch: there is no script {words[0]!r}.{nearest(words[0], beside)}")
    return [sys.executable, *words], first.stem


def responses(given: Iterable[str]) -> dict[str, str]:
    """Read 'CODE=ACTION', 'ACTION' for every finding at error or above, or 'safe' for the table of safe answers.

    What comes later wins: 'safe' and then 'loss-spike=stop' is the table with one answer changed.

    Raises:
        UserError: an unknown code, or one that only a loop can declare.
    """
    found: dict[str, str] = {}
    for text in given:
        code, equals, action = text.rpartition("=")
        code = code if equals else {SAFE: SAFE}.get(action, "*")
        if code not in ("*", SAFE) or (equals and code == SAFE):
            _check("respond", code)
        if code == "patience-spent":
            raise UserError(
                f"respond: {text}: there is no patience on the command line. Declare it in the loop: "
                "Guard(early_stop=Patience(metric='validation/loss', better='lower', patience=5)), which also stops"
            )
        found.pop(code, None)  # its place is that of the latest mention
        found[code] = action
    return found


def ignored(given: Iterable[str]) -> tuple[str, ...]:
    """Return the rules about what to leave out, each 'CODE' or 'CODE@SUBJECT'.

    Raises:
        UserError: an unknown code.
    """
    rules = tuple(given)
    for rule in rules:
        _check("ignore", rule.partition("@")[0])
    return rules


def _check(option: str, code: str) -> None:
    """Say now that a code does not exist, and not in the middle of a training."""
    from trimtab.detectors import DETECTORS

    codes = [rule.code for rule in DETECTORS]
    if code not in codes:
        raise UserError(
            f"{option}: no detector has the code {code!r}.{nearest(code, codes)} See: trimtab rules detector"
        )


def closing(watched: Watched) -> tuple[list[str], dict[str, Any], Severity | None]:
    """Return what to say about the runs of a command, the same for programs, and the worst severity.

    Whatever goes wrong here is said and never raised: the program's own exit code must come through.
    """
    from trimtab.run.codec import encode

    lines: list[str] = []
    verdicts: list[dict[str, Any]] = []
    severity: Severity | None = None
    try:
        from trimtab.diagnose import diagnose
        from trimtab.report import text
        from trimtab.report.as_json import as_json

        for run in watched.runs:
            verdict = diagnose(run)
            lines += text.closing(run, verdict)
            verdicts.append(as_json(run, verdict))
            if verdict.severity is not None:
                severity = max(verdict.severity, severity or verdict.severity)
        if not watched.runs:
            lines = [unseen(watched.exit_code)]
    except Exception as error:  # noqa: BLE001 - our own failure must not become the program's
        kind = "" if isinstance(error, TrimtabError) else f"{type(error).__name__}: "
        lines.append(f"cannot sum up what was recorded ({kind}{error})")
    return lines, encode({"exit_code": watched.exit_code, "runs": verdicts}), severity


def unseen(exit_code: int) -> str:
    """Say why it may be that a command had no training."""
    if exit_code:
        return f"no training was seen: the program ended with code {exit_code} before the first optimizer step"
    return (
        "no training was seen, so nothing was judged: no optimizer of torch took a step. Did the program only "
        "evaluate, train with another framework, or start Python without its site module (-S, -I, -E)?"
    )
