"""Best and end of every run, and why a run fell from its best.

Three falls look alike in the metric and need different answers. Over-fitting: the training loss falls on, the loss on
other data rises; more data or an earlier end help. An objective that does not match the metric: the training loss falls
on, and the metric falls even on the data that is trained on; only another loss helps. Instability: the training loss
rises as well; the learning rate is the place to look.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from trimtab.compare.evidence import FARTHEST, NOISES, OF_THE_WAY, Evidence, sign_of, way_of
from trimtab.compare.summary import ArmPeak, Fall, Peaks, RunPeak
from trimtab.compare.words import middle, number
from trimtab.statistics import Correlation, correlation, deviation, mean
from trimtab.trial import Better, Point, TrialResult

SCATTERS = 4.0
"""A fall is significant above so many times the scatter of single evaluations: the best of some dozens lies two to
three times it above their middle, and the last one anywhere."""
LOSS_WORDS = ("loss", "nll", "cross_entropy", "perplexity")
"""A metric with one of these in its name is a loss: lower is better."""
TRAINING = ("train", "training")
"""Splits of the data that is trained on."""
WINDOW = 0.1
"""Training losses are averaged over this part of the updates before the peak, and over as many at the end."""


def peaks_of(evidence: Evidence) -> Peaks:
    """Return the peak analysis of all complete runs."""
    runs: list[RunPeak] = []
    arms: list[ArmPeak] = []
    for phase in evidence.phases:
        for arm, by_seed in evidence.by_arm(phase.name).items():
            results = [by_seed[seed] for seed in sorted(by_seed) if math.isfinite(by_seed[seed].best)]
            peaks = [_run_peak(result, evidence) for result in results]
            runs += peaks
            if peaks:
                arms.append(_arm_peak(phase.name, arm, peaks))
    causes = Counter[str](peak.cause for peak in runs if peak.significant)
    return Peaks(runs=tuple(runs), arms=tuple(arms), start_to_best=start_to_best(runs), causes=dict(causes))


def start_to_best(runs: Sequence[RunPeak]) -> Correlation:
    """Return the correlation of the metric before training with the best one."""
    pairs = [(run.start, run.best) for run in runs if math.isfinite(run.start) and math.isfinite(run.best)]
    return correlation([start for start, _ in pairs], [best for _, best in pairs])


def _arm_peak(phase: str, arm: str, peaks: Sequence[RunPeak]) -> ArmPeak:
    causes = Counter(peak.cause for peak in peaks if peak.significant)
    known = [peak for peak in peaks if math.isfinite(peak.final)]
    return ArmPeak(
        phase=phase,
        arm=arm,
        n=len(peaks),
        best=mean([peak.best for peak in peaks]),
        final=mean([peak.final for peak in known]),
        degradation=mean([peak.degradation for peak in known]),
        best_step=middle([peak.best_step for peak in peaks]),
        fell=sum(peak.significant for peak in peaks),
        cause=max(sorted(causes), key=lambda cause: causes[cause], default="none"),
        start_to_best=start_to_best(peaks),
    )


def _run_peak(result: TrialResult, evidence: Evidence) -> RunPeak:
    threshold = max(
        SCATTERS * scatter_of(result.points),
        NOISES * evidence.noise if math.isfinite(evidence.noise) else 0.0,
        OF_THE_WAY * way_of(result),
    )
    significant = result.degradation > threshold  # False for NaN
    cause, reason = why_it_fell(result, evidence) if significant else ("none", "")
    return RunPeak(
        phase=result.trial.phase,
        arm=result.trial.arm,
        seed=result.trial.seed,
        start=result.start,
        best=result.best,
        best_step=result.best_step,
        final=result.final,
        degradation=result.degradation,
        significant=significant,
        cause=cause,
        reason=reason,
    )


def scatter_of(points: Sequence[Point]) -> float:
    """Return how much single evaluations scatter about their course, from second differences; 0 for fewer than five.

    A straight course cancels out, and the median leaves a single jump out.
    """
    values = [value for _, value in points if math.isfinite(value)]
    if len(values) < 5:
        return 0.0
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return middle(bends) / (math.sqrt(6.0) * 0.6745)  # of normal scatter s a bend has deviation sqrt(6) s


def why_it_fell(result: TrialResult, evidence: Evidence) -> tuple[Fall, str]:
    """Return the cause of a fall and the series that say so; "unclear" names what was not recorded."""
    training = _training_loss(result, evidence)
    same_data = _training_metric(result, evidence)
    held_out = _held_out_loss(result, evidence)
    said = [text for _, text in (training, same_data, held_out) if text]
    moved, trained, held = training[0], same_data[0], held_out[0]
    if moved == "rises":
        return "instability", "; ".join(said)
    if trained == "worse":
        return "objective does not match the metric", "; ".join(said)
    if moved == "falls" and (held == "worse" or trained == "not worse"):
        return "over-fitting", "; ".join(said)
    if moved == "falls" and held == "better":
        return "objective does not match the metric", "; ".join(said)
    missing = [
        name
        for name, (known, _) in (
            ("the training loss", training),
            ("the metric on training data", same_data),
            ("a loss on other data", held_out),
        )
        if known == ""
    ]
    return "unclear", "; ".join([*said, f"not recorded: {', '.join(missing)}" if missing else "they contradict"])


def _training_loss(result: TrialResult, evidence: Evidence) -> tuple[str, str]:
    losses = [loss for loss in evidence.trajectories.losses(result) if abs(loss) <= FARTHEST]  # NaN is not
    peak = result.best_step
    width = max(2, int(WINDOW * len(losses)))
    then, now = losses[max(0, peak - width) : peak] or losses[:width], losses[-width:]
    if len(losses) < 2 * width or len(losses) - peak < width:
        return "", ""
    error = math.sqrt(sum((deviation(part) if len(part) > 1 else 0.0) ** 2 / len(part) for part in (then, now)))
    change = mean(now) - mean(then)
    word = "stays" if abs(change) <= 2.0 * error else "rises" if change > 0 else "falls"
    return word, f"the training loss {word} after the peak ({number(mean(then))} to {number(mean(now))})"


def _training_metric(result: TrialResult, evidence: Evidence) -> tuple[str, str]:
    """Say how the metric goes on the data that is trained on."""
    if evidence.facts[result.trial.phase].on_training_data:
        return "worse", "the metric is measured on the data that is trained on, and falls there"
    last = result.metric.rsplit("/", 1)[-1]
    for name, points in result.others.items():
        split, _, word = name.rpartition("/")
        if split in TRAINING and word == last:
            return _course(name, points, result.best_step, result.better, ("worse", "not worse"))
    return "", ""


def _held_out_loss(result: TrialResult, evidence: Evidence) -> tuple[str, str]:
    if evidence.facts[result.trial.phase].on_training_data:
        return "", ""
    for name, points in {**result.others, result.metric: result.points}.items():
        split, _, word = name.rpartition("/")
        if split not in TRAINING and any(one in word for one in LOSS_WORDS):
            return _course(name, points, result.best_step, "lower", ("worse", "better"))
    return "", ""


def _course(name: str, points: Sequence[Point], peak: int, better: Better, words: tuple[str, str]) -> tuple[str, str]:
    then = next((value for step, value in points if step == peak), math.nan)
    now = points[-1][1] if points else math.nan
    if not (math.isfinite(then) and math.isfinite(now)):
        return "", ""
    values = [value for _, value in points if math.isfinite(value)]
    least = max(OF_THE_WAY * (max(values) - min(values)), SCATTERS * scatter_of(points) / 2)
    worse = sign_of(better) * (then - now) > least
    return words[0] if worse else words[1], f"{name} goes from {number(then)} at the peak to {number(now)}"
