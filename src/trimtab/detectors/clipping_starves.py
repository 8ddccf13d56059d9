"""Clipping leaves so little of the gradient that the weights hardly move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.detectors._detector import Detector, now, number
from trimtab.detectors._measured import largest, middle, rate_is_steady
from trimtab.detectors.gradient_exploding import Began
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

_LOSS = Began("loss")


@dataclass(frozen=True, kw_only=True)
class ClippingStarves(Detector):
    """Clipping leaves so little of the gradient that the weights hardly move.

    What it sees.
    Over the last measured updates the gradient after clipping has been a tiny fraction of what it was before, and the
    updates are tiny relative to the weights, at a steady learning rate.

    Why it matters.
    The threshold lies far below the usual gradient, so the learning rate that was chosen never applies. The loss falls
    a hundred or a thousand times more slowly than it could, or not at all.

    Evidence it shows.
    The median factor, the norm before and after clipping, the median share of the weights that an update replaces, the
    loss now and at the beginning.

    False alarms.
    Adam divides by the size of the gradient it is given, so its updates keep their size under any threshold above its
    epsilon: the rule asks for small updates and not for small factors alone. Warm-up and annealing are left out.

    What to try.
    Set the threshold near the 90th percentile of the gradient norm before clipping, or take the clipping out.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("clip_factor",)
    folds: tuple[Fold[Any], ...] = (_LOSS,)
    release: int = 8

    left: float = 0.01
    """At most so much of the gradient is left: healthy trainings with clipping keep 0.05 and more."""
    replaced: float = 1e-4
    """Updates below this share of the weights: healthy trainings have 7e-4 to 1.5e-2 at a steady rate, a threshold of
    1e-5 before SGD leaves 2e-5 (of which most is weight decay), and before Adam 4e-3."""
    lost: float = 1e-5
    """... and below this one nothing is learned in any usual number of updates."""
    measurements: int = 16
    """So many measured updates: all steps are measured at the beginning, so a threshold is judged at step 15."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        factor = now(trace, "clip_factor")
        if factor is None:
            return self.unknown(trace, "gradients before and after clipping were not measured")
        if not factor <= self.left:
            return None
        steps, factors = trace.last("clip_factor", self.measurements)
        ratios = [largest(each) for each in trace.last("update_ratio", self.measurements)[1]]
        if not ratios:
            return self.unknown(trace, "how far an update moves the weights was not measured")
        usual, moved = middle(factors), middle(ratios)
        if len(steps) < self.measurements or not usual <= self.left or not moved < self.replaced:
            return None
        if not rate_is_steady(trace, steps[0]):
            return None
        norm, applied = middle(trace.last("gradient_norm", self.measurements)[1]), trace.scalar("gradient_norm_applied")
        early, loss = trace.fold(_LOSS), middle(trace.last("loss", 8)[1])
        level = early.typical if early.typical == early.typical else early.first
        return self.finding(
            trace,
            severity=Severity.ERROR if moved < self.lost or (level > 0 and loss >= 0.9 * level) else Severity.WARNING,
            summary=(
                f"clipping leaves {number(usual)} of the gradient (median of {len(steps)} up to step {trace.step}; "
                f"norm {number(norm)} before it), and an update replaces {number(moved)} of the weights; the loss is "
                f"{number(loss)}, at the beginning {number(level)}"
            ),
            measured=usual,
            threshold=self.left,
            since_step=steps[0],
            evidence={
                "clip_factor": usual,
                "gradient_norm": norm,
                "gradient_norm_applied": applied if applied is not None else float("nan"),
                "update_ratio": moved,
                "loss": loss,
                "loss_early": level,
            },
        )
