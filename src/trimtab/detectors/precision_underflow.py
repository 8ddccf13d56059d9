"""Gradients are too small for their number format and become exactly zero."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._measured import middle, weights_of
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class PrecisionUnderflow(Detector):
    """Gradients are too small for their number format and become exactly zero.

    What it sees.
    Exact zeros among the gradients of nearly every tensor, those of the last layer and its bias included, look after
    look.

    Why it matters.
    Numbers below 6e-8 are zero in float16, and gradients of small losses or deep networks are often below. The elements
    that are zero do not train; the larger ones do, so that the network learns with a part of itself.

    Evidence it shows.
    The share of zeros of the middle tensor, of the least and of the last one, how many tensors were looked at, the
    share of gradients kept in 16 bits, the loss scale.

    False alarms.
    Dead units and sparse inputs make whole rows and columns zero, but the layers behind them, and the bias of the last
    layer above all, keep gradients without zeros: every tensor must have some. Embeddings (by name) are left out.
    Batches without any gradient at all (an advantage of zero, a margin that is met) count only where 16-bit numbers are
    in use.

    What to try.
    Scale the loss (`torch.amp.GradScaler`), use bfloat16, which has the range of float32, or keep these layers in
    float32. A loss that was divided by a large number can be multiplied again.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("gradient_zero_share",)
    release: int = 3

    middle_share: float = 0.5
    """Half of the elements of the middle tensor are zero."""
    looks: int = 8
    """Means are taken over so many looks: a head that begins at zero cuts off the others for one or two, and a bias of
    three numbers has a zero in one look and none in the next."""
    least: float = 0.08
    """In each tensor at least so many are, in the mean: in healthy trainings, and in those with dead units, some tensor
    has below 0.02; gradients that pass through float16 after a factor of 1e-6 have 0.15 and more in each."""
    tensors: int = 3
    """With fewer tensors one cannot tell underflow from a sparse one."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        row = trace.row
        shares = row.values.get("gradient_zero_share") if row is not None else None
        if not isinstance(shares, tuple):
            return self.unknown(trace, "how many elements of the gradients are zero was not measured")
        if middle(shares) < self.middle_share and max(shares) < 1.0:
            return None
        names, norms = trace.labels("gradient_zero_share"), trace.last("gradient_norms", 1)[1]
        missing = trace.last("gradient_missing", 1)[1]
        absent = missing[0] if missing and isinstance(missing[0], tuple) else ()
        tables = set(range(len(names))) - set(weights_of(names)) - {i for i, n in enumerate(names) if "bias" in n}
        places = [i for i in range(len(shares)) if i not in tables and not (i < len(absent) and absent[i] == 1.0)]
        if len(places) < self.tensors:
            return self.unknown(trace, f"fewer than {self.tensors} tensors have a gradient")
        rows = [each for each in trace.last("gradient_zero_share", self.looks)[1] if isinstance(each, tuple)]
        looked = [sum(each[i] for each in rows) / len(rows) for i in places]
        usual, least = middle(looked), min(looked)
        half, scale = self._latest(trace, "half_share"), self._latest(trace, "loss_scale")
        if least >= 1.0 and not (half or scale):
            return self.unknown(trace, "every gradient is zero, and nothing says that numbers of 16 bits are in use")
        if len(rows) < self.looks or usual < self.middle_share or least < self.least:
            return None
        vanished = isinstance(norms[0], tuple) and not any(norms[0]) if norms else False
        return self.finding(
            trace,
            severity=Severity.ERROR if vanished or usual >= 0.9 else Severity.WARNING,
            summary=(
                f"{number(100 * usual)} % of the gradient is exactly zero in the middle one of {len(places)} tensors "
                f"(mean of {len(rows)} looks up to step {trace.step}), at least {number(100 * least)} % in each, "
                f"{number(100 * looked[-1])} % in the last ({names[places[-1]]})"
            ),
            measured=usual,
            threshold=self.middle_share,
            evidence={
                "zero_share": usual,
                "least": least,
                "last": looked[-1],
                "tensors": float(len(places)),
                "half_share": half,
                "loss_scale": scale,
            },
        )

    @staticmethod
    def _latest(trace: Trace, name: str) -> float:
        return (trace.scalar(name) or 0.0) if trace.has(name) else 0.0
