"""A plan as somebody wrote it: words on a command line, a jobs file with one arm a line, or a phases file in YAML."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import UserError, nearest
from trimtab.sweep.plan import SEEDS, Arm, Phase, Plan, Search, arm_name, grid
from trimtab.sweep.space import Choice, Space, is_space, read_space, read_value, split_outside

GRID = "grid"
"""The sampler that tries every combination; it is no search."""

_TOP = ("target", "preset", "metric", "better", "seeds", "guard", "defaults", "phases")
_OF_SEARCH = ("space", "sampler", "trials", "pruner", "at_once", "sampler_seed")
_OF_PHASE = (
    "name", "base", "arms", "grid", "preset", "seeds", "score", "baseline", "bands", "guard", "take", "use",
    *_OF_SEARCH,
)  # fmt: skip
_OF_ARM = ("name", "settings", "seeds")

_LINE = re.compile(r"^(?P<before>\s*(?:[-*]\s+)?)(?:\[(?P<tick>[ xX]?)\]\s*)?(?P<rest>.*?)\s*$")
_NAMED = re.compile(r"^(?P<name>[^=]+?):(?:\s+|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One line of a jobs file: the arm, where it stands, and whether the line is ticked."""

    arm: Arm
    line: int
    ticked: bool


def phase_of_words(
    words: Sequence[str],
    *,
    sampler: str | None = None,
    arms: int | None = None,
    pruner: str = "none",
    baseline: str = "",
    score: str = "best",
) -> Phase:
    """Return the one phase that a command line describes.

    Args:
        words: each "key=value", "key=value,value,..." or "key=log(1e-4,1e-2)" (`space.FORMS`).
        sampler: "grid" tries every combination; another one searches. None: a search where a word has a range.
        arms: how many arms a search tries.
        pruner: of a search.
        baseline: name of the arm to compare with.
        score: "best" or "final".

    Raises:
        UserError: a word of another form, a key that stands twice, a range in a grid, or a search of unknown length.
    """
    values, spaces = _read_words(words)
    if sampler == GRID and spaces:
        key = next(iter(spaces))
        raise UserError(f"sampler grid: {key!r} has a range, of which no grid has every value; list them: {key}=a,b,c")
    options: dict[str, Any] = {"baseline": baseline, "score": score}
    fixed = {key: its[0] for key, its in values.items() if len(its) == 1}
    varied = {key: its for key, its in values.items() if len(its) > 1}
    if sampler in (None, GRID) and not spaces:
        if arms is not None or pruner != "none":
            raise UserError(
                "a grid tries every combination and prunes none; for a search give a range, such as lr=log(1e-4,1e-2), "
                "or --sampler random"
            )
        return Phase(base=fixed, arms=grid(varied), **options)
    space = spaces | {key: Choice.of(*its) for key, its in varied.items()}
    return Phase(base=fixed, search=_search(space, sampler or "tpe", arms, pruner, "the sweep"), **options)


def fixed_words(words: Sequence[str]) -> dict[str, Any]:
    """Return settings that each have one value, for a plan whose arms stand in a file.

    Raises:
        UserError: a word of another form, or one with several values.
    """
    values, spaces = _read_words(words)
    for key in [*spaces, *(key for key, its in values.items() if len(its) > 1)]:
        raise UserError(f"{key!r} has several values, but the arms stand in the file already; write them there")
    return {key: its[0] for key, its in values.items()}


def read_seeds(text: str | int | Sequence[int], where: str = "seeds") -> tuple[int, ...]:
    """Return the seeds that are meant: 5 for 0 to 4; [3, 7] or "3,7" for these; "10-14" for a row.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 1:
            raise UserError(f"{where}: {text} seeds; expected at least 1")
        return tuple(range(text))
    if isinstance(text, str):
        if text.strip().isdecimal():
            return read_seeds(int(text), where)
        found: list[int] = []
        for part in text.strip().strip("[]").strip(",").split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
                raise UserError(f"{where}: {text!r}; expected how many (5), a list (3,7) or a row (10-14)")
            found += range(int(first), int(last if dash else first) + 1)
        return tuple(found)
    if isinstance(text, list | tuple) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in text):
        return tuple(text)
    raise UserError(f"{where}: {text!r}; expected how many (5) or a list of whole numbers ([3, 7])")


def read_jobs(path: Path | str) -> list[Job]:
    """Read a jobs file: one arm a line, `name: key=value key=value` or the settings alone.

    Empty lines and lines that begin with # say nothing. A line may begin with "-" and with "[ ]" or "[x]": ticks are
    for people (`tick` sets them), what is done stands in the store.

    Raises:
        UserError: the file cannot be read, has no arm, two arms of one name, or a line of another form.
    """
    found: list[Job] = []
    for number, line in enumerate(_lines(path), start=1):
        parts = _LINE.match(line)
        assert parts is not None  # it matches every line
        rest = parts["rest"]
        if not rest or rest.startswith("#"):
            continue
        where = f"{path} line {number}"
        named = _NAMED.match(rest)
        settings: dict[str, Any] = {}
        try:
            words = shlex.split(rest[named.end() :] if named else rest, comments=True)
        except ValueError as error:
            raise UserError(f"{where}: {error}; expected name: key=value key=value") from None
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or not key:
                raise UserError(f"{where}: {word!r}; expected name: key=value key=value")
            if key in settings:
                raise UserError(f"{where}: {key!r} stands twice; keep one")
            settings[key] = read_value(value)
        name = named["name"].strip() if named else arm_name(settings)
        before = next((job for job in found if job.arm.name == name), None)
        if before is not None:
            raise UserError(f"{where}: an arm {name!r} stands in line {before.line} already; give each its own name")
        found.append(Job(arm=Arm(name=name, settings=settings), line=number, ticked=(parts["tick"] or " ") in "xX"))
    if not found:
        raise UserError(f"{path} has no arm; expected one a line, such as 'small: width=32 lr=1e-3'")
    return found


def tick(path: Path | str, done: Collection[str]) -> int:
    """Set "[x]" before every line of a jobs file whose arm is in `done`, and "[ ]" before the others.

    Returns:
        How many lines were changed; the file is written only if there is one.
    """
    jobs = {job.line: job for job in read_jobs(path)}
    lines = _lines(path)
    changed = 0
    for number, job in jobs.items():
        parts = _LINE.match(lines[number - 1])
        assert parts is not None  # it was read a moment ago
        line = f"{parts['before']}[{'x' if job.arm.name in done else ' '}] {parts['rest']}"
        changed += line != lines[number - 1]
        lines[number - 1] = line
    if changed:
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return changed


def read_phases(path: Path | str) -> Plan:
    """Read a phases file.

    Its form is in docs/how-to/sweep.md; the words are those of Plan, Phase, Search and Arm.

    Raises:
        UserError: the file cannot be read, is no YAML, has an unknown word or a value of another form; the message says
            where and names the nearest known word.
    """
    root = _yaml(Path(path))
    top = _mapping(root, str(path))
    _only(top, _TOP, str(path))
    if "phases" not in top:
        raise UserError(f"{path}: there are no phases; expected `phases:` with at least one")
    phases = top["phases"]
    if isinstance(phases, list):
        named = [
            (_text(_mapping(one, f"{path}, phase {number}").get("name", ""), f"{path}, phase {number}: name"), one)
            for number, one in enumerate(phases, start=1)
        ]
    else:
        named = [(_text(name, f"{path}: the name of a phase"), one) for name, one in _mapping(phases, path).items()]
    given = {key: _text(top[key], f"{path}: {key}") for key in ("preset", "metric", "better", "guard") if key in top}
    return Plan(
        target=_text(top.get("target", ""), f"{path}: target"),
        phases=tuple(_phase(name, _mapping(one, f"{path}, phase {name!r}"), path) for name, one in named),
        seeds=read_seeds(top["seeds"], f"{path}: seeds") if "seeds" in top else SEEDS,
        defaults=_settings(top.get("defaults"), f"{path}: defaults"),
        **given,  # type: ignore[arg-type]  # Plan itself refuses what is no direction
    )


def _phase(name: str, given: Mapping[str, Any], path: Path | str) -> Phase:
    where = f"{path}, phase {name!r}"
    _only(given, _OF_PHASE, where)
    base = _settings(given.get("base"), f"{where}: base")
    arms: list[Arm] = []
    search = None
    ways = [way for way in ("arms", "grid", "space") if way in given]
    if len(ways) != 1:
        raise UserError(f"{where}: expected one of arms, grid and space, got {' and '.join(ways) or 'none'}")
    if "arms" in given:
        arms = _arms(given["arms"], where)
    elif "grid" in given:
        values = {
            key: value if isinstance(value, list) else [value]
            for key, value in _settings(given["grid"], f"{where}: grid").items()
        }
        if empty := next((key for key, its in values.items() if not its), ""):
            raise UserError(f"{where}: grid: {empty!r} has no value")
        base |= {key: its[0] for key, its in values.items() if len(its) == 1}
        arms = list(grid({key: its for key, its in values.items() if len(its) > 1}))
    else:
        space: dict[str, Space] = {}
        for key, value in _settings(given["space"], f"{where}: space").items():
            space[key] = Choice.of(*value) if isinstance(value, list) else read_space(str(value), f"{where}: {key}")
        search = _search(
            space, given.get("sampler", "tpe"), given.get("trials"), given.get("pruner", "none"), where,
            **{word: given[key] for key, word in (("at_once", "at_once"), ("sampler_seed", "seed")) if key in given},
        )  # fmt: skip
    if search is None and (wrong := next((key for key in _OF_SEARCH if key in given), "")):
        raise UserError(f"{where}: {wrong!r} belongs to a search; give `space:` instead of {ways[0]}, or leave it out")
    bands = {}
    for metric, band in _settings(given.get("bands"), f"{where}: bands").items():
        if not (isinstance(band, list) and len(band) == 2 and all(isinstance(end, int | float) for end in band)):
            raise UserError(f"{where}: band of {metric!r} is {band!r}; expected [lowest, highest]")
        bands[metric] = (float(band[0]), float(band[1]))
    used = _settings(given.get("use"), f"{where}: use")
    texts: dict[str, Any] = {
        key: _text(given[key], f"{where}: {key}")
        for key in ("preset", "score", "baseline", "guard", "take")
        if key in given
    }
    return Phase(
        name=name,
        arms=tuple(arms),
        base=base,
        seeds=read_seeds(given["seeds"], f"{where}: seeds") if "seeds" in given else None,
        bands=bands,
        use={key: _text(value, f"{where}: use {key!r}") for key, value in used.items()},
        search=search,
        **texts,
    )


def _arms(given: Any, where: str) -> list[Arm]:
    """Read arms: a mapping of name to settings, or a list of mappings with a name."""
    if isinstance(given, list):
        named = []
        for number, one in enumerate(given, start=1):
            its = dict(_mapping(one, f"{where}, arm {number}"))
            _only(its, _OF_ARM, f"{where}, arm {number}")
            settings = _settings(its.get("settings"), f"{where}, arm {number}: settings")
            named.append((its.pop("name", None) or arm_name(settings), {"settings": settings, **its}))
    else:
        named = list(_mapping(given, f"{where}: arms").items())
    arms = []
    for name, one in named:
        text = _text(name, f"{where}: the name of an arm")
        its = _settings(one, f"{where}, arm {text!r}")
        seeds = None
        if set(its) <= {"settings", "seeds"} and its:
            seeds = read_seeds(its["seeds"], f"{where}, arm {text!r}: seeds") if "seeds" in its else None
            its = _settings(its.get("settings"), f"{where}, arm {text!r}: settings")
        arms.append(Arm(name=text, settings=its, seeds=seeds))
    return arms


def _search(space: Mapping[str, Space], sampler: str, arms: int | None, pruner: str, where: str, **more: Any) -> Search:
    from trimtab.sweep.search import check_names

    if arms is None:
        raise UserError(f"{where}: a search needs a number of arms to try; give --trials 20 (`trials: 20` in a file)")
    numbers = {"trials": arms, **more}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise UserError(f"{where}: {name}={value!r}; expected a whole number")
    check_names(sampler, pruner)
    return Search(space=dict(space), arms=arms, sampler=sampler, pruner=pruner, **more)


def _read_words(words: Sequence[str]) -> tuple[dict[str, list[Any]], dict[str, Space]]:
    values: dict[str, list[Any]] = {}
    spaces: dict[str, Space] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"{word!r}: expected key=value, key=a,b,c or key=log(1e-4,1e-2)")
        if key in values or key in spaces:
            raise UserError(f"{key!r} stands twice; write all its values at once: {key}=a,b,c")
        if is_space(text):
            spaces[key] = read_space(text, key)
            continue
        its = [read_value(part) for part in split_outside(text)] or [""]
        if len({repr(value) for value in its}) < len(its):
            raise UserError(f"{word!r}: a value stands twice; its arms would be the same training")
        values[key] = its
    return values, spaces


def _lines(path: Path | str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"jobs file {str(path)!r} cannot be read ({error}); expected a text file") from None


def _yaml(path: Path) -> Any:
    import yaml

    from trimtab.config.plain import yaml_loader

    class Loader(yaml_loader()):  # type: ignore[misc]  # a class that is made when it is first asked for
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: dict[Any, int] = {}
            for key_node, _ in node.value:
                key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
                if isinstance(key, str) and key in seen:
                    raise UserError(f"{path} line {line}: {key!r} stands in line {seen[key]} already; keep one")
                if isinstance(key, str):
                    seen[key] = line
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"phases file {str(path)!r} cannot be read ({error}); expected a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"{path}{line} is no plain YAML: {getattr(error, 'problem', None) or error}") from None


def _mapping(value: Any, where: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected a mapping, got {value!r:.80}")
    return value


def _settings(value: Any, where: str) -> dict[str, Any]:
    """Return a mapping whose keys are texts; nothing is an empty one."""
    if value is None:
        return {}
    return {_text(key, f"{where}: a key"): item for key, item in _mapping(value, where).items()}


def _only(given: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{where}: there is no {key!r}.{nearest(str(key), known)} Known: {', '.join(known)}")


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{where}: expected a text, got {value!r}; put it in quotes")
    return str(value)
