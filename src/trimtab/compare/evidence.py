"""What the rules of `remarks.py` and the peak analysis look at, and the few numbers that all of them need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trimtab.compare.summary import PhaseFacts, PhaseSummary, Score
from trimtab.compare.trajectories import Trajectories
from trimtab.statistics import deviation, mean
from trimtab.trial import Better, TrialResult

FARTHEST = 1e100
"""A metric or a loss beyond it has diverged and counts as infinite: squares and sums of such numbers are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that is known of a sweep before it is judged.

    Attributes:
        metric, better: what is judged.
        results: every trial.
        facts: phase -> what was declared of it.
        phases: their summaries.
        noise: standard deviation of one checkpoint measured again; NaN where nobody measured it.
        trajectories: where two runs part.
    """

    metric: str
    better: Better
    results: tuple[TrialResult, ...]
    facts: Mapping[str, PhaseFacts]
    phases: tuple[PhaseSummary, ...]
    noise: float
    trajectories: Trajectories

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1: times a value, more is better."""
        return sign_of(self.better)

    def of_phase(self, name: str) -> list[TrialResult]:
        """Return the results of one phase that are complete."""
        return [result for result in self.results if result.trial.phase == name and result.complete]

    def planned(self, phase: str) -> dict[str, list[TrialResult]]:
        """Return arm -> every trial of one phase, complete or not."""
        found: dict[str, list[TrialResult]] = {}
        for result in self.results:
            if result.trial.phase == phase:
                found.setdefault(result.trial.arm, []).append(result)
        return found

    def by_arm(self, phase: str) -> dict[str, dict[int, TrialResult]]:
        """Return arm -> seed -> complete result of one phase; arms without any are left out."""
        found: dict[str, dict[int, TrialResult]] = {}
        for result in self.of_phase(phase):
            found.setdefault(result.trial.arm, {})[result.trial.seed] = result
        return found

    def best_scored(self) -> Iterator[PhaseSummary]:
        """Yield the phases in which a run stands for its best evaluation."""
        return (phase for phase in self.phases if phase.score == "best")


def sign_of(better: Better) -> float:
    """Return 1 where higher is better, else -1."""
    return 1.0 if better == "higher" else -1.0


def score_of(result: TrialResult, score: Score) -> float:
    """Return what stands for a run; NaN where it is not complete."""
    if not result.complete:
        return math.nan
    return result.best if score == "best" else result.final


def best_of(results: Sequence[TrialResult], score: Score, better: Better) -> TrialResult | None:
    """Return the result with the best score, that of the lowest seed among equals; None where none has one."""
    scored = [result for result in results if math.isfinite(score_of(result, score))]
    sign = sign_of(better)
    return max(scored, key=lambda result: (sign * score_of(result, score), -result.trial.seed), default=None)


def pooled(groups: Sequence[Sequence[float]]) -> float:
    """Return the standard deviation inside groups, pooled over them; NaN where none has two values."""
    known = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in known)
    if freedom == 0:
        return math.nan
    return math.sqrt(math.fsum((len(group) - 1) * deviation(group) ** 2 for group in known) / freedom)


def evaluation_noise(results: Sequence[TrialResult]) -> float:
    """Return the scatter of one checkpoint that is evaluated again and again; NaN where nobody did that twice."""
    return pooled([_finite(result.evaluations_again) for result in results])


def optimism(result: TrialResult) -> float:
    """Return how much better the best evaluation was than the same weights measured anew; NaN where they were not."""
    again = _finite(result.evaluations_again)
    return sign_of(result.better) * (result.best - mean(again)) if again else math.nan


ROUNDING = 1e-6
"""Relative difference of a metric that counts as none: what another order of float32 sums does."""


def is_verified(result: TrialResult, noise: float) -> bool | None:
    """Say whether measuring the best weights anew gave the best value; None where that was not done.

    Right is what lies within four times the evaluation noise, since the best of many is chosen for being lucky, or
    within rounding.
    """
    again = _finite(result.evaluations_again)
    if not again or not math.isfinite(result.best):
        return None
    allowed = 4.0 * noise if math.isfinite(noise) else 0.0
    return abs(result.best - mean(again)) <= max(allowed, ROUNDING * max(1.0, abs(result.best)))


def spread_of_starts(results: Sequence[TrialResult]) -> float:
    """Return the standard deviation of the metric before training; NaN for fewer than two known."""
    return deviation(_finite([result.start for result in results]))


def way_of(result: TrialResult) -> float:
    """Return how far the metric moved in a run: from its worst to its best evaluation; 0 where there are none."""
    values = _finite([value for _, value in result.points])
    return max(values) - min(values) if values else 0.0


NOISES = 3.0
"""A difference of so many times the evaluation noise is none that evaluating again would explain."""
OF_THE_WAY = 0.01
"""A difference below this part of all that the metric moved in a run is not worth a word."""


def margin_of(result: TrialResult, noise: float) -> float:
    """Return by how much two evaluations of a run must differ to count as different."""
    return max(NOISES * noise if math.isfinite(noise) else 0.0, OF_THE_WAY * way_of(result))


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
