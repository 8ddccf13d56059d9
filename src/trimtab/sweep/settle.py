"""A plan proved before anything runs: every arm's configuration is resolved, and what was left out is filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trimtab.compare.declared import check_arms, check_bands
from trimtab.errors import UserError, nearest
from trimtab.sweep.job import checkpoint_hash
from trimtab.sweep.plan import Arm, Condition, Phase, Plan, overrides_of, with_split
from trimtab.sweep.space import Choice
from trimtab.system import System, Training, find_system

VALIDATION = "validation"
"""The split under which `trimtab.train` records what a System evaluates."""
MANIFEST = "manifest.json"
"""What a folder has that is a checkpoint."""
PREFIX = "checkpoint:"
"""Begins the name of a checkpoint by its content; 16 hexadecimal digits follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A plan that was proved.

    Attributes:
        plan: with the recorded names of its metrics, with metric and direction where they can be known, and with every
            checkpoint named by its content.
        paths: name of such a checkpoint -> its folder on this machine.
    """

    plan: Plan
    paths: Mapping[str, str] = field(default_factory=dict)


def settle(plan: Plan) -> Settled:
    """Prove a plan, and fill in what it leaves to the target.

    For a System, every arm of every phase is resolved to its configuration. A setting that an earlier phase will find
    is checked by its name alone.

    Raises:
        UserError: an unknown target, preset or setting, a value of the wrong type, arms that do not differ, bands that
            no run can be inside of, or a metric that is not known.
    """
    paths: dict[str, str] = {}
    plan = _by_content(plan, paths)
    if plan.is_script:
        _check_script(plan)
        plan = replace(plan, target=_from_here(plan.target))
        for phase in plan.phases:
            where = _where(phase)
            check_arms({arm.name: plan.settings_of(phase, arm, {}) for arm in phase.arms}, where=where)
            check_bands(phase.bands, where=where)
        return Settled(plan=plan, paths=paths)
    system = system_of(plan.target)
    plan = _recorded(plan)
    for phase in plan.phases:
        _check_phase(system, plan, phase, paths)
    return Settled(plan=_with_metric(system, plan, paths), paths=paths)


def system_of(target: str) -> System:
    """Return the System that a target names: an installed one, or "package.module:SYSTEM".

    Raises:
        UserError: there is none.
    """
    if ":" not in target:
        return find_system(target)
    from trimtab.config import load_object

    found = load_object(target)
    if not isinstance(found, System):
        raise UserError(f"{target!r} is a {type(found).__name__}; expected a System")
    return found


def content_name(folder: Path | str) -> str:
    """Return the name of a checkpoint by its weights, so that the same ones saved again have the same name.

    Raises:
        UserError: it cannot be read, or holds no model.
    """
    try:
        return PREFIX + checkpoint_hash(Path(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"checkpoint {folder}: {MANIFEST} names no weights of a model ({type(error).__name__}: {error}); "
            "expected a folder written by trimtab.checkpoint.save"
        ) from None


def _by_content(plan: Plan, paths: dict[str, str]) -> Plan:
    """Return the plan with every setting that is the folder of a checkpoint replaced by the name of its content."""

    def named(settings: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for key, value in settings.items():
            found[key] = value
            if isinstance(value, str) and value and (Path(value).expanduser() / MANIFEST).is_file():
                folder = Path(value).expanduser().resolve()
                found[key] = content_name(folder)
                paths[found[key]] = str(folder)
        return found

    phases = tuple(
        replace(
            phase,
            base=named(phase.base),
            arms=tuple(replace(arm, settings=named(arm.settings)) for arm in phase.arms),
        )
        for phase in plan.phases
    )
    return replace(plan, defaults=named(plan.defaults), phases=phases)


def _recorded(plan: Plan) -> Plan:
    """Return the plan with the names under which a System's metrics are recorded."""
    phases = tuple(
        replace(
            phase,
            bands={with_split(metric, VALIDATION): band for metric, band in phase.bands.items()},
            guard=_condition(phase.guard),
        )
        for phase in plan.phases
    )
    return replace(plan, metric=with_split(plan.metric, VALIDATION), guard=_condition(plan.guard) or "", phases=phases)


def _condition(text: str | None) -> str | None:
    return str(Condition.parse(text, split=VALIDATION)) if text else text


def _from_here(script: str) -> str:
    """Return a script's path as it is from the working directory, if it is below: no path of a machine is kept."""
    path, here = Path(script).absolute(), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else script


def _check_script(plan: Plan) -> None:
    if not Path(plan.target).is_file():
        folder = Path(plan.target).parent
        beside = [str(path) for path in folder.glob("*.py")] if folder.is_dir() else []
        raise UserError(f"sweep: there is no script {plan.target!r}.{nearest(plan.target, beside)}")
    if plan.metric and not plan.better:
        raise UserError(
            f"sweep: a script does not say beforehand which direction of {plan.metric!r} is good; give --better "
            "higher or lower"
        )
    for phase in plan.phases:
        if plan.preset or phase.preset:
            raise UserError("sweep: a script has no presets; give its settings as key=value")
        if not plan.better and (phase.take or phase.search is not None):
            raise UserError(
                f"{_where(phase)}: what is best must be known before the first trial; give metric and better "
                "(--metric validation/loss --better lower)"
            )


def _check_phase(system: System, plan: Plan, phase: Phase, paths: Mapping[str, str]) -> None:
    where = _where(phase)
    arms = phase.arms or tuple(_corners(phase))
    resolved: dict[str, Mapping[str, Any]] = {}
    for arm in arms:
        resolved[arm.name] = _resolved(system, plan, phase, arm, paths, where)
    check_arms(resolved if phase.arms else {}, where=where)
    check_bands(phase.bands, where=where)
    config = next(iter(resolved.values()))
    for key in phase.use:
        if not _has(config, key):
            raise UserError(f"{where}: use: there is no setting {key!r}.{nearest(key, config)}")


def _corners(phase: Phase) -> Iterator[Arm]:
    """Yield arms that have each end of each range, and each choice, of a search: what one refuses, the search meets."""
    assert phase.search is not None  # a phase without arms has one
    values = {
        key: list(space.values) if isinstance(space, Choice) else [space.low, space.high]
        for key, space in phase.search.space.items()
    }
    for place in range(max(len(its) for its in values.values())):
        settings = {key: its[min(place, len(its) - 1)] for key, its in values.items()}
        yield Arm(name=f"end {place} of the ranges", settings=settings)


def _resolved(
    system: System, plan: Plan, phase: Phase, arm: Arm, paths: Mapping[str, str], where: str
) -> dict[str, Any]:
    from trimtab import config

    try:
        return config.as_dict(_config(system, plan, phase, arm, paths))
    except UserError as error:
        raise UserError(f"{where}, arm {arm.name!r}: {error}") from None


def _config(system: System, plan: Plan, phase: Phase, arm: Arm, paths: Mapping[str, str]) -> Any:
    from trimtab.train import resolve

    settings = {
        key: paths.get(value, value) if isinstance(value, str) else value
        for key, value in plan.settings_of(phase, arm, {}).items()
    }
    preset = plan.preset if phase.preset is None else phase.preset
    return resolve(system, preset=preset or None, overrides=overrides_of(settings))


def _with_metric(system: System, plan: Plan, paths: Mapping[str, str]) -> Plan:
    """Return the plan with the metric, and its direction, that the System's own training declares."""
    if plan.metric and plan.better:
        return plan
    phase = next((one for one in plan.phases if not plan.needs(one)), plan.phases[0])
    arm = next(iter(phase.arms), None) or next(_corners(phase))
    better = _built(system, _config(system, plan, phase, arm, paths), plan.seeds_of(phase, arm)[0]).better
    known = {f"{VALIDATION}/{name}": direction for name, direction in better.items()}
    if not plan.metric:
        if not known:
            raise UserError(f"system {system.name!r} declares no metric with a direction; give --metric and --better")
        plan = replace(plan, metric=next(iter(known)))
    if plan.metric not in known and not plan.better:
        raise UserError(
            f"system {system.name!r} declares no direction for {plan.metric!r}.{nearest(plan.metric, known)} "
            f"Declared: {', '.join(known) or 'none'}; give --better higher or lower"
        )
    return replace(plan, better=plan.better or known[plan.metric])


def _built(system: System, config: Any, seed: int) -> Training:
    """Return the training of a configuration, and leave the process's random numbers as they were."""
    from trimtab.resume import own_random_numbers

    with own_random_numbers(seed):
        return system.build(config, seed)


def _has(config: Mapping[str, Any], key: str) -> bool:
    first, _, rest = key.partition(".")
    if first not in config:
        return False
    inside = config[first]
    return not rest or (isinstance(inside, Mapping) and _has(inside, rest))


def _where(phase: Phase) -> str:
    return f"phase {phase.name!r}" if phase.name else "sweep"
