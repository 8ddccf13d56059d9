"""The course of the loss in blocks of eight steps: one summary for all rules that judge where a loss is going."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trimtab.trace import Fold, Trace

BLOCK = 8
"""So many finite losses make a block, of which the median, the highest and the spread are kept."""
BLOCKS = 64
"""So many of the latest blocks are kept, and at most so many of the first."""
OPENING = 4
"""The first so many blocks are the beginning."""
CALM = 16
"""What is usual now is taken from so many of the latest blocks."""


class Spike(NamedTuple):
    """One leap of the loss far above what it was.

    Attributes:
        since: its first step, -1 for none.
        steps: how many steps it lasted so far.
        first: the loss at that step.
        peak: the highest loss of it.
        level: the loss before, median of the latest blocks.
        usual: how far the highest loss of the latest blocks had been above that level.
        over: whether the loss came back.
    """

    since: int = -1
    steps: int = 0
    first: float = math.nan
    peak: float = math.nan
    level: float = math.nan
    usual: float = math.nan
    over: bool = False


class Course(NamedTuple):
    """What the loss did up to its last complete block.

    Attributes:
        blocks: how many blocks are complete.
        first: the first loss.
        begin: medians of the first blocks.
        medians: medians of the latest blocks.
        highs: the highest loss of each of them.
        spreads: half the range between the second and the seventh of the eight losses of each of them.
        ends: the step with which each of them ended.
        lowest: the lowest loss so far.
        best: the lowest median of a block, `best_step` the step with which it ended.
        ceiling: losses above it are a leap.
        spike: the latest leap; `spikes` is how many there were that came back.
    """

    blocks: int = 0
    first: float = math.nan
    begin: tuple[float, ...] = ()
    medians: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    spreads: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()
    lowest: float = math.inf
    best: float = math.nan
    best_step: int = -1
    ceiling: float = math.inf
    spike: Spike = Spike()
    spikes: int = 0

    @property
    def start(self) -> float:
        """The level of the first block."""
        return self.begin[0]

    def level(self, blocks: int = OPENING, back: int = 0) -> float:
        """Return the median of so many blocks, the latest ones, or those that ended so many blocks ago."""
        return median(self.medians[-blocks - back : -back] if back else self.medians[-blocks:])

    def noise(self, blocks: int = CALM) -> float:
        """Return the usual spread of single losses within the latest blocks."""
        return median(self.spreads[-blocks:])


State = tuple[tuple[float, ...], Course]


@dataclass(frozen=True, slots=True)
class InBlocks:
    """The course of a signal; the state is (values of the block that is not complete, `Course`)."""

    reads: str
    leap: float = 4.0
    """A leap is so many times farther above the level than the highest value of the latest 128: single values of
    healthy runs with heavy tails (batches of two) reach three times."""
    far: float = 0.25
    """... and farther than this share of the beginning's size, so that losses near zero have no leaps."""
    longest: int = 16
    """A leap that lasts longer is a new level."""

    def start(self) -> State:
        """Return the empty course."""
        return ((), Course())

    def advance(self, state: State, step: int, value: float) -> State:
        """Return the course after one more value; a value that is not finite is passed over."""
        values, course = state
        if not value <= course.ceiling or (course.spike.since >= 0 and not course.spike.over):
            if not math.isfinite(value):
                return state
            course = self._leap(course, step, value)
            if value > course.ceiling:
                return (values, course)
        if len(values) < BLOCK - 1:
            return ((*values, value), course)
        return ((), self._complete(course, step, (*values, value)))

    def _leap(self, course: Course, step: int, value: float) -> Course:
        """Return the course with a leap that begins, goes on or is over at this value."""
        spike = course.spike
        inside = spike.since >= 0 and not spike.over
        if value <= course.ceiling:
            return course._replace(spike=spike._replace(over=True), spikes=course.spikes + 1)
        if not inside:
            level, high = course.level(), max(course.highs[-CALM:])
            return course._replace(spike=Spike(step, 1, value, value, level, high - level))
        if spike.steps >= self.longest:
            return course._replace(spike=Spike(), ceiling=math.inf)
        return course._replace(spike=spike._replace(steps=spike.steps + 1, peak=max(spike.peak, value)))

    def _complete(self, course: Course, step: int, values: tuple[float, ...]) -> Course:
        """Return the course with one more block."""
        ordered = sorted(values)
        if not ordered[-1] < math.inf or not ordered[0] > -math.inf:
            return course
        middle = 0.5 * (ordered[3] + ordered[4])
        medians, highs = (*course.medians[1 - BLOCKS :], middle), (*course.highs[1 - BLOCKS :], ordered[-1])
        begin = course.begin if len(course.begin) == OPENING else (*course.begin, middle)
        best, best_step = course.best, course.best_step
        if best_step < 0 or middle < best:
            best, best_step = middle, step
        ceiling = math.inf
        if len(medians) >= OPENING:
            level, size = median(medians[-OPENING:]), max(abs(value) for value in begin)
            usual = max(highs[-CALM:]) - level
            ceiling = level + max(self.leap * usual, self.far * size)
        return Course(
            blocks=course.blocks + 1,
            first=course.first if course.blocks else values[0],
            begin=begin,
            medians=medians,
            highs=highs,
            spreads=(*course.spreads[1 - BLOCKS :], 0.5 * (ordered[-2] - ordered[1])),
            ends=(*course.ends[1 - BLOCKS :], step),
            lowest=min(course.lowest, ordered[0]),
            best=best,
            best_step=best_step,
            ceiling=ceiling,
            spike=course.spike,
            spikes=course.spikes,
        )


LOSS = InBlocks("loss")
"""The course of the loss, shared by all who read it."""
FOLDS: tuple[Fold[State], ...] = (LOSS,)


def course_of(trace: Trace) -> Course:
    """Return the course of the loss."""
    return trace.fold(LOSS)[1]


def median(values: Sequence[float]) -> float:
    """Return the median of numbers, NaN for none."""
    ordered = sorted(values)
    half = len(ordered) // 2
    if not ordered:
        return math.nan
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


def chance_of(trace: Trace) -> float | None:
    """Return the loss of a guess that knows nothing, over all terms of the loss; None where it is not known.

    Targets that are all of one kind, as those of adversarial games, have no chance level.
    """
    chance = trace.scalar("chance_level") if trace.has("chance_level") else None
    if chance is None or not chance > 0 or of_one_kind(trace):
        return None
    return chance * (trace.scalar("loss_terms") or 1.0)


def of_one_kind(trace: Trace) -> bool:
    """Say whether the targets of the last 8 looked-at batches are all the same, as in an adversarial game.

    There whoever moves, the other moves against it, and a rising loss may be progress. Binary losses have no
    `label_classes`; their targets are all ones, all zeros or all 0.9, whose spread is rounding.
    """
    if trace.has("label_classes"):
        return all(value == 1.0 for value in trace.last("label_classes", 8)[1])
    if trace.has("label_mean") and trace.has("target_spread"):
        return all(isinstance(value, float) and value < 1e-6 for value in trace.last("target_spread", 8)[1])
    return False


def is_of_classes(chance: float) -> bool:
    """Say whether this chance level is ln C of a whole number C, which does not depend on the batch."""
    classes = math.exp(min(chance, 20.0))
    return classes > 1.5 and abs(classes - round(classes)) < 1e-3 * classes


def travelled(trace: Trace) -> float | None:
    """Return how far the weights may have gone, as a multiple of themselves: the sum of the largest update ratios.

    An update that was not measured counts as the measured one before it; None where none was. Of a long training only
    the steps that the trace still holds count.
    """
    steps, ratios = trace.window("update_ratio", trace.step + 1)
    if not steps:
        return None
    way = 0.0
    for step, end, ratio in zip(steps, [*steps[1:], trace.step + 1], ratios, strict=True):
        if isinstance(ratio, tuple):
            way += max((one for one in ratio if one < math.inf), default=0.0) * (end - step)
    return way


HARDLY = 0.2
"""Weights that went less than this share of themselves have hardly moved: healthy trainings had gone 0.5 to 2.4 when
their milestones fell due, those with a fiftieth of the rate 0.03 to 0.14."""


def rate_of(trace: Trace, step: int) -> float | None:
    """Return the largest learning rate at or just before a step, None where it is not known."""
    steps, rates = trace.window("learning_rate", trace.step - step + 1)
    if not steps or not isinstance(rates[0], tuple):
        return None
    return max((rate for rate in rates[0] if rate == rate), default=None)
