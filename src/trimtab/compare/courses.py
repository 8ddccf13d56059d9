"""How the runs of a sweep begin and end: starts that decide, stops that come too early, parts that never trained.

Rules of the same form as in `remarks.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trimtab.compare.evidence import Evidence, margin_of, spread_of_starts
from trimtab.compare.summary import PhaseSummary, Remark
from trimtab.compare.words import interval, listed, middle, number
from trimtab.statistics import correlation, mean
from trimtab.trial import TrialResult

SEEDS_FOR_A_CORRELATION = 6
"""With fewer seeds the 99 % interval of any correlation up to 0.9 holds 0."""
DECIDED = 0.8
"""A correlation of start and result at which the start decides the result (`ternary.md` 7, "InitGate")."""
SURE = 0.99
"""Level of the interval that such a correlation must keep away from 0: a report looks at many phases."""
STARTS_APART = 0.05
"""Starts from one checkpoint that scatter by more than this part of the metric itself are not the same start."""
OFTEN = 0.5
"""A rank correlation of bad starts with late peaks from here on says that they belong together."""
FROZEN_CODES = ("random-and-frozen",)
"""Findings of a part that was never trained and never loaded; every error whose code begins with "frozen" as well."""


def start_not_controlled(evidence: Evidence) -> list[Remark]:
    """The metric before training decides the best one, or runs that load one checkpoint start at different places.

    Either way the result tells where a run began and not what its settings do; look at the loading of weights first.
    Seeds count once, however many arms share them. Needs the metric before the first update.

    A false alarm: a new head on loaded weights does start at different places; then the start is the head's. A strong
    correlation of few seeds by chance: so there must be six, and a 99 % interval must keep away from 0.
    """
    found = []
    for phase in evidence.phases:
        by_arm = evidence.by_arm(phase.name)
        by_seed: dict[int, list[TrialResult]] = {}
        for its in by_arm.values():
            for seed, result in its.items():
                if math.isfinite(result.start) and math.isfinite(result.best):
                    by_seed.setdefault(seed, []).append(result)
        starts = [mean([result.start for result in by_seed[seed]]) for seed in sorted(by_seed)]
        bests = [mean([result.best for result in by_seed[seed]]) for seed in sorted(by_seed)]
        r = correlation(starts, bests, level=SURE)
        if r.n >= SEEDS_FOR_A_CORRELATION and abs(r.r) >= DECIDED and r.interval.known and not r.interval.holds(0.0):
            found.append(
                Remark(
                    code="start-not-controlled",
                    phase=phase.name,
                    subject="start and best",
                    severity="warning",
                    summary=f"the metric before training decides the best one: r = {r.r:.2f} (99 % interval "
                    f"{interval(r.interval)}, {r.n} seeds); check the loading of weights and the first loss",
                    evidence={"r": r.r, "low": r.interval.low, "high": r.interval.high, "n": r.n},
                )
            )
        for arm, its in by_arm.items():
            found += _starts_apart(phase, arm, [its[seed] for seed in sorted(its)], evidence.noise)
    return found


def _starts_apart(phase: PhaseSummary, arm: str, results: Sequence[TrialResult], noise: float) -> list[Remark]:
    loaded = {
        key: value
        for key, value in phase.arm(arm).settings.items()
        if isinstance(value, str) and value and ("checkpoint" in key or value.startswith("checkpoint:"))
    }
    starts = [result.start for result in results if math.isfinite(result.start)]
    spread = spread_of_starts(results)
    if not loaded or len(starts) < 3:
        return []
    size = max(abs(middle(starts)), *(abs(result.best) for result in results if math.isfinite(result.best)))
    if not spread > max(5.0 * noise if math.isfinite(noise) else 0.0, STARTS_APART * size):
        return []
    return [
        Remark(
            code="start-not-controlled",
            phase=phase.name,
            subject=arm,
            severity="warning",
            summary=f"{arm}: {len(starts)} runs load one checkpoint ({', '.join(loaded)}) and start between "
            f"{number(min(starts))} and {number(max(starts))} (sd {number(spread)}); some weights were not loaded"
            + ("" if math.isfinite(noise) else ", or the evaluation does not repeat"),
            evidence={"starts": starts, "sd": spread, "settings": dict(loaded), "noise": noise},
        )
    ]


def stopping_harms_late_starters(evidence: Evidence) -> list[Remark]:
    """Early stopping ended runs that would have become better, those with a bad start above all.

    Seen in two ways. On one seed an arm was stopped, and another arm that took the same steps until then went on and
    became better, by more than noise. Or in one phase runs with a worse start are at their best later (rank correlation
    with its interval above 0), and some of them later than where those with a good start were stopped.

    A false alarm: an arm that learns slowly by its settings; so in the first way both must be one training until the
    stop, and in the second only seeds are compared.
    """
    found = []
    for phase in evidence.phases:
        by_arm = evidence.by_arm(phase.name)
        harmed: dict[tuple[str, str], list[dict[str, Any]]] = {}
        cut = [arm for arm, its in by_arm.items() if any(result.status == "stopped" for result in its.values())]
        for stopped, longer in ((a, b) for a in cut for b in by_arm if a != b):
            for seed in sorted(set(by_arm[stopped]) & set(by_arm[longer])):
                one, other = by_arm[stopped][seed], by_arm[longer][seed]
                gain = _gain_after(one, other, evidence)
                if gain > 0.0:
                    harmed.setdefault((stopped, longer), []).append({"seed": seed, "stopped": one.steps, "gain": gain})
        found += [
            Remark(
                code="stopping-harms-late-starters",
                phase=phase.name,
                subject=stopped,
                severity="warning",
                summary=f"{stopped} was stopped after {listed(str(one['stopped']) for one in its)} updates; {longer}, "
                f"the same training until then, went on and became better by {number(max(one['gain'] for one in its))} "
                f"on {len(its)} of {len(set(by_arm[stopped]) & set(by_arm[longer]))} seeds",
                evidence={"arm": stopped, "longer": longer, "seeds": its},
            )
            for (stopped, longer), its in harmed.items()
        ]
        found += _late_ones(phase, evidence)
    return found


def _gain_after(stopped: TrialResult, longer: TrialResult, evidence: Evidence) -> float:
    """Return by how much a run became better after the point where its twin was stopped; 0 if not, or not known."""
    if stopped.status != "stopped" or not stopped.points or longer.steps <= stopped.steps:
        return 0.0
    end = stopped.points[-1][0]
    if evidence.trajectories.same_weights_at(stopped, longer, end) is False:
        return 0.0
    ours = dict(longer.points)
    if any(ours.get(step, value) != value for step, value in stopped.points):
        return 0.0
    later = [evidence.sign * value for step, value in longer.points if step > end and math.isfinite(value)]
    gain = max(later, default=-math.inf) - evidence.sign * stopped.best
    return gain if gain > margin_of(longer, evidence.noise) else 0.0


def _late_ones(phase: PhaseSummary, evidence: Evidence) -> list[Remark]:
    runs = [run for run in evidence.of_phase(phase.name) if math.isfinite(run.start) and math.isfinite(run.best)]
    by_seed: dict[int, list[TrialResult]] = {}
    for run in runs:
        by_seed.setdefault(run.trial.seed, []).append(run)
    usual = middle([-evidence.sign * run.start for run in runs])
    good = [run for run in runs if -evidence.sign * run.start <= usual]
    stops = _stops(good) or _stops(evidence.results)
    if not stops or len(by_seed) < SEEDS_FOR_A_CORRELATION:
        return []
    badness = [mean([-evidence.sign * run.start for run in by_seed[seed]]) for seed in sorted(by_seed)]
    peaks = [mean([run.best_step for run in by_seed[seed]]) for seed in sorted(by_seed)]
    r = correlation(badness, peaks, "spearman")
    end, kind = middle(stops), " with a good start" if _stops(good) else ""
    late = [run for run in runs if -evidence.sign * run.start > usual and _later_gain(run, end, evidence) > 0.0]
    if not late or not r.r >= OFTEN or not r.interval.low > 0.0:
        return []
    return [
        Remark(
            code="stopping-harms-late-starters",
            phase=phase.name,
            subject=listed(f"seed {run.trial.seed}" for run in late),
            severity="warning",
            summary=f"runs with a bad start peak late (rank correlation {r.r:.2f} {interval(r.interval)}, {r.n} seeds)"
            f": {len(late)} of {len(runs)} became better after update {number(end)}, where half of {len(stops)} "
            f"stopped runs{kind} had ended; the latest peaked at {max(run.best_step for run in late)}",
            evidence={
                "r": r.r,
                "low": r.interval.low,
                "stops": sorted(stops),
                "late": [(run.trial.arm, run.trial.seed, run.start, run.best_step) for run in late],
            },
        )
    ]


def _stops(runs: Sequence[TrialResult]) -> list[int]:
    """Return the updates after which runs were stopped."""
    return [run.steps for run in runs if run.complete and run.status == "stopped"]


def _later_gain(run: TrialResult, end: float, evidence: Evidence) -> float:
    """Return by how much a run became better after `end` updates; 0 where that is noise."""
    values = [(step, evidence.sign * value) for step, value in run.points if math.isfinite(value)]
    before = max((value for step, value in values if step <= end), default=-math.inf)
    gain = max((value for step, value in values if step > end), default=-math.inf) - before
    return gain if gain > margin_of(run, evidence.noise) else 0.0


def conclusion_from_a_frozen_part(evidence: Evidence) -> list[Remark]:
    """Runs of an arm were trained with a part that was random and frozen, so their result says nothing about the arm.

    Read from the findings of the runs.

    A false alarm: a fixed random projection that is meant; the finding itself can then be silenced with a reason.
    """
    found = []
    for phase in evidence.phases:
        arms: dict[str, list[int]] = {}
        codes: set[str] = set()
        for result in evidence.results:
            hit = {code for code, severity in result.findings if _is_frozen(code, severity)}
            if result.trial.phase == phase.name and hit:
                arms.setdefault(result.trial.arm, []).append(result.trial.seed)
                codes |= hit
        if arms:
            runs = sum(map(len, arms.values()))
            words = listed(f"{arm} (seeds {listed(map(str, sorted(seeds)))})" for arm, seeds in arms.items())
            found.append(
                Remark(
                    code="conclusion-from-a-frozen-part",
                    phase=phase.name,
                    subject=listed(arms),
                    severity="error",
                    summary=f"{runs} runs trained around a part that was random and frozen: {words}; "
                    f"what they show is no property of these arms ({', '.join(sorted(codes))})",
                    evidence={"arms": {arm: sorted(seeds) for arm, seeds in arms.items()}, "codes": sorted(codes)},
                )
            )
    return found


def _is_frozen(code: str, severity: str) -> bool:
    return code in FROZEN_CODES or (code.startswith("frozen") and severity in ("error", "fatal"))


RULES = (conclusion_from_a_frozen_part, start_not_controlled, stopping_harms_late_starters)
