"""A metric has come to rest below the milestone that was declared for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import number
from trimtab.detectors._metrics import Metric, Smoothed
from trimtab.detectors.milestone_missed import MilestoneMissed
from trimtab.milestone import Milestone
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class MetricStuckBelowTarget(MilestoneMissed):
    """A metric has come to rest below the milestone that was declared for it.

    What it sees.
    The moving average of the metric has not become better by a fiftieth of the missing way over its last eight values,
    it is not there yet, and every value so far lies short of the milestone.

    Why it matters.
    It says before the milestone is due what `milestone-missed` says when it is: waiting will not help.

    Evidence it shows.
    The target, the best moving average with its step, the last value, the scatter of single values, how much of the
    way from the first value was covered (`progress`).

    False alarms.
    Tasks that are understood late rest before they rise. So a metric that has not left its first value at all is given
    twice the time, and the finding is a warning only.

    What to try.
    Lower the learning rate once to see whether the plateau is one of noise. Then look for what limits the result: too
    small a network, a part that is frozen, labels that contradict each other.

    Since.
    0.2.0
    """

    release: int = 1

    milestones: tuple[Milestone, ...] = ()
    """The declared checks; those of the loss are left to the rules about the loss."""
    values: int = 12
    """So many values before a plateau can be one."""
    rest: int = 8
    """So many values without a better average."""
    gained: float = 0.02
    """A gain of this share of the missing way is a gain."""

    def __post_init__(self) -> None:
        super().__post_init__()
        metrics = dict.fromkeys(one.metric for one in self.milestones if one.metric != "loss")
        object.__setattr__(self, "reads", (*metrics, "trimtab_seconds"))
        folds = dict.fromkeys(_smoothed(one) for one in self.milestones if one.metric != "loss")
        object.__setattr__(self, "folds", tuple(folds))

    def detect(self, trace: Trace) -> Sequence[Finding] | Unknown | None:
        declared = [one for one in self.milestones if one.metric != "loss"]
        if not declared:
            return self.unknown(trace, "no milestone was declared for a metric")
        found: list[Finding] = []
        judged = False
        for milestone in declared:
            metric = trace.fold(_smoothed(milestone))
            if metric.seen < self.values:
                continue
            judged = True
            if trace.step <= milestone.by_step and self._rests(metric, milestone):
                found.append(self._found(trace, milestone, metric))
        if found:
            return found
        return None if judged else self.unknown(trace, f"no metric with a milestone has {self.values} values yet")

    def _rests(self, metric: Metric, milestone: Milestone) -> bool:
        """Say whether the metric is short of the milestone and no longer on its way."""
        target = milestone.value if _higher(milestone) else -milestone.value
        missing = target - metric.best
        if missing <= 3.0 * metric.scatter or metric.last >= target:
            return False
        gain = metric.averages[-1] - metric.averages[-self.rest]
        moved = metric.way > 0.1 * (target - metric.first)
        return gain < self.gained * missing and (moved or metric.seen >= 2 * self.values)

    def _found(self, trace: Trace, milestone: Milestone, metric: Metric) -> Finding:
        sign = 1.0 if _higher(milestone) else -1.0
        way = milestone.value - sign * metric.first
        return self.finding(
            trace,
            severity=Severity.WARNING,
            subject=milestone.metric,
            summary=(
                f"{milestone.metric} rests at {number(sign * metric.average)} at step {metric.last_step} (moving "
                f"average); {milestone.comparison} {number(milestone.value)} was declared for step {milestone.by_step}"
            ),
            measured=sign * metric.average,
            threshold=milestone.value,
            evidence={
                "target": milestone.value,
                "best": sign * metric.best,
                "best_step": float(metric.best_step),
                "last": sign * metric.last,
                "scatter": metric.scatter,
                "progress": sign * metric.way / way if way else 0.0,
            },
        )


def _higher(milestone: Milestone) -> bool:
    return milestone.comparison.startswith(">")


def _smoothed(milestone: Milestone) -> Smoothed:
    return Smoothed(milestone.metric, _higher(milestone))
