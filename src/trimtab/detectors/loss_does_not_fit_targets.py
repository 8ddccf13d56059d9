"""The loss function is not made for targets like these."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace

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
    squared error on small whole numbers, or one whose prediction (N, 1) and targets (N,) were spread to N x N.

    Why it matters.
    A squared error on classes has tiny gradients where the network is surely wrong; a binary one asks of each output
    alone what only all together can answer. Both learn, slowly and worse. Shapes that are spread against each other
    teach every output the mean of all targets.

    Evidence it shows.
    Which of them, and in how many graphs it stood there.

    False alarms.
    Whole numbers may be ratings or counts, so that is info. Rows with a single one may be several labels of which one
    is true by chance: all rows of each graph must be so, at least eight a batch. Where a binary loss over classes is
    meant, ignore the rule by name.

    What to try.
    Cross-entropy with class indices on raw scores. For spread shapes: `prediction.squeeze(-1)`, or targets with
    `unsqueeze(-1)`.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("one_hot_under_squared", "one_hot_under_binary", "squashed_before_loss")

    graphs: int = 2
    """Seen in so many graphs and in all of them: a single batch may hold a single one in each row by chance."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if not any(trace.has(name) for name in self.reads):
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
        return None
