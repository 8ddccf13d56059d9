"""Two runs side by side: what was set differently, and the first step at which their signals part.

Works for runs that are unfinished, killed or of different length; only what both have is compared.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.records import Signal, Value
from trimtab.run import Run

MISSING = "missing"
"""Stands in a Difference for a setting that one of the runs does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One setting that differs; `a` or `b` is the word "missing" where a run does not have it."""

    key: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A step at which one entry of a signal has two values; `label` is empty for a scalar."""

    attempt: int
    step: int
    update: int
    label: str
    a: float
    b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """Where a signal that both runs measured stops being the same.

    `first` is the first step at which a bit differs, `beyond` the first at which the values differ by more than the
    tolerance; None if that never happens. `compared` counts the steps at which both runs measured the signal; it may be
    0. NaN is the same as NaN.
    """

    stream: str
    signal: str
    compared: int
    first: Moment | None
    beyond: Moment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How far each run came in one stream: rows, the last step (-1 if it has no row), and how many attempts."""

    stream: str
    rows_a: int
    rows_b: int
    last_step_a: int
    last_step_b: int
    attempts_a: int
    attempts_b: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LastValue:
    """The last measurement of a scalar signal that both runs have."""

    stream: str
    signal: str
    step_a: int
    a: float
    step_b: int
    b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs between run `a` and run `b`.

    Attributes:
        a, b: the ids of the runs.
        status_a, status_b: how the runs stand.
        tolerance: the relative difference that `Parting.beyond` allows.
        facts: system, seed and git commit where they differ.
        settings, config, environment: what differs there, by dotted key.
        lengths: how far each stream came, for every stream that one of them has.
        partings: one for each signal that both have, in the order in which run a first measured them.
        findings_only_a, findings_only_b, findings_both: codes of findings, sorted.
        answers_a, answers_b: what actions did in each run, how often, and at which step first.
        last_values: the last measurements of shared scalar signals.
        remarks: what could not be read, such as a torn last line.
    """

    a: str
    b: str
    status_a: str
    status_b: str
    tolerance: float = 1e-6
    facts: tuple[Difference, ...] = ()
    settings: tuple[Difference, ...] = ()
    config: tuple[Difference, ...] = ()
    environment: tuple[Difference, ...] = ()
    lengths: tuple[Length, ...] = ()
    partings: tuple[Parting, ...] = ()
    findings_only_a: tuple[str, ...] = ()
    findings_only_b: tuple[str, ...] = ()
    findings_both: tuple[str, ...] = ()
    answers_a: tuple[str, ...] = ()
    answers_b: tuple[str, ...] = ()
    last_values: tuple[LastValue, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def first(self) -> Parting | None:
        """The signal that parts first, by a bit; None if none does."""
        parted = [parting for parting in self.partings if parting.first is not None]
        return min(parted, key=lambda parting: _when(parting.first), default=None)

    @property
    def beyond(self) -> Parting | None:
        """The signal that parts first by more than the tolerance; None if none does."""
        parted = [parting for parting in self.partings if parting.beyond is not None]
        return min(parted, key=lambda parting: _when(parting.beyond), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as nested plain values, `first` and `beyond` included."""
        plain = dataclasses.asdict(self)
        for name in ("first", "beyond"):
            parting = getattr(self, name)
            plain[name] = dataclasses.asdict(parting) if parting is not None else None
        return plain


def compare(a: Run, b: Run, *, tolerance: float = 1e-6) -> Comparison:
    """Return what differs between two runs.

    Signals are compared at equal attempt and step of a stream; vectors entry by entry, by their labels.

    Args:
        a, b: the runs; they may still be running.
        tolerance: the relative difference, |a - b| / max(|a|, |b|), that counts as the same for `beyond`.

    Raises:
        RunError: a file of one of the runs is damaged.
    """
    seen_a, seen_b = _survey(a), _survey(b)
    streams = list(dict.fromkeys([*seen_a, *seen_b]))
    none = _Seen()
    pairs = {stream: (seen_a.get(stream, none), seen_b.get(stream, none)) for stream in streams}
    codes_a, codes_b = ({finding.code for finding in run.findings()} for run in (a, b))
    return Comparison(
        a=a.id,
        b=b.id,
        status_a=a.status,
        status_b=b.status,
        tolerance=tolerance,
        facts=_differences(_facts(a), _facts(b)),
        settings=_differences(a.settings(), b.settings()),
        config=_differences(a.config(), b.config()),
        environment=_differences(a.environment(), b.environment()),
        lengths=tuple(
            Length(
                stream=stream,
                rows_a=one.rows,
                rows_b=other.rows,
                last_step_a=one.last_step,
                last_step_b=other.last_step,
                attempts_a=one.attempts,
                attempts_b=other.attempts,
            )
            for stream, (one, other) in pairs.items()
        ),
        partings=tuple(
            parting
            for stream, (one, other) in pairs.items()
            if (shared := [name for name in one.signals if name in other.signals])
            for parting in _partings(a, b, stream, shared, tolerance)
        ),
        findings_only_a=tuple(sorted(codes_a - codes_b)),
        findings_only_b=tuple(sorted(codes_b - codes_a)),
        findings_both=tuple(sorted(codes_a & codes_b)),
        answers_a=_answers(a),
        answers_b=_answers(b),
        last_values=tuple(
            LastValue(stream=stream, signal=name, step_a=mine[0], a=mine[1], step_b=theirs[0], b=theirs[1])
            for stream, (one, other) in pairs.items()
            for name, mine in one.scalars.items()
            if (theirs := other.scalars.get(name)) is not None
        ),
        remarks=tuple(f"{run.id}: {remark}" for run in (a, b) for remark in run.remarks),
    )


def _answers(run: Run) -> tuple[str, ...]:
    """Return 'roll-back done, 2 times, first at step 150' for each action and result, in the order of the first."""
    steps: dict[str, list[int]] = {}
    for one in run.outcomes():
        steps.setdefault(f"{one.action} {one.result}", []).append(one.step)
    return tuple(
        f"{name} at step {at[0]}" if len(at) == 1 else f"{name}, {len(at)} times, first at step {at[0]}"
        for name, at in steps.items()
    )


# -- settings -----------------------------------------------------------------------------------------------------


def _facts(run: Run) -> dict[str, Any]:
    git = run.facts.git
    return {
        "system": run.facts.system,
        "seed": run.facts.seed,
        "git": {"commit": git.commit, "dirty": git.dirty} if git is not None else None,
    }


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    flat_a, flat_b = dict(_flat("", a)), dict(_flat("", b))
    found = []
    for key in dict.fromkeys([*flat_a, *flat_b]):
        one, other = flat_a.get(key, MISSING), flat_b.get(key, MISSING)
        if (key in flat_a) != (key in flat_b) or not _same(one, other):
            found.append(Difference(key=key, a=one, b=other))
    return tuple(found)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and leaves; a list without mappings in it is a leaf."""
    above = f"{key}." if key else ""
    if isinstance(value, Mapping) and (value or not key):
        for name, item in value.items():
            yield from _flat(f"{above}{name}", item)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(f"{above}{index}", item)
    else:
        yield key, value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) != isinstance(other, bool):
        return False  # True is not 1
    return bool(one == other) or repr(one) == repr(other)  # as text, NaN is itself


# -- signals ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seen:
    """What one run has of one stream."""

    rows: int = 0
    last_step: int = -1
    attempts: int = 0
    signals: dict[str, None] = field(default_factory=dict)
    scalars: dict[str, tuple[int, float]] = field(default_factory=dict)


def _survey(run: Run) -> dict[str, _Seen]:
    streams: dict[str, _Seen] = {}
    for row in run.rows():
        seen = streams.setdefault(row.stream, _Seen())
        seen.rows += 1
        seen.last_step = row.step
        seen.attempts = max(seen.attempts, row.attempt + 1)
        for name, value in row.values.items():
            if name.startswith(OWN) or name in OF_THE_MACHINE:
                continue
            seen.signals[name] = None
            if not isinstance(value, tuple):
                seen.scalars[name] = (row.step, value)
    return streams


OWN = "trimtab_"
"""Signals about Trimtab itself begin with this; two runs that differ in them alone do not differ."""
OF_THE_MACHINE = ("step_seconds", "memory_bytes")
"""Signals that are never the same twice: what the machine does besides decides them."""


@dataclass(slots=True)
class _Compared:
    """What is known so far about one signal."""

    count: int = 0
    first: Moment | None = None
    beyond: Moment | None = None


_Place = tuple[int, int]
"""(attempt, step): where a row stands in its stream."""


def _partings(a: Run, b: Run, stream: str, shared: list[str], tolerance: float) -> list[Parting]:
    """Walk through one stream of both runs at once; neither is held in memory."""
    known = {name: _Compared() for name in shared}
    for place, rows_a, rows_b in _together(_places(a, stream), _places(b, stream)):
        values_a, values_b = _values(rows_a), _values(rows_b)
        for name, compared in known.items():
            if name in values_a and name in values_b:
                _look(compared, place, rows_a[-1].update, values_a[name], values_b[name], tolerance)
    return [
        Parting(stream=stream, signal=name, compared=one.count, first=one.first, beyond=one.beyond)
        for name, one in known.items()
    ]


def _places(run: Run, stream: str) -> Iterator[tuple[_Place, list[Signal]]]:
    """Yield the rows of one stream, those of one step together."""
    rows = (row for row in run.rows() if row.stream == stream)
    for place, group in itertools.groupby(rows, key=lambda row: (row.attempt, row.step)):
        yield place, list(group)


def _together(
    a: Iterator[tuple[_Place, list[Signal]]], b: Iterator[tuple[_Place, list[Signal]]]
) -> Iterator[tuple[_Place, list[Signal], list[Signal]]]:
    """Yield what two ordered streams have at the same place."""
    one, other = next(a, None), next(b, None)
    while one is not None and other is not None:
        if one[0] == other[0]:
            yield one[0], one[1], other[1]
            one, other = next(a, None), next(b, None)
        elif one[0] < other[0]:
            one = next(a, None)
        else:
            other = next(b, None)


def _values(rows: list[Signal]) -> dict[str, tuple[Value, tuple[str, ...]]]:
    return {name: (value, row.labels.get(name, ())) for row in rows for name, value in row.values.items()}


def _entries(value: Value, labels: tuple[str, ...]) -> dict[str, float]:
    """Return the entries of a value by label; by place if it has no labels of its own."""
    if not isinstance(value, tuple):
        return {"": value}
    named = labels if len(set(labels)) == len(value) else [str(index) for index in range(len(value))]
    return dict(zip(named, value, strict=True))


def _look(
    compared: _Compared,
    place: _Place,
    update: int,
    a: tuple[Value, tuple[str, ...]],
    b: tuple[Value, tuple[str, ...]],
    tolerance: float,
) -> None:
    """Compare one signal at one step."""
    entries_a, entries_b = _entries(*a), _entries(*b)
    pairs = [(label, one, entries_b[label]) for label, one in entries_a.items() if label in entries_b]
    if not pairs:
        return
    compared.count += 1
    if compared.beyond is not None:
        return
    for label, one, other in pairs:
        if _same_bits(one, other):
            continue
        moment = Moment(attempt=place[0], step=place[1], update=update, label=label, a=one, b=other)
        if compared.first is None:
            compared.first = moment
        if _apart(one, other, tolerance):
            compared.beyond = moment
            return


def _same_bits(one: float, other: float) -> bool:
    if one == other:
        return one != 0 or math.copysign(1.0, one) == math.copysign(1.0, other)
    return math.isnan(one) and math.isnan(other)


def _apart(one: float, other: float, tolerance: float) -> bool:
    if math.isfinite(one) and math.isfinite(other):
        return abs(one - other) > tolerance * max(abs(one), abs(other))
    return one != other and not (math.isnan(one) and math.isnan(other))


def _when(moment: Moment | None) -> tuple[int, int]:
    assert moment is not None
    return (moment.attempt, moment.update)
