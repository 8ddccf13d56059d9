"""The loss has never been better than at the start, and lies above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import FOLDS, Course, chance_of, course_of, is_of_classes, median, of_one_kind, travelled
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace


@dataclass(frozen=True, kw_only=True)
class NeverBetterThanStart(Detector):
    """The loss has never been better than at the start, and lies above it.

    What it sees.
    After 160 steps and more, no eight losses in a row had a median below that of the first eight or below the first
    loss, and the loss now lies clearly above both. Or, of a cross-entropy over classes: after 112 steps, in which the
    weights went as far as they are long, the loss rests above that of a guess that knows nothing.

    Why it matters.
    Whatever the updates do, they do not descend this loss: the rate is too high, a sign is wrong, the target moves, or
    the weights that the training began with were better than all that came after.

    Evidence it shows.
    The first loss, the level of the first steps, now and at best, and the chance level where it is known.

    False alarms.
    Losses that can be negative, and games with targets of a single kind, are not judged: there, a rising loss may be
    progress. A bump at the end of a warm-up ends.

    What to try.
    Divide the learning rate by ten. If the loss still rises, look for a wrong sign and for a loss that is not the one
    that is differentiated. A network that was loaded may have to be frozen in part, or warmed up.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    folds: tuple[Fold[Any], ...] = FOLDS
    release: int = 2
    excused_by: tuple[str, ...] = ("data-change", "curriculum", "escalation")

    blocks: int = 20
    """160 steps: bumps of healthy warm-ups are over by then."""
    above: float = 0.1
    """A level higher than the start by this share of it: healthy losses at rest stay within a few hundredths."""
    chance: float = 0.04
    """A rest above chance by this share of it: tasks that are understood late rest within a hundredth of chance."""
    wait: int = 14
    """112 steps: healthy cross-entropies are far below chance, or at it."""
    way: float = 1.0
    """Weights that went so many times themselves have tried: healthy ones had gone 0.5 to 2.4 at step 100."""
    noise: float = 2.0
    """... and by so many times the spread of single losses."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        course = course_of(trace)
        if course.blocks >= self.wait:
            above = self._above_chance(trace, course)
            if above is not None:
                return above
        if course.blocks < self.blocks:
            return self.unknown(trace, f"fewer than {self.blocks * 8} finite losses were measured")
        start = min(course.start, course.first)
        if course.best < start:
            return None
        if course.lowest < 0:
            return self.unknown(trace, "the loss can be negative, so that its rise may be meant")
        chance = chance_of(trace)
        if of_one_kind(trace) or (chance is None and trace.has("chance_level")):
            return self.unknown(trace, "all targets are of one kind, as in adversarial games")
        level = course.level(8)
        start = max(course.start, course.first)
        threshold = start + max(self.above * start, self.noise * course.noise())
        if level < threshold or course.medians[-1] < threshold:
            return None
        evidence = {"loss": level, "loss_first": course.first, "loss_start": course.start, "loss_best": course.best}
        if chance is not None:
            evidence["chance_level"] = chance
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the loss of the last 64 steps is {number(level)} at step {trace.step}; it began at {number(start)}, "
                f"and no eight steps since were better than the first"
            ),
            measured=level,
            threshold=threshold,
            evidence=evidence,
            since_step=0,
        )

    def _above_chance(self, trace: Trace, course: Course) -> Finding | None:
        """Judge a loss that rests above that of a guess that knows nothing."""
        chance, level = trace.scalar("chance_level"), course.level(8)
        if chance is None or level < (1.0 + self.chance) * chance or not is_of_classes(chance):
            return None
        before, now = median(course.medians[-12:-6]), median(course.medians[-6:])
        moved = travelled(trace)
        if chance_of(trace) != chance or now < 0.95 * before or moved is None or moved < self.way:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the loss of the last 64 steps is {number(level)} at step {trace.step} and no longer falls, where a "
                f"guess that knows nothing has {number(chance)}; the weights went {number(moved)} x themselves"
            ),
            measured=level,
            threshold=(1.0 + self.chance) * chance,
            evidence={
                "loss": level,
                "loss_first": course.first,
                "loss_start": course.start,
                "loss_best": course.best,
                "chance_level": chance,
                "travelled": moved,
            },
            since_step=0,
        )
