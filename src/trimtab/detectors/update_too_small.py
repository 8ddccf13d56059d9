"""The updates are so small that the weights stay what they are, though the gradients are healthy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._measured import largest, middle, rate_is_steady
from trimtab.detectors.gradient_exploding import Began
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Fold, Trace

_LOSS, _NORM = Began("loss"), Began("gradient_norm")


@dataclass(frozen=True, kw_only=True)
class UpdateTooSmall(Detector):
    """The updates are so small that the weights stay what they are, though the gradients are healthy.

    What it sees.
    The norm of the update over the norm of the weights is near the rounding of the weights in every parameter group,
    in all of the last measured updates, while the learning rate is steady, the gradient is as large as at the beginning
    and the loss has not fallen. Or the updates were there once, and are now exactly zero.

    Why it matters.
    At a millionth of the weights an update, even a million updates hardly change them; below the rounding of float32
    most of the update does not arrive at all. The loss is flat, and looks like a model or data that cannot learn.

    Evidence it shows.
    The share of the weights that an update replaces, the learning rate, the gradient norm now and at the beginning, the
    loss now and at the beginning, and the factor of clipping.

    False alarms.
    A warm-up and the end of a schedule are left out, as the rate is not steady there. Fine-tuning with rates of 1e-5
    moves 4e-6 of the weights and more. Near the optimum the gradient is small as well. Where the loss falls, small
    updates are enough. Where clipping cuts the gradient to almost nothing, `clipping-starves` speaks.

    What to try.
    Multiply the learning rate by ten until an update replaces about a thousandth of the weights.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    folds: tuple[Fold[Any], ...] = (_LOSS, _NORM)
    release: int = 4

    replaced: float = 3e-7
    """Healthy trainings of the tuning families stay above 1e-3 while the rate is steady, fine-tuning near the optimum
    above 2.5e-6; rates a million times too small are below 1.2e-7. An element of float32 feels 6e-8 of itself."""
    measurements: int = 16
    """So many measured updates in a row: all steps are measured at the beginning, so a rate is judged at step 15."""
    stopped: int = 6
    """So many measured updates of exactly zero, after others: no optimizer stops by itself while it has a gradient."""
    gradient: float = 0.3
    """The gradient must be at least so many times its early level: near an optimum it falls by orders of magnitude."""
    fallen: float = 0.9
    """A loss below so many times its early level falls, however small the updates are."""
    clipped: float = 0.01
    """Where clipping leaves a hundredth of the gradient it is not the rate, and `clipping-starves` speaks."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        row = trace.row
        ratios = row.values.get("update_ratio") if row is not None else None
        if ratios is None:
            return self.unknown(trace, "how far an update moves the weights was not measured")
        now = largest(ratios)
        if now >= self.replaced:
            return None
        begin, norm = trace.fold(_NORM), middle(trace.last("gradient_norm", 8)[1])
        if norm != norm or not trace.has("learning_rate"):
            return self.unknown(trace, "the gradient norm or the learning rate was not measured")
        steps, rows = trace.last("update_ratio", self.measurements)
        moved = [largest(each) for each in rows]
        stopped = all(map(_is_still, rows[-self.stopped :])) and any(moved)
        if stopped:
            steps, moved = steps[-self.stopped :], moved[-self.stopped :]
        elif len(steps) < self.measurements or not 0.0 < max(moved) < self.replaced:
            return None
        early, loss = trace.fold(_LOSS), middle(trace.last("loss", 8)[1])
        level = early.typical if early.typical == early.typical else early.first
        usual = begin.typical if begin.typical == begin.typical else begin.first
        if not stopped and level > 0 and loss < self.fallen * level:
            return None
        if not norm >= self.gradient * usual or norm == 0.0 or not rate_is_steady(trace, steps[0]):
            return None
        factors = trace.last("clip_factor", self.measurements)[1]
        if factors and middle(factors) <= self.clipped:
            return None
        rate = largest(trace.last("learning_rate", 1)[1][0])
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=(
                f"an update replaces {number(middle(moved))} of the weights (last {len(moved)} measured up to "
                f"step {trace.step}) at a steady learning rate of {number(rate)}; gradient norm {number(norm)}, at the "
                f"beginning {number(usual)}"
            ),
            measured=middle(moved),
            threshold=self.replaced,
            since_step=steps[0],
            evidence={
                "update_ratio": middle(moved),
                "learning_rate": rate,
                "gradient_norm": norm,
                "gradient_norm_early": usual,
                "loss": loss,
                "loss_early": level,
                "clip_factor": middle(factors) if factors else math.nan,
            },
        )


def _is_still(row: Value) -> bool:
    """Say whether an update moved nothing at all; NaN is no rest."""
    return not any(entry != 0.0 for entry in row) if isinstance(row, tuple) else row == 0.0
