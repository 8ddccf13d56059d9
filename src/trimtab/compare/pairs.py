"""One arm against another on the same seeds, and the words for what that shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trimtab.compare.evidence import pooled, sign_of
from trimtab.compare.summary import ArmSummary, PairSummary, PhaseFacts
from trimtab.compare.trajectories import Trajectories
from trimtab.compare.words import interval, number, probability
from trimtab.statistics import (
    ALPHA,
    Interval,
    bca_interval,
    deviation,
    exchange,
    holm,
    mean,
    probability_of_improvement,
    seeds_needed,
    sign_flip,
    smallest_detectable,
    t_interval,
    welch_interval,
)
from trimtab.trial import Better, TrialResult

Runs = Mapping[str, Sequence[TrialResult]]


def compare_pairs(
    arms: Sequence[ArmSummary],
    results: Runs,
    facts: PhaseFacts,
    ranking: Sequence[str],
    better: Better,
    trajectories: Trajectories,
    spread: float,
    everywhere: tuple[float, str],
) -> tuple[PairSummary, ...]:
    """Return every arm against the declared baseline, then every arm against the best one.

    Against a declared baseline there are as many comparisons as other arms. Which arm is the best one is only known
    afterwards, so there the correction is for all pairs of arms.

    Args:
        arms: of one phase.
        results: arm -> its trials.
        facts: what was declared.
        ranking: names of arms, the best mean first.
        better: which direction is good.
        trajectories: where two runs part.
        spread: inside the arms of this phase; NaN where it is unknown.
        everywhere: the spread to borrow where this phase has none, and the phase that it is from.
    """
    by_name = {arm.name: arm for arm in arms}
    families: list[tuple[str, list[str], int]] = []
    if facts.baseline:
        others = [arm.name for arm in arms if arm.name != facts.baseline]
        families.append((facts.baseline, others, len(others)))
    if ranking and ranking[0] != facts.baseline:
        others = [arm.name for arm in arms if arm.name not in (ranking[0], facts.baseline)]
        families.append((ranking[0], others, math.comb(len(arms), 2)))
    found: list[PairSummary] = []
    for leader, others, among in families:
        base = _Side(by_name[leader], results[leader])
        pairs = [
            _pair(
                _Side(by_name[name], results[name]),
                base,
                leader == facts.baseline,
                better,
                trajectories,
                spread,
                everywhere,
            )
            for name in others
        ]
        for pair, p in zip(pairs, holm([pair.test.p for pair in pairs], among), strict=True):
            found.append(_judged(replace(pair, p=p), by_name[pair.arm], base.arm, better))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Side:
    """One arm of a pair, with its complete runs by seed."""

    arm: ArmSummary
    trials: Sequence[TrialResult]

    @property
    def scores(self) -> dict[int, float]:
        return dict(self.arm.scores)

    @property
    def complete(self) -> dict[int, TrialResult]:
        return {result.trial.seed: result for result in self.trials if result.complete}


def _pair(
    one: _Side,
    base: _Side,
    declared: bool,
    better: Better,
    trajectories: Trajectories,
    spread: float,
    everywhere: tuple[float, str],
) -> PairSummary:
    mine, its = one.scores, base.scores
    seeds = sorted(set(mine) & set(its))
    # Where the arms share no seed, or but one of several, all runs of both say more than the few pairs.
    paired = len(seeds) > 1 or (len(seeds) == 1 and len(mine) == len(its) == 1)
    a, b = ([side[seed] for seed in (seeds if paired else sorted(side))] for side in (mine, its))
    if paired:
        differences = [x - y for x, y in zip(a, b, strict=True)]
        n, difference = len(seeds), mean(differences)
        between, bca, test = t_interval(differences), bca_interval(differences), sign_flip(differences)
        sd = deviation(differences)
    else:
        n, difference = min(len(a), len(b)), mean(a) - mean(b)
        between, test, sd = welch_interval(a, b), exchange(a, b), pooled([a, b])
        bca = Interval(math.nan, math.nan, between.level, "only for pairs", n)
    if n < 2:
        test = replace(test, p=math.nan)  # one pair, or one run of each, gives no test
    source = "pairs" if paired and n > 1 else "both arms"
    lent = math.isnan(sd) or n < 2
    if lent:
        sd, source = (spread, one.arm.phase) if math.isfinite(spread) else everywhere
    pairs_known = paired and not lent
    improvement, around = probability_of_improvement(a, b, better)
    identical, compared, parts = _trajectories(one.complete, base.complete, trajectories)
    return PairSummary(
        arm=one.arm.name,
        baseline=base.arm.name,
        declared=declared,
        paired=paired,
        n=n,
        difference=difference,
        interval=between,
        bca=bca,
        test=test,
        p=math.nan,
        smallest_detectable=math.inf if n < 2 else smallest_detectable(sd, len(a), len(b), paired=pairs_known),
        seeds_needed=seeds_needed(difference, sd, paired=pairs_known),
        spread_from=source,
        improvement=improvement,
        improvement_interval=around,
        identical=identical,
        compared=compared,
        parts_at=parts,
        better="",
        verdict="",
    )


def _trajectories(
    mine: Mapping[int, TrialResult], its: Mapping[int, TrialResult], trajectories: Trajectories
) -> tuple[int, int, dict[int, int]]:
    """Return on how many shared seeds both are the same, on how many that is known, and where the others part."""
    identical = compared = 0
    parts: dict[int, int] = {}
    for seed in sorted(set(mine) & set(its)):
        same = trajectories.same(mine[seed], its[seed])
        if same is None:
            continue
        compared += 1
        identical += same
        parted = trajectories.parts_at(mine[seed], its[seed])
        if parted is not None:
            parts[seed] = parted
    return identical, compared, parts


def _judged(pair: PairSummary, arm: ArmSummary, base: ArmSummary, better: Better) -> PairSummary:
    sure = (
        pair.n > 1
        and pair.interval.known
        and not pair.interval.low <= 0.0 <= pair.interval.high
        and pair.p < ALPHA
        and (pair.compared == 0 or pair.identical < pair.compared)
    )
    ahead = sign_of(better) * pair.difference > 0
    winner: Literal["arm", "baseline", ""] = "" if not sure else "arm" if ahead else "baseline"
    return replace(pair, better=winner, verdict="; ".join(_words(pair, winner, arm, base)))


def _words(pair: PairSummary, winner: str, arm: ArmSummary, base: ArmSummary) -> list[str]:
    said = []
    for side in (arm, base):
        if not side.n:
            return [f"{side.name} has no result: {side.verdict or 'no trial'}"]
    if pair.compared and pair.identical == pair.compared:
        return [f"no effect: same trajectories on {pair.identical} of {pair.compared} seeds"]
    if pair.identical:
        said.append(f"same trajectories on {pair.identical} of {pair.compared} seeds")
    if len(pair.parts_at) == pair.compared > 0 and (first := min(pair.parts_at.values())) > 0:
        said.append(f"identical until update {first}")
    if winner:
        width = pair.interval.high - pair.interval.low
        word = "better" if winner == "arm" else "worse"
        low, high = sorted((abs(pair.interval.low), abs(pair.interval.high)))
        ends = interval(replace(pair.interval, low=low, high=high))
        said.append(
            f"{word} by {number(abs(pair.difference), width or math.nan)} {ends}, {probability(pair.p)} (Holm)"
            + ("" if pair.paired else ", not paired")
        )
    else:
        said.append(_not_told(pair))
    if missing := _missing(pair, arm, base):
        said.append(missing)
    return said


def _not_told(pair: PairSummary) -> str:
    if pair.n < 2:
        needed = (
            f"; by the spread of {pair.spread_from or 'the phase'} a difference of {number(abs(pair.difference))} "
            f"needs {pair.seeds_needed} seeds an arm"
            if pair.seeds_needed is not None
            else ""
        )
        return f"not distinguishable with n={pair.n} (one seed says nothing about the spread{needed})"
    size = number(pair.smallest_detectable, pair.smallest_detectable)
    text = f"not distinguishable with n={pair.n} (smallest detectable difference {size}"
    if pair.test.smallest >= ALPHA:
        text += f"; {pair.n} pairs cannot give a p below {pair.test.smallest:.2g}"
    return text + ")"


def _missing(pair: PairSummary, arm: ArmSummary, base: ArmSummary) -> str:
    """Return how many planned trials the comparison had to do without."""
    lost = [
        f"{side.trials - pair.n} of {side.trials} trials of {side.name}"
        for side in (arm, base)
        if pair.paired and side.trials > pair.n
    ]
    return f"without {' and '.join(lost)}" if lost else ""
