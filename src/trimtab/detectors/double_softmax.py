"""A softmax or sigmoid stands before a loss that applies one itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class DoubleSoftmax(Detector):
    """A softmax or sigmoid stands before a loss that applies one itself.

    What it sees.
    In the autograd graph the scores that go into a cross-entropy come straight out of a softmax, or those of a binary
    cross-entropy with logits straight out of a sigmoid.

    Why it matters.
    The scores then lie between 0 and 1, so the second squashing can never give a confident answer: with ten classes
    the loss cannot fall below 1.46. Gradients shrink, the training is slow and its probabilities mean nothing.

    Evidence it shows.
    In how many graphs it stood there, the lowest loss that is still possible (for a cross-entropy that is not scaled
    or weighted), the loss now.

    False alarms.
    A log-softmax before a cross-entropy changes nothing and is not reported, nor a sigmoid before a binary
    cross-entropy that takes probabilities.

    What to try.
    Give the loss the raw scores: drop the softmax or sigmoid from the model's training output and apply it only where
    probabilities are read.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("squashed_before_loss",)

    graphs: int = 2
    """Seen in two graphs: once could be a first pass that only looks at shapes."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        latest = trace.scalar("squashed_before_loss")
        if latest is None:
            return self.unknown(trace, "no loss function was recognised in the graph")
        if latest != 1.0:
            return None
        steps, values = trace.first("squashed_before_loss", trace.count("squashed_before_loss"))
        seen = [step for step, value in zip(steps, values, strict=True) if value == 1.0]
        if len(seen) < self.graphs:
            return None
        evidence: dict[str, float | str] = {"graphs": float(len(seen))}
        loss, floor = trace.scalar("loss"), _floor(trace.scalar("chance_level"))
        if loss is not None:
            evidence["loss"] = loss
        text = (
            f"a softmax or sigmoid stands before a loss that applies one itself, "
            f"in {len(seen)} graphs up to step {trace.step}"
        )
        if floor is not None:
            evidence["loss_floor"] = floor
            text += f"; the loss cannot fall below {number(floor)}"
            text += f", it is {number(loss)}" if loss is not None else ""
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=text,
            measured=float(len(seen)),
            threshold=float(self.graphs),
            evidence=evidence,
            since_step=seen[0],
        )


def _floor(chance: float | None) -> float | None:
    """Return the lowest possible loss with scores in [0, 1], None where the loss is scaled by an unknown factor."""
    if chance is None or chance > 20.0:
        return None
    classes = math.exp(chance)
    if abs(classes - round(classes)) > 1e-3 * classes or round(classes) < 2:
        return None
    return math.log(math.e + classes - 1.0) - 1.0
