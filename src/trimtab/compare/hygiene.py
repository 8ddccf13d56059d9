"""Whether a sweep ran as planned: arms that differ, runs that ended, numbers that are numbers, one version of the code.

Rules of the same form as in `remarks.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

from trimtab.compare.declared import canonical, check_bands
from trimtab.compare.evidence import Evidence
from trimtab.compare.summary import Remark
from trimtab.compare.words import listed, number
from trimtab.errors import UserError
from trimtab.trial import COMPLETE, Point, TrialResult


def arms_do_not_differ(evidence: Evidence) -> list[Remark]:
    """Two arms of a phase resolve to the same configuration, though they are called differently.

    A false alarm: none; their runs are seeds of one arm.
    """
    found = []
    for phase in evidence.phases:
        groups: dict[tuple[str, ...], list[str]] = {}
        planned = evidence.planned(phase.name)
        for arm in phase.arms:
            hashes = {result.config_hash for result in planned[arm.name]}
            key = tuple(sorted(hashes)) if hashes and "" not in hashes else ("settings", canonical(arm.settings))
            groups.setdefault(key, []).append(arm.name)
        found += [
            Remark(
                code="arms-do-not-differ",
                phase=phase.name,
                subject=listed(names),
                severity="error",
                summary=f"{listed(names)} have the same configuration; their runs are seeds of one arm",
                evidence={"arms": names},
            )
            for names in groups.values()
            if len(names) > 1
        ]
    return found


def bands_not_possible_together(evidence: Evidence) -> list[Remark]:
    """Bands were declared that no run can be inside of at once.

    A false alarm: none.
    """
    found = []
    for name, facts in evidence.facts.items():
        try:
            check_bands(facts.bands, where=f"phase {name!r}" if name else "the sweep")
        except UserError as error:
            found.append(
                Remark(
                    code="bands-not-possible-together",
                    phase=name,
                    subject=listed(facts.bands),
                    severity="error",
                    summary=str(error),
                    evidence={metric: list(band) for metric, band in facts.bands.items()},
                )
            )
    return found


def nothing_was_checked(evidence: Evidence) -> list[Remark]:
    """Every trial ended and none has a result, or a band was declared and no run recorded its metric.

    A check that ran zero times has not passed.

    A false alarm: none.
    """
    found = []
    waiting = any(result.status in ("waiting", "running") for result in evidence.results)
    if evidence.results and not waiting and not any(result.complete for result in evidence.results):
        found.append(
            Remark(
                code="nothing-was-checked",
                subject="all trials",
                severity="error",
                summary=f"none of {len(evidence.results)} trials has a result"
                + (f" of {evidence.metric}" if evidence.metric else ""),
                evidence={"trials": len(evidence.results)},
            )
        )
    for phase in evidence.phases:
        checked: dict[str, int] = {}
        for arm in phase.arms:
            for check in arm.checks:
                checked[check.metric] = checked.get(check.metric, 0) + check.checked
        complete = len(evidence.of_phase(phase.name))
        found += [
            Remark(
                code="nothing-was-checked",
                phase=phase.name,
                subject=metric,
                severity="error",
                summary=f"a band of {metric} was declared, but none of {complete} complete runs recorded it there",
                evidence={"metric": metric, "complete": complete},
            )
            for metric, count in checked.items()
            if count == 0 and not (waiting and complete == 0)
        ]
    return found


def identical_results(evidence: Evidence) -> list[Remark]:
    """Two runs have the same numbers although they should not: different seeds with one trajectory, or the reverse.

    Seeds that train the very same way are one seed, and their spread is no spread. Different trainings whose every
    evaluation is equal, in all recorded metrics, were evaluated on the same weights, or stored twice.

    A false alarm: a training without any chance in it; a metric that stands at one value or knows few values, such as
    an accuracy of 32 samples, which does not count: half of its values are then those of other runs as well.
    """
    found = []
    for phase in evidence.phases:
        by_arm = evidence.by_arm(phase.name)
        seeds = {
            arm: [
                (one.trial.seed, other.trial.seed)
                for one, other in combinations(its.values(), 2)
                if evidence.trajectories.same(one, other)
            ]
            for arm, its in by_arm.items()
        }
        for arm, pairs in seeds.items():
            if pairs:
                alike = sorted({seed for pair in pairs for seed in pair})
                found.append(
                    Remark(
                        code="identical-results",
                        phase=phase.name,
                        subject=arm,
                        severity="error",
                        summary=f"{arm}: seeds {listed(map(str, alike))} took the very same training steps; "
                        f"the seed has no effect, and n is smaller than it seems",
                        evidence={"arm": arm, "seeds": alike},
                    )
                )
        groups: dict[tuple[Point, ...], list[TrialResult]] = {}
        for result in (result for its in by_arm.values() for result in its.values()):
            groups.setdefault(result.points, []).append(result)
        alike_runs = [
            (one, other)
            for runs in groups.values()
            for one, other in combinations(runs, 2)
            if _trained_differently(one, other, evidence) and not _is_coarse(one, groups)
        ]
        if alike_runs:
            one, other = alike_runs[0]
            found.append(
                Remark(
                    code="identical-results",
                    phase=phase.name,
                    subject=f"{one.trial.arm}, {other.trial.arm}",
                    severity="error",
                    summary=f"{len(alike_runs)} pairs of runs have the same metric at every evaluation though they "
                    f"trained differently, such as {_name(one)} and {_name(other)}; the same weights were evaluated",
                    evidence={"pairs": [(_name(a), _name(b)) for a, b in alike_runs]},
                )
            )
    return found


def _name(result: TrialResult) -> str:
    return f"{result.trial.arm} seed {result.trial.seed}"


def _trained_differently(one: TrialResult, other: TrialResult, evidence: Evidence) -> bool:
    """Say whether two runs with equal evaluations, of a metric that moves, are two trainings."""
    after = [value for step, value in one.points if step > 0]
    return (
        len(set(after)) > 1
        and repr(sorted(one.others.items())) == repr(sorted(other.others.items()))
        and evidence.trajectories.same(one, other) is False
        and not _one_continues(one, other, evidence)
    )


def _is_coarse(result: TrialResult, groups: Mapping[tuple[Point, ...], object]) -> bool:
    """Say whether half of the values after the start are those of runs with other evaluations as well."""
    values = {value for step, value in result.points if step > 0}
    elsewhere = {value for points in groups if points != result.points for step, value in points if step > 0}
    return 2 * len(values & elsewhere) >= len(values)


def _one_continues(one: TrialResult, other: TrialResult, evidence: Evidence) -> bool:
    """Say whether they are one training for as long as both were evaluated."""
    last = min(one.points[-1][0], other.points[-1][0])
    return evidence.trajectories.same_weights_at(one, other, last) is True


def from_several_versions(evidence: Evidence) -> list[Remark]:
    """Runs of one sweep were made by different versions of the code.

    A false alarm: a commit that changed nothing that is trained.
    """
    versions: dict[str, int] = {}
    for result in evidence.results:
        if result.code:
            versions[result.code] = versions.get(result.code, 0) + 1
    if len(versions) < 2:
        return []
    words = listed(f"{code[:12]}{'+' if code.endswith('+') else ''} ({count} runs)" for code, count in versions.items())
    return [
        Remark(
            code="from-several-versions",
            subject="code",
            severity="warning",
            summary=f"runs of {len(versions)} versions of the code are compared: {words}",
            evidence=dict(sorted(versions.items())),
        )
    ]


def trials_failed(evidence: Evidence) -> list[Remark]:
    """Trials raised or were killed, or ended without one evaluation; statistics are of the others alone.

    A false alarm: none; an arm whose failed runs are left out looks better than it is.
    """
    found = []
    for phase in evidence.phases:
        bad = [
            result
            for result in evidence.results
            if result.trial.phase == phase.name
            and (result.status == "failed" or (result.status in COMPLETE and not result.points))
        ]
        if bad:
            arms: dict[str, int] = {}
            for result in bad:
                arms[result.trial.arm] = arms.get(result.trial.arm, 0) + 1
            why = next((result.error for result in bad if result.error), "")
            found.append(
                Remark(
                    code="trials-failed",
                    phase=phase.name,
                    subject=listed(arms),
                    severity="error",
                    summary=f"{len(bad)} of {sum(phase.counts.values())} trials have no result: "
                    + listed(f"{count} of {arm}" for arm, count in arms.items())
                    + (f"; the first: {why}" if why else ""),
                    evidence={"arms": arms, "seeds": sorted({result.trial.seed for result in bad})},
                )
            )
    return found


def metric_not_finite(evidence: Evidence) -> list[Remark]:
    """The metric was NaN or infinite at some evaluations; an arm whose score is none lost those runs.

    A false alarm: a metric that is not defined before the first update.
    """
    found = []
    for phase in evidence.phases:
        runs = [
            result
            for result in evidence.of_phase(phase.name)
            if any(not math.isfinite(value) for step, value in result.points if step > 0)
        ]
        lost = sum(arm.not_finite for arm in phase.arms)
        if runs or lost:
            names = dict.fromkeys(result.trial.arm for result in runs)
            found.append(
                Remark(
                    code="metric-not-finite",
                    phase=phase.name,
                    subject=listed(names),
                    severity="error" if lost else "warning",
                    summary=f"{evidence.metric} is not a number in {len(runs)} runs ({listed(names)}); "
                    f"{lost} of them have no score and count as collapsed",
                    evidence={"runs": [_name(result) for result in runs], "without_score": lost},
                )
            )
    return found


def unequal_seeds(evidence: Evidence) -> list[Remark]:
    """Arms of one phase were planned with different seeds; only those that both have make pairs.

    A false alarm: a deliberate extra run; its arm is then more certain than the others.
    """
    found = []
    for phase in evidence.phases:
        seeds: dict[str, tuple[int, ...]] = {}
        planned = evidence.planned(phase.name)
        for arm in phase.arms:
            if arm.counts.get("pruned"):
                continue  # a search gave it up; its other seeds never began
            seeds[arm.name] = tuple(sorted(result.trial.seed for result in planned[arm.name]))
        if len(set(seeds.values())) > 1:
            common = set.intersection(*map(set, seeds.values()))
            found.append(
                Remark(
                    code="unequal-seeds",
                    phase=phase.name,
                    subject=listed(seeds),
                    severity="warning",
                    summary="arms have different seeds: "
                    + listed(f"{arm} has {len(its)}" for arm, its in seeds.items())
                    + f"; {len(common)} are common to all",
                    evidence={arm: list(its) for arm, its in seeds.items()},
                )
            )
    return found


def best_not_repeatable(evidence: Evidence) -> list[Remark]:
    """The best weights of an arm gave another metric when they were measured anew.

    More than four times the evaluation noise, or more than rounding where there is none: the checkpoint does not hold
    the weights that were evaluated, or the evaluation depends on what came before it.

    A false alarm: an evaluation that draws random numbers and was measured anew only once.
    """
    found = []
    for phase in evidence.phases:
        wrong = [arm for arm in phase.arms if arm.best_run is not None and arm.best_run.verified is False]
        if wrong:
            words = listed(
                f"{arm.name} {number(arm.best_run.best)}, now {listed(map(number, arm.best_run.again), shown=3)}"
                for arm in wrong
                if arm.best_run is not None
            )
            found.append(
                Remark(
                    code="best-not-repeatable",
                    phase=phase.name,
                    subject=listed(arm.name for arm in wrong),
                    severity="warning",
                    summary=f"the best checkpoint of {len(wrong)} of {len(phase.arms)} arms does not give its metric "
                    f"again: {words}",
                    evidence={arm.name: list(arm.best_run.again) for arm in wrong if arm.best_run is not None},
                )
            )
    return found


RULES = (
    arms_do_not_differ,
    bands_not_possible_together,
    nothing_was_checked,
    identical_results,
    from_several_versions,
    trials_failed,
    metric_not_finite,
    unequal_seeds,
    best_not_repeatable,
)
