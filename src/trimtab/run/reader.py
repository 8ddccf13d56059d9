"""The reading side of a run folder: everything that was written, also after a kill, without unpickling anything."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trimtab.errors import RunError, nearest
from trimtab.records import Finding, Note, Outcome, Signal, Unknown
from trimtab.run import facts as machine
from trimtab.run.codec import check_format, decode, encode, places_of, signal_of
from trimtab.run.lines import read_lines
from trimtab.run.parts import read_part
from trimtab.run.shown import Shown, read_panel
from trimtab.run.writer import Ended, default_root, sample_word, update_facts, write_json

if TYPE_CHECKING:
    from trimtab.panels import Panel
    from trimtab.run.models import RunFacts

log = logging.getLogger(__name__)

Status = Literal["running", "finished", "stopped", "failed", "interrupted", "killed", "died"]
"""How a run stands; "died" is a run that says it is running and whose process is gone."""

_SHOWN = 8


class Run:
    """A run folder, opened for reading while it is written or afterwards.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        remarks: what was left out while reading, such as a torn last line; empty for a whole run.

    Raises:
        RunError: the folder holds no run, a damaged one, or one of a newer format.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.remarks: list[str] = []
        self.facts: RunFacts = _read_facts(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def id(self) -> str:
        """The run's name among all runs."""
        return self.facts.id

    @property
    def status(self) -> Status:
        """How the run stands, by the facts that were read last.

        Whether a run of another machine still lives cannot be known from here: it stays "running".
        """
        facts = self.facts
        if facts.status == "running" and facts.host == machine.host() and not machine.alive(facts.pid, facts.pid_began):
            return "died"
        return facts.status

    def reload(self) -> None:
        """Read run.json again."""
        self.facts = _read_facts(self.path)

    def rows(self) -> Iterator[Signal]:
        """Yield every signal row in the order in which it was written.

        Raises:
            RunError: a part is missing, damaged in the middle, or of a newer format.
        """
        folder = self.path / "signals"
        found = {_part_number(path) for path in folder.glob("part-*") if path.suffix in (".npz", ".jsonl")}
        for number in range(1, max(found, default=0) + 1):
            yield from self._part(folder / f"part-{number:06d}")

    def _part(self, stem: Path) -> Iterator[Signal]:
        sealed, unsealed = stem.with_suffix(".npz"), stem.with_suffix(".jsonl")
        for _ in range(2):  # twice, for a part may be sealed between two looks
            if sealed.exists():
                yield from self._sealed_part(sealed, unsealed)
                return
            try:
                yield from self._open_part(unsealed)
            except FileNotFoundError:
                continue
            return
        raise RunError(f"{stem} is missing as .jsonl and as .npz, but there are later parts; restore it from a copy")

    def _sealed_part(self, sealed: Path, unsealed: Path) -> Iterator[Signal]:
        if not unsealed.exists():
            yield from read_part(sealed)
            return
        # The writer was killed between naming the one and removing the other; both hold the same rows.
        try:
            rows: Iterable[Signal] = list(read_part(sealed))
        except RunError as error:
            self._remark(f"{sealed.name} is damaged, {unsealed.name} was read instead: {error}")
            rows = self._open_part(unsealed)
        yield from rows

    def _open_part(self, path: Path) -> Iterator[Signal]:
        places: tuple[int, ...] = ()
        labels: dict[str, Mapping[str, tuple[str, ...]]] = {}
        sets: dict[int, Mapping[str, tuple[str, ...]]] = {}
        for number, line in read_lines(path, "signals", self.remarks):
            try:
                if isinstance(line, list):
                    yield signal_of(line, labels, places)
                elif "columns" in line:
                    places = places_of(line["columns"])
                else:
                    _hear_labels(line, labels, sets)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise RunError(f"{path} line {number} is no line of signals: {error}") from None

    def events(self) -> list[Finding | Unknown]:
        """Return what the Judge said, in order."""
        return self._records("findings", ("finding", "unknown"))

    def findings(self) -> list[Finding]:
        """Return the events of findings, in order; one finding may be opened, worsened and resolved."""
        return [event for event in self.events() if isinstance(event, Finding)]

    def notes(self) -> list[Note]:
        """Return what was announced, in order."""
        return self._records("notes", ("note",))

    def outcomes(self) -> list[Outcome]:
        """Return what actions did, in order."""
        return self._records("outcomes", ("outcome",))

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration; empty if the run had none."""
        try:
            text = (self.path / "config.yaml").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        import yaml

        try:
            config = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RunError(f"{self.path / 'config.yaml'} is damaged ({error}); expected a YAML mapping") from None
        if not isinstance(config, dict):
            raise RunError(f"{self.path / 'config.yaml'}: expected a YAML mapping, got {type(config).__name__}")
        return config

    def settings(self) -> dict[str, Any]:
        """Return what the program was set to; empty if that was never stored."""
        return self._json("settings.json") or {}

    def environment(self) -> dict[str, Any]:
        """Return interpreter, packages and machine; empty if the run was killed before they were stored."""
        return self._json("environment.json") or {}

    def diagnosis(self) -> dict[str, Any] | None:
        """Return the stored diagnosis, None if there is none."""
        return self._json("diagnosis.json")

    def write_diagnosis(self, diagnosis: Mapping[str, Any]) -> None:
        """Store a diagnosis; replaces the one before."""
        write_json(self.path / "diagnosis.json", encode(diagnosis))

    def samples(self, name: str) -> dict[int, Path]:
        """Return step -> file of the arrays that were kept under `name`; read one with `numpy.load`."""
        stem = sample_word(name)
        steps = {}
        for path in (self.path / "samples").glob("*.npy"):
            word, _, step = path.stem.rpartition("-")
            if word == stem and step.isdecimal():
                steps[int(step)] = path
        return dict(sorted(steps.items()))

    def panels(self) -> dict[str, Panel]:
        """Return the tables, maps and scatters that were shown, by name, in the order in which they came first.

        One that cannot be read, or is of a kind that this version does not know, is left out with a remark.
        """
        return {name: shown.panel for name, shown in self.shown().items()}

    def shown(self) -> dict[str, Shown]:
        """Return the panels with the step at which each was shown, in the order of `panels`."""
        found: list[tuple[int, str, Shown]] = []
        for path in (self.path / "panels").glob("*.json"):
            if path.name.startswith("."):  # half written
                continue
            try:
                place, shown = read_panel(path)
            except RunError as error:
                self._remark(str(error))
                continue
            found.append((place, path.stem, shown))
        return {name: shown for _, name, shown in sorted(found, key=lambda one: one[:2])}

    def mark(self, word: str) -> None:
        """Mark the run with a word such as "good"; an empty word takes the mark away."""
        update_facts(self.path, {"mark": word})
        self.reload()

    def close_as(self, status: Ended, how: Mapping[str, Any] | None = None, *, even_if_ended: bool = False) -> bool:
        """End a run whose process cannot do it any more.

        `even_if_ended` is for a parent that saw how the process left, which the process itself could not know: the
        status and the facts are then replaced, the time of the end stays.

        Returns:
            False, and nothing is changed, if the run had already ended.
        """
        self.reload()
        if self.facts.status != "running" and not even_if_ended:
            return False
        changes: dict[str, Any] = {"status": status, "how": dict(how) if how is not None else None}
        if self.facts.ended is None:
            changes["ended"] = machine.now()
        update_facts(self.path, changes)
        self.reload()
        return True

    def _records(self, kind: str, records: tuple[str, ...]) -> list[Any]:
        from trimtab.run.models import record_of

        path = self.path / f"{kind}.jsonl"
        found: list[Any] = []
        if not path.exists():
            return found
        for number, line in read_lines(path, kind, self.remarks):
            if isinstance(line, dict) and "format" in line and "record" not in line:
                continue
            try:
                found.append(record_of(line, records))
            except ValueError as error:
                raise RunError(f"{path} line {number} is no line of {kind}: {error}") from None
        return found

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunError(f"{path} is damaged ({error}); expected a JSON object") from None
        if not isinstance(value, dict):
            raise RunError(f"{path}: expected a JSON object, got {type(value).__name__}")
        decoded: dict[str, Any] = decode(value)
        return decoded

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def list_runs(root: Path | str | None = None, *, remarks: list[str] | None = None) -> list[Run]:
    """Return the runs directly below `root` (TRIMTAB_RUNS or ./runs if None), the newest first.

    Args:
        root: the folder of runs; one that does not exist has none.
        remarks: a list that takes one line for every folder that was passed over, and why.
    """
    folder = Path(root) if root is not None else default_root()
    said = remarks if remarks is not None else []
    runs = []
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not path.is_dir():
                continue
            try:
                runs.append(Run(path))
            except RunError as error:
                said.append(f"passed over: {error}")
                log.info("passed over: %s", error)
    return sorted(runs, key=lambda run: (run.facts.started, run.id), reverse=True)


def find_run(word: str = "last", root: Path | str | None = None) -> Run:
    """Return the run that a person means.

    Args:
        word: the path of a run folder; or the id or folder name of a run below `root`, or a beginning of it that no
            other run has; or "last", the one that was started last.
        root: the folder of runs; TRIMTAB_RUNS or ./runs if None.

    Raises:
        RunError: no run or more than one is meant; the message lists the candidates.
    """
    folder = Path(root) if root is not None else default_root()
    path = Path(word)
    if (path / "run.json").is_file():
        return Run(path)
    if path.is_absolute() or len(path.parts) > 1:
        if not path.exists():
            raise RunError(f"there is no folder {word!r}; give the path of a run folder, a run's id, or 'last'")
        return Run(path)  # says what is missing there
    runs = list_runs(folder)
    if not runs:
        raise RunError(f"{folder} holds no runs; record one first, or name another folder with TRIMTAB_RUNS")
    if word == "last":
        return runs[0]
    candidates = [run for run in runs if word in (run.id, run.path.name)]
    candidates = candidates or [run for run in runs if run.id.startswith(word) or run.path.name.startswith(word)]
    if len(candidates) == 1:
        return candidates[0]
    names = [run.path.name for run in candidates or runs]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    if candidates:
        raise RunError(f"{len(candidates)} runs in {folder} begin with {word!r}: {shown}; write more of the name")
    raise RunError(f"no run in {folder} begins with {word!r}.{nearest(word, names)} There: {shown}")


def _read_facts(path: Path) -> RunFacts:
    from pydantic import ValidationError

    from trimtab.run.models import RunFacts

    target = path / "run.json"
    try:
        found = json.loads(target.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path} is no run folder: it holds no run.json") from None
    except ValueError as error:
        raise RunError(f"{target} is damaged ({error}); expected the facts of a run as JSON") from None
    if not isinstance(found, dict):
        raise RunError(f"{target} is damaged: expected a JSON object, got {type(found).__name__}")
    check_format(found.get("format"), str(target))
    try:
        return RunFacts.model_validate(decode(found))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise RunError(f"{target} is damaged: {wrong}") from None


def _part_number(path: Path) -> int:
    digits = path.stem.removeprefix("part-")
    return int(digits) if digits.isdecimal() else 0


def _hear_labels(
    line: Any,
    labels: dict[str, Mapping[str, tuple[str, ...]]],
    sets: dict[int, Mapping[str, tuple[str, ...]]],
) -> None:
    """Follow a line that says which labels the next rows of a stream have."""
    for stream, entry in line["labels"].items():
        if isinstance(entry, int):
            labels[stream] = sets[entry]
        else:
            labels[stream] = sets[line["set"]] = {name: tuple(names) for name, names in entry.items()}
