"""Loss and gradient leapt by the same factor from one step to the next, and stayed there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import FOLDS, course_of, median
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Fold, Trace

SOON = 64
"""The next full row is not farther away than this."""


@dataclass(frozen=True, kw_only=True)
class LossScaleChanged(Detector):
    """Loss and gradient leapt by the same factor from one step to the next, and stayed there.

    What it sees.
    Between two steps the loss changes to a multiple or a fraction of itself, clear of all that it was just before and
    after; the gradient norm does so too, by the same factor (or by one that fits to a sum, where the graph of the loss
    changed at that step); both stay for 16 steps and more.

    Why it matters.
    It is the unit that changed and not what is learned: a sum where a mean was, another number of accumulated batches,
    a weight of the loss. SGD now takes steps so many times as long, thresholds for clipping and stopping mean something
    else, and curves before and after cannot be compared.

    Evidence it shows.
    The factor of the loss and of the gradient norm, whether the graph of the loss changed, and the number of backward
    passes before and after.

    False alarms.
    Harder data raise the loss and the gradient too, but seldom alike; where both do, say `note("data-change")` or
    `note("curriculum")`.

    What to try.
    Look at what is different from the step named on: batch size, accumulation, `reduction`, weights of the terms.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    folds: tuple[Fold[Any], ...] = FOLDS
    release: int = 1
    excused_by: tuple[str, ...] = ("data-change", "curriculum", "restart")

    factor: float = 2.5
    """Losses of healthy runs change by less between the medians of 16 steps, but for the first ones."""
    alike: float = 1.2
    """The two factors differ by no more than this."""
    independent: float = 0.4
    """Gradients of k batches that are added up grow by something between the root of k and k: the logarithms of the two
    factors have a ratio from about 0.5 to 1. That is enough where the graph of the loss changed at the same step."""
    clear: float = 1.3
    """All 12 losses after the leap lie beyond all 12 before it by so much."""
    level: float = 2.0
    """Before and after a fall the losses differ among themselves by no more than this: a loss that falls towards zero
    by a factor every few steps takes its gradient with it, and is no change of scale."""
    long: float = 0.05
    """An update before the step that replaced this share of the weights may itself be the reason; ordinary ones replace
    about a thousandth."""
    settled: int = 32
    """Within the first steps losses leap for other reasons."""
    norms: int = 3
    """So many gradient norms on each side make a median."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if not trace.has("gradient_norm"):
            return self.unknown(trace, "the gradient norm was not measured")
        course = course_of(trace)
        if course.blocks < 8:
            return self.unknown(trace, "fewer than 64 finite losses were measured")
        recent = course.medians[-16:]
        low, high = min(recent), max(recent)
        if not low > 0:
            return None if course.lowest > 0 else self.unknown(trace, "the loss can be negative, so it has no factor")
        if high < self.factor * low:
            return None
        steps, losses = trace.last("loss", 160)
        place = self._leap(losses)
        if place is None:
            return None
        since = steps[place]
        if since < self.settled:
            return None
        by_loss = _median(losses[place : place + 12]) / _median(losses[place - 12 : place])
        before, after = self._norms(trace, since)
        if len(before) < self.norms or len(after) < self.norms or not (median(before) > 0 and median(after) > 0):
            return None
        by_norm = median(after) / median(before)
        changed = self._graph_changed(trace, since)
        if not self._fits(by_loss, by_norm, changed):
            return None
        longest = self._longest(trace, since)
        if longest is None or longest >= self.long:
            return None
        evidence = {"factor": by_loss, "gradient_factor": by_norm, "graph_changed": float(changed)}
        calls_steps, calls = trace.window("backward_calls", trace.step - since + 2)
        if len(calls) >= 2 and calls_steps[0] < since:
            evidence["calls_before"], evidence["calls_after"] = _median(calls[:1]), _median(calls[1:2])
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"from step {since} on the loss is {number(by_loss)} x what it was, and the gradient norm "
                f"{number(by_norm)} x"
            ),
            measured=by_loss,
            threshold=self.factor,
            evidence=evidence,
            since_step=since,
        )

    def _leap(self, losses: Sequence[Value]) -> int | None:
        """Return the place of the first loss of a new level, None where there is none."""
        values = [math.nan if isinstance(value, tuple) else value for value in losses]
        for place in range(len(values) - 16, 11, -1):
            ratio = values[place] / values[place - 1] if values[place - 1] > 0 else math.nan
            if not (ratio >= 2.0 or ratio <= 0.5):
                continue
            before, after = values[place - 12 : place], values[place : place + 12]
            if min(after) >= self.clear * max(before) or min(before) >= self.clear * max(after):
                change = _median(after) / _median(before)
                level = all(max(side) <= self.level * min(side) for side in (before, after))
                if change >= self.factor or (change <= 1.0 / self.factor and level):
                    return place
        return None

    def _fits(self, by_loss: float, by_norm: float, changed: bool) -> bool:
        """Say whether the gradient changed with the loss as one that is multiplied, or added up, does."""
        power = math.log(by_norm) / math.log(by_loss)
        return (changed and self.independent <= power <= 1.2) or 1.0 / self.alike <= by_norm / by_loss <= self.alike

    @staticmethod
    def _graph_changed(trace: Trace, since: int) -> bool:
        """Say whether the graph was looked at again on the next full row, as happens when its end looks different."""
        looked = trace.window("parameter_reached", trace.step - since + 1)[0]
        return bool(looked) and looked[0] <= since + SOON

    def _longest(self, trace: Trace, since: int) -> float | None:
        """Return the largest share of the weights that an update just before a step replaced, None where unknown."""
        longest: float | None = None
        for step, ratios in zip(*trace.window("update_ratio", trace.step - since + 65), strict=True):
            if step < since and isinstance(ratios, tuple):
                longest = max(longest or 0.0, max((one for one in ratios if one < math.inf), default=0.0))
        return longest

    def _norms(self, trace: Trace, since: int) -> tuple[list[float], list[float]]:
        """Return the latest gradient norms before a step, and those from it on."""
        before: list[float] = []
        after: list[float] = []
        for step, norm in zip(*trace.window("gradient_norm", trace.step - since + 129), strict=True):
            if not isinstance(norm, tuple) and math.isfinite(norm):
                (before if step < since else after).append(norm)
        return before[-8:], after[:8]


def _median(values: Sequence[Value]) -> float:
    return median([value for value in values if not isinstance(value, tuple)])
