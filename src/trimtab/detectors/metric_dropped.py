"""A metric has fallen far below its best, and the training with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import FOLDS
from trimtab.detectors._detector import Detector, number
from trimtab.detectors._metrics import Metric, Smoothed, known, least, still_learning
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace


@dataclass(frozen=True, kw_only=True)
class MetricDropped(Detector):
    """A metric has fallen far below its best, and the training with it.

    What it sees.
    The moving average of a metric (half of it the past, without start bias) lies below the best moving average by
    a good part of all that was gained and by many times the scatter of single values; or, on the fast path, two values
    in a row lie below by twice as much. The training loss is no better than it was at the best.

    Why it matters.
    What had been reached is being lost while the training goes on. An escalation (harder data, a larger delta, a part
    that is unfrozen) should be held, and weights from before the fall be kept.

    Evidence it shows.
    The metric now, its moving average and the best one with its step, the scatter, the share of the gain that is lost.

    False alarms.
    A moving average that is compared with the best single value falls behind on every healthy rise; here the best
    average counts. Where the training loss goes on falling, `past-its-peak` speaks. A metric whose direction was not
    given is not judged.

    What to try.
    Hold whatever was being made harder. Go back to the weights of the best step, with a third of the learning rate.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio", "trimtab_seconds")
    folds: tuple[Fold[Any], ...] = FOLDS
    excused_by: tuple[str, ...] = ("data-change", "curriculum", "restart", "escalation")
    per_stream: bool = False

    values: int = 6
    """So many values are needed before a best means something."""
    lost: float = 0.12
    """This share of what was gained: healthy metrics scatter by half of it."""
    scatters: float = 5.0
    """... and so many times the scatter of single values."""

    def detect(self, trace: Trace) -> Sequence[Finding] | Unknown | None:
        found: list[Finding] = []
        judged = False
        for key, higher in known(trace):
            metric = trace.fold(Smoothed(key, higher))
            if metric.seen < self.values:
                continue
            judged = True
            if metric.since_best and not still_learning(trace, metric.best_step):
                finding = self._judge(trace, key, metric, higher)
                if finding is not None:
                    found.append(finding)
        if found:
            return found
        if not judged:
            return self.unknown(trace, f"no metric with a known direction has {self.values} values")
        return None

    def _judge(self, trace: Trace, key: str, metric: Metric, higher: bool) -> Finding | None:
        sign = 1.0 if higher else -1.0
        threshold = max(self.lost * metric.way, self.scatters * metric.scatter, least(trace, metric, higher))
        drop, fast = metric.best - metric.average, metric.best - metric.last
        if not metric.way > 0 or metric.way < self.scatters * metric.scatter or not threshold > 0:
            return None
        if drop < threshold and not (fast >= 2.0 * threshold and metric.run >= 2):
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            subject=key,
            summary=(
                f"{key} is {number(sign * metric.last)} at step {metric.last_step}; its moving average is "
                f"{number(sign * metric.average)}, where it was {number(sign * metric.best)} at step {metric.best_step}"
            ),
            measured=drop,
            threshold=threshold,
            evidence={
                "last": sign * metric.last,
                "average": sign * metric.average,
                "best": sign * metric.best,
                "best_step": float(metric.best_step),
                "scatter": metric.scatter,
                "lost": drop / metric.way,
            },
            since_step=metric.best_step,
        )
