"""A gradient is NaN or infinite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._detector import Detector, now, update_before
from trimtab.detectors._folds import Nonfinite
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

_NORM = Nonfinite("gradient_norm")


@dataclass(frozen=True, kw_only=True)
class GradientNotFinite(Detector):
    """A gradient is NaN or infinite.

    What it sees.
    The gradient norm of an update is not a finite number, and the update was not skipped by a GradScaler.

    Why it matters.
    One NaN in one gradient becomes a NaN in that weight at the next step of almost every optimizer, and in every
    output of the model one step later. Clipping does not help: it divides by the norm, and so spreads the NaN to all.

    Evidence it shows.
    The tensor where it began: backward runs from the loss to the input, so of the tensors with a broken gradient the
    last one in forward order came first. Further the share of its elements that are broken, how many tensors are,
    whether the loss was finite, the share of non-finite inputs, how many weight tensors were broken before, the share
    of the weights that the update before replaced.

    False alarms.
    A GradScaler that skips the update when its scale is too high is healthy and not counted.

    What to try.
    Look at the module named, in its backward pass: a square root or a norm at zero, a division, an exponential, a
    custom backward. Then at the input, where that is not finite. With broken weights go back to a checkpoint from
    before this step; otherwise skipping the one update costs nothing.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("gradient_norm",)
    folds: tuple[Fold[Any], ...] = (_NORM,)
    release: int = 8
    """Eight finite gradients in a row, so that one which is NaN every other step is one finding."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        norm = now(trace, "gradient_norm")
        if norm is None:
            return self.unknown(trace, "the gradient norm was not measured")
        if math.isfinite(norm) or now(trace, "update_skipped"):
            return None
        evidence: dict[str, float | str] = {}
        for name in ("loss", "input_nonfinite", "nonfinite_weights"):
            value = now(trace, name)
            if value is not None:
                evidence[name] = value
        step_before = update_before(trace)
        if step_before is not None:
            evidence["update_ratio"] = step_before
        text = f"gradient norm {norm} at step {trace.step}{self._where(trace, evidence)}"
        loss, lost = now(trace, "loss"), now(trace, "nonfinite_weights") or 0.0
        if loss is not None:
            text += "; the loss is finite" if math.isfinite(loss) else f"; the loss is {loss}"
        if lost > 0:
            text += f"; {lost:.0f} weight tensors were already not finite before this update"
        return self.finding(
            trace,
            severity=Severity.FATAL if lost > 0 else Severity.ERROR,
            summary=text,
            measured=norm,
            threshold=math.inf,
            evidence=evidence,
            since_step=trace.fold(_NORM).since,
        )

    @staticmethod
    def _where(trace: Trace, evidence: dict[str, float | str]) -> str:
        """Name the tensor where it began, in words, and put it into the evidence."""
        if trace.last_step("gradient_norms") != trace.step:
            return ""
        norms = trace.vector("gradient_norms") or {}
        broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
        evidence["tensors"] = float(len(norms))
        evidence["tensors_broken"] = float(len(broken))
        if not broken:
            return f", while the norm of each of its {len(norms)} tensors is finite: their sum of squares overflows"
        first = broken[-1]
        evidence["first_tensor"] = first
        words = f", first in {first}"
        if trace.last_step("nonfinite_share") == trace.step:
            share = (trace.vector("nonfinite_share") or {}).get(first, math.nan)
            evidence["first_share"] = share
            overflow = " (its elements are finite, their norm overflows)"
            words += f" ({share:.2%} of its elements)" if share > 0 else overflow
        return f"{words}, {len(broken)} of {len(norms)} tensors"
