"""Weight decay moves the weights more than the data do, and they shrink."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._measured import largest, middle
from trimtab.detectors.gradient_exploding import Began
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Fold, Trace

_LOSS = Began("loss")


@dataclass(frozen=True, kw_only=True)
class WeightDecayDominates(Detector):
    """Weight decay moves the weights more than the data do, and they shrink.

    What it sees.
    The part of weight decay in the updates of a parameter group is large in the median of the last measured updates,
    the weights as a whole have shrunk since the beginning, and the loss is still near where it began.

    Why it matters.
    The penalty has become the objective: the network is pulled towards zero faster than it learns, and ends as one that
    says the same to every input.

    Evidence it shows.
    The share of the decay, the norm of all weights now and at the beginning, the loss now and at the beginning, and the
    group.

    False alarms.
    Where the weights are in balance the share is small: it lies near the root of half of rate times decay. At the end
    of a training that fits everything the gradient vanishes and the share rises, but the loss is low by then. Weights
    that do not shrink are not dominated, whatever the share says.

    What to try.
    Divide the weight decay by ten, use AdamW in place of Adam with a penalty, and leave biases, gains and embeddings
    out of it.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("decay_share",)
    folds: tuple[Fold[Any], ...] = (_LOSS,)
    release: int = 8

    share: float = 0.25
    """Median over the last measured updates: healthy trainings stay below 0.04 (single updates 0.05), those with a
    decay a hundred times too large have 0.32 to 60."""
    measurements: int = 16
    """So many measured updates make the median."""
    shrunk: float = 0.7
    """The weights as a whole are below this share of their first norm: healthy trainings with decay stay above 0.89."""
    learned: float = 0.5
    """A loss below so many times its early level has been learned in spite of the decay."""
    shrunk_alone: float = 0.1
    """The same where the loss is not positive and does not say whether anything is learned: views of images under a
    healthy strong decay shrink to 0.65, with batch normalisation, which makes up for it."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        row = trace.row
        shares = row.values.get("decay_share") if row is not None else None
        if shares is None:
            return self.unknown(trace, "the share of weight decay in the updates was not measured")
        if largest(shares) < self.share:
            return None
        steps, rows = trace.last("decay_share", self.measurements)
        usual = middle([largest(each) for each in rows])
        if len(steps) < self.measurements or not usual >= self.share:
            return None
        first, last = trace.first("weight_norms", 1)[1], trace.last("weight_norms", 1)[1]
        if not first:
            return self.unknown(trace, "the norm of the weights was not measured")
        began, size = _total(first[0]), _total(last[0])
        early, loss = trace.fold(_LOSS), middle(trace.last("loss", 8)[1])
        level = early.typical if early.typical == early.typical else early.first
        shrunk = self.shrunk if level > 0 else self.shrunk_alone
        if not size <= shrunk * began or (level > 0 and loss < self.learned * level):
            return None
        entries = shares if isinstance(shares, tuple) else (shares,)
        group, groups = entries.index(largest(shares)), trace.labels("decay_share")
        return self.finding(
            trace,
            severity=Severity.ERROR if size <= self.shrunk_alone * began else Severity.WARNING,
            summary=(
                f"weight decay is {number(usual)} of the update (median of {len(steps)} up to step {trace.step}) and "
                f"the weights have shrunk to {number(size / began)} of their first norm; the loss is {number(loss)}, "
                f"at the beginning {number(level)}"
            ),
            measured=usual,
            threshold=self.share,
            since_step=steps[0],
            evidence={
                "decay_share": usual,
                "weight_norm": size,
                "weight_norm_first": began,
                "loss": loss,
                "loss_early": level,
                "group": groups[group] if group < len(groups) else str(group),
            },
        )


def _total(norms: Value) -> float:
    """Return the norm of all tensors together."""
    return math.sqrt(sum(norm * norm for norm in norms)) if isinstance(norms, tuple) else norms
