"""The loss is NaN or infinite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._detector import Detector, now, number, update_before
from trimtab.detectors._folds import Nonfinite
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

_LOSS = Nonfinite("loss")


@dataclass(frozen=True, kw_only=True)
class LossNotFinite(Detector):
    """The loss is NaN or infinite.

    What it sees.
    The mean of the backward roots of an update is not a finite number.

    Why it matters.
    A NaN in the loss normally becomes a NaN in every gradient and, after the next update, in every weight; from then
    on nothing can be learned and the run must go back to an earlier state. A loss whose number alone is broken, while
    the gradients are right, is the business of `logged-loss-not-finite`: no answer to this finding ever acts on it.

    Evidence it shows.
    Whether the gradient of the same update is finite, how many weight tensors were already broken before it, the
    share of non-finite inputs, the last finite loss, the share of the weights that the update before replaced.

    False alarms.
    Updates that a GradScaler skipped are passed over, for a scale that is still too high is how mixed precision
    starts; only a loss that stays broken over `skips_tolerated` of them is reported.

    What to try.
    Look at the first step named: at its input when that is not finite, else for a logarithm or a division of zero
    (clamp its argument), or for a learning rate that had blown the weights up before. With broken weights go back to
    a checkpoint from before that step.

    Since.
    0.1.0
    """

    version: int = 2
    reads: tuple[str, ...] = ("loss",)
    folds: tuple[Fold[Any], ...] = (_LOSS,)
    release: int = 8
    """Eight finite losses in a row, so that a loss which is NaN every other step is one finding."""

    wait: int = 3
    """Where the gradient is not measured at every step, it is from the step after a broken loss on; so the third
    broken loss without one means that nobody measures it."""
    calm: float = 1e9
    """A finite gradient norm below this is that of a training that goes well; beyond, its fourth power overflows."""
    skips_tolerated: int = 24
    """A GradScaler begins at 2**16 and halves at each skip, so 16 skips reach 1 and 24 reach 2**-8: by then no scale
    is to blame."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        loss = now(trace, "loss")
        if loss is None:
            return self.unknown(trace, "the loss was not measured")
        if math.isfinite(loss):
            return None
        state = trace.fold(_LOSS)
        if now(trace, "update_skipped") and state.length <= self.skips_tolerated:
            return None
        evidence = {"loss": loss, "updates": float(state.length), "last_finite": state.last}
        for name in ("gradient_norm", "nonfinite_weights", "input_nonfinite"):
            value = now(trace, name)
            if value is not None:
                evidence[name] = value
        norm, lost = evidence.get("gradient_norm"), evidence.get("nonfinite_weights", 0.0)
        if lost > 0:
            severity = Severity.FATAL
            told = f"{lost:.0f} weight tensors were already not finite before this update"
        elif norm is None:
            if state.length < self.wait:
                return self.unknown(
                    trace, f"the loss is {loss}; whether the gradient is too is measured at a later step"
                )
            severity, told = Severity.ERROR, "the gradient was not measured"
        elif norm < self.calm:
            return None
        else:
            severity, told = Severity.ERROR, f"the gradient norm is {number(norm)} too"
        step_before = update_before(trace)
        if step_before is not None:
            evidence["update_ratio"] = step_before
        before = f" after {number(state.last)} at step {state.last_step}" if state.last_step >= 0 else ""
        return self.finding(
            trace,
            severity=severity,
            summary=f"loss {loss} at step {trace.step}{before}; {told}",
            measured=loss,
            threshold=math.inf,
            evidence=evidence,
            since_step=state.since,
        )
