"""The number of the loss is NaN or infinite, while the gradients are right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._detector import Detector, now, number
from trimtab.detectors._folds import Nonfinite
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

_LOSS = Nonfinite("loss")


@dataclass(frozen=True, kw_only=True)
class LoggedLossNotFinite(Detector):
    """The number of the loss is NaN or infinite, while the gradients are right.

    What it sees.
    The mean of the backward roots of an update is not finite, the gradient norm of the same update is, and so are all
    weights.

    Why it matters.
    The training goes well: a NaN constant was added to the loss, or a metric mixed in. But the curve is gone, and
    whatever watches it (early stopping, a scheduler, the choice of the best step) sees NaN.

    Evidence it shows.
    The last finite loss and its step, for how many updates the number is broken, the gradient norm.

    False alarms.
    None are known. It is never more than a warning, and has a code of its own, so that no answer to a broken training
    is given to it.

    What to try.
    Leave terms without a gradient out of the loss and log them beside it. Do not stop, skip or roll back for it.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("gradient_norm",)
    folds: tuple[Fold[Any], ...] = (_LOSS,)
    release: int = 8
    """Eight finite losses in a row, so that a loss which is NaN every other step is one finding."""

    calm: float = 1e9
    """A gradient norm beyond this belongs to a blow-up; the limit is that of `gradient-exploding`."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        loss, norm = now(trace, "loss"), now(trace, "gradient_norm")
        if loss is None or norm is None:
            return self.unknown(trace, "the loss and the gradient norm of one update were not measured")
        if math.isfinite(loss) or not norm < self.calm or now(trace, "nonfinite_weights"):
            return None
        state = trace.fold(_LOSS)
        evidence = {"loss": loss, "gradient_norm": norm, "updates": float(state.length), "last_finite": state.last}
        before = f" after {number(state.last)} at step {state.last_step}" if state.last_step >= 0 else ""
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"loss {loss} at step {trace.step}{before}; the gradient norm {number(norm)} is finite, so only the "
                f"reported number is broken"
            ),
            measured=loss,
            threshold=math.inf,
            evidence=evidence,
            since_step=state.since,
        )
