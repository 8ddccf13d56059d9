"""What a project says about every run in it: the table `[tool.trimtab]` of its pyproject.toml.

    [tool.trimtab]
    every = 16
    ignore = [
        "learning-rate-zero@0",
        { code = "dead-units", subject = "head", because = "sparse by design" },
    ]

    [tool.trimtab.detectors.loss-spike]
    height = 12.0

What a program or a command line says goes before it. An unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from trimtab.config.given import Given
from trimtab.config.load import build
from trimtab.errors import ConfigError, nearest

D = TypeVar("D")

FILE = "pyproject.toml"
TABLE = "[tool.trimtab]"
FIXED = ("code", "version", "reads", "folds", "per_stream")
"""Fields of a rule that say what it is, and are no thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A finding that the project does not want: the code, a subject pattern (`*` matches all), and why."""

    code: str
    subject: str = "*"
    because: str = ""


@dataclass(frozen=True, kw_only=True)
class Project:
    """The table of one project, checked; `Project()` is a project that says nothing.

    Attributes:
        path: the file that it stands in, empty when there is none.
        ignore: findings to leave out.
        every: one row in so many is measured in full, None for Trimtab's default.
        overhead: share of the run's time that measuring may take, None for Trimtab's default.
        detectors: code of a rule -> field -> value, not yet checked; `thresholds` does.
    """

    path: str = ""
    ignore: tuple[LeftOut, ...] = ()
    every: int | None = None
    overhead: float | None = None
    detectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def thresholds(self, rules: Iterable[D], known: Iterable[str] = ()) -> tuple[D, ...]:
        """Return the rules, with the fields that the project sets; rules that are only `known` are passed over.

        Raises:
            ConfigError: there is no such rule or field, or the value has the wrong type.
        """
        given = list(rules)
        by_code: dict[str, Any] = {str(getattr(rule, "code", "")): rule for rule in given}
        elsewhere = set(known) - set(by_code)
        for code, values in self.detectors.items():
            if code in elsewhere:
                continue
            if code not in by_code:
                raise ConfigError(
                    f"{self.path} {TABLE}: no detector has the code {code!r}.{nearest(code, [*by_code, *elsewhere])} "
                    "See: trimtab rules detector"
                )
            by_code[code] = self._set(code, by_code[code], values)
        return tuple(by_code.get(str(getattr(rule, "code", "")), rule) for rule in given)

    def _set(self, code: str, rule: Any, values: Mapping[str, Any]) -> Any:
        if not isinstance(values, Mapping) or not dataclasses.is_dataclass(rule):
            raise ConfigError(
                f"{self.path} {TABLE}: detectors.{code} expects a table of thresholds, got {values!r:.80}"
            )
        for name in values:
            if name in FIXED:
                own = [one.name for one in dataclasses.fields(rule) if one.init and one.name not in FIXED]
                raise ConfigError(
                    f"{self.path} {TABLE}: detectors.{code}.{name} is no threshold. Known: {', '.join(own)}"
                )
        return build(type(rule), rule, _given(values, self.path), f"detectors.{code}.")

    def check(self, codes: Iterable[str]) -> None:
        """Raise ConfigError when a finding to leave out has a code that is not among these."""
        known = list(codes)
        for rule in self.ignore:
            if rule.code not in known:
                raise ConfigError(
                    f"{self.path} {TABLE}: ignore: no detector has the code {rule.code!r}.{nearest(rule.code, known)} "
                    "See: trimtab rules detector"
                )


def find_project(*folders: str | Path) -> Project:
    """Return what the project of these folders says: the nearest pyproject.toml with our table, upwards from each.

    Without a folder the search begins at the working directory, then at the running script.

    Raises:
        ConfigError: the table cannot be used.
    """
    for folder in folders or _here():
        start = Path(folder).resolve()
        for above in (start, *start.parents):
            project = _read(above / FILE)
            if project is not None:
                return project
    return Project()


def project_of(pyproject: str | Path | bool) -> Project:
    """Return what holds for a run: of the project around it (True), of this file, or of none (False).

    Raises:
        ConfigError: there is no such file, or its table cannot be used.
    """
    if isinstance(pyproject, bool):
        return find_project() if pyproject else Project()
    return read_project(pyproject)


def read_project(path: str | Path) -> Project:
    """Return what a pyproject.toml says; a file without our table says nothing.

    Raises:
        ConfigError: there is no such file, or its table cannot be used.
    """
    if not Path(path).is_file():
        raise ConfigError(f"there is no file {str(path)!r}; name a pyproject.toml, or leave it out to have it found")
    return _read(Path(path)) or Project()


def _here() -> Iterator[Path]:
    yield Path.cwd()
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script:
        yield Path(script).parent


def _read(path: Path) -> Project | None:
    """Return the table of a file, None where there is none; a file that is not about us is never judged."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if "trimtab" not in text:
        return None
    import tomllib

    try:
        table = tomllib.loads(text).get("tool", {}).get("trimtab")
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        if "[tool.trimtab" not in text:
            return None
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.trimtab expects a table, got {table!r:.80}")
    read: _Table = build(_Table, None, _given(table, str(path)), "")
    for name, low, high in (("every", 1, float("inf")), ("overhead", 0.0, 1.0)):
        value = getattr(read, name)
        if value is not None and not low <= value <= high:
            raise ConfigError(
                f"{path} {TABLE}: {name} expects {'at least 1' if name == 'every' else '0 to 1'}, got {value}"
            )
    return Project(
        path=str(path),
        ignore=tuple(_left_out(one) for one in read.ignore),
        every=read.every,
        overhead=read.overhead,
        detectors=read.detectors,
    )


@dataclass(frozen=True, kw_only=True)
class _Table:
    ignore: tuple[str | LeftOut, ...] = ()
    every: int | None = None
    overhead: float | None = None
    detectors: Mapping[str, Any] = field(default_factory=dict)


def _left_out(one: str | LeftOut) -> LeftOut:
    if isinstance(one, LeftOut):
        return one
    code, _, subject = one.partition("@")
    return LeftOut(code=code, subject=subject or "*")


def _given(table: Mapping[str, Any], path: str) -> Sequence[tuple[list[str], Given]]:
    return [([str(name)], Given(str(name), (value,), f"{path} {TABLE}")) for name, value in table.items()]
