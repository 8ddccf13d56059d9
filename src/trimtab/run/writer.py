"""The writing side of a run folder: append only, nothing held back, nothing lost but a torn last line.

Every OSError reaches the caller; what was half written is mended by the next write that succeeds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trimtab.errors import RunError
from trimtab.records import Finding, Note, Outcome, Signal, Unknown
from trimtab.run import facts
from trimtab.run.codec import COLUMNS, FORMAT, LabelSets, decode, encode, header_line, record_line, signal_line
from trimtab.run.lines import LineFile
from trimtab.run.parts import Columns
from trimtab.run.redact import redact
from trimtab.run.shown import encode_panel, place_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.panels import Panel

Ended = Literal["finished", "stopped", "failed", "interrupted", "killed"]
"""How a run ended: by itself, by a response, by an exception, by its user, by the system."""

log = logging.getLogger(__name__)

_TRIES = 64
_FIXED = ("format", "id")


def default_root() -> Path:
    """Return the folder of runs: TRIMTAB_RUNS, or ./runs."""
    return Path(os.environ.get("TRIMTAB_RUNS") or "runs")


class RunWriter:
    """Writes one run folder; made by `RunWriter.create`.

    Attributes:
        path: the folder, from the root of the disk.
        id: the run's name among all runs, `<YYYYMMDD-HHMMSS-name-4hex>`.
        rows: how many signal rows are on the disk.
        seal_rows: after so many rows a part of the signals is closed and compressed.
        seal_bytes: or after so many bytes of JSON, whichever comes first.
    """

    def __init__(
        self, path: Path, id: str, *, seal_rows: int = 4096, seal_bytes: int = 16 << 20, part: int = 1, rows: int = 0
    ):
        path = path.absolute()  # the training may go to another folder
        self.path = path
        self.id = id
        self.rows = rows
        self.seal_rows = seal_rows
        self.seal_bytes = seal_bytes
        self._findings = LineFile(path / "findings.jsonl", header_line("findings"), again=True)
        self._notes = LineFile(path / "notes.jsonl", header_line("notes"), again=True)
        self._outcomes = LineFile(path / "outcomes.jsonl", header_line("outcomes"), again=True)
        self._places: dict[str, int] | None = None
        self._closed = False
        self._sealing: threading.Thread | None = None
        self._part = _Part(path / "signals", part)

    @classmethod
    def create(
        cls,
        root: Path | str | None = None,
        *,
        name: str = "run",
        project: str = "",
        description: str = "",
        tags: Iterable[str] = (),
        system: str = "",
        seed: int | None = None,
        config: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> RunWriter:
        """Make a run folder and write what is known before the first step.

        Args:
            root: the folder of runs; TRIMTAB_RUNS or ./runs if None.
            name: a word for people; becomes part of the id.
            project, description, tags, system, seed: facts to find the run by.
            config: the resolved configuration, as plain values.
            path: make exactly this folder instead of one below `root`; it must be new or empty.

        Raises:
            RunError: `path` holds something already.
            OSError: the disk refused.
        """
        word = _word(name) or "run"
        path, id = _claim_exactly(Path(path), word) if path is not None else _claim(root, word)
        run = {
            "format": FORMAT,
            "id": id,
            "name": name,
            "project": project,
            "description": description,
            "tags": list(tags),
            "system": system,
            "seed": seed,
            "status": "running",
            "started": facts.now(),
            "ended": None,
            "how": None,
            "mark": "",
            "pid": os.getpid(),
            "pid_began": facts.process_start(os.getpid()) or "",
            "host": facts.host(),
        }
        commit = facts.git()
        if commit is not None:
            run["git"] = commit
        write_json(path / "run.json", encode_redacted(run))
        write_json(path / "environment.json", encode(facts.environment()))
        _write_text(path / "config.yaml", _yaml(decode(encode_redacted(config or {}))))
        return cls(path, id)

    @classmethod
    def reopen(cls, path: Path, rows: int) -> RunWriter:
        """Go on with a run whose process has ended; its status is running again.

        Signals go on in a part of their own, so that what a killed process left half written stays where it is.

        Args:
            path: the run folder.
            rows: how many signal rows it holds, as a reader counts them.

        Raises:
            RunError: the folder holds no run that can be read.
            OSError: the disk refused.
        """
        run = read_facts(path)
        again = {"at": facts.now(), "rows": rows, "status": run.get("status")}
        update_facts(
            path,
            {
                "status": "running", "ended": None, "how": None, "pid": os.getpid(),
                "pid_began": facts.process_start(os.getpid()) or "", "host": facts.host(),
                "resumed": [*run.get("resumed", ()), again],
            },
        )  # fmt: skip
        (path / "signals").mkdir(exist_ok=True)
        numbers = [int(part.stem[5:11]) for part in (path / "signals").glob("part-??????.*")]
        return cls(path, str(run["id"]), part=max(numbers, default=0) + 1, rows=rows)

    def row(self, signal: Signal) -> None:
        """Append one measurement row; it is with the system when this returns.

        Raises:
            RunError: the run is closed.
            OSError: the disk refused; the row does not count.
        """
        if self._closed:
            raise RunError(f"run {self.id} is closed; a row of step {signal.step} came too late")
        line = signal_line(signal)
        part = self._part
        labels = part.labels.announce(signal.stream, signal.labels)
        try:
            part.file.append(labels + line if labels else line)
        except OSError:
            part.labels.forget()
            raise
        self.rows += 1
        if part.columns is None:
            return
        part.bytes += len(line)
        try:
            part.columns.add(signal)
        except (OverflowError, TypeError, ValueError) as error:
            log.warning("%s stays unsealed: %s", part.file.path, error)
            part.columns = None
            return
        if part.columns.rows >= self.seal_rows or part.bytes >= self.seal_bytes:
            self._seal(part.file, part.columns)

    def event(self, record: Finding | Unknown) -> None:
        """Append an event of the Judge to findings.jsonl."""
        self._findings.append(record_line(record))

    def note(self, note: Note) -> None:
        """Append a note to notes.jsonl."""
        self._notes.append(record_line(note))

    def outcome(self, outcome: Outcome) -> None:
        """Append what an action did to outcomes.jsonl."""
        self._outcomes.append(record_line(outcome))

    def say(self, text: str) -> None:
        """Append a text with the time to log.txt; further lines of the text are indented."""
        indented = text.rstrip("\n").replace("\n", "\n    ")
        line = f"{facts.now()} {indented}\n".encode(errors="backslashreplace")
        fd = os.open(self.path / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)

    def keep(self, name: str, step: int, array: NDArray[Any]) -> Path:
        """Store an array of numbers as samples/<name>-<step>.npy and return its path.

        A name that is not safe as a file's name is changed into one that is, always the same.

        Raises:
            RunError: the array holds Python objects, which only unpickling could read back.
        """
        import numpy as np

        array = np.asarray(array)
        if array.dtype.hasobject:
            raise RunError(f"sample {name!r} holds Python objects ({array.dtype}); keep an array of numbers or texts")
        target = self.path / "samples" / f"{sample_word(name)}-{step:09d}.npy"
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return target

    def panel(self, name: str, step: int, panel: Panel) -> Path:
        """Store a panel as panels/<name>.json and return its path; replaces the one of this name.

        A panel keeps the place among the others that it had when it was first shown.
        """
        folder = self.path / "panels"
        folder.mkdir(exist_ok=True)
        target = folder / f"{name}.json"
        if self._places is None:  # a run that is gone on with may have some
            places = {path.stem: place_of(path) for path in folder.glob("*.json")}
            self._places = {word: place for word, place in places.items() if place is not None}
        place = self._places.get(name, max(self._places.values(), default=-1) + 1)
        _write_text(target, json.dumps(encode_panel(panel, step, place), allow_nan=False) + "\n")
        self._places[name] = place
        return target

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Store what the program was set to, secrets taken out; replaces what was stored before."""
        write_json(self.path / "settings.json", encode_redacted(settings))

    def update(self, **changes: Any) -> None:
        """Merge facts into run.json.

        Raises:
            RunError: `format` or `id` was to be changed.
        """
        update_facts(self.path, changes)

    def close(self, status: Ended = "finished", how: Mapping[str, Any] | None = None) -> None:
        """End the run; a second call does nothing."""
        if self._closed:
            return
        self.wait()
        for file in (self._part.file, self._findings, self._notes, self._outcomes):
            file.close()
        self.update(status=status, ended=facts.now(), how=dict(how) if how else None)
        self._closed = True

    def wait(self) -> None:
        """Return when no part is being sealed."""
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None

    def _seal(self, file: LineFile, columns: Columns) -> None:
        """Begin the next part and compress this one beside the training: zlib lets other threads run."""
        self._part = _Part(self.path / "signals", self._part.number + 1)
        file.close()
        self.wait()
        self._sealing = threading.Thread(target=_seal, args=(columns, file.path), name="trimtab-seal")
        try:
            self._sealing.start()
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self._sealing = None
            _seal(columns, file.path)


class _Part:
    """The part of the signals that is being written; `columns` is None if it cannot be sealed."""

    __slots__ = ("bytes", "columns", "file", "labels", "number")

    def __init__(self, folder: Path, number: int):
        self.number = number
        self.file = LineFile(folder / f"part-{number:06d}.jsonl", header_line("signals", columns=COLUMNS))
        self.labels = LabelSets()
        self.columns: Columns | None = Columns()
        self.bytes = 0


def _seal(columns: Columns, path: Path) -> None:
    """Write the sealed part, then remove the JSONL part; whatever goes wrong, one of the two is whole."""
    try:
        columns.write(path.with_suffix(".npz"))
        path.unlink()
    except Exception as error:  # noqa: BLE001 - the JSONL part is there and whole, so nothing is lost
        log.warning("%s stays unsealed: %s: %s", path, type(error).__name__, error)


def update_facts(path: Path, changes: Mapping[str, Any]) -> None:
    """Merge `changes` into the run.json of the folder `path`, secrets taken out."""
    fixed = [name for name in _FIXED if name in changes]
    if fixed:
        raise RunError(f"run.json: {', '.join(fixed)} cannot be changed; give the fact another name")
    write_json(path / "run.json", {**read_facts(path), **encode_redacted(changes)})


def read_facts(path: Path) -> dict[str, Any]:
    """Return what stands in the run.json of the folder `path`, as it is written."""
    target = path / "run.json"
    try:
        run: dict[str, Any] = json.loads(target.read_bytes())
    except ValueError as error:
        raise RunError(f"{target} is damaged ({error}); expected the facts of a run as JSON") from None
    return run


def encode_redacted(value: Any) -> Any:
    """Return `value` as strict JSON can hold it, without its secrets."""
    return redact(encode(value))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that a reader sees the old one or the new one, never a part."""
    _write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sample_word(name: str) -> str:
    """Return `name` as part of a file's name: unchanged if it is safe, else changed with a short hash of it."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:80]
    return (
        safe if safe == name else f"{safe or 'sample'}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}"
    )


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _yaml(config: Any) -> str:
    if not config:
        return "{}\n"
    import yaml  # not needed by a run without a config

    text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return text


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")


def _fresh_id(word: str) -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S}-{word}-{secrets.token_hex(2)}"


def _claim(root: Path | str | None, word: str) -> tuple[Path, str]:
    """Make a folder below `root` that nobody had before."""
    folder = Path(root) if root is not None else default_root()
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        id = _fresh_id(word)
        try:
            (folder / id).mkdir()
            (folder / id / "signals").mkdir()
        except FileExistsError:
            continue
        return folder / id, id
    raise RunError(f"{folder}: {_TRIES} names like {id} are taken; use another root folder")


def _claim_exactly(path: Path, word: str) -> tuple[Path, str]:
    """Make the folder `path`, or take it if it is empty."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        taken = sorted(entry.name for entry in path.iterdir())
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"{path} is a file; expected a new or empty folder to write the run into") from None
    if taken:
        what = "a run already" if "run.json" in taken else f"{taken[0]!r}"
        raise RunError(f"{path} holds {what}; expected a new or empty folder. Remove it or give the run another folder")
    try:
        (path / "signals").mkdir()
    except FileExistsError:
        raise RunError(f"{path} was taken by another run at this moment; give each process its own folder") from None
    return path, _fresh_id(word)
