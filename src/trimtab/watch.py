"""Watching an unchanged program: a child process in which a Guard waits for torch, and a parent that sees how it ends.

`watch()` is the way in for a notebook. `run_command` is what `trimtab watch` calls: the child finds
`_bootstrap/sitecustomize.py` on its path, which calls `arm()` before the program's first line; `arm` waits until the
program itself imports torch, so that nothing is imported earlier than without Trimtab.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trimtab.errors import UserError, nearest

if TYPE_CHECKING:
    from trimtab.guard import Guard
    from trimtab.run import Run

ENVIRONMENT = "TRIMTAB_WATCH"
"""Environment variable that carries the Options to the child, as JSON."""

SAFE = "safe"
"""The word for the whole table of safe answers; its name among the codes, too."""

BOOTSTRAP = Path(__file__).parent / "_bootstrap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `trimtab watch` passes on to the Guard in the child.

    `respond` maps a finding code or "*" to the name of an action, and "safe" to "safe" for the whole table of safe
    answers; what comes later wins. `milestones` are texts like 'loss <= 0.5 by 500'. `quiet` leaves all but warnings to
    the log file of the run. Without `every` the project's pyproject.toml says how often, or Trimtab's default holds.
    """

    root: str | None = None
    name: str = "run"
    project: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    milestones: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    respond: Mapping[str, str] = field(default_factory=dict)
    every: int | None = None
    overhead: float | Literal["default"] | None = "default"
    quiet: bool = False
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """How a watched command ended: its exit code as a shell gives it (128 + n for signal n), and its runs."""

    exit_code: int
    runs: tuple[Run, ...]


_current: Guard | None = None
_arguments: dict[str, Any] = {}


def watch(**options: Any) -> Guard:
    """Watch every training of this process from now on; for a notebook or the top of a script.

    Takes the keyword arguments of `Guard` (`root`, `name`, `respond`, `milestones` and so on) and returns the Guard:
    use it in a `with` block, call `close()`, or let it close when the process ends. A second call closes the first
    Guard.
    """
    from trimtab.guard import Guard

    global _current
    if _current is not None:
        _current.close()
    options.setdefault("lazily", True)
    options.setdefault("settings", _settings)
    _current = Guard(**options)
    return _current


def arm() -> None:
    """Watch this process as the environment says, as soon as it imports torch."""
    text = os.environ.get(ENVIRONMENT)
    if not text:
        return
    given: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(text).items()}
    options = Options(**given)
    _note_arguments()
    if "torch" in sys.modules:
        _begin(options)
    else:
        sys.meta_path.insert(0, _AfterTorch(options))


class _AfterTorch(MetaPathFinder):
    """Stands first in the import path until torch is imported; then begins to watch, and is gone."""

    def __init__(self, options: Options):
        self.options = options

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Return torch's own spec with a loader that begins to watch when it is done; None for every other name."""
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _begin(self.options)

        vars(spec.loader)["exec_module"] = exec_module  # of this one loader object, not of its class
        return spec


def _begin(options: Options) -> None:
    """Start the Guard of a watched process; whatever goes wrong is said and does not reach the program."""
    try:
        from trimtab.errors import ConfigError, TrainingStopped
        from trimtab.milestone import Milestone

        if options.quiet:
            logging.getLogger("trimtab").setLevel(logging.WARNING)

        def opened(path: Path) -> None:
            if options.session:
                with open(options.session, "a", encoding="utf-8") as file:
                    file.write(f"{path.resolve()}\n")

        wanted: dict[str, Any] = {
            "root": options.root,
            "name": options.name,
            "project": options.project,
            "description": options.description,
            "tags": options.tags,
            "milestones": [Milestone.parse(text) for text in options.milestones],
            "ignore": options.ignore,
            "respond": policy(options.respond) or None,
            "every": options.every,
            "overhead": options.overhead,
            "opened": opened,
        }
        try:
            watch(**wanted)
        except ConfigError as error:  # a slip in pyproject.toml must neither end the program nor leave it unwatched
            sys.stderr.write(f"trimtab: what pyproject.toml says is left out: {error}\n")
            watch(**wanted, pyproject=False)
        if options.respond:
            before = sys.excepthook

            def excepthook(kind: Any, error: Any, trace: Any) -> None:
                if isinstance(error, TrainingStopped):
                    sys.stderr.write(f"trimtab: training stopped: {error}\n")
                else:
                    before(kind, error, trace)

            sys.excepthook = excepthook
    except Exception as error:  # noqa: BLE001 - the watched program must run whatever happens to us
        sys.stderr.write(f"trimtab: cannot watch this process ({type(error).__name__}: {error})\n")


def policy(respond: Mapping[str, str]) -> dict[str, Any]:
    """Return code -> action, or actions, for the words of a command line; what comes later wins.

    Raises:
        UserError: there is no such action.
    """
    from trimtab.actions import ACTIONS, safe

    check(respond)
    known = {action.name: action for action in ACTIONS}
    found: dict[str, Any] = {}
    for code, word in respond.items():
        found.update(safe.policy() if code == SAFE else {code: known[word]()})
    return found


def check(respond: Mapping[str, str]) -> None:
    """Say now that an action does not exist, without importing torch.

    Raises:
        UserError: there is no such action.
    """
    from trimtab.report.catalogue import entries

    known = [entry.code for entry in entries("action")]
    for code, word in respond.items():
        if word not in known and not (word == code == SAFE):
            raise UserError(
                f"respond: {code}={word}: there is no action {word!r}.{nearest(word, known)} "
                f"Known: {', '.join(known)}; or '{SAFE}' alone"
            )


def _note_arguments() -> None:
    """Remember what the program's argparse parser returns: two runs are compared by it."""
    import argparse

    parse = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = parse(self, *args, **kwargs)
        namespace = result[0] if isinstance(result, tuple) else result
        _arguments.clear()
        _arguments.update({key: _plain(value) for key, value in vars(namespace).items()})
        return result

    setattr(argparse.ArgumentParser, parse.__name__, parse_known_args)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value)


def _settings() -> dict[str, Any]:
    settings: dict[str, Any] = {"argv": list(sys.argv)}
    if _arguments:
        settings["arguments"] = dict(_arguments)
    return settings


def run_command(command: Sequence[str], options: Options) -> Watched:
    """Run a command with every Python training inside it watched; wait for its end and close its runs.

    Standard input, output and error are the command's own. Ctrl-C goes to the command; SIGTERM and SIGHUP are passed
    on. A run whose process was killed is closed here, with how it died.

    Raises:
        UserError: the command cannot be started, or an option cannot be used.
    """
    from trimtab.milestone import Milestone
    from trimtab.run import Run

    for text in options.milestones:
        Milestone.parse(text)
    check(options.respond)
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        session = Path(folder) / "runs"
        environment = dict(os.environ)
        environment[ENVIRONMENT] = json.dumps({**asdict(options), "session": str(session)})
        path = [str(BOOTSTRAP), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        killed_before = _oom_kills()
        try:
            child = subprocess.Popen(list(command), env=environment)
        except OSError as error:
            raise UserError(f"watch: cannot start {command[0]!r}: {error.strerror or error}") from None
        code = _wait(child)
        out_of_memory = _oom_kills() > killed_before
        paths = session.read_text(encoding="utf-8").splitlines() if session.exists() else []
    runs = []
    for folder in dict.fromkeys(paths):
        try:
            _close(Run(folder), code, out_of_memory)
            runs.append(Run(folder))
        except Exception as error:  # noqa: BLE001 - the program has ended; its exit code must come through
            sys.stderr.write(f"trimtab: cannot close the run {folder} ({type(error).__name__}: {error})\n")
    return Watched(exit_code=128 - code if code < 0 else code, runs=tuple(runs))


def _wait(child: subprocess.Popen[bytes]) -> int:
    def pass_on(number: int, frame: Any) -> None:
        child.send_signal(number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, pass_on)
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _close(run: Run, code: int, out_of_memory: bool) -> None:
    """Say in the run folder how its process ended, where the process could not say it itself."""
    facts = run.facts
    how: dict[str, Any] = {**(facts.how or {}), "exit_code": 128 - code if code < 0 else code}
    if code < 0:
        how["signal"] = signal.Signals(-code).name
    if facts.status != "running":
        failed = facts.status == "finished" and code > 0
        if failed:
            how.setdefault("reason", f"the program exited with code {code}")
        run.close_as("failed" if failed else facts.status, how, even_if_ended=True)
    elif code < 0:
        how["reason"] = f"killed by {how['signal']}"
        if -code == signal.SIGKILL and out_of_memory:
            how["reason"] += "; the kernel's count of out-of-memory kills rose while it ran"
        run.close_as("killed", how)
    else:
        how["reason"] = f"the process left with code {code} without closing the run"
        run.close_as("failed" if code else "finished", how)


def _oom_kills() -> int:
    """Return how many processes the kernel has killed for memory, 0 where it does not tell."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
