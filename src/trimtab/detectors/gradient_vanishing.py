"""The gradient fades away on its way from the last layers to the first ones."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._measured import middle, weights_of
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GradientVanishing(Detector):
    """The gradient fades away on its way from the last layers to the first ones.

    What it sees.
    The gradient of each weight tensor, relative to the size of that tensor. In a network of some depth the largest of
    the first third is a tiny fraction of what is usual in the last third, row after row.

    Why it matters.
    The first layers learn next to nothing, and what they throw away no later layer brings back. Adam divides the size
    of the gradient out, but then follows what rounding has left of it.

    Evidence it shows.
    The relative gradient of the first and of the last third, their ratio, the number of weights, and the names of the
    first and the last of them.

    False alarms.
    Biases, embeddings (by name) and tensors without a gradient are left out; fewer than six weights are no depth.
    Networks with residual connections or normalisation keep the ratio above a hundredth. A body behind a head that
    begins at zero has no gradient at first, which counts as none and not as a small one.

    What to try.
    ReLU or GELU in place of sigmoid and tanh, He initialisation, residual connections, a normalisation between the
    layers.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("gradient_norms",)
    confirm: int = 12
    """So many measured rows in a row: a head that begins at zero lets gradients through within three."""
    release: int = 4

    ratio: float = 1e-3
    """Healthy trainings of the tuning families stay above 4e-3, a deep tanh network without residuals above 7e-3; 14
    sigmoid layers lie below 1e-6."""
    lost: float = 1e-6
    """From here on the first layers are below the rounding of float32 relative to the last ones."""
    depth: int = 6
    """With fewer weights that get a gradient there are no thirds to compare."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        row = trace.row
        norms = row.values.get("gradient_norms") if row is not None else None
        if not isinstance(norms, tuple):
            return self.unknown(trace, "the gradient norm of each tensor was not measured")
        weights = trace.last("weight_norms", 1)[1]
        names = trace.labels("gradient_norms")
        sizes = weights[0] if weights else None
        if not isinstance(sizes, tuple) or len(sizes) != len(norms) or len(names) != len(norms):
            return self.unknown(trace, "the norm of each weight was not measured")
        places = [i for i in weights_of(names) if norms[i] > 0.0 and sizes[i] > 0.0]
        if len(places) < self.depth:
            return self.unknown(trace, f"fewer than {self.depth} weights get a gradient, so there is no depth")
        third = len(places) // 3
        if norms[places[0]] / sizes[places[0]] >= self.ratio * max([norms[i] / sizes[i] for i in places[-third:]]):
            return None
        first = max(norms[i] / sizes[i] for i in places[:third])
        last = middle([norms[i] / sizes[i] for i in places[-third:]])
        if not first < self.ratio * last:
            return None
        share = first / last
        return self.finding(
            trace,
            severity=Severity.ERROR if share < self.lost else Severity.WARNING,
            summary=(
                f"the relative gradient of the first {third} weights is at most {number(first)} at step {trace.step}, "
                f"{number(share)} x that of the last {third}: it vanishes between {names[places[0]]} and "
                f"{names[places[-1]]}"
            ),
            measured=share,
            threshold=self.ratio,
            evidence={
                "ratio": share,
                "first_third": first,
                "last_third": last,
                "weights": float(len(places)),
                "first_weight": names[places[0]],
                "last_weight": names[places[-1]],
            },
        )
