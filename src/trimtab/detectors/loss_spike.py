"""The loss leapt far above what it was for a few steps, and came back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import FOLDS, OPENING, course_of, rate_of
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace


@dataclass(frozen=True, kw_only=True)
class LossSpike(Detector):
    """The loss leapt far above what it was for a few steps, and came back.

    What it sees.
    A loss that is several times farther above its level (median of the last 32 steps) than the highest of the last
    128, and that was below this again within 16 steps; or a single step that is a hundred times all losses before.

    Why it matters.
    One such batch makes one such gradient. Without clipping it throws the weights off, and it stays in the moments of
    Adam for hundreds of steps. It usually is a broken batch: a value that is not scaled, a wrong label, a length of
    zero.

    Evidence it shows.
    The first step and the number of steps of the leap, its peak, the level before, how far single losses had usually
    been above that level, the gradient norm at the leap as a multiple of the one before, where both were measured,
    the share of the weights that an update just before had replaced, and how many leaps there were.

    False alarms.
    Batches of two, heavy tails, rewards and games leap all the time and are measured by their own kind. Losses near
    zero are compared with how large the loss was in the beginning. Smaller leaps are a fact worth knowing.

    What to try.
    Look at the batch of the step named. Clip the gradient norm near its usual value, or skip the update.

    Since.
    0.2.0
    """

    version: int = 2
    reads: tuple[str, ...] = ("gradient_norm", "update_ratio")
    folds: tuple[Fold[Any], ...] = FOLDS
    release: int = 1
    excused_by: tuple[str, ...] = ("data-change", "curriculum", "restart")

    large: float = 12.0
    """So many times farther above the level than the highest of the last 128 losses: what one looks at. Healthy runs
    stay below 8, broken batches are at 30 and more."""
    beginning: float = 2.0
    """... and above so many times the size of the loss in the beginning: what was learned does not reach so far."""
    enormous: float = 100.0
    """A leap in one step by so many times all that the loss ever was is told before it comes back: it may never."""
    raised: float = 3.0
    """A learning rate so many times that of 16 steps before is being tried out, or is the reason by itself."""
    recent: int = 32
    """A leap is told while it is not older than this: it lasts 16 steps at most, and rows with a gradient norm are at
    most 8 apart."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        course = course_of(trace)
        spike = course.spike
        if spike.since < 0 or trace.step - spike.since > self.recent:
            if course.blocks < OPENING:
                return self.unknown(trace, "fewer than 32 finite losses were measured")
            return None
        size = max(abs(value) for value in course.begin)
        usual = max(spike.usual, 0.01 * size)
        if not spike.over and not (spike.first - spike.level >= self.enormous * max(usual, size)):
            return None
        height = (spike.peak - spike.level) / usual
        large = height >= self.large and spike.peak - spike.level >= self.beginning * size
        rate, rate_before = rate_of(trace, spike.since), rate_of(trace, max(spike.since - 16, 0))
        if rate is not None and rate_before and rate >= self.raised * rate_before:
            large = False
        evidence = {
            "peak": spike.peak,
            "level": spike.level,
            "usual": usual,
            "steps": float(spike.steps),
            "spikes": float(course.spikes),
            "came_back": float(spike.over),
        }
        ratio = _gradient_ratio(trace, spike.since)
        if ratio is not None:
            evidence["gradient_ratio"] = ratio
        text = f"loss {number(spike.peak)} at step {spike.since}, where it was {number(spike.level)}: "
        text += f"{number(height)} x as far above it as the highest of the 128 before; it "
        text += f"lasted {spike.steps} steps" if spike.over else "has not come back yet"
        before = _update_before(trace, spike.since)
        if before is not None:
            evidence["update_ratio"] = before
        return self.finding(
            trace,
            severity=Severity.WARNING if large else Severity.INFO,
            summary=text,
            measured=height,
            threshold=self.large,
            evidence=evidence,
            since_step=spike.since,
        )


def _gradient_ratio(trace: Trace, since: int) -> float | None:
    """Return the gradient norm at a step as a multiple of the latest one before it."""
    before = None
    for step, norm in zip(*trace.window("gradient_norm", trace.step - since + 65), strict=True):
        if isinstance(norm, tuple) or step > since:
            break
        if step == since:
            return norm / before if before else None
        before = norm
    return None


def _update_before(trace: Trace, since: int) -> float | None:
    """Return the largest share of the weights that an update in the eight steps before had replaced."""
    longest: float | None = None
    for step, ratios in zip(*trace.window("update_ratio", trace.step - since + 9), strict=True):
        if step < since and isinstance(ratios, tuple):
            longest = max(longest or 0.0, max((one for one in ratios if one < float("inf")), default=0.0))
    return longest
