"""One gradient has blown up the optimizer's memory, and the updates after it are held small for a long time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._measured import largest, middle
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class MomentsPoisoned(Detector):
    """One gradient has blown up the optimizer's memory, and the updates after it are held small for a long time.

    What it sees.
    The second moment of the optimizer has jumped from one measured update to the next, by far more than any batch does,
    and has stayed there, while the gradients after it are again what they were before.

    Why it matters.
    Adam divides each gradient by the root of its second moment. After a gradient a thousand times too long that root is
    thirty or more times too large and falls by half only in some 1,400 updates, so the updates are a thirtieth of what
    they should be all that time. The loss looks calm and falls slowly.

    Evidence it shows.
    The moment before and after the jump and now, the gradient norm before, at its peak and now, the size of the updates
    before and now, and how many updates the jump is ago.

    False alarms.
    The moment grows on its own in the first updates, so a jump counts from step 8 on, and after the optimizer has begun
    from nothing again from its eighth update on. Batches with heavy tails raise it
    by a factor of two to three. Where the gradient stays large the moment is right, and nothing is poisoned.

    What to try.
    Clip the gradient norm near its usual value, which bounds what one batch can do. To save this run, go back before
    the jump, or clear the optimizer's state and warm up again; look at the batch of that step.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("moment_scale",)
    release: int = 8

    jump: float = 8.0
    """The sum over tensors grows so many times between two measured updates. Healthy trainings stay below 2.2, one
    without normalisation that diverges at times below 3.1; a gradient a thousand times too long gives 30 to 130."""
    first: int = 8
    """Jumps before this step, or before the optimizer counts so many updates, are the moment's own growth from zero."""
    calm: float = 5.0
    """The gradient is again below so many times its median before the jump."""
    stays: int = 6
    """So many measured updates after the jump, so that one can see that it stays."""
    window: int = 24
    """Measured updates among which the jump is looked for."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        row = trace.row
        moments = row.values.get("moment_scale") if row is not None else None
        if not isinstance(moments, tuple):
            return self.unknown(trace, "the optimizer keeps no second moment that could be read")
        current = sum(moments)
        steps, rows = trace.last("moment_scale", self.window)
        if len(rows) <= self.stays:
            return None
        # A look at a few places saves adding up all of them: whoever stays high is above one of these.
        marks = [sum(each) for each in rows[: -self.stays : 6] if isinstance(each, tuple)]
        if not current >= 0.5 * self.jump * min(marks):
            return None
        return self._look(trace, steps, rows, current)

    def _grown_up(self, age: Value | None) -> bool:
        """Say whether a moment of so many updates is past its own growth; one whose age is not known is taken to be."""
        return not isinstance(age, float) or age >= self.first

    def _look(self, trace: Trace, steps: Sequence[int], rows: Sequence[Value], current: float) -> Finding | None:
        sums = [sum(each) if isinstance(each, tuple) else math.nan for each in rows]
        places = [
            i
            for i in range(1, len(sums) - self.stays + 1)
            if steps[i - 1] >= self.first and sums[i] >= self.jump * sums[i - 1] > 0.0
        ]
        if places:
            ages = dict(zip(*trace.window("optimizer_age", trace.step - steps[0] + 1), strict=True))
            places = [i for i in places if self._grown_up(ages.get(steps[i - 1]))]
        if not places or not current >= 0.5 * self.jump * sums[places[-1] - 1]:
            return None
        place = places[-1]
        at = steps[place]
        seen, norms = trace.window("gradient_norm", trace.step - steps[max(place - 16, 0)] + 1)
        before = middle([norm for step, norm in zip(seen, norms, strict=True) if step <= steps[place - 1]])
        between = [norm for step, norm in zip(seen, norms, strict=True) if steps[place - 1] < step <= at]
        after = middle(trace.last("gradient_norm", self.stays)[1])
        peak = max((norm for norm in between if not isinstance(norm, tuple)), default=math.nan)
        if not after <= self.calm * before:
            return None
        moved = trace.window("update_ratio", trace.step - steps[max(place - 16, 0)] + 1)
        usual = middle([largest(each) for step, each in zip(*moved, strict=True) if step <= steps[place - 1]])
        lately = middle([largest(each) for each in moved[1][-3:]])
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the optimizer's second moment rose {number(sums[place] / sums[place - 1])} x at step {at} and is "
                f"still {number(current / sums[place - 1])} x what it was at step {trace.step}, while the gradient "
                f"norm is {number(after)} again ({number(before)} before): updates are held small"
            ),
            measured=current / sums[place - 1],
            threshold=self.jump,
            since_step=at,
            evidence={
                "jump": sums[place] / sums[place - 1],
                "still": current / sums[place - 1],
                "gradient_norm": after,
                "gradient_norm_before": before,
                "gradient_norm_peak": peak,
                "update_ratio": lately,
                "update_ratio_before": usual,
                "updates_ago": float(trace.step - at),
            },
        )
