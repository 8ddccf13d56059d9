"""The folder of a sweep: its plan, its store of trials, its runs, and what the report wrote.

    <root>/<name>/
        sweep.json      format number, name, plan, when and with what it was made, where its store is
        trials.sqlite   the store, unless it is elsewhere
        runs/           a run folder for each attempt at a trial
        jobs/ logs/     what each trial's process was told, and what it printed
        report.html  summary.json

Reading one needs neither torch nor the System.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import UserError, nearest
from trimtab.run.codec import decode, encode
from trimtab.run.facts import now
from trimtab.sweep.plan import Plan
from trimtab.sweep.store import Store
from trimtab.trial import TrialResult

if TYPE_CHECKING:
    from trimtab.compare.summary import PhaseFacts

FORMAT = 1
"""The number of the format of sweep.json; a folder of another number is refused."""

FACTS = "sweep.json"
TRIALS = "trials.sqlite"
RUNS = "runs"
ROOT = Path("sweeps")
"""Where sweeps go by default, in the working directory."""

_SHOWN = 8
"""So many differences between two plans are listed; the rest are counted."""
_SECRETS = ("password", "sslpassword", "passfile")
"""Words of a database URL that are never written."""


@dataclass(frozen=True, kw_only=True)
class StoredSweep:
    """A sweep as its folder and its store tell it.

    Attributes:
        path: the folder.
        name: of the sweep, also in its store.
        plan: what it is to do; settled.
        results: every trial of the plan as it stands, in the order of the plan.
        others: how many trials are in the store that the plan does not name (any more).
        store: where the trials are, without a password.
        created: when, in UTC.
        versions: of trimtab, Python and torch when it was made.
        command: how it was started; empty from Python.
        paths: name of a checkpoint by content -> its folder.
    """

    path: Path
    name: str
    plan: Plan
    results: tuple[TrialResult, ...]
    others: int
    store: str
    created: str
    versions: Mapping[str, str]
    command: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, PhaseFacts]:
        """What was declared of each phase, for `trimtab.compare.summarize`."""
        return facts_of(self.plan)

    def losses(self, result: TrialResult) -> list[float]:
        """Return the training loss of every update of a trial, in order; empty where its run cannot be read."""
        from trimtab.run import Run

        if not result.run:
            return []
        try:
            rows = list(Run(self.path / RUNS / result.run).rows())
        except UserError:
            return []
        losses = [row.values.get("loss") for row in rows if "backward_calls" in row.values]
        return [loss for loss in losses if isinstance(loss, float)]


def facts_of(plan: Plan) -> dict[str, PhaseFacts]:
    """Return what a plan declares of each phase, for `trimtab.compare.summarize`."""
    from trimtab.compare.summary import PhaseFacts

    return {
        phase.name: PhaseFacts(score=phase.score, baseline=phase.baseline, bands=dict(phase.bands))
        for phase in plan.phases
    }


def default_name(plan: Plan) -> str:
    """Return the name of a sweep that was given none: its target and the hash of its plan."""
    word = Path(plan.target).stem if plan.is_script else plan.target.partition(":")[0].rpartition(".")[2]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', word)}-{plan.hash}"


def check_name(name: str) -> str:
    """Return a name that can be a folder; raise UserError for another."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"name {name!r}: expected letters, digits, '.', '_' and '-', the first a letter or a digit")
    return name


def is_sweep(path: Path | str) -> bool:
    """Say whether a folder is that of a sweep."""
    return (Path(path) / FACTS).is_file()


def open_folder(
    folder: Path, plan: Plan, *, store: str = "", command: str = "", paths: Mapping[str, str], extend: bool = False
) -> None:
    """Make the folder of a sweep, or prove that it holds this one.

    Args:
        folder: `<root>/<name>`.
        plan: settled.
        store: as `Store.open` takes it; empty for the one in the folder.
        command: how the sweep is started.
        paths: name of a checkpoint by content -> its folder.
        extend: let this plan take the place of a different one. Trials that both have are not run again.

    Raises:
        UserError: there is another plan under this name, a folder that is no sweep, or one that cannot be made.
    """
    facts = {
        "format": FORMAT,
        "name": folder.name,
        "plan": plan.as_dict(),
        "store": without_password(store),
        "created": now(),
        "versions": versions(),
        "command": command,
        "paths": dict(paths),
        "script": _hash_of(plan),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not is_sweep(folder) and any(one.name != TRIALS for one in folder.iterdir()):
            raise UserError(f"{folder} is not empty and no sweep (it has no {FACTS}); give another --name")
        (folder / RUNS).mkdir(exist_ok=True)
        if _write_first(folder / FACTS, facts):
            return
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made ({error}); give another --root") from None
    there = _facts(folder)
    before = Plan.from_dict(there["plan"])
    if before.hash == plan.hash:
        return
    if not extend:
        raise UserError(
            f"{folder} holds another sweep: {_difference(before, plan)}. Give another --name, or --extend to go on "
            "there with the plan of now"
        )
    _write(folder / FACTS, {**facts, "created": there["created"], "paths": {**there.get("paths", {}), **paths}})


def script_changed(folder: Path, plan: Plan) -> bool:
    """Say whether a script is no longer what it was when its sweep was made."""
    return bool(plan.is_script) and is_sweep(folder) and _facts(folder).get("script") != _hash_of(plan)


def store_of(folder: Path, store: str = "") -> str:
    """Return where the store of a sweep is, as `Store.open` takes it: the one that is given, else its own."""
    if store:
        return store
    stored = str(_facts(folder).get("store", "")) if is_sweep(folder) else ""
    return stored or str(folder / TRIALS)


def read_sweep(path: Path | str, *, store: str = "") -> StoredSweep:
    """Read the folder of a sweep.

    Args:
        path: the folder.
        store: where its trials are, if that needs more than the folder says, such as a password.

    Raises:
        UserError: the folder is no sweep, is damaged or of another format, or its store cannot be read.
    """
    folder = Path(path)
    facts = _facts(folder)
    plan = Plan.from_dict(facts["plan"])
    where = store_of(folder, store)
    every: list[TrialResult] = []
    described = where
    if "://" in where or Path(where).exists():  # where it is not, the sweep has only just begun
        with Store.open(where, create=False) as opened:
            every = opened.results(facts["name"])
            described = opened.describe()
    results = tuple(plan.in_order(every))
    return StoredSweep(
        path=folder, name=facts["name"], plan=plan, results=results, others=len(every) - len(results),
        store=described, created=facts["created"], versions=facts["versions"], command=facts["command"],
        paths=facts["paths"],
    )  # fmt: skip


def find_sweep(word: str, root: Path | str | None = None) -> Path:
    """Return the folder of the sweep that a person means: its path, or the beginning of its name below `root`.

    Raises:
        UserError: none or several are meant; the message lists those that are there.
    """
    if is_sweep(word):
        return Path(word)
    folder = Path(root) if root is not None else ROOT
    there = sorted(path for path in folder.iterdir() if is_sweep(path)) if folder.is_dir() else []
    found = [path for path in there if path.name == word] or [path for path in there if path.name.startswith(word)]
    if len(found) == 1:
        return found[0]
    names = [path.name for path in found or there]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    if found:
        raise UserError(f"{len(found)} sweeps in {folder} begin with {word!r}: {shown}; write more of the name")
    raise UserError(f"there is no sweep {word!r} in {folder}.{nearest(word, names)} There: {shown or 'none'}")


def versions() -> dict[str, str]:
    """Return the versions of what a sweep is run with."""
    from trimtab import __version__

    found = {"trimtab": __version__, "python": platform.python_version()}
    for name in ("torch", "optuna"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def without_password(store: str) -> str:
    """Return the URL of a store without its password, which then comes from PGPASSWORD or ~/.pgpass."""
    if "://" not in store:
        return str(Path(store).resolve()) if store else ""
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(store)
    except (ArgumentError, ValueError):
        raise UserError("the URL of the store cannot be read; expected postgresql://USER@HOST/DATABASE") from None
    kept = {key: value for key, value in url.query.items() if key not in _SECRETS}
    bare = URL.create(  # `set(password=None)` would leave the password where it is
        url.drivername, username=url.username, host=url.host, port=url.port, database=url.database, query=kept
    )
    return bare.render_as_string(hide_password=False)


def write_json(path: Path, value: Any) -> None:
    """Write a value as one JSON document, NaN as a word; a reader sees all of it or what was there before."""
    _write(path, value)


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no sweep: it has no {FACTS}; `trimtab sweep` makes one") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it from a copy") from None
    number = found.get("format") if isinstance(found, dict) else None
    if number != FORMAT:
        raise UserError(
            f"{path} has format {number}, this Trimtab reads format {FORMAT}; read it with the Trimtab that made it"
        )
    decoded: dict[str, Any] = decode(found)
    return decoded


def _write_first(path: Path, value: Mapping[str, Any]) -> bool:
    """Write a file unless there is one; of two processes at once, one does."""
    if path.exists():
        return False
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as file:
        file.write(_json(value))
    try:
        os.link(file.name, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(file.name)
    return True


def _write(path: Path, value: Any) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as file:
        file.write(_json(value))
    os.replace(file.name, path)


def _json(value: Any) -> str:
    return json.dumps(encode(value), indent=2, allow_nan=False) + "\n"


def _hash_of(plan: Plan) -> str:
    if not plan.is_script:
        return ""
    try:
        return hashlib.sha256(Path(plan.target).read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def _difference(before: Plan, after: Plan) -> str:
    """Say what differs between two plans: each place, what was there and what is now."""
    one, other = _flat(before.as_dict()), _flat(after.as_dict())
    places = [place for place in {**one, **other} if one.get(place, _NOTHING) != other.get(place, _NOTHING)]
    said = [f"{place} was {_shown(one, place)}, is {_shown(other, place)}" for place in places[:_SHOWN]]
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return "; ".join(said) + more


_NOTHING = object()


def _shown(flat: Mapping[str, Any], place: str) -> str:
    return json.dumps(flat[place], default=repr) if place in flat else "not there"


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Return every value inside mappings and lists of mappings by its place: "phases.curvature.arms.c=1.seeds"."""
    if isinstance(value, Mapping) and value:
        pairs = {f"{place}.{key}".lstrip("."): item for key, item in value.items()}
    elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        pairs = {f"{place}.{item.get('name') or number}": item for number, item in enumerate(value)}
    else:
        return {place: list(value) if isinstance(value, tuple) else value}
    return {deeper: leaf for name, item in pairs.items() for deeper, leaf in _flat(item, name).items()}
