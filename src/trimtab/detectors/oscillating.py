"""The loss swings to and fro around a level and gets no further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trimtab.detectors._course import FOLDS, Course, course_of, median
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Fold, Trace


@dataclass(frozen=True, kw_only=True)
class Oscillating(Detector):
    """The loss swings to and fro around a level and gets no further.

    What it sees.
    For 112 steps the loss has not become better and single losses have strayed by a good part of their level, which
    is not small beside the beginning. And one of two marks that it is the updates and not the batches: losses one step
    apart lie on opposite sides of the level, or gradients one step apart point against each other.

    Why it matters.
    Each update undoes the one before. The weights circle the place that they should settle in, and the result is as
    good as the step at which the training happens to end.

    Evidence it shows.
    The level, the spread of single losses as a share of it, how alike neighbouring losses are (`autocorrelation`: -1
    is a strict swing, 0 is noise of the batches), the cosine of consecutive gradients where it was measured, and the
    latest update ratio.

    False alarms.
    Batches of two scatter as much, but neither mark holds for them: the difference of two noisy losses always changes
    its sign, the losses themselves do not. Losses that can be negative are not judged.

    What to try.
    Divide the learning rate by three, or double the batch. Let the rate fall towards the end.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio", "gradient_cosine")
    folds: tuple[Fold[Any], ...] = FOLDS
    release: int = 4

    blocks: int = 14
    """112 steps, of which the second half is compared with the first."""
    spread: float = 0.25
    """Single losses stray by this share of the level: healthy trainings with full batches by a few hundredths."""
    unlearned: float = 0.1
    """The level is at least this share of the beginning: near zero everything strays by a good part of itself."""
    progress: float = 0.05
    """A fall of this share between the halves is progress."""
    swing: float = -0.4
    """The autocorrelation of 128 independent losses is 0 with an error of 0.09."""
    against: float = -0.25
    """The mean cosine of consecutive gradients; noise alone makes it about 0, healthy descent positive."""
    cosines: int = 6
    """So many cosines make a mean."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        course = course_of(trace)
        if course.blocks < self.blocks:
            return self.unknown(trace, f"fewer than {self.blocks * 8} finite losses were measured")
        if course.lowest < 0:
            return self.unknown(trace, "the loss can be negative, so that it has no level to compare a swing with")
        level, noise = course.level(14), course.noise()
        if noise < self.spread * level or level < self.unlearned * course.start or self._progresses(course):
            return None
        alike = autocorrelation(trace.last("loss", 128)[1])
        cosine = self._cosine(trace)
        if alike > self.swing and (cosine is None or cosine > self.against):
            return None
        evidence = {"loss": level, "spread": noise / level, "autocorrelation": alike}
        ratios = trace.vector("update_ratio") if trace.has("update_ratio") else None
        if ratios:
            evidence["update_ratio"] = max(ratios.values())
        text = f"the loss has been swinging around {number(level)} by {number(noise)} up to step {trace.step}, no "
        text += f"better than 56 steps before; autocorrelation {number(alike)}"
        if cosine is not None:
            evidence["gradient_cosine"] = cosine
            text += f", cosine of consecutive gradients {number(cosine)}"
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=text,
            measured=noise / level,
            threshold=self.spread,
            evidence=evidence,
            since_step=course.ends[-self.blocks] - 7,
        )

    def _progresses(self, course: Course) -> bool:
        half = self.blocks // 2
        before, now = median(course.medians[-self.blocks : -half]), median(course.medians[-half:])
        return before - now > self.progress * before

    def _cosine(self, trace: Trace) -> float | None:
        """Return the mean of the latest cosines of consecutive gradients, None where there are too few."""
        _, values = trace.window("gradient_cosine", self.blocks * 16)
        latest = [value for value in values if not isinstance(value, tuple) and value == value]
        return sum(latest) / len(latest) if len(latest) >= self.cosines else None


def autocorrelation(values: Sequence[Value]) -> float:
    """Return how alike values one step apart are, clipped to where most lie; 0 for too few."""
    given = [value for value in values if not isinstance(value, tuple) and abs(value) < float("inf")]
    if len(given) < 64:
        return 0.0
    middle = median(given)
    far = 3.0 * median([abs(value - middle) for value in given])
    around = [min(max(value - middle, -far), far) for value in given]
    power = sum(one * one for one in around)
    return sum(a * b for a, b in pairwise(around)) / power if power > 0 else 0.0
