"""The loss is where it was at the first steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import FOLDS, HARDLY, chance_of, course_of, median, travelled
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace


@dataclass(frozen=True, kw_only=True)
class LossNotMoving(Detector):
    """The loss is where it was at the first steps.

    What it sees.
    The loss of the last 64 steps lies no lower than that of the first 32 by more than the noise allows, and the loss
    began near chance, so there is much to learn. Either the weights have hardly moved, which is judged after 96 steps;
    or the loss is not at chance (where it is, `loss-at-chance` speaks), which is judged after 256.

    Why it matters.
    Nothing has been learned. Waiting seldom helps: something keeps the updates from doing anything.

    Evidence it shows.
    The loss in the beginning and now, the gain and the noise of it, the chance level, and how far the weights went as
    a multiple of themselves (`travelled`): hardly at all points to the learning rate, a good way to the data or to a
    cut between the weights and the loss.

    False alarms.
    Tasks that are understood late, after a long rest, move their weights in the meantime and lie at chance. Fine-tuning
    begins far below chance and is not judged, nor is a loss whose chance level is not known.

    What to try.
    Multiply the learning rate by ten until the loss moves. If it never does, see whether the network can learn a
    single batch by heart.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    folds: tuple[Fold[Any], ...] = FOLDS
    release: int = 2

    blocks: int = 12
    """96 steps: every healthy training of the tuning families has gained a tenth by then."""
    patient: int = 32
    """256 steps where the weights move all the same."""
    fresh: float = 0.7
    """A start below this share of chance had been trained before."""
    gained: float = 0.01
    """A gain of this share of chance is a gain."""
    errors: float = 3.0
    """... and so is one of so many standard errors."""
    near: float = 0.05
    """Within this share of chance the loss is at chance."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        course = course_of(trace)
        if course.blocks < self.blocks:
            return self.unknown(trace, f"fewer than {self.blocks * 8} finite losses were measured")
        start = median(course.begin)
        now = course.level(8)
        if now < 0.9 * start and start > 0:
            return None
        chance = chance_of(trace)
        if chance is None:
            return self.unknown(trace, "the chance level of the loss is not known, so that it may begin at its best")
        if start < self.fresh * chance:
            return self.unknown(trace, "the loss began far below chance: the network had been trained before")
        error = course.noise() / math.sqrt(8 * len(course.begin))
        gain = start - now
        if gain > self.errors * error or gain > self.gained * chance or now > 1.05 * start + self.errors * error:
            return None
        way = travelled(trace)
        moves = way is None or way >= HARDLY
        if moves and (course.blocks < self.patient or abs(now - chance) < self.near * chance):
            return None
        evidence = {"loss": now, "loss_start": start, "gain": gain, "noise": course.noise(), "chance_level": chance}
        text = f"the loss of the last 64 steps is {number(now)} at step {trace.step}, of the first 32 {number(start)}"
        if way is not None:
            evidence["travelled"] = way
            text += f"; the weights went {number(way)} x themselves"
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=text,
            measured=gain,
            threshold=self.gained * chance,
            evidence=evidence,
            since_step=0,
        )
