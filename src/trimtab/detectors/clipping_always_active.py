"""Clipping shortens every gradient, so it sets the size of the step and no longer guards against outliers."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, now, number
from trimtab.detectors._measured import middle
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class ClippingAlwaysActive(Detector):
    """Clipping shortens every gradient, so it sets the size of the step and no longer guards against outliers.

    What it sees.
    The norm of the gradient after clipping over the norm before, below one in nearly all of the last measured updates.

    Why it matters.
    A threshold is meant for the rare gradient that is far too long. Where it cuts all of them every step has the same
    length whatever the gradient says: the learning rate is then another one than the one that was set, and a schedule
    or a batch size chosen for it no longer fits. Adam divides most of this out again.

    Evidence it shows.
    The share of updates that were clipped, the median factor, and the gradient norm before and after.

    False alarms.
    Normalised steps may be meant, and cost nothing with Adam: this is a fact worth knowing (info) until less than a
    thousandth of the gradient is left, which nobody chooses on purpose.

    What to try.
    Set the threshold near the 90th percentile of the gradient norm before clipping, which is in the evidence.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("clip_factor",)
    release: int = 8

    active: float = 0.99
    """A factor below is clipping; rounding alone leaves 1 - 1e-7."""
    measurements: int = 24
    """So many measured updates; a run that is only clipped while its gradient settles has 5 to 10."""
    share: float = 0.95
    """... of which so many were clipped."""
    strong: float = 1e-3
    """A median factor below is a warning: healthy trainings with clipping have 0.05 to 1, thresholds of 1e-5 give
    1e-5."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        factor = now(trace, "clip_factor")
        if factor is None:
            return self.unknown(trace, "gradients before and after clipping were not measured")
        if not factor < self.active:
            return None
        steps, factors = trace.last("clip_factor", self.measurements)
        clipped = sum(not isinstance(each, tuple) and each < self.active for each in factors)
        if len(steps) < self.measurements or clipped < self.share * len(steps):
            return None
        usual = middle(factors)
        before = [each for each in trace.last("gradient_norm", 64)[1] if not isinstance(each, tuple)]
        high = sorted(each for each in before if each == each)
        percentile = high[int(0.9 * (len(high) - 1))] if high else float("nan")
        return self.finding(
            trace,
            severity=Severity.WARNING if usual < self.strong else Severity.INFO,
            summary=(
                f"clipping shortened {clipped} of the last {len(steps)} measured gradients up to step {trace.step}, in "
                f"the median to {number(usual)} of their length; 90 % of them had a norm below {number(percentile)}"
            ),
            measured=usual,
            threshold=self.strong,
            since_step=steps[0],
            evidence={
                "clip_factor": usual,
                "clipped_share": clipped / len(steps),
                "gradient_norm_p90": percentile,
                "gradient_norm_applied": trace.scalar("gradient_norm_applied") or 0.0,
            },
        )
