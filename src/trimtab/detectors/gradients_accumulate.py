"""Nobody zeroes the gradients between updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._folds import Repeats
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

_CARRIED = Repeats("gradients_carried")


@dataclass(frozen=True, kw_only=True)
class GradientsAccumulate(Detector):
    """Nobody zeroes the gradients between updates.

    What it sees.
    Before each of several updates in a row the backward pass added to gradients that the update before had already
    used: neither `zero_grad` nor an assignment of None came between.

    Why it matters.
    The optimizer then follows the sum of all gradients since the beginning. The direction lags behind, the step grows
    with time, and the training diverges or circles around, without any error message.

    Evidence it shows.
    How many updates in a row were affected and since when; the gradient norm now and at the first step.

    False alarms.
    Accumulating over several backward passes before one update is not this, and never trips it. Gradients that are
    kept on purpose over fewer than `updates` updates do not either.

    What to try.
    Call `optimizer.zero_grad()` once for each update, before the backward pass or after the step, on the optimizer
    that holds these parameters.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("gradients_carried",)
    folds: tuple[Fold[Any], ...] = (_CARRIED,)

    updates: int = 4
    """Four updates in a row: enough to be no accident of one loop's border, and reached within five steps."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        run = trace.fold(_CARRIED)
        if run.length == 0:
            return self.unknown(trace, "whether gradients were zeroed was not measured")
        if run.value != 1.0 or run.length < self.updates:
            return None
        evidence: dict[str, float | str] = {"updates": float(run.length)}
        norm, growth = trace.scalar("gradient_norm"), ""
        first = next((v for v in trace.first("gradient_norm", 1)[1] if isinstance(v, float)), None)
        if norm is not None and first:
            evidence |= {"gradient_norm": norm, "first_gradient_norm": first}
            growth = f"; gradient norm {number(norm)}, {number(norm / first)} x the first"
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=(
                f"{run.length} updates in a row up to step {trace.step} added to the gradients of the update before: "
                f"nobody zeroes them{growth}"
            ),
            measured=float(run.length),
            threshold=float(self.updates),
            evidence=evidence,
            since_step=run.since,
        )
