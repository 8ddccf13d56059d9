"""How a recorded metric goes: a moving average without start bias, its best, and how much single values scatter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

from trimtab.detectors._course import OPENING, course_of, median
from trimtab.records import Value
from trimtab.trace import Trace

KEEP = 0.5
"""Weight of the past in the moving average: a sudden fall is seen at the next evaluation, and a turn not long after; at
0.7 the average lags behind a turn by two evaluations more."""
SCATTER = 0.1
"""Weight of the latest value in the scatter, once there are ten; before, all count alike."""
LATEST = 8
"""So many of the latest averages are kept."""


class Metric(NamedTuple):
    """What a metric did so far; all of it turned so that higher is better.

    Attributes:
        seen: how many finite values there were.
        first: the first of them.
        last, last_step: the latest of them; `before` the one before it.
        total, weight: the moving average is their quotient.
        best, best_step, best_count: the best moving average, its step, and how many values there were then.
        scatter: the usual deviation of single values, from second differences, in which a trend cancels out.
        averages: the latest moving averages.
        run: how many values in a row were worse than the best average by more than four times the scatter.
    """

    seen: int = 0
    first: float = math.nan
    last: float = math.nan
    last_step: int = -1
    before: float = math.nan
    total: float = 0.0
    weight: float = 0.0
    best: float = math.nan
    best_step: int = -1
    best_count: int = 0
    scatter: float = 0.0
    averages: tuple[float, ...] = ()
    run: int = 0

    @property
    def average(self) -> float:
        """The moving average."""
        return self.total / self.weight if self.weight else math.nan

    @property
    def way(self) -> float:
        """How far the best average lies above the first value."""
        return self.best - self.first

    @property
    def since_best(self) -> int:
        """How many values came after the best average."""
        return self.seen - self.best_count


@dataclass(frozen=True, slots=True)
class Smoothed:
    """The course of a metric whose direction is known."""

    reads: str
    higher: bool

    def start(self) -> Metric:
        """Return the empty course."""
        return Metric()

    def advance(self, state: Metric, step: int, value: float) -> Metric:
        """Return the course with one more value; one that is not finite is passed over."""
        if not math.isfinite(value):
            return state
        value = value if self.higher else -value
        total, weight = KEEP * state.total + (1 - KEEP) * value, KEEP * state.weight + (1 - KEEP)
        average = total / weight
        best, best_step, best_count = state.best, state.best_step, state.best_count
        if state.seen == 0 or average > best:
            best, best_step, best_count = average, step, state.seen + 1
        scatter = state.scatter
        if state.seen >= 2:
            strayed, share = 0.5 * abs(value - 2.0 * state.last + state.before), max(1.0 / (state.seen - 1), SCATTER)
            scatter += share * ((strayed if state.seen < 6 else min(strayed, 3.0 * scatter)) - scatter)
        worse = state.seen > 0 and value < state.best - 4.0 * state.scatter
        return Metric(
            seen=state.seen + 1,
            first=state.first if state.seen else value,
            last=value,
            last_step=step,
            before=state.last,
            total=total,
            weight=weight,
            best=best,
            best_step=best_step,
            best_count=best_count,
            scatter=scatter,
            averages=(*state.averages[1 - LATEST :], average),
            run=state.run + 1 if worse else 0,
        )


OVERHEARD = "evaluation/"
"""The training loss that was called without gradients: nobody chose it to judge by, and it rises in healthy runs."""

OF_A_SCORE, OF_A_LOSS = 0.03, 0.1
"""A change of a score (higher is better) by less than this share of itself, or of a loss, is none: healthy regressions
lose 0.07 of their validation loss again, classifiers a hundredth of their accuracy."""


OF_A_SCORE_ALONE = 0.01
"""A score that gets worse while the loss of the same data gets better needs no more than this share: over-fitting, by
which healthy runs lose a hundredth, makes that loss worse."""

OF_THE_BEGINNING = 0.12
"""... nor of a loss by less than this share of the size of the training loss in the beginning: healthy classifiers that
have learned nearly all grow too sure of themselves, and lose 0.06 of it."""


def is_loss(key: str) -> bool:
    """Say whether a metric is named as a loss: "validation/loss", "validation/flow_loss", "held_out/nll"."""
    name = key.rpartition("/")[2].lower()
    return name in ("loss", "nll", "cross_entropy", "objective") or name.endswith("_loss")


ABOUT = 3
"""So many values around a step, or at the end, tell the level of another metric there."""
LOWER = 0.98
"""A loss of the data of a metric has got better when it lies below this share of what it was at the metric's best."""


def held_out_loss(trace: Trace, key: str, step: int) -> tuple[float, float] | None:
    """Return the loss of the data of a metric at a step and now; None where none was recorded under their name.

    Losses are recorded beside the metric ("validation/loss" of "validation/accuracy"), or were overheard.
    """
    part = key.rpartition("/")[0]
    names = [name for name, higher in known(trace) if not higher and is_loss(name) and name != key]
    beside = [name for name in names if name.rpartition("/")[0] == part] or [OVERHEARD + "loss"]
    name = beside[0]
    if is_loss(key) or name not in names:
        return None
    steps, values = trace.window(name, trace.step + 1)
    known_ones = [(at, value) for at, value in zip(steps, values, strict=True) if finite(value)]
    before = [value for at, value in known_ones if at <= step][-ABOUT:]
    after = [value for at, value in known_ones if at > step]
    if not before or len(after) < ABOUT:
        return None
    return median(before), median(after[-ABOUT:])


class Peak(NamedTuple):
    """The peak of a metric by medians of three values, turned so that higher is better.

    A moving average is late at a peak that follows a steep rise, and the scatter of a whole course is still that of its
    steep beginning after a dozen values.

    Attributes:
        best, step: the highest median, and the step of its middle value.
        now: the median of the latest three.
        scatter: the usual deviation of single values since then, from second differences.
    """

    best: float
    step: int
    now: float
    scatter: float


def peak_of(trace: Trace, key: str, higher: bool, after: int) -> Peak | None:
    """Return the peak of a metric that has at least `after` values of its own since then; None where it has not."""
    steps, values = trace.window(key, trace.step + 1)
    pairs = [(at, value if higher else -value) for at, value in zip(steps, values, strict=True) if finite(value)]
    course = [value for _, value in pairs]
    levels = [median(course[place : place + ABOUT]) for place in range(len(course) - ABOUT + 1)]
    if not levels:
        return None
    top = max(range(len(levels)), key=lambda place: levels[place])
    since = course[top + 1 :]
    if len(since) < ABOUT + after:
        return None
    strayed = [0.5 * abs(c - 2.0 * b + a) for a, b, c in zip(since, since[1:], since[2:], strict=False)]
    return Peak(best=levels[top], step=pairs[top + 1][0], now=levels[-1], scatter=median(strayed))


def finite(value: Value) -> TypeGuard[float]:
    """Say whether a value is a finite number."""
    return isinstance(value, float) and math.isfinite(value)


def against_the_loss(levels: tuple[float, float] | None) -> bool:
    """Say whether that loss has got better since: then the metric and the loss want different things."""
    return levels is not None and 0.0 < levels[1] < LOWER * levels[0]


def least(trace: Trace, metric: Metric, higher: bool) -> float:
    """Return the smallest drop of a metric that is worth a word."""
    if higher:
        return OF_A_SCORE * abs(metric.best)
    size = max((abs(value) for value in course_of(trace).begin), default=0.0)
    return max(OF_A_LOSS * abs(metric.best), OF_THE_BEGINNING * size)


def known(trace: Trace) -> Iterator[tuple[str, bool]]:
    """Yield the metrics that were recorded, and whose direction is known, with whether higher is better."""
    directions = {note.text: note.facts.get("better") for note in trace.notes if note.kind == "metric"}
    for key, better in directions.items():
        if better in ("higher", "lower") and trace.has(key):
            yield key, better == "higher"


def is_of_training(key: str) -> bool:
    """Say whether a metric is named as one of the training part of the data."""
    return key.partition("/")[0].lower() in ("train", "training")


FELL = 0.05
"""The training loss has fallen when it lies lower by this share of its size at the best step of the metric."""


def losses(trace: Trace, step: int) -> tuple[float, float]:
    """Return the level of the training loss at a step and now, NaN where it is no longer known."""
    course = course_of(trace)
    places = [place for place, end in enumerate(course.ends) if end <= step]
    then = median(course.medians[max(places[-1] + 1 - OPENING, 0) : places[-1] + 1]) if places else course.first
    return then, course.level() if course.blocks else course.first


def still_learning(trace: Trace, step: int) -> bool:
    """Say whether the training loss is lower now than it was at a step."""
    then, now = losses(trace, step)
    return now < then - FELL * abs(then)
