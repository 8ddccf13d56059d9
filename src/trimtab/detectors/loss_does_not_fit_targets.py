"""The loss function is not made for targets like these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import FOLDS, course_of, of_one_kind
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

_KINDS = {
    "targets_broadcast": (
        Severity.ERROR,
        "prediction and targets of a squared error have different shapes and were spread to N x N, every prediction "
        "against every target",
    ),
    "one_hot_under_squared": (
        Severity.WARNING,
        "a squared error on targets whose rows are a single one among zeros: classes, for which there is cross-entropy",
    ),
    "one_hot_under_binary": (
        Severity.WARNING,
        "a binary cross-entropy on targets whose rows are a single one among zeros: classes that exclude each other, "
        "for which there is cross-entropy",
    ),
    "codes_under_squared": (
        Severity.INFO,
        "a squared error on targets that are all small whole numbers: if they are codes of classes, their distance "
        "means nothing",
    ),
}


@dataclass(frozen=True, kw_only=True)
class LossDoesNotFitTargets(Detector):
    """The loss function is not made for targets like these.

    What it sees.
    In the graph: a squared error or a binary cross-entropy whose targets are rows with a single one among zeros, a
    squared error on small whole numbers, or one whose prediction (N, 1) and targets (N,) were spread to N x N. Or a
    loss over targets of several kinds whose sign is turned, and that the updates make ever more negative.

    Why it matters.
    A squared error on classes has tiny gradients where the network is surely wrong; a binary one asks of each output
    alone what only all together can answer. Both learn, slowly and worse. Shapes that are spread against each other
    teach every output the mean of all targets. A loss with its sign turned teaches to be wrong, without an end.

    Evidence it shows.
    Which of them, and in how many graphs it stood there; of a turned sign the loss at first and now.

    False alarms.
    Whole numbers may be ratings or counts, so that is info. Rows with a single one may be several labels of which one
    is true by chance: all rows of each graph must be so, at least eight a batch. Where a binary loss over classes is
    meant, ignore the rule by name. The same for an ascent on purpose, as in unlearning or an attack; an optimizer with
    `maximize=True` makes such a loss rise, and a generator's targets are all of one kind: both are silent.

    What to try.
    Cross-entropy with class indices on raw scores. For spread shapes: `prediction.squeeze(-1)`, or targets with
    `unsqueeze(-1)`. Take out the minus sign.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("one_hot_under_squared", "one_hot_under_binary", "squashed_before_loss", "update_ratio")
    folds: tuple[Fold[Any], ...] = FOLDS

    graphs: int = 2
    """Seen in so many graphs and in all of them: a single batch may hold a single one in each row by chance."""
    blocks: int = 8
    """64 steps, after which the way of a negative loss is clear."""
    wronger: float = 2.0
    """So many times its first value: a mean log-likelihood that is maximised rises towards zero instead."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if not any(trace.has(name) for name in self.reads[:3]):
            return self.unknown(trace, "no loss function was recognised in the graph")
        for kind, (severity, text) in _KINDS.items():
            steps, values = trace.first(kind, trace.count(kind))
            if len(values) >= self.graphs and all(value == 1.0 for value in values):
                return self.finding(
                    trace,
                    severity=severity,
                    summary=f"{text} ({len(values)} graphs up to step {trace.step})",
                    measured=float(len(values)),
                    threshold=float(self.graphs),
                    evidence={"kind": kind.replace("_", " "), "graphs": float(len(values))},
                    since_step=steps[0],
                )
        return self._negated(trace)

    def _negated(self, trace: Trace) -> Finding | None:
        if not trace.has("loss_negated") or trace.scalar("loss_negated") != 1.0:
            return None
        course = course_of(trace)
        if course.blocks < self.blocks or of_one_kind(trace):
            return None
        level = course.level(4)
        if not (course.first < 0 and level < self.wronger * course.first):
            return None
        graphs = float(trace.count("loss_negated"))
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the sign of the loss is turned: {number(course.first)} at the beginning and {number(level)} at step "
                f"{trace.step}, so that each update makes the predictions worse"
            ),
            measured=level,
            threshold=self.wronger * course.first,
            evidence={"kind": "loss negated", "graphs": graphs, "loss_first": course.first, "loss": level},
            since_step=0,
        )
