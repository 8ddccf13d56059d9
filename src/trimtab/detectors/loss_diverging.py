"""The loss has risen far above its start and its best, and does not come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.detectors._course import FOLDS, OPENING, Course, course_of, of_one_kind, rate_of
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

WAIT = 5
"""So many blocks must have been above: bumps of warm-ups and restarts are over by then, or come down again."""


@dataclass(frozen=True, kw_only=True)
class LossDiverging(Detector):
    """The loss has risen far above its start and its best, and does not come back.

    What it sees.
    One of these, over 40 steps, while the loss is not falling again: it is more than twice what it was in the
    beginning; or most of what had been learned is lost, at a learning rate no higher than when the loss was best.

    Why it matters.
    The training goes backwards. It seldom turns by itself, and every further step costs more of what was learned.

    Evidence it shows.
    The level of the loss now (median of the last 32 steps), in the beginning and at its best, the step of the best,
    the share of what was learned that is lost, the learning rate now as a multiple of that at the best.

    False alarms.
    Bumps at the end of a warm-up and restarts of the schedule are shorter or come with a higher rate. Losses that can
    be negative or near zero are compared with the whole way that the loss went. Games and rewards, in which a rising
    loss may be progress, are not judged where they are known by negative losses or by targets of a single kind. Harder
    data on purpose: say `note("data-change")` or `note("curriculum")`.

    What to try.
    Go back to a checkpoint from before the rise with a third of the learning rate. Where the rise began at a single
    step, look at what changed there: data, schedule, a part that was unfrozen.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    folds: tuple[Fold[Any], ...] = FOLDS
    release: int = 2
    excused_by: tuple[str, ...] = ("data-change", "curriculum", "restart", "escalation")

    above_start: float = 2.0
    """So many times the start: bumps of healthy runs reach 1.4 over three steps."""
    lost: float = 0.6
    """This share of what was learned is lost: healthy runs lose up to a third at restarts, which the rate tells."""
    learned: float = 0.2
    """... where at least this share of the beginning's size had been learned, and chance is not the reason."""
    falling: float = 0.9
    """Below this share of the highest recent block the loss is coming back."""
    rate: float = 1.5
    """A learning rate so many times that of the best is a restart."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        course = course_of(trace)
        if course.blocks < WAIT + OPENING:
            return self.unknown(trace, "fewer than 72 finite losses were measured")
        if course.lowest < 0:
            return self.unknown(trace, "the loss can be negative, so that its rise may be meant")
        if of_one_kind(trace):
            return self.unknown(trace, "all targets are of one kind, as in adversarial games")
        latest, start, best = course.medians[-1], course.start, course.best
        if latest < start and latest - best < self.lost * (start - best):
            return None
        lowest, recent = min(course.medians[-WAIT:]), course.medians[-WAIT:]
        if latest < self.falling * max(recent):
            return None
        lost = (min(recent[-OPENING:]) - best) / (start - best) if start > best else 0.0
        grown = lowest >= self.above_start * max(start, best)
        if not grown and not self._lost(trace, course, lowest):
            return None
        evidence = {
            "loss": latest,
            "loss_start": start,
            "loss_best": best,
            "best_step": float(course.best_step),
            "lost": lost,
        }
        rate, rate_then = rate_of(trace, trace.step), rate_of(trace, course.best_step)
        if rate is not None and rate_then:
            evidence["rate_ratio"] = rate / rate_then
        text = f"the loss is {number(latest)} at step {trace.step} and has been above {number(lowest)} for 40 steps; "
        text += f"it began at {number(start)} and was {number(best)} at best (step {course.best_step})"
        return self.finding(
            trace,
            severity=Severity.ERROR if grown else Severity.WARNING,
            summary=text,
            measured=latest,
            threshold=self.above_start * start if grown else best + self.lost * (start - best),
            evidence=evidence,
            since_step=max(course.ends[-WAIT] - 7, 0),
        )

    def _lost(self, trace: Trace, course: Course, lowest: float) -> bool:
        """Say whether most of what was learned has been lost for some while, at a rate no higher than before."""
        start, best = course.start, course.best
        if start - best < self.learned * abs(start) or lowest - best < self.lost * (start - best):
            return False
        if lowest - best < 6.0 * course.noise():
            return False
        rate, rate_then = rate_of(trace, trace.step), rate_of(trace, course.best_step)
        return rate is None or rate_then is None or rate < self.rate * rate_then
