"""What a sweep got wrong by itself, read from its runs: one small pure function for each fault.

Eight of them are the faults of a published sweep of 55 runs, whose every conclusion fell to one of them: five about
comparing arms are here, three about how runs begin and end in `courses.py`. Those about plans and failures are in
`hygiene.py`. A rule looks at Evidence and returns remarks; its name is their code. The first
sentence of its docstring says what it sees, the last paragraph what would be a false alarm.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from trimtab.compare import courses, hygiene
from trimtab.compare.declared import differing
from trimtab.compare.evidence import Evidence, margin_of, optimism
from trimtab.compare.summary import PairSummary, PhaseSummary, Remark
from trimtab.compare.words import listed, number
from trimtab.statistics import ALPHA, mean
from trimtab.trial import TrialResult

Rule = Callable[[Evidence], Sequence[Remark]]


def setting_without_effect(evidence: Evidence) -> list[Remark]:
    """Two arms with different settings took the very same training steps on the same seed.

    The hashes of all training losses are equal, so the setting never entered the training, or never came to act within
    it. Every difference between such arms is noise of something else.

    A false alarm: a setting that acts on the evaluation alone; then the metrics differ and the remark is only a fact. A
    patience that was never used up is none: the arms are one arm.
    """
    found = []
    for phase in evidence.phases:
        by_arm = evidence.by_arm(phase.name)
        same: dict[tuple[str, ...], list[tuple[str, str, int, int, bool]]] = {}
        hashes = {arm: {result.losses_hash for result in its.values()} - {""} for arm, its in by_arm.items()}
        for one, other in combinations(by_arm, 2):
            if not hashes[one] & hashes[other]:
                continue
            shared = sorted(set(by_arm[one]) & set(by_arm[other]))
            pairs = [(by_arm[one][seed], by_arm[other][seed]) for seed in shared]
            known = [(a, b) for a, b in pairs if evidence.trajectories.same(a, b) is not None]
            equal = [(a, b) for a, b in known if evidence.trajectories.same(a, b)]
            keys = differing(phase.arm(one).settings, phase.arm(other).settings)
            if equal and keys:
                measured = any(_metrics_differ(a, b, evidence.noise) for a, b in equal)
                same.setdefault(keys, []).append((one, other, len(equal), len(known), measured))
        found += [_without_effect(phase, keys, its) for keys, its in same.items()]
    return found


def _without_effect(
    phase: PhaseSummary, keys: tuple[str, ...], its: Sequence[tuple[str, str, int, int, bool]]
) -> Remark:
    whole = [one for one in its if one[2] == one[3] and not one[4]]
    shown = whole or its
    arms = list(dict.fromkeys(name for one, other, *_ in shown for name in (one, other)))
    equal, known = min(one[2] for one in shown), max(one[3] for one in shown)
    values = {key: list(dict.fromkeys(repr(phase.arm(arm).settings.get(key)) for arm in arms)) for key in keys}
    what = " and ".join(f"{key} ({', '.join(values[key])})" for key in keys)
    only = (
        " but the metrics differ: it acts on the evaluation alone" if not whole and all(one[4] for one in its) else ""
    )
    return Remark(
        code="setting-without-effect",
        phase=phase.name,
        subject=", ".join(keys),
        severity="error" if whole else "info",
        summary=f"{what} had no effect on the training: same trajectories on {equal} of {known} seeds{only} "
        f"(arms {listed(arms)})",
        evidence={"settings": list(keys), "values": values, "arms": arms, "identical": equal, "compared": known},
    )


def _metrics_differ(a: TrialResult, b: TrialResult, noise: float) -> bool:
    """Say whether two runs of one trajectory were evaluated differently, beyond evaluation noise."""
    mine, its = dict(a.points), dict(b.points)
    least = margin_of(a, noise) if math.isfinite(noise) and noise > 0 else 0.0
    return any(
        abs(mine[step] - its[step]) > least
        for step in set(mine) & set(its)
        if math.isfinite(mine[step]) and math.isfinite(its[step])
    )


def identical_until_the_peak(evidence: Evidence) -> list[Remark]:
    """The best evaluation of the better arm lies before the first update at which the arms differ.

    Up to there both are one training, so that what was chosen as the winner owes nothing to its settings. Looks at the
    arms against the baseline and against the best one, on equal seeds, where a run stands for its best evaluation; an
    arm counts when it is so on at least half of the seeds.

    A false alarm: none where losses are known. Without them equal evaluations stand in, of which a metric that does not
    move has many; so it must have moved.
    """
    found = []
    for phase in evidence.best_scored():
        by_arm = evidence.by_arm(phase.name)
        held: list[dict[str, Any]] = []
        for pair in phase.pairs:
            ahead, behind = (
                (pair.arm, pair.baseline) if evidence.sign * pair.difference > 0 else (pair.baseline, pair.arm)
            )
            mine, its = by_arm.get(ahead, {}), by_arm.get(behind, {})
            shared = [
                seed for seed in sorted(set(mine) & set(its)) if not evidence.trajectories.same(mine[seed], its[seed])
            ]
            early = [seed for seed in shared if _one_training(mine[seed], its[seed], evidence)]
            if early and 2 * len(early) >= len(shared):
                steps = [mine[seed].best_step for seed in early]
                parts = [pair.parts_at[seed] for seed in early if seed in pair.parts_at]
                held.append({"better": ahead, "other": behind, "seeds": early, "best_steps": steps, "parts_at": parts})
        if held:
            found.append(_identical_until(phase, held))
    return found


def _identical_until(phase: PhaseSummary, held: Sequence[Mapping[str, Any]]) -> Remark:
    def words(one: Mapping[str, Any]) -> str:
        parted = f", they part at update {min(one['parts_at'])}" if one["parts_at"] else ""
        steps = max(one["best_steps"])
        best = f"{one['better']} was best " + (f"after {steps} updates" if steps else "before it was trained")
        return f"{best} and is the same as {one['other']} until then{parted}"

    return Remark(
        code="identical-until-the-peak",
        phase=phase.name,
        subject=listed(dict.fromkeys(name for one in held for name in (one["better"], one["other"]))),
        severity="warning",
        summary=f"{len(held)} of {len(phase.pairs)} comparisons rest on a best that lies before the arms differ: "
        + listed((words(one) for one in held), shown=2, between="; "),
        evidence={"pairs": [dict(one) for one in held]},
    )


def _one_training(mine: TrialResult, its: TrialResult, evidence: Evidence) -> bool:
    """Say whether the weights of the best evaluation are those that the other run had then as well."""
    known = evidence.trajectories.same_weights_at(mine, its, mine.best_step)
    if known is not None:
        return known
    other = dict(its.points)
    until = [(step, value) for step, value in mine.points if step <= mine.best_step]
    moved = len({value for _, value in until}) > 1
    return moved and mine.best_step in other and all(other.get(step, value) == value for step, value in until)


def too_few_seeds(evidence: Evidence) -> list[Remark]:
    """The gap between the best arm and the next is smaller than what so many seeds can show, or there is one seed.

    Says the smallest detectable difference and how many seeds the observed one would need. Below six pairs it is a
    warning, for no sign-flip test can then reach p < 0.05; with more it is a fact: the arms may just be alike. A gap
    that is plain is a fact as well where so few pairs, corrected for all comparisons, could not reach it.

    A false alarm: a single run whose repeatability is known from elsewhere.
    """
    found = []
    for phase in evidence.phases:
        pair = _first_two(phase)
        if pair is None or (pair.compared and pair.identical == pair.compared):
            continue
        gap = abs(pair.difference)
        below = gap < pair.smallest_detectable
        blind = pair.n < 2 or pair.lowest_p >= ALPHA
        if not blind and not below:
            continue
        needed = pair.seeds_to_tell
        spread = f", by the spread of {pair.spread_from}" if pair.spread_from not in ("", "pairs", "both arms") else ""
        ask = f"; a difference like it needs about {needed} seeds an arm{spread}" if needed else ""
        if pair.n < 2:
            what = "with one seed an arm no difference can be told from chance"
            lent = next((one for one in evidence.phases if one.name == pair.spread_from), None)
            if lent is not None and math.isfinite(lent.spread):
                what += (
                    f", and runs of {lent.name or 'one arm'} spread by a standard deviation of {number(lent.spread)}"
                )
        elif below:
            what = f"the smallest detectable difference with n={pair.n} is {number(pair.smallest_detectable)}"
        else:
            corrected = f", corrected for {pair.among} comparisons," if pair.among > 1 else ""
            what = f"{pair.n} {'pairs' if pair.paired else 'runs'}{corrected} cannot give a p below {pair.lowest_p:.2g}"
            ask = f"; {needed} seeds an arm could" if needed else ""
        found.append(
            Remark(
                code="too-few-seeds",
                phase=phase.name,
                subject=f"{pair.arm} against {pair.baseline}",
                severity="warning" if below and (pair.n < 2 or pair.test.smallest >= ALPHA) else "info",
                summary=f"{pair.arm} and {pair.baseline} are {number(gap)} apart; {what}{ask}",
                evidence={
                    "n": pair.n,
                    "difference": pair.difference,
                    "smallest_detectable": pair.smallest_detectable,
                    "seeds_needed": needed,
                    "smallest_p": pair.lowest_p,
                },
            )
        )
    return found


def _first_two(phase: PhaseSummary) -> PairSummary | None:
    """Return the comparison of the two best arms."""
    two = set(phase.ranking[:2])
    return next((pair for pair in phase.pairs if {pair.arm, pair.baseline} == two), None)


def best_of_noisy_evaluations(evidence: Evidence) -> list[Remark]:
    """Arms are compared by their best evaluation, but had a different number of tries, or the noise is like the gap.

    The best of many noisy evaluations is better than the weights are, the more so the more there were. Looks at the
    distance between evaluations in each arm, and at what the best weights gave when they were measured anew. Phases
    that differ in this from each other are only a fact where nobody measured that evaluations have noise.

    A false alarm: evaluations without noise of a training that only gets better; then the grids still differ, and the
    finer one finds its best more exactly.
    """
    found = []
    grids: dict[str, dict[str, int]] = {}
    for phase in evidence.best_scored():
        results = evidence.of_phase(phase.name)
        grid = {arm: _spacing(list(its.values())) for arm, its in evidence.by_arm(phase.name).items()}
        grids[phase.name] = {arm: spacing for arm, spacing in grid.items() if spacing}
        if len(set(grids[phase.name].values())) > 1:
            found.append(
                Remark(
                    code="best-of-noisy-evaluations",
                    phase=phase.name,
                    subject="evaluation grid",
                    severity="warning",
                    summary="arms are compared by their best evaluation, but were evaluated every "
                    + listed(f"{spacing} updates ({arm})" for arm, spacing in grids[phase.name].items()),
                    evidence={"spacing": grids[phase.name]},
                )
            )
        found += _noise_like_the_gap(phase, results, evidence)
    every = {name: sorted(set(its.values())) for name, its in grids.items() if its}
    if len({tuple(spacings) for spacings in every.values()}) > 1:
        found.append(
            Remark(
                code="best-of-noisy-evaluations",
                subject="evaluation grids of the phases",
                severity="warning" if evidence.noise > 0.0 else "info",
                summary="bests of different phases are not comparable, for they were evaluated every "
                + listed((f"{'/'.join(map(str, its))} updates ({name})" for name, its in every.items()), shown=8),
                evidence={"spacing": every},
            )
        )
    return found


def _noise_like_the_gap(phase: PhaseSummary, results: Sequence[TrialResult], evidence: Evidence) -> list[Remark]:
    known = [value for value in map(optimism, results) if math.isfinite(value)]
    pair = _first_two(phase)
    if pair is None or not known or (pair.compared and pair.identical == pair.compared):
        return []
    noise = evidence.noise if math.isfinite(evidence.noise) else 0.0
    lucky, gap = mean(known), abs(pair.difference)
    size = max(noise, lucky)
    if size <= 0.0 or gap == 0.0 or 2 * size < gap or (math.isfinite(phase.spread) and 2 * size < phase.spread):
        return []
    again: dict[str, list[float]] = {}
    for result in results:
        again.setdefault(result.trial.arm, []).extend(v for v in result.evaluations_again if math.isfinite(v))
    means = {arm: mean(values) for arm, values in again.items() if values}
    order = sorted(means, key=lambda arm: -evidence.sign * means[arm])
    return [
        Remark(
            code="best-of-noisy-evaluations",
            phase=phase.name,
            subject=f"{pair.arm} against {pair.baseline}",
            severity="warning",
            summary=f"the best evaluation is {number(lucky)} better than the same weights measured anew (noise "
            f"{number(noise)}), and the two best arms are only {number(gap)} apart; measured anew the order is "
            + listed(f"{arm} {number(means[arm])}" for arm in order),
            evidence={"optimism": lucky, "noise": noise, "gap": gap, "again": means},
        )
    ]


def _spacing(results: Sequence[TrialResult]) -> int:
    """Return the usual number of updates between two evaluations; 0 where it is unknown."""
    steps = Counter(
        later - earlier
        for result in results
        for (earlier, _), (later, _) in zip(result.points, result.points[1:], strict=False)
        if later > earlier
    )
    return max(sorted(steps), key=lambda step: steps[step], default=0)


def scores_mixed(evidence: Evidence) -> list[Remark]:
    """Some phases score a run by its best evaluation and some by its last, or the two give another winner.

    Numbers of such phases stand in one table and cannot be compared: the best one is never worse.

    A false alarm: arms that are close change places by chance; so they must differ both ways by more than twice the
    standard error, or it is only a fact where a phase has one seed an arm.
    """
    found = []
    scores = {phase.name: phase.score for phase in evidence.phases if phase.ranking}
    if len(set(scores.values())) > 1:
        by: dict[str, list[str]] = {}
        for name, score in scores.items():
            by.setdefault(score, []).append(name)
        found.append(
            Remark(
                code="scores-mixed",
                subject="phases",
                severity="warning",
                summary="phases are scored differently, so their numbers cannot be compared: "
                + "; ".join(f"by the {score} evaluation {listed(names)}" for score, names in by.items()),
                evidence=dict(by),
            )
        )
    for phase in evidence.phases:
        leader = {way: _leader(phase, way, evidence.sign) for way in ("best", "final")}
        turned = _turned(phase) if leader["best"] != leader["final"] else []
        if not turned:
            continue
        found.append(
            Remark(
                code="scores-mixed",
                phase=phase.name,
                subject=f"{leader['best']}, {leader['final']}",
                severity="warning" if math.isfinite(phase.spread) else "info",
                summary=f"by the best evaluation {leader['best']} wins, by the last one {leader['final']}; "
                f"{len(turned)} pairs of arms change places",
                evidence={
                    "winner_by_best": leader["best"],
                    "winner_by_final": leader["final"],
                    "turned": turned[:MOST_TURNED],
                },
            )
        )
    return found


MOST_TURNED = 100
"""So many pairs that change places are named; of 1,000 arms there may be half a million."""


def _turned(phase: PhaseSummary) -> list[tuple[str, str]]:
    """Return the pairs of arms of which one is better by its best and the other by its last evaluation."""
    arms = [arm for arm in phase.arms if arm.n]
    best, final = (np.array([getattr(arm, way) for arm in arms]) for way in ("best", "final"))
    share = np.array([1 / arm.n for arm in arms])
    spread = phase.spread if math.isfinite(phase.spread) else 0.0
    least = 2.0 * spread * np.sqrt(share[:, None] + share[None, :])
    by_best, by_final = best[:, None] - best[None, :], final[:, None] - final[None, :]
    # Signs and not products: those of tiny differences are zero.
    turned = (np.abs(by_best) > least) & (np.abs(by_final) > least) & (np.sign(by_best) * np.sign(by_final) < 0)
    return [(arms[one].name, arms[other].name) for one, other in np.argwhere(np.triu(turned, 1))]


def _leader(phase: PhaseSummary, way: str, sign: float) -> str:
    known = [arm for arm in phase.arms if arm.n and math.isfinite(getattr(arm, way))]
    return max(known, key=lambda arm: (sign * getattr(arm, way), arm.name)).name if known else ""


REMARKS: tuple[Rule, ...] = (
    *courses.RULES,
    setting_without_effect,
    identical_until_the_peak,
    too_few_seeds,
    best_of_noisy_evaluations,
    scores_mixed,
    *hygiene.RULES,
)
