"""The learning rate is zero, so nothing is learned any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import HEAD, Trace


@dataclass(frozen=True, kw_only=True)
class LearningRateZero(Detector):
    """The learning rate is zero, so nothing is learned any more.

    What it sees.
    The learning rate of all parameter groups, or of some, has been zero for several updates in a row.

    Why it matters.
    The training goes on, the loss is printed, and no weight moves. The usual cause is a schedule that was given a
    shorter horizon than the run has (in epochs instead of steps, or for one device instead of eight), or a warm-up
    that multiplies by zero.

    Evidence it shows.
    Since which step, whether the rate had ever been positive, which groups.

    False alarms.
    A warm-up that begins at zero is positive at its second step, and a schedule that ends at zero ends with the run:
    neither lasts. At the end of a long run a few steps more at zero are forgiven (`share`). One group at zero beside
    others that are not may be meant as freezing; say so with `note("freeze")`, or set `requires_grad=False`.

    What to try.
    Give the schedule the number of updates that the run really takes, and check whether it is stepped once for each
    update or once for each epoch.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("learning_rate",)
    excused_by: tuple[str, ...] = ("freeze",)

    floor: float = 1e-14
    """Rates up to here count as zero: a millionth of a millionth of the usual 1e-2, lost in the rounding of every
    weight."""
    steps_after: int = 8
    """A rate that was positive must stay at zero for so many updates: a schedule that ends on time is at zero for one
    or two."""
    steps_at_start: int = 16
    """A rate that never was positive must stay at zero for so many updates: a warm-up is at zero for one."""
    share: float = 0.02
    """... and for this share of the updates so far (at most `HEAD` of them): a run of 1,000 steps may overshoot its
    schedule by 20."""

    def detect(self, trace: Trace) -> Finding | Sequence[Finding] | Unknown | None:
        row = trace.row
        rates = row.values.get("learning_rate") if row is not None else None
        if not isinstance(rates, tuple) or not rates:
            return self.unknown(trace, "the learning rate was not measured")
        if min(rates) > self.floor:
            return None
        if not any(rate == rate for rate in rates):
            return self.unknown(trace, "the optimizer has no learning rate")
        zero = [index for index, rate in enumerate(rates) if rate <= self.floor]
        if not zero:
            return None
        if len(zero) == sum(rate == rate for rate in rates):
            return self._judge(trace, zero, "", Severity.ERROR)
        names = trace.labels("learning_rate")
        each = [self._judge(trace, [index], names[index] if names else str(index), Severity.WARNING) for index in zero]
        return [finding for finding in each if finding is not None]

    def _judge(self, trace: Trace, groups: list[int], subject: str, severity: Severity) -> Finding | None:
        """Judge groups that are all at zero now."""
        lately = max(self.steps_after, min(int(self.share * trace.step), HEAD))
        steps, rows = trace.last("learning_rate", max(lately, self.steps_at_start))
        length = 0
        for row in reversed(rows):
            if not isinstance(row, tuple) or any(row[index] > self.floor for index in groups):
                break
            length += 1
        began = trace.first("learning_rate", HEAD)[1]
        positive = length < len(rows) or any(
            isinstance(row, tuple) and any(row[index] > self.floor for index in groups) for row in began
        )
        needed = lately if positive else self.steps_at_start
        if length < needed:
            return None
        since = steps[len(steps) - length]
        whose = f"the learning rate of group {subject!r}" if subject else "the learning rate of every group"
        past = "it had been positive before" if positive else "it has never been positive"
        return self.finding(
            trace,
            severity=severity,
            subject=subject,
            summary=f"{whose} is 0 at step {trace.step}, for {length} updates or more; {past}",
            measured=0.0,
            threshold=self.floor,
            evidence={"updates": float(length), "was_positive": float(positive)},
            since_step=since,
        )
