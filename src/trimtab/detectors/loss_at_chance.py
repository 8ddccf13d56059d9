"""The loss rests at that of a guess that knows nothing, though the weights move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import BLOCK, FOLDS, HARDLY, chance_of, course_of, median, travelled
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Fold, Trace


@dataclass(frozen=True, kw_only=True)
class LossAtChance(Detector):
    """The loss rests at that of a guess that knows nothing, though the weights move.

    What it sees.
    For hundreds of steps the loss lies at the chance level (ln C of C classes, or the entropy of the labels where they
    are unequal) and does not fall, while the weights have gone a good part of themselves.

    Why it matters.
    The network has learned how often each answer occurs and nothing else: the targets have nothing to do with the
    inputs, or what they have to do with them does not reach the loss.

    Evidence it shows.
    The level of the loss, the chance level, the entropy of the labels, for how many steps, how far the weights went as
    a multiple of themselves.

    False alarms.
    Some tasks are understood late, all at once. The rule waits for hundreds of steps, and says nothing while the loss
    still falls. Small batches know the entropy of the labels badly, and are then compared with ln C alone.

    What to try.
    Print twenty inputs with their targets as the loss gets them. Let the network learn a single batch by heart: if it
    can, the data are to blame, if it cannot, the network.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    folds: tuple[Fold[Any], ...] = FOLDS
    release: int = 2

    blocks: int = 64
    """512 steps at rest: the task of the benchmark that is understood late is at chance for 300."""
    near: float = 0.02
    """Within this share of chance: of the healthy trainings none is there after 100 steps, unless it understands late.
    """
    errors: float = 3.0
    """A fall of so many standard errors between the halves of these steps is a fall."""
    balanced: float = 0.97
    """An entropy of the labels of this share of ln C: the classes are about equally frequent."""
    each: float = 10.0
    """So many targets for each class make the entropy of a batch a good one."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        course = course_of(trace)
        if course.blocks < self.blocks:
            return self.unknown(trace, f"fewer than {self.blocks * BLOCK} finite losses were measured")
        chance = chance_of(trace)
        if chance is None:
            return self.unknown(trace, "the chance level of the loss is not known")
        recent = course.medians[-self.blocks :]
        level = median(recent)
        known, entropy = chance, self._entropy(trace)
        if entropy is not None and entropy < self.balanced * chance:
            known = entropy
        if not abs(level - known) <= self.near * known:
            return None
        half = self.blocks // 2
        error = course.noise(self.blocks) / math.sqrt(half * BLOCK) * 1.5
        if median(recent[:half]) - median(recent[half:]) > max(self.errors * error, 0.1 * self.near * known):
            return None
        way = travelled(trace)
        if way is not None and way < HARDLY:
            return None
        evidence = {"loss": level, "chance_level": chance, "steps": float(self.blocks * BLOCK)}
        if entropy is not None:
            evidence["label_entropy"] = entropy
        if way is not None:
            evidence["travelled"] = way
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the loss has been at {number(level)} for {self.blocks * BLOCK} steps up to step {trace.step}; "
                f"a guess that knows nothing has {number(known)}"
            ),
            measured=level,
            threshold=known,
            evidence=evidence,
            since_step=max(course.ends[-self.blocks] - BLOCK + 1, 0),
        )

    def _entropy(self, trace: Trace) -> float | None:
        """Return the usual entropy of the labels of a batch, None where batches are too small to know it."""
        entropy, classes = _usual(trace, "label_entropy"), _usual(trace, "label_classes")
        count = _usual(trace, "target_count")
        if entropy is None or classes is None or count is None or count < self.each * classes:
            return None
        return entropy * (trace.scalar("loss_terms") or 1.0)


def _usual(trace: Trace, name: str) -> float | None:
    """Return the median of the latest values of a signal, None where it was not measured."""
    values: list[float] = [value for value in _scalars(trace.last(name, 16)[1]) if math.isfinite(value)]
    return median(values) if values else None


def _scalars(values: Any) -> list[float]:
    """Return the values that are numbers."""
    given: list[Value] = list(values)
    return [value for value in given if not isinstance(value, tuple)]
