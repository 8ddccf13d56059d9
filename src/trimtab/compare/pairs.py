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
    t_probability,
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
        sizes = {arm.name: arm.n for arm in arms}
        freedom = sum(size - 1 for size in sizes.values() if size)
        ps = holm([pair.test.p for pair in pairs], among)
        lowest = holm([math.nan if math.isnan(pair.test.p) else pair.test.smallest for pair in pairs], among)
        own = holm([pair.p_of_t for pair in pairs], among)
        whole = holm([_p_by(spread, freedom, pair, sizes) for pair in pairs], among)
        for pair, p, least, one, other in zip(pairs, ps, lowest, own, whole, strict=True):
            told = [value for value in (one, other) if not math.isnan(value)]
            corrected = replace(
                pair, p=p, among=among, lowest_p=least, p_of_t=min(told, default=math.nan),
                seeds_to_tell=_seeds_to_tell(pair, among),
            )  # fmt: skip
            found.append(_judged(corrected, by_name[pair.arm], base.arm, better))
    return tuple(found)


def _p_by(spread: float, freedom: int, pair: PairSummary, sizes: Mapping[str, int]) -> float:
    """Return p of the t-test that takes the spread inside all arms of the phase as that of these two."""
    n, m = (pair.n, pair.n) if pair.paired else (sizes[pair.arm], sizes[pair.baseline])
    return t_probability(pair.difference, spread * math.sqrt(1 / n + 1 / m), freedom) if pair.n > 1 else math.nan


def _seeds_to_tell(pair: PairSummary, among: int) -> int | None:
    """Return with how many seeds the difference that was seen could be called one."""
    if pair.seeds_needed is None:
        return None
    n = 2
    while among * (2 / 2**n if pair.paired else 2 / math.comb(2 * n, n)) >= ALPHA:
        n += 1
    return max(n, pair.seeds_needed)


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
        p_of_t = t_probability(difference, sd / math.sqrt(n), n - 1)
    else:
        n, difference = min(len(a), len(b)), mean(a) - mean(b)
        between, test, sd = welch_interval(a, b), exchange(a, b), pooled([a, b])
        error = sd * math.sqrt(1 / len(a) + 1 / len(b)) if n else math.nan
        p_of_t = t_probability(difference, error, len(a) + len(b) - 2)
        bca = Interval(math.nan, math.nan, between.level, "only for pairs", n)
    if n < 2:
        test, p_of_t = replace(test, p=math.nan), math.nan  # one pair, or one run of each, gives no test
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
        among=0,
        lowest_p=math.nan,
        p_of_t=p_of_t,
        smallest_detectable=math.inf if n < 2 else smallest_detectable(sd, len(a), len(b), paired=pairs_known),
        seeds_needed=seeds_needed(difference, sd, paired=pairs_known),
        seeds_to_tell=None,
        spread_from=source,
        improvement=improvement,
        improvement_interval=around,
        identical=identical,
        compared=compared,
        parts_at=parts,
        better="",
        ahead="",
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
    apart = _interval_is_apart(pair) and (pair.compared == 0 or pair.identical < pair.compared)
    side: Literal["arm", "baseline"] = "arm" if sign_of(better) * pair.difference > 0 else "baseline"
    sure = apart and pair.p < ALPHA
    judged = replace(
        pair, better=side if sure else "", ahead=side if apart and not sure and pair.p_of_t < ALPHA else ""
    )
    return replace(judged, verdict="; ".join(_words(judged, arm, base, better)))


def _interval_is_apart(pair: PairSummary) -> bool:
    return pair.n > 1 and pair.interval.known and not pair.interval.holds(0.0)


def _words(pair: PairSummary, arm: ArmSummary, base: ArmSummary, better: Better) -> list[str]:
    said = []
    for side in (arm, base):
        if not side.n:
            return [f"{side.name} has no result: {side.verdict or 'no trial'}"]
    if pair.compared and pair.identical == pair.compared:
        return [f"no effect: same trajectories on {pair.identical} of {pair.compared} seeds"]
    if pair.identical:
        said.append(f"same trajectories on {pair.identical} of {pair.compared} seeds")
    # The loss of the first update is that of the start, which paired arms share: to part after it is to part at once.
    if len(pair.parts_at) == pair.compared > 0 and (first := min(pair.parts_at.values())) > 1:
        said.append(f"identical until update {first}")
    word = "better" if sign_of(better) * pair.difference > 0 else "worse"
    if pair.better:
        said.append(f"{word} by {_size(pair)}, {probability(pair.p)} (Holm)" + ("" if pair.paired else ", not paired"))
    elif pair.ahead:
        unseen = f", which {_pairs(pair)} cannot show" if pair.n < FEW else ""
        said.append(f"{word} by {_size(pair)} by the interval alone (it relies on normal scatter{unseen})")
        said.append(_what_the_test_says(pair))
    else:
        said += _not_told(pair, word)
    if missing := _missing(pair, arm, base):
        said.append(missing)
    return said


FEW = 4
"""With fewer pairs nothing can be seen of how they scatter."""


def _size(pair: PairSummary) -> str:
    """Return how large a difference is, with its interval: "0.57 [0.37, 0.77]"."""
    width = pair.interval.high - pair.interval.low
    low, high = sorted((abs(pair.interval.low), abs(pair.interval.high)))
    return f"{number(abs(pair.difference), width or math.nan)} {interval(replace(pair.interval, low=low, high=high))}"


def _pairs(pair: PairSummary) -> str:
    return f"{pair.n} pairs" if pair.paired else f"{pair.n} runs"


def _what_the_test_says(pair: PairSummary) -> str:
    """Say what keeps the permutation test from agreeing, and how many seeds could change that."""
    test = "sign-flip test" if pair.paired else "exchange test"
    if pair.lowest_p >= ALPHA:
        corrected = f", corrected for {pair.among} comparisons," if pair.among > 1 else ""
        text = f"{_pairs(pair)}{corrected} cannot give a p below {pair.lowest_p:.2g}"
        return text + (f": {pair.seeds_to_tell} seeds could settle it" if pair.seeds_to_tell else "")
    return f"the {test} does not agree, {probability(pair.p)} (Holm)"


def _not_told(pair: PairSummary, word: str) -> list[str]:
    start = f"not distinguishable with n={pair.n}"
    if pair.n < 2:
        size = number(abs(pair.difference))
        needed = (
            f"; by the spread of {pair.spread_from or 'the phase'} such a difference needs {pair.seeds_to_tell} seeds "
            f"an arm"
            if pair.seeds_to_tell is not None
            else ""
        )
        apart = f"{word} by {size} on one seed, which" if pair.difference else "one seed"
        return [f"{start} ({apart} says nothing about the spread{needed})"]
    if pair.difference == 0.0 and pair.interval.low == pair.interval.high:
        return [f"{start} (the same score on every seed)"]
    if _interval_is_apart(pair) and math.isnan(pair.p_of_t):
        told = f"{word} by {number(abs(pair.difference))} on each of {_pairs(pair)}, without scatter to judge that by"
        return [f"{start} ({told})", _what_the_test_says(pair)]
    detectable = f"smallest detectable difference {number(pair.smallest_detectable, pair.smallest_detectable)}"
    if _interval_is_apart(pair):
        family = f" for {pair.among} comparisons" if pair.among > 1 else ""
        corrected = f"once corrected{family} Student's t gives {probability(pair.p_of_t)}"
        return [f"{start} ({word} by {_size(pair)}, but {corrected})"]
    if pair.lowest_p >= ALPHA:
        detectable += f"; {_what_the_test_says(pair)}"
    return [f"{start} ({detectable})"]


def _missing(pair: PairSummary, arm: ArmSummary, base: ArmSummary) -> str:
    """Return how many planned trials the comparison had to do without."""
    lost = [
        f"{side.trials - pair.n} of {side.trials} trials of {side.name}"
        for side in (arm, base)
        if pair.paired and side.trials > pair.n
    ]
    return f"without {' and '.join(lost)}" if lost else ""
