"""The arms of a sweep side by side: what they reached, what can be told apart, and what the sweep itself got wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trimtab.compare.declared import differing
from trimtab.compare.evidence import (
    FARTHEST,
    Evidence,
    best_of,
    evaluation_noise,
    is_verified,
    pooled,
    score_of,
    sign_of,
)
from trimtab.compare.pairs import compare_pairs
from trimtab.compare.peak import peaks_of
from trimtab.compare.remarks import REMARKS
from trimtab.compare.summary import (
    WEIGHTS,
    ArmSummary,
    BandCheck,
    BestRun,
    PairSummary,
    PhaseFacts,
    PhaseSummary,
    Remark,
    SweepSummary,
    Totals,
)
from trimtab.compare.trajectories import LossesOf, Trajectories
from trimtab.compare.words import interval, listed, middle, number
from trimtab.errors import UserError
from trimtab.statistics import (
    Split,
    bca_interval,
    coverage_note,
    deviation,
    iqm,
    mean,
    smallest_detectable,
    split_collapsed,
    t_interval,
)
from trimtab.trial import ENDED, Better, Point, TrialResult


def summarize(
    results: Sequence[TrialResult],
    *,
    phases: Mapping[str, PhaseFacts] | None = None,
    baseline: str | None = None,
    metric: str = "",
    better: Better | Literal[""] = "",
    losses_of: LossesOf | None = None,
) -> SweepSummary:
    """Return all that can be said of a sweep.

    Failed, pruned and waiting trials are counted; none is left out silently. Phases, arms and seeds keep the order in
    which their first trial stands in `results`; no number depends on it.

    Args:
        results: of every planned trial, ended or not.
        phases: name -> what was declared of it; defaults where a phase is not named.
        baseline: the arm to compare with in every phase that has it and declares none of its own.
        metric, better: what is judged; read from the results where empty.
        losses_of: reads the training losses of a run, to find where two runs part; without it only whole runs are
            compared, by their hashes.

    Raises:
        UserError: a phase or a baseline that no trial has, a trial that stands twice, or runs judged by different
            metrics.
    """
    _check(results, phases or {}, baseline)
    results = [_tamed(result) for result in results]
    metric, better = _judged(results, metric, better)
    by_phase: dict[str, list[TrialResult]] = {}
    for result in results:
        by_phase.setdefault(result.trial.phase, []).append(result)
    facts = {name: _facts(name, (phases or {}).get(name), its, baseline) for name, its in by_phase.items()}
    trajectories = Trajectories(losses_of)
    noise = evaluation_noise(results)
    sets = [_arms_of(name, its, facts[name], better, noise) for name, its in by_phase.items()]
    everywhere = _widest(sets)
    summaries = tuple(
        _phase(one, by_phase[one.name], facts[one.name], better, trajectories, everywhere) for one in sets
    )
    evidence = Evidence(
        metric=metric,
        better=better,
        results=tuple(results),
        facts=facts,
        phases=summaries,
        noise=noise,
        trajectories=trajectories,
    )
    found: list[Remark] = [remark for rule in REMARKS for remark in rule(evidence)]
    return SweepSummary(
        metric=metric,
        better=better,
        phases=summaries,
        remarks=tuple(sorted(found, key=lambda remark: WEIGHTS.index(remark.severity))),
        peak=peaks_of(evidence),
        totals=_totals(results),
        evaluation_noise=noise,
    )


# -- what is given ------------------------------------------------------------------------------------------------


def _check(results: Sequence[TrialResult], phases: Mapping[str, PhaseFacts], baseline: str | None) -> None:
    twice = [key for key, count in Counter(result.trial.key for result in results).items() if count > 1]
    if twice:
        trial = next(result.trial for result in results if result.trial.key == twice[0])
        raise UserError(
            f"summarize: trial {twice[0]} (phase {trial.phase!r}, arm {trial.arm!r}, seed {trial.seed}) stands "
            f"{sum(result.trial.key == twice[0] for result in results)} times; give each trial once"
        )
    places = Counter((result.trial.phase, result.trial.arm, result.trial.seed) for result in results)
    (place, count), *_ = [*places.most_common(1), (("", "", 0), 0)]
    if count > 1:
        raise UserError(
            f"summarize: {count} trials are arm {place[1]!r}, seed {place[2]} of phase {place[0]!r}, with different "
            f"settings; give arms of different settings different names"
        )
    known = dict.fromkeys(result.trial.phase for result in results)
    for name in phases:
        if name not in known and results:
            raise UserError(f"summarize: no trial is of phase {name!r}; phases: {', '.join(map(repr, known))}")
    if baseline and results and all(result.trial.arm != baseline for result in results):
        arms = dict.fromkeys(result.trial.arm for result in results)
        raise UserError(f"summarize: no arm is called {baseline!r}; arms: {', '.join(map(repr, arms))}")


def _tamed(result: TrialResult) -> TrialResult:
    values = [value for _, value in result.points] + list(result.evaluations_again)
    values += [value for points in result.others.values() for _, value in points]
    if all(abs(value) <= FARTHEST or not math.isfinite(value) for value in values):
        return result
    return replace(
        result,
        points=_tame(result.points),
        others={name: _tame(points) for name, points in result.others.items()},
        evaluations_again=tuple(value for _, value in _tame([(0, again) for again in result.evaluations_again])),
    )


def _tame(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple((step, math.copysign(math.inf, value) if abs(value) > FARTHEST else value) for step, value in points)


def _judged(results: Sequence[TrialResult], metric: str, better: str) -> tuple[str, Better]:
    metrics = dict.fromkeys((result.metric, result.better) for result in results if result.metric)
    if len(metrics) > 1:
        raise UserError(
            f"summarize: runs are judged by different metrics: {', '.join(f'{name} ({way})' for name, way in metrics)}"
        )
    name, way = next(iter(metrics), ("", "higher"))
    if metric and name and metric != name:
        raise UserError(f"summarize: metric={metric!r}, but the runs are judged by {name!r}")
    return metric or name, "lower" if (better or way) == "lower" else "higher"


def _facts(name: str, declared: PhaseFacts | None, results: Sequence[TrialResult], baseline: str | None) -> PhaseFacts:
    facts = declared or PhaseFacts()
    arms = dict.fromkeys(result.trial.arm for result in results)
    if facts.baseline and facts.baseline not in arms:
        raise UserError(f"summarize: phase {name!r} has no arm {facts.baseline!r}; arms: {', '.join(map(repr, arms))}")
    return replace(facts, baseline=baseline) if not facts.baseline and baseline in arms else facts


# -- arms ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Arms:
    """The arms of one phase, before they are compared."""

    name: str
    arms: tuple[ArmSummary, ...]
    results: Mapping[str, Sequence[TrialResult]]


def _arms_of(name: str, results: Sequence[TrialResult], facts: PhaseFacts, better: Better, noise: float) -> _Arms:
    by_arm: dict[str, list[TrialResult]] = {}
    for result in results:
        by_arm.setdefault(result.trial.arm, []).append(result)
    arms = [_arm(arm, its, facts, better, noise) for arm, its in by_arm.items()]
    # Among equals the baseline stands first, so that the others need not be compared with a second arm like it.
    order = sorted((sign_of(better) * -arm.mean, arm.name != facts.baseline, arm.name) for arm in arms if arm.n)
    rank = {arm: place for place, (_, _, arm) in enumerate(order, start=1)}
    return _Arms(name, tuple(replace(arm, rank=rank.get(arm.name, 0)) for arm in arms), by_arm)


def _arm(name: str, results: Sequence[TrialResult], facts: PhaseFacts, better: Better, noise: float) -> ArmSummary:
    results = sorted(results, key=lambda result: result.trial.seed)
    complete = [result for result in results if result.complete]
    scored = [(result, score_of(result, facts.score)) for result in complete]
    scores = tuple((result.trial.seed, score) for result, score in scored if math.isfinite(score))
    values = [score for _, score in scores]
    counts = _counts(results)
    sd = deviation(values)
    start = mean(_finite(result.start for result in complete))
    split = _split(results, facts, better, start)
    checks = _checks(complete, facts)
    summary = ArmSummary(
        name=name,
        phase=results[0].trial.phase,
        settings=dict(results[0].trial.settings),
        counts=counts,
        not_finite=len(scored) - len(values),
        scores=scores,
        mean=mean(values),
        sd=sd,
        median=middle(values),
        low=min(values, default=math.nan),
        high=max(values, default=math.nan),
        iqm=iqm(values),
        interval=t_interval(values),
        bca=bca_interval(values),
        iqm_interval=bca_interval(values, "iqm"),
        start=start,
        best=mean(_finite(result.best for result in complete)),
        final=mean(_finite(result.final for result in complete)),
        degradation=mean(_finite(result.degradation for result in complete)),
        best_step=middle([result.best_step for result in complete if math.isfinite(result.best)]),
        split=split,
        median_of_successes=middle(_successes(results, split, facts)),
        checks=checks,
        rank=0,
        smallest_detectable=smallest_detectable(sd, len(values)),
        best_run=_best_run(complete, facts, better, noise),
        cpu_seconds=math.fsum(result.cpu_seconds for result in results),
        wall_seconds=math.fsum(result.wall_seconds for result in results),
        verdict="",
    )
    return replace(summary, verdict=_verdict(summary))


def _split(results: Sequence[TrialResult], facts: PhaseFacts, better: Better, start: float) -> Split | None:
    """Tell success from collapse among all that ended but what was pruned; a failed run is no success."""
    ended = [result for result in results if result.status in ENDED and result.status != "pruned"]
    if not ended:
        return None
    values = [score_of(result, facts.score) for result in ended]
    metric = next((result.metric for result in ended if result.metric), "")
    return split_collapsed(values, better, band=facts.bands.get(metric), start=start)


def _successes(results: Sequence[TrialResult], split: Split | None, facts: PhaseFacts) -> list[float]:
    ended = [result for result in results if result.status in ENDED and result.status != "pruned"]
    good = split.succeeded if split is not None else ()
    return [score_of(result, facts.score) for result, success in zip(ended, good, strict=True) if success]


def _checks(complete: Sequence[TrialResult], facts: PhaseFacts) -> tuple[BandCheck, ...]:
    checks = []
    for metric, (low, high) in facts.bands.items():
        values = [_at_score(result, metric, facts) for result in complete]
        known = [value for value in values if value is not None]
        inside = sum(low <= value <= high for value in known)
        checks.append(BandCheck(metric=metric, low=low, high=high, inside=inside, checked=len(known)))
    return tuple(checks)


def _at_score(result: TrialResult, metric: str, facts: PhaseFacts) -> float | None:
    """Return any metric at the evaluation that the score is from; None if it was not recorded there."""
    if metric == result.metric:
        return score_of(result, facts.score)
    points = dict(result.others.get(metric, ()))
    return points.get(result.best_step if facts.score == "best" else result.points[-1][0])


def _best_run(complete: Sequence[TrialResult], facts: PhaseFacts, better: Better, noise: float) -> BestRun | None:
    best = best_of(complete, facts.score, better)
    if best is None:
        return None
    return BestRun(
        key=best.trial.key,
        seed=best.trial.seed,
        run=best.run,
        checkpoint=best.checkpoint,
        checkpoint_hash=best.checkpoint_hash,
        best=best.best,
        best_step=best.best_step,
        final=best.final,
        again=best.evaluations_again,
        verified=is_verified(best, noise),
    )


def _verdict(arm: ArmSummary) -> str:
    said = []
    if arm.failed:
        said.append(f"{arm.failed} of {arm.trials} failed")
    if pruned := arm.counts.get("pruned", 0):
        said.append(f"{pruned} of {arm.trials} pruned")
    if unfinished := arm.counts.get("waiting", 0) + arm.counts.get("running", 0):
        said.append(f"{unfinished} of {arm.trials} not done")
    if arm.not_finite:
        said.append(f"{arm.not_finite} of {arm.trials} ended without a number")
    if arm.split is not None:
        n = len(arm.split.succeeded) - arm.failed
        collapsed = arm.split.collapsed - arm.failed - arm.not_finite
        if collapsed > 0:
            said.append(
                f"collapses in {collapsed} of {n} (success {1 - arm.split.collapsed / len(arm.split.succeeded):.2f} "
                f"{interval(arm.split.share)}, median of the successes {number(arm.median_of_successes)})"
            )
    said += [
        f"{check.metric} in [{check.low:g}, {check.high:g}] in {check.inside} of {check.checked}"
        for check in arm.checks
        if check.checked
    ]
    return "; ".join(said)


def _counts(results: Sequence[TrialResult]) -> dict[str, int]:
    return dict(Counter[str](result.status for result in results))


def _finite(values: Any) -> list[float]:
    return [value for value in values if math.isfinite(value)]


# -- phases -------------------------------------------------------------------------------------------------------


def _widest(sets: Sequence[_Arms]) -> tuple[float, str]:
    """Return the spread inside the arms of the phase that knows it best, for phases that have one seed an arm."""
    known = [(one, sum(max(0, arm.n - 1) for arm in one.arms)) for one in sets]
    best = max(known, key=lambda pair: (pair[1], pair[0].name), default=None)
    if best is None or best[1] == 0:
        return math.nan, ""
    return pooled([[score for _, score in arm.scores] for arm in best[0].arms]), best[0].name


def _phase(
    one: _Arms,
    results: Sequence[TrialResult],
    facts: PhaseFacts,
    better: Better,
    trajectories: Trajectories,
    everywhere: tuple[float, str],
) -> PhaseSummary:
    arms = one.arms
    ranking = tuple(arm.name for arm in sorted(arms, key=lambda arm: arm.rank) if arm.rank)
    baseline = facts.baseline or (ranking[0] if len(arms) > 1 and ranking else "")
    spread = pooled([[score for _, score in arm.scores] for arm in arms])
    pairs = compare_pairs(arms, one.results, facts, ranking, better, trajectories, spread, everywhere)
    keys = sorted({key for arm in arms for key in arm.settings})
    alike = {key for key in keys if not any(key in differing(arm.settings, arms[0].settings) for arm in arms[1:])}
    tied = tuple(
        other
        for pair in pairs
        for leader, other in ((pair.baseline, pair.arm), (pair.arm, pair.baseline))
        if ranking and leader == ranking[0] and other in ranking and not pair.better
    )
    behind = tuple(
        other
        for pair in pairs
        for leader, other, side in ((pair.baseline, pair.arm, "baseline"), (pair.arm, pair.baseline, "arm"))
        if ranking and leader == ranking[0] and other in tied and pair.ahead == side
    )
    return PhaseSummary(
        name=one.name,
        score=facts.score,
        baseline=baseline,
        varied=tuple(key for key in keys if key not in alike),
        constant={key: arms[0].settings[key] for key in keys if key in alike},
        arms=arms,
        pairs=pairs,
        ranking=ranking,
        tied=tuple(dict.fromkeys(tied)),
        behind=tuple(dict.fromkeys(behind)),
        spread=spread,
        coverage=coverage_note(min((arm.n for arm in arms if arm.n), default=0)),
        verdicts=_verdicts(arms, pairs, ranking, set(tied), set(behind)),
        counts=_counts(results),
        cpu_seconds=math.fsum(result.cpu_seconds for result in results),
        wall_seconds=math.fsum(result.wall_seconds for result in results),
    )


def _verdicts(
    arms: Sequence[ArmSummary], pairs: Sequence[PairSummary], ranking: Sequence[str], tied: set[str], behind: set[str]
) -> tuple[str, ...]:
    means = {arm.name: arm for arm in arms}
    said = []
    if len(ranking) > 1:
        text = listed((f"{name} {number(means[name].mean)} (n={means[name].n})" for name in ranking), shown=6)
        firm = len(ranking) - 1 - len(tied)
        found = [f"told from {firm} of the others"] if firm else []
        found += [f"ahead of {len(behind)} by the interval alone"] if behind else []
        said.append(
            f"ranking: {text}; "
            + (f"the first is {', '.join(found)}" if found else "no arm can be told from the first")
        )
    said += [f"{arm.name}: {arm.verdict}" for arm in arms if arm.verdict]
    said += [f"{pair.arm} against {pair.baseline}: {pair.verdict}" for pair in pairs]
    return tuple(said)


def _totals(results: Sequence[TrialResult]) -> Totals:
    return Totals(
        trials=len(results),
        counts=_counts(results),
        cpu_seconds=math.fsum(result.cpu_seconds for result in results),
        wall_seconds=math.fsum(result.wall_seconds for result in results),
        train_cpu_seconds=math.fsum(result.train_cpu_seconds for result in results),
        seeds=tuple(sorted({result.trial.seed for result in results})),
        codes=tuple(sorted({result.code for result in results if result.code})),
    )
