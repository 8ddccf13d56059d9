"""What a sweep is to do: phases of arms, each arm with seeds; and the list of trials that follows from it.

A Plan is a value. It is written by hand in Python, or read from a command line, a jobs file or a phases file
(`written.py`); `settle.py` proves it against the System before anything runs. The same plan gives the same trials with
the same keys on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, Literal

from trimtab.errors import UserError, nearest
from trimtab.sweep.space import Space, read_space, space_text
from trimtab.trial import Better, Trial, TrialResult

Score = Literal["best", "final"]
SCORES: tuple[Score, ...] = ("best", "final")

SEEDS = tuple(range(6))
"""The seeds where none are given: with fewer than 6 pairs no sign-flip test can reach p < 0.05, for 2 / 2^5 = 0.06."""

_CONDITION = re.compile(r"^\s*(?P<metric>[^\s<>=]+)\s*(?P<sign>>=|<=|>|<)\s*(?P<value>\S+)\s*$")


@dataclass(frozen=True, slots=True)
class Condition:
    """A bound on a recorded metric, such as "validation/coverage > 0.99"."""

    metric: str
    sign: str
    value: float

    @classmethod
    def parse(cls, text: str, *, split: str = "") -> Condition:
        """Read a condition.

        Args:
            text: metric, one of > >= < <=, number.
            split: put before a metric that names none: "validation" makes "coverage" "validation/coverage".

        Raises:
            UserError: it has another form.
        """
        found = _CONDITION.match(text)
        try:
            value = float(found["value"]) if found is not None else math.nan
        except ValueError:
            value = math.nan
        if found is None or math.isnan(value):
            raise UserError(f"guard {text!r}: expected METRIC > NUMBER (or >=, <, <=), such as 'coverage > 0.99'")
        return cls(with_split(found["metric"], split), found["sign"], value)

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """Say whether it holds; a metric that is missing or NaN does not hold.

        Args:
            metrics: recorded name -> value.
        """
        value = metrics.get(self.metric, math.nan)
        match self.sign:
            case ">":
                return value > self.value
            case ">=":
                return value >= self.value
            case "<":
                return value < self.value
            case _:
                return value <= self.value

    def barred(self, result: TrialResult) -> tuple[int, ...]:
        """Return the updates of the evaluations of a result at which it does not hold.

        The sweep's own metric counts like any other.
        """
        names = {**result.others, result.metric: result.points}
        values = dict(names.get(self.metric, ()))
        return tuple(step for step, _ in result.points if not self.holds({self.metric: values.get(step, math.nan)}))

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is compared: settings under a name.

    Attributes:
        name: unique in its phase.
        settings: what differs from the base of the phase; plain values of JSON.
        seeds: of this arm alone; None for those of the phase.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a phase found, for the phases after it.

    Attributes:
        arm: name of its best arm.
        settings: of that arm.
        checkpoint: the best checkpoint of its best trial, named by its content, "checkpoint:<hash>"; empty for none.
        path: folder of that checkpoint, below the sweep's `runs/`.
    """

    arm: str
    settings: Mapping[str, Any]
    checkpoint: str = ""
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a phase looks for arms instead of listing them.

    Attributes:
        space: setting -> the values that it may take.
        arms: how many are tried, failed ones included.
        sampler: "random", "tpe" or another name of `trimtab.sweep.search.SAMPLERS`.
        pruner: "none", "median" or another name of `trimtab.sweep.search.PRUNERS`.
        at_once: so many arms are suggested before the first of them is judged. It is part of the plan, so that what is
            suggested does not depend on how many slots there are.
        seed: of the sampler.
    """

    space: Mapping[str, Space]
    arms: int
    sampler: str = "tpe"
    pruner: str = "none"
    at_once: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.arms < 1:
            raise UserError(f"search: arms={self.arms}; expected how many arms to try, at least 1")
        if self.at_once < 1:
            raise UserError(f"search: at_once={self.at_once}; expected at least 1 arm")
        if not self.space:
            raise UserError("search: there is nothing to search; give a setting a range, such as lr=log(1e-4,1e-2)")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a sweep whose arms are compared with each other.

    Attributes:
        name: unique in the plan; empty in a plan of one phase.
        arms: what is compared; empty where `search` finds them.
        base: settings of every arm of this phase.
        preset: of the System; None for that of the plan.
        seeds: of every arm; None for those of the plan.
        score: what stands for a trial: the metric at its best evaluation, or at its last.
        baseline: the arm that the others are compared with; empty for none.
        bands: metric -> (lowest, highest) value that was declared before.
        guard: only evaluations where this condition holds may be the best; None for that of the plan, "" for none.
        take: "best" gives the settings of this phase's best arm to every later phase.
        use: setting -> earlier phase whose best checkpoint it gets.
        search: how arms are suggested, or None.
    """

    name: str = ""
    arms: tuple[Arm, ...] = ()
    base: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    seeds: tuple[int, ...] | None = None
    score: Score = "best"
    baseline: str = ""
    bands: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    guard: str | None = None
    take: Literal["", "best"] = ""
    use: Mapping[str, str] = field(default_factory=dict)
    search: Search | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a sweep is to do.

    Attributes:
        target: name of an installed System, "package.module:SYSTEM", or the path of a training script.
        phases: in the order in which they begin.
        preset: of the System; empty for its default.
        metric: what is judged, as it is recorded ("validation/accuracy"); empty: `settle` finds it.
        better: which direction of it is good; empty: `settle` finds it.
        seeds: of every arm that has none of its own.
        guard: only evaluations where this condition holds may be the best of their trial; empty for none.
        defaults: settings of every arm of every phase.

    Raises:
        UserError: names that are not unique, an unknown phase or baseline, no arm, no seed, an unknown word.
    """

    target: str
    phases: tuple[Phase, ...]
    preset: str = ""
    metric: str = ""
    better: Better | Literal[""] = ""
    seeds: tuple[int, ...] = SEEDS
    guard: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.target:
            raise UserError("sweep: there is no target; name a system, or a training script that ends in .py")
        if self.better not in ("", "higher", "lower"):
            raise UserError(f"sweep: better={self.better!r}; expected 'higher' or 'lower'")
        if not self.phases:
            raise UserError("sweep: the plan has no phase; give it at least one with an arm")
        _unique("phase", [phase.name for phase in self.phases], "the plan")
        for place, phase in enumerate(self.phases):
            self._check(phase, [earlier.name for earlier in self.phases[:place]])
        if self.guard:
            Condition.parse(self.guard)

    def _check(self, phase: Phase, earlier: Sequence[str]) -> None:
        where = f"phase {phase.name!r}" if phase.name else "the sweep"
        if not phase.name and len(self.phases) > 1:
            raise UserError("sweep: a phase has no name; in a plan of several phases each needs one")
        if bool(phase.arms) == (phase.search is not None):
            raise UserError(f"{where}: expected either arms or a search, got {'both' if phase.arms else 'neither'}")
        names = [arm.name for arm in phase.arms]
        _unique("arm", names, where)
        if "" in names:
            raise UserError(f"{where}: an arm has no name")
        for arm in phase.arms:
            _check_seeds(self.seeds_of(phase, arm), f"{where}, arm {arm.name!r}")
        if phase.search is not None:
            _check_seeds(phase.seeds if phase.seeds is not None else self.seeds, where)
        if phase.score not in SCORES:
            raise UserError(f"{where}: score={phase.score!r}; expected 'best' or 'final'")
        if phase.take not in ("", "best"):
            raise UserError(f"{where}: take={phase.take!r}; expected 'best'")
        if phase.baseline and phase.arms and phase.baseline not in names:
            raise UserError(
                f"{where}: there is no arm {phase.baseline!r} to be the baseline.{nearest(phase.baseline, names)} "
                f"Arms: {', '.join(names)}"
            )
        for key, name in phase.use.items():
            if name not in earlier:
                raise UserError(
                    f"{where}: use {key!r} names {name!r}, which is no earlier phase.{nearest(name, earlier)} "
                    f"Earlier: {', '.join(earlier) or 'none'}"
                )
        for metric, (low, high) in phase.bands.items():
            if not low <= high:
                raise UserError(f"{where}: band of {metric!r} is [{low}, {high}]; expected the lower end first")
        if phase.guard:
            Condition.parse(phase.guard)

    @property
    def is_script(self) -> bool:
        """Whether the target is a training script rather than a System."""
        return self.target.endswith(".py")

    def phase(self, name: str) -> Phase:
        """Return the phase of that name; raise UserError that names the known ones."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        known = [phase.name for phase in self.phases]
        raise UserError(f"sweep: there is no phase {name!r}.{nearest(name, known)} Known: {', '.join(known)}")

    def needs(self, phase: Phase) -> tuple[str, ...]:
        """Return the phases that must have ended before this one can begin."""
        earlier = self.phases[: [one.name for one in self.phases].index(phase.name)]
        taken = [one.name for one in earlier if one.take]
        return tuple(dict.fromkeys([*taken, *phase.use.values()]))

    def guard_of(self, phase: Phase) -> str:
        """Return the condition under which an evaluation may be the best one of a trial; empty for none."""
        return self.guard if phase.guard is None else phase.guard

    def seeds_of(self, phase: Phase, arm: Arm) -> tuple[int, ...]:
        """Return the seeds of an arm: its own, else those of the phase, else those of the plan."""
        for seeds in (arm.seeds, phase.seeds):
            if seeds is not None:
                return seeds
        return self.seeds

    def settings_of(self, phase: Phase, arm: Arm, found: Mapping[str, Found]) -> dict[str, Any]:
        """Return all settings of an arm that are known when `found` was found; what comes later wins.

        In this order: the plan's defaults, what earlier phases took, the base of the phase, the checkpoints that it
        uses, the arm's own.
        """
        settings = dict(self.defaults)
        for name in self.needs(phase):
            if self.phase(name).take and name in found:
                settings |= found[name].settings
        settings |= phase.base
        settings |= {key: found[name].checkpoint for key, name in phase.use.items() if name in found}
        return settings | dict(arm.settings)

    def trials(
        self, phase: Phase, found: Mapping[str, Found] | None = None, arms: Sequence[Arm] | None = None
    ) -> list[Trial]:
        """Return the trials of a phase, arm by arm and seed by seed.

        Args:
            phase: one of this plan.
            found: phase -> what it found, for those that this one needs.
            arms: which arms; those of the phase when None.

        Raises:
            UserError: a phase that it needs is missing in `found`, or left no checkpoint to use.
        """
        known = found or {}
        for key, name in phase.use.items():
            if name in known and not known[name].checkpoint:
                raise UserError(
                    f"phase {phase.name!r} uses the checkpoint of phase {name!r} as {key!r}, but its best arm "
                    f"{known[name].arm!r} left none; does its training evaluate the metric?"
                )
        missing = [name for name in self.needs(phase) if name not in known]
        if missing:
            raise UserError(f"phase {phase.name!r} needs what {', '.join(missing)} found; run those first")
        preset = self.preset if phase.preset is None else phase.preset
        return [
            Trial(
                target=self.target,
                phase=phase.name,
                arm=arm.name,
                seed=seed,
                settings=self.settings_of(phase, arm, known),
                preset=preset,
            )
            for arm in (phase.arms if arms is None else arms)
            for seed in self.seeds_of(phase, arm)
        ]

    def count(self, phase: Phase) -> int:
        """Return how many trials a phase has; the most it can have where arms are searched."""
        if phase.search is not None:
            return phase.search.arms * len(phase.seeds if phase.seeds is not None else self.seeds)
        return sum(len(self.seeds_of(phase, arm)) for arm in phase.arms)

    def best_arm(self, phase: Phase, results: Sequence[TrialResult]) -> tuple[str, TrialResult] | None:
        """Return the best arm of a phase and its best trial; None where no arm has a result.

        An arm stands for the mean of its scores over its seeds. One with a failed trial, or with a score that is no
        number, is passed over while there is another: its mean would leave out what went wrong.
        """
        by_arm: dict[str, list[TrialResult]] = {}
        for result in results:
            if result.trial.phase == phase.name:
                by_arm.setdefault(result.trial.arm, []).append(result)
        sign = 1.0 if (self.better or _direction(results)) == "lower" else -1.0
        ranked: list[tuple[bool, float, int, str]] = []
        for place, (name, its) in enumerate(by_arm.items()):
            scores = [value for value in (score_of(one, phase.score) for one in its) if math.isfinite(value)]
            if scores:
                ranked.append((len(scores) < len(its), sign * sum(scores) / len(scores), place, name))
        if not ranked:
            return None
        name = min(ranked)[-1]
        usable = [one for one in by_arm[name] if math.isfinite(score_of(one, phase.score))]
        return name, min(usable, key=lambda one: sign * score_of(one, phase.score))

    def in_order(self, results: Sequence[TrialResult]) -> list[TrialResult]:
        """Return the results of this plan in its order: phase, arm, seed; what the plan does not name is left out."""
        places: dict[tuple[str, str], tuple[int, int, tuple[int, ...]]] = {}
        for number, phase in enumerate(self.phases):
            arms = phase.arms or [
                Arm(name=name)  # of a search, whose arms have their number in front
                for name in sorted({result.trial.arm for result in results if result.trial.phase == phase.name})
            ]
            for place, arm in enumerate(arms):
                places[phase.name, arm.name] = (number, place, self.seeds_of(phase, arm))

        def place_of(result: TrialResult) -> tuple[int, int, int]:
            number, place, seeds = places[result.trial.phase, result.trial.arm]
            return number, place, seeds.index(result.trial.seed)

        planned = [
            result
            for result in results
            if result.trial.seed in places.get((result.trial.phase, result.trial.arm), (0, 0, ()))[2]
        ]
        return sorted(planned, key=place_of)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values of JSON."""
        return asdict(self) | {"phases": [_plain_phase(phase) for phase in self.phases]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Plan:
        """Read what `as_dict` returned, also after a way through JSON."""
        values = dict(plain)
        values["phases"] = tuple(_phase_of(phase) for phase in plain["phases"])
        values["seeds"] = tuple(plain["seeds"])
        return cls(**values)

    @cached_property
    def hash(self) -> str:
        """8 hexadecimal digits that tell this plan from others; the same on every machine."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def grid(settings: Mapping[str, Sequence[Any]]) -> tuple[Arm, ...]:
    """Return one arm for every combination of values, the last setting changing fastest.

    A setting with one value is part of no name. Where nothing varies there is one arm, "default".

    Example:
        >>> [arm.name for arm in grid({"lr": [0.1, 0.2], "width": [8]})]
        ['lr=0.1', 'lr=0.2']
    """
    arms = []
    for values in product(*settings.values()):
        chosen = dict(zip(settings, values, strict=True))
        varied = {name: value for name, value in chosen.items() if len(settings[name]) > 1}
        arms.append(Arm(name=arm_name(varied), settings=chosen))
    return tuple(arms)


def arm_name(settings: Mapping[str, Any]) -> str:
    """Return the name of an arm that is told by these settings: "lr=0.001 width=32"."""
    return " ".join(f"{name}={value_text(value)}" for name, value in settings.items()) or "default"


def value_text(value: Any) -> str:
    """Return a value as short text: numbers as Python prints them, the rest as JSON without quotes around words."""
    return value if isinstance(value, str) else _json(value)


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as the texts that `trimtab.train(overrides=...)` takes; every value keeps its type."""
    return [f"{name}={_json(value)}" for name, value in settings.items()]


def score_of(result: TrialResult, score: Score) -> float:
    """Return what stands for a trial; NaN where it is not complete."""
    if not result.complete:
        return math.nan
    return result.best if score == "best" else result.final


def with_split(metric: str, split: str) -> str:
    """Return the recorded name of a metric: with `split` before it where it names none."""
    return f"{split}/{metric}" if split and metric and "/" not in metric else metric


def _json(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value, ensure_ascii=False)


def _direction(results: Sequence[TrialResult]) -> Better:
    return next((result.better for result in results if result.points), "higher")


def _unique(kind: str, names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where}: there are two {kind}s {name!r}; give each its own name")
        seen.add(name)


def _check_seeds(seeds: Sequence[int], where: str) -> None:
    if not seeds:
        raise UserError(f"{where}: there is no seed; give at least one, such as seeds=[0]")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{where}: a seed stands twice in {list(seeds)}; the same training would count double")
    if min(seeds) < 0:
        raise UserError(f"{where}: seed {min(seeds)}; expected 0 or more")


def _plain_phase(phase: Phase) -> dict[str, Any]:
    plain = asdict(phase)
    if phase.search is not None:
        plain["search"]["space"] = {key: space_text(space) for key, space in phase.search.space.items()}
    return plain


def _phase_of(plain: Mapping[str, Any]) -> Phase:
    values = dict(plain)
    values["arms"] = tuple(
        Arm(name=arm["name"], settings=arm["settings"], seeds=_tuple(arm["seeds"])) for arm in plain["arms"]
    )
    values["seeds"] = _tuple(plain["seeds"])
    values["bands"] = {metric: (low, high) for metric, (low, high) in plain["bands"].items()}
    if plain["search"] is not None:
        search = dict(plain["search"])
        search["space"] = {key: read_space(text, key) for key, text in search["space"].items()}
        values["search"] = Search(**search)
    return Phase(**values)


def _tuple(seeds: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if seeds is None else tuple(seeds)
