"""What is known of a sweep after it: its phases, arms and pairs of arms, remarks, peaks and best checkpoints.

Plain frozen values that reports and the command line show; `arms.py` makes them. Every number that could not be told is
NaN, never 0, and a count says how many runs stand behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.statistics import Correlation, Interval, Split, Test
from trimtab.trial import Better

Score = Literal["best", "final"]
Weight = Literal["error", "warning", "info"]
WEIGHTS: tuple[Weight, ...] = ("error", "warning", "info")
"""How much a remark matters, worst first: this sweep does not show what it seems to; a reader should know; a fact."""
Fall = Literal["none", "over-fitting", "objective does not match the metric", "instability", "unclear"]
"""Why a run ended worse than it was at its best; "none" where it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFacts:
    """What was declared of a phase before it ran.

    Attributes:
        score: what stands for a run: the metric at its best evaluation, or at its last.
        baseline: the arm that the others are compared with; empty where there is none.
        bands: metric -> (lowest, highest) value of a success.
        on_training_data: whether the metric is measured on data that is trained on.
    """

    score: Score = "best"
    baseline: str = ""
    bands: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    on_training_data: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something about the sweep itself that a reader must know before believing it.

    Attributes:
        code: which rule, in kebab case.
        phase: of the sweep; empty for all of it.
        subject: the arms, settings or runs concerned, in words.
        severity: "error", "warning" or "info".
        summary: one sentence with its numbers.
        evidence: the same numbers as plain values.
    """

    code: str
    phase: str = ""
    subject: str = ""
    severity: Weight
    summary: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestRun:
    """The best run of an arm, and the checkpoint of its best weights.

    Attributes:
        key, seed: of the trial.
        run, checkpoint, checkpoint_hash: where the weights are; empty if they were not kept.
        best, best_step: the metric at its best evaluation, and the updates done then.
        final: the metric at the end.
        again: the metric of those weights measured anew; empty if it was not.
        verified: whether that gave the best value again, within its own scatter; None if it was not measured anew.
    """

    key: str
    seed: int
    run: str
    checkpoint: str
    checkpoint_hash: str
    best: float
    best_step: int
    final: float
    again: tuple[float, ...]
    verified: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BandCheck:
    """How many runs of an arm ended inside a band that was declared; `checked` of them had the metric."""

    metric: str
    low: float
    high: float
    inside: int
    checked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary:
    """One arm of a phase over its seeds.

    Attributes:
        name, phase, settings: which arm.
        counts: status -> trials, failed, pruned and waiting ones included.
        not_finite: complete runs whose score is no number.
        scores: (seed, score) of every run that has one, by seed.
        n: how many those are.
        mean, sd, median, low, high, iqm: of the scores; sd with n - 1 in the denominator, low and high the
            extremes.
        interval: Student's, of the mean.
        bca: the bootstrap's, of the mean.
        iqm_interval: the bootstrap's, of the interquartile mean.
        start, best, final, degradation: means over the runs that have them; degradation is positive for worse.
        best_step: median of the updates done at the best evaluation.
        split: which runs succeeded and which collapsed, failed ones among the latter; None where none ended.
        median_of_successes: of the scores of the runs that succeeded.
        checks: the declared bands.
        rank: 1 for the best mean of the phase; 0 where there is no score.
        smallest_detectable: between this arm and one that is like it.
        best_run: its best run; None where there is none.
        cpu_seconds, wall_seconds: of all its trials.
        verdict: in words; empty where there is nothing to say.
    """

    name: str
    phase: str
    settings: Mapping[str, Any]
    counts: Mapping[str, int]
    not_finite: int
    scores: tuple[tuple[int, float], ...]
    mean: float
    sd: float
    median: float
    low: float
    high: float
    iqm: float
    interval: Interval
    bca: Interval
    iqm_interval: Interval
    start: float
    best: float
    final: float
    degradation: float
    best_step: float
    split: Split | None
    median_of_successes: float
    checks: tuple[BandCheck, ...]
    rank: int
    smallest_detectable: float
    best_run: BestRun | None
    cpu_seconds: float
    wall_seconds: float
    verdict: str

    @property
    def n(self) -> int:
        """How many runs have a score."""
        return len(self.scores)

    @property
    def trials(self) -> int:
        """How many trials were planned."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """How many trials failed."""
        return self.counts.get("failed", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSummary:
    """One arm against another: the baseline where one was declared, else the arm with the best mean.

    Attributes:
        arm, baseline: their names.
        declared: whether the baseline was declared before.
        paired: whether the same seeds are compared; else all runs of both.
        n: pairs, or runs of the smaller arm.
        difference: mean of the arm minus that of the baseline, over the pairs where paired.
        interval, bca: of the difference; Student's (Welch's if not paired), and the bootstrap's for pairs.
        test: sign-flip for pairs, else exchange of both samples.
        p: its p-value after Holm's correction for the comparisons of the phase; NaN where none was made.
        among: how many comparisons that corrects for.
        lowest_p: the lowest p that so many pairs could have given, after the same correction; NaN where p is.
        p_of_t: of Student's t after the same correction, from the pairs or, where that is lower, from the spread inside
            all arms of the phase; NaN where no scatter was seen.
        smallest_detectable: difference that this many seeds would find in 80 of 100 sweeps.
        seeds_needed: for the observed difference, by a t-test; None where no number of seeds would do, or the spread is
            unknown.
        seeds_to_tell: as many, and enough for the permutation test to fall below 0.05 after the correction.
        spread_from: whose spread the two above come from: "pairs", or the name of the phase that was borrowed from.
        improvement, improvement_interval: how likely a run of the arm beats one of the baseline.
        identical: seeds on which both took the very same training steps.
        compared: seeds on which that is known.
        parts_at: seed -> the first update whose loss differs.
        better: which of both is better, as interval and permutation test agree: "arm", "baseline", or empty.
        ahead: which of both is better by interval and Student's t alone, where the permutation test does not agree or
            cannot; empty where `better` is not.
        verdict: in words.
    """

    arm: str
    baseline: str
    declared: bool
    paired: bool
    n: int
    difference: float
    interval: Interval
    bca: Interval
    test: Test
    p: float
    among: int
    lowest_p: float
    p_of_t: float
    smallest_detectable: float
    seeds_needed: int | None
    seeds_to_tell: int | None
    spread_from: str
    improvement: float
    improvement_interval: Interval
    identical: int
    compared: int
    parts_at: Mapping[int, int]
    better: Literal["arm", "baseline", ""]
    ahead: Literal["arm", "baseline", ""]
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSummary:
    """A phase: its arms in the order planned, its pairs, and what can be said in words.

    Attributes:
        name: empty where the sweep has no phases.
        score: what stands for a run.
        baseline: what the arms were compared with, declared or found; empty with one arm.
        varied: settings that differ between arms, sorted.
        constant: settings that every arm has alike.
        arms, pairs: see there.
        ranking: names from the best mean to the worst; arms without a score are left out.
        tied: arms that are not told from the first of the ranking by interval and permutation test together.
        behind: those of them that the first is ahead of by the interval alone.
        spread: pooled standard deviation of the scores inside an arm; NaN where no arm has two.
        coverage: how far a 95 % interval of these n can be trusted.
        verdicts: sentences.
        counts: status -> trials.
        cpu_seconds, wall_seconds: of all its trials.
    """

    name: str
    score: Score
    baseline: str
    varied: tuple[str, ...]
    constant: Mapping[str, Any]
    arms: tuple[ArmSummary, ...]
    pairs: tuple[PairSummary, ...]
    ranking: tuple[str, ...]
    tied: tuple[str, ...]
    behind: tuple[str, ...]
    spread: float
    coverage: str
    verdicts: tuple[str, ...]
    counts: Mapping[str, int]
    cpu_seconds: float
    wall_seconds: float

    def arm(self, name: str) -> ArmSummary:
        """Return the arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPeak:
    """Best and end of one run, and why it fell.

    Attributes:
        phase, arm, seed: which run.
        start, best, best_step, final, degradation: of the metric; degradation is positive for worse.
        significant: whether the fall is more than the scatter of its evaluations.
        cause: why; "none" where it is not significant.
        reason: the series that say so, in words.
    """

    phase: str
    arm: str
    seed: int
    start: float
    best: float
    best_step: int
    final: float
    degradation: float
    significant: bool
    cause: Fall
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPeak:
    """Peaks of one arm: means over its runs.

    Attributes:
        phase, arm: which arm.
        n: runs with a best value.
        best, final, degradation: means.
        best_step: median.
        fell: runs whose fall is significant.
        cause: what most of them fell from; "none" where none did.
        start_to_best: correlation over its seeds.
    """

    phase: str
    arm: str
    n: int
    best: float
    final: float
    degradation: float
    best_step: float
    fell: int
    cause: Fall
    start_to_best: Correlation


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Peak analysis of a sweep.

    Attributes:
        runs: every complete run.
        arms: every arm that has one.
        start_to_best: correlation over all runs; runs of one seed in several arms may share their start.
        causes: cause -> runs that fell from it.
    """

    runs: tuple[RunPeak, ...]
    arms: tuple[ArmPeak, ...]
    start_to_best: Correlation
    causes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts of a whole sweep; failed, pruned and waiting trials included."""

    trials: int
    counts: Mapping[str, int]
    cpu_seconds: float
    wall_seconds: float
    train_cpu_seconds: float
    seeds: tuple[int, ...]
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSummary:
    """All that is known of a sweep.

    Attributes:
        metric, better: what was judged.
        phases: in the order of their first trial.
        remarks: worst first.
        peak: peak analysis.
        totals: counts.
        evaluation_noise: pooled standard deviation of one checkpoint measured again; NaN where nobody measured it.
    """

    metric: str
    better: Better
    phases: tuple[PhaseSummary, ...]
    remarks: tuple[Remark, ...]
    peak: Peaks
    totals: Totals
    evaluation_noise: float

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as nested plain values, `n` and `trials` of arms included; NaN and infinities are kept."""
        plain = dataclasses.asdict(self)
        for phase, dictionary in zip(self.phases, plain["phases"], strict=True):
            for arm, one in zip(phase.arms, dictionary["arms"], strict=True):
                one |= {"n": arm.n, "trials": arm.trials}
        return plain
