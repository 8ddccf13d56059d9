"""A validation metric has turned for the worse while the training loss goes on falling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import FOLDS
from trimtab.detectors._detector import Detector, number
from trimtab.detectors._metrics import (
    OF_A_SCORE_ALONE,
    OVERHEARD,
    Metric,
    Peak,
    Smoothed,
    against_the_loss,
    held_out_loss,
    is_of_training,
    known,
    least,
    losses,
    peak_of,
    still_learning,
)
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace


@dataclass(frozen=True, kw_only=True)
class PastItsPeak(Detector):
    """A validation metric has turned for the worse while the training loss goes on falling.

    What it sees.
    The moving average of a metric that is not one of the training part lies below its best by many times the scatter
    of single values and by a part of what was gained, for several values in a row, and the training loss is now lower
    than it was at that best. A score whose own data have a better loss by now needs to lose less: whatever it lost, the
    loss does not ask for it.

    Why it matters.
    From the best step on the network learns the examples and no longer the task, or a task that is not the one of the
    metric. Every further step makes the result worse, though the loss that is printed looks better and better.

    Evidence it shows.
    The best moving average and its step, the average now, the scatter, the share of the gain that is lost, the
    training loss then and now, and the loss of the metric's own data then and now where one is recorded.

    False alarms.
    A validation loss rises before the accuracy falls, as the network grows too sure of itself; where only the accuracy
    matters, record that one; of a loss that was only overheard it is a fact and no warning. Metrics that scatter are
    given room. Unknown directions are not judged.

    What to try.
    Keep the weights of the best step. More data, weight decay, dropout or a smaller network move the peak; training on
    does not.

    Since.
    0.2.0
    """

    version: int = 2
    reads: tuple[str, ...] = ("update_ratio", "trimtab_seconds")
    folds: tuple[Fold[Any], ...] = FOLDS
    per_stream: bool = False

    values: int = 6
    """So many values are needed before a best means something."""
    after: int = 3
    """So many values since the best."""
    scatters: float = 5.0
    """So many times the scatter of single values below the best average, which itself scatters by half of one."""
    lost: float = 0.1
    """... and this share of what was gained. Neither is asked for where the loss of the same data got better."""

    def detect(self, trace: Trace) -> Sequence[Finding] | Unknown | None:
        found: list[Finding] = []
        judged = False
        for key, higher in known(trace):
            if is_of_training(key):
                continue
            metric = trace.fold(Smoothed(key, higher))
            if metric.seen < self.values:
                continue
            judged = True
            finding = self._judge(trace, key, metric, higher)
            if finding is not None:
                found.append(finding)
        if found:
            return found
        if not judged:
            return self.unknown(trace, f"no metric of other data with a known direction has {self.values} values")
        return None

    def _judge(self, trace: Trace, key: str, metric: Metric, higher: bool) -> Finding | None:
        threshold = max(self.scatters * metric.scatter, self.lost * metric.way, least(trace, metric, higher))
        drop = metric.best - metric.average
        if (
            metric.since_best >= self.after
            and threshold > 0
            and drop >= threshold
            and still_learning(trace, metric.best_step)
        ):
            held_out = held_out_loss(trace, key, metric.best_step)
            usual = Peak(metric.best, metric.best_step, metric.average, metric.scatter)
            return self._say(trace, key, metric, higher, usual, threshold, held_out)
        peak = peak_of(trace, key, higher, self.after)
        held_out = None if peak is None else held_out_loss(trace, key, peak.step)
        if peak is None or not against_the_loss(held_out) or not still_learning(trace, peak.step):
            return None
        threshold = max(self.scatters * peak.scatter, OF_A_SCORE_ALONE * abs(peak.best))
        if not threshold > 0 or peak.best - peak.now < threshold:
            return None
        return self._say(trace, key, metric, higher, peak, threshold, held_out)

    def _say(
        self, trace: Trace, key: str, metric: Metric, higher: bool, peak: Peak, threshold: float,
        held_out: tuple[float, float] | None,
    ) -> Finding:  # fmt: skip
        sign, drop = (1.0 if higher else -1.0), peak.best - peak.now
        then, now = losses(trace, peak.step)
        way = peak.best - metric.first
        return self.finding(
            trace,
            severity=Severity.INFO if key.startswith(OVERHEARD) else Severity.WARNING,
            subject=key,
            summary=(
                f"{key} was best at step {peak.step} ({number(sign * peak.best)}, smoothed) and is "
                f"{number(sign * peak.now)} at step {metric.last_step}, while the training loss fell from "
                f"{number(then)} to {number(now)}"
                + ("" if held_out is None else f", and its own from {number(held_out[0])} to {number(held_out[1])}")
            ),
            measured=drop,
            threshold=threshold,
            evidence={
                "last": sign * metric.last,
                "average": sign * peak.now,
                "best": sign * peak.best,
                "best_step": float(peak.step),
                "scatter": peak.scatter,
                "lost": drop / way if way > 0 else 0.0,
                "loss_then": then,
                "loss": now,
                **({} if held_out is None else {"held_out_then": held_out[0], "held_out": held_out[1]}),
            },
            since_step=peak.step,
        )
