"""Each update replaces a good part of the weights, for too long to be a beginning."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed, number
from trimtab.detectors._measured import largest, middle, weights_of
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class UpdateTooLarge(Detector):
    """Each update replaces a good part of the weights, for too long to be a beginning.

    What it sees.
    The norm of the update over the norm of the weights, in the parameter group where it is largest, is far above what
    healthy trainings have: now, and in the median of the last measured updates.

    Why it matters.
    With a tenth of the weights replaced at each update the network never settles: what one batch taught the next ones
    wash away. The loss may look calm, as Adam and clipping hold the size of the steps; the result is poor.

    Evidence it shows.
    The median share that an update replaced, the group, the tensors that move most, the share of the update that is
    weight decay, and the learning rate.

    False alarms.
    The first steps are left out, for a tensor that begins at zero is replaced as a whole by its first update. Groups
    and not single tensors are judged, so that a small bias does not count. Warm-up bumps and restarts are short. Where
    weight decay is what moves the weights, `weight-decay-dominates` speaks.

    What to try.
    Divide the learning rate by ten; sensible updates change about a thousandth of the weights.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    release: int = 8
    excused_by: tuple[str, ...] = ("escalation",)

    replaced: float = 0.06
    """Median of the last measured updates. Healthy trainings of the tuning families have 0.001 to 0.015 there, single
    updates of a warm-up bump 0.048; rates 300 times too high 0.06 to 0.5."""
    measurements: int = 16
    """So many measured updates make the median: two steps of a schedule with restarts every eighth are no median."""
    after: int = 16
    """Updates before this step do not count: a tensor that begins at zero grows by 1/t at its t-th update."""
    decay: float = 0.5
    """Where half of the update is weight decay it is not the rate, and `weight-decay-dominates` speaks."""
    shrunk: float = 0.5
    """Nor where the weights have shrunk to less than half: beside nothing every update is long."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        row = trace.row
        ratios = row.values.get("update_ratio") if row is not None else None
        if ratios is None:
            return self.unknown(trace, "how far an update moves the weights was not measured")
        if largest(ratios) < self.replaced or trace.step < self.after + self.measurements - 1:
            return None
        steps, rows = trace.last("update_ratio", self.measurements)
        moved = middle([largest(each) for each in rows])
        if len(steps) < self.measurements or steps[0] < self.after or not moved >= self.replaced:
            return None
        shares = [largest(each) for each in trace.last("decay_share", self.measurements)[1]]
        if shares and middle(shares) > self.decay:
            return None
        if self._have_shrunk(trace):
            return None
        entries = ratios if isinstance(ratios, tuple) else (ratios,)
        group = max(range(len(entries)), key=lambda index: entries[index] if entries[index] < float("inf") else 0.0)
        groups = trace.labels("update_ratio")
        rates = trace.last("learning_rate", 1)[1]
        tensors = self._tensors(trace)
        text = f"updates replace {number(moved)} of the weights each (median of the last {self.measurements} measured "
        text += f"up to step {trace.step})"
        text += f", most of all in {listed(tensors)}" if tensors else ""
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=text,
            measured=moved,
            threshold=self.replaced,
            since_step=steps[0],
            evidence={
                "update_ratio": moved,
                "group": groups[group] if group < len(groups) else str(group),
                "tensors": tuple(tensors),
                "decay_share": middle(shares) if shares else 0.0,
                "other_groups": largest(tuple(entries[:group]) + tuple(entries[group + 1 :])) / moved,
                "groups": float(len(entries)),
                "learning_rate": largest(rates[0]) if rates else float("nan"),
            },
        )

    def _have_shrunk(self, trace: Trace) -> bool:
        """Say whether the weights are less than half of what they were, so that any update is long beside them."""
        first, last = trace.first("weight_norms", 1)[1], trace.last("weight_norms", 1)[1]
        if not first or not isinstance(first[0], tuple) or not isinstance(last[0], tuple):
            return False
        return sum(last[0]) < self.shrunk * sum(first[0])

    @staticmethod
    def _tensors(trace: Trace) -> list[str]:
        """Return the three weights of which the latest update replaced most."""
        moved, sizes = trace.last("update_norms", 1)[1], trace.last("weight_norms", 1)[1]
        names = trace.labels("update_norms")
        if not moved or not sizes or not isinstance(moved[0], tuple) or not isinstance(sizes[0], tuple):
            return []
        above, below = moved[0], sizes[0]
        places = [i for i in weights_of(names) if i < min(len(above), len(below)) and below[i] > 0.0]
        return [names[i] for i in sorted(places, key=lambda i: -above[i] / below[i])[:3]]
