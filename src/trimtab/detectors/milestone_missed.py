"""A declared milestone was not reached in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trimtab.detectors._detector import NEVER, RECENT, Detector, now, number
from trimtab.milestone import Milestone
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace

POINTS = 48
"""A course is kept with at most so many points."""


class Course(NamedTuple):
    """What a metric did up to a step.

    Attributes:
        best: the best finite value, NaN before the first.
        best_step: its step, -1 before the first.
        values: how many values there were, NaN included.
        points: finite values in order, thinned evenly when there are many.
        stride: one point stands for so many values.
        last: the last value, NaN where it was not finite.
    """

    best: float = math.nan
    best_step: int = -1
    values: int = 0
    points: tuple[float, ...] = ()
    stride: int = 1
    last: float = math.nan


@dataclass(frozen=True, slots=True)
class CourseUntil:
    """The course of a metric up to and including the step `until`; later values are passed over."""

    reads: str
    until: int
    higher: bool

    def start(self) -> Course:
        """Return the empty course."""
        return Course()

    def advance(self, state: Course, step: int, value: float) -> Course:
        """Return the course with one more value."""
        if step > self.until:
            return state
        if not math.isfinite(value):
            return state._replace(values=state.values + 1, last=math.nan)
        best, best_step, values, points, stride, _ = state
        if best_step < 0 or (value > best if self.higher else value < best):
            best, best_step = value, step
        if values % stride == 0:
            points = (*points, value)
            if len(points) > POINTS:
                points, stride = points[::2], 2 * stride
        return Course(best, best_step, values + 1, points, stride, value)


@dataclass(frozen=True, kw_only=True)
class MilestoneMissed(Detector):
    """A declared milestone was not reached in time.

    What it sees.
    The best value that a metric had by the step of a milestone does not satisfy it; for a milestone whose last value
    counts, the last one does not.

    Why it matters.
    Somebody who knows this training said what it must reach by then. A run that misses it will seldom give the
    result, and the sooner one knows the less is lost.

    Evidence it shows.
    The best value and its step, the last one, whether the metric was still improving, how much of the way from its
    first value it had covered (`progress`), how far the weights had gone as a multiple of themselves (`travelled`), and
    the loss of a guess that knows nothing where it is known. Still improving points to too little training or too low
    a learning rate; at rest from the start points to data without a signal or to a part that is not trained.

    False alarms.
    As many as the milestone was too ambitious. The best value up to the step counts unless the milestone says
    otherwise, so noise does not miss one.

    What to try.
    While it still improves, train longer or faster before anything else. Otherwise look at the other findings, then
    check that the data can be learned at all.

    Since.
    0.1.0
    """

    release: int = NEVER
    """A milestone that was missed stays missed, so it need not be said at every later step."""
    per_stream: bool = False

    milestones: tuple[Milestone, ...] = ()
    """The declared checks: metric, comparison, value, and the number of updates by which it must hold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        metrics = dict.fromkeys(milestone.metric for milestone in self.milestones)
        every_row = ("loss",) if metrics else ()
        object.__setattr__(self, "reads", tuple(dict.fromkeys([*metrics, *every_row, "trimtab_seconds"])))
        object.__setattr__(self, "folds", tuple(dict.fromkeys(_course(milestone) for milestone in self.milestones)))

    def detect(self, trace: Trace) -> Sequence[Finding] | Unknown | None:
        if not self.milestones:
            return self.unknown(trace, "no milestone was declared")
        closing = now(trace, "trimtab_seconds") is not None
        missed: list[Finding] = []
        reason, judged = "", False
        for milestone in self.milestones:
            if trace.step <= milestone.by_step and not (closing and trace.step + 1 >= milestone.by_step):
                reason = reason or f"{milestone} is not due yet"
                continue
            course = trace.fold(_course(milestone))
            if course.values == 0:
                reason = f"{milestone.metric} was not recorded by step {milestone.by_step}"
                continue
            judged = True
            fresh = closing or now(trace, "loss") is None or trace.step <= milestone.by_step + RECENT
            if fresh and not milestone.met_by(_counted(milestone, course)):
                missed.append(self._finding(trace, milestone, course))
        if missed:
            return missed
        return None if judged else self.unknown(trace, reason)

    def _finding(self, trace: Trace, milestone: Milestone, course: Course) -> Finding:
        improving = _improves(course.points, higher=milestone.comparison.startswith(">"))
        counted = _counted(milestone, course)
        evidence: dict[str, float | str] = {
            "target": milestone.value,
            "best": course.best,
            "best_step": float(course.best_step),
            "last": course.last,
            "improving": float(improving),
            "values": float(course.values),
        }
        way = milestone.value - course.points[0] if course.points else 0.0
        if way and not milestone.met_by(course.points[0]):
            evidence["progress"] = (counted - course.points[0]) / way
        travelled = _travelled(trace, milestone.by_step)
        if travelled is not None:
            evidence["travelled"] = travelled
        chance = trace.scalar("chance_level")
        if chance is not None:
            evidence["chance_level"] = chance
        same_metric = sum(other.metric == milestone.metric for other in self.milestones)
        best = f"{number(course.best)} at best (step {course.best_step})"
        was = best if milestone.counts == "best" else f"{number(counted)} in the end, {best}"
        return self.finding(
            trace,
            severity=Severity.ERROR,
            subject=milestone.metric
            if same_metric == 1
            else f"{milestone.metric} {milestone.word} step {milestone.by_step}",
            summary=(
                f"{milestone.metric} was {was}, where {milestone.comparison} {number(milestone.value)} was declared "
                f"for step {milestone.by_step}; "
                + ("it was still improving" if improving else "it was not improving any more")
            ),
            measured=counted,
            threshold=milestone.value,
            evidence=evidence,
            since_step=milestone.by_step,
        )


def _counted(milestone: Milestone, course: Course) -> float:
    return course.best if milestone.counts == "best" else course.last


def _course(milestone: Milestone) -> CourseUntil:
    return CourseUntil(milestone.metric, milestone.by_step, milestone.comparison.startswith(">"))


def _travelled(trace: Trace, until: int) -> float | None:
    """Return how far the weights went up to `until`, as a multiple of themselves: the sum of the largest update ratios.

    An update that was not measured counts as the measured one before it; None where none was.
    """
    steps, ratios = trace.window("update_ratio", trace.step + 1)
    if not steps:
        return None
    way = 0.0
    for step, end, ratio in zip(steps, [*steps[1:], until + 1], ratios, strict=True):
        longest = max(filter(math.isfinite, ratio), default=0.0) if isinstance(ratio, tuple) else 0.0
        way += longest * max(min(end, until + 1) - step, 0)
    return way


def _improves(points: Sequence[float], *, higher: bool) -> bool:
    """Say whether the last third is better than the third before it by more than twice the error of the difference."""
    third = len(points) // 3
    if third == 0:
        return False
    middle, last = points[-2 * third : -third], points[-third:]
    gain = (sum(last) - sum(middle)) / third * (1.0 if higher else -1.0)
    if third == 1:
        return gain > 0.01 * abs(middle[0])
    return gain > 2.0 * math.sqrt((_variance(middle) + _variance(last)) / third)


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
