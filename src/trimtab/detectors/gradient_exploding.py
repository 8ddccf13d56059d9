"""The gradient or the update grows far beyond what it was, and the loss with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trimtab.detectors._detector import Detector, now, number
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Fold, Rolling, Trace

EARLY = 16
"""The typical early value of a signal is the median of its first so many finite values."""


class Beginning(NamedTuple):
    """How a signal began.

    Attributes:
        first: the first finite value, NaN before it.
        early: the first `EARLY` finite values while they come in, empty afterwards.
        typical: their median once they are there, NaN before.
        highest: the largest of them, as long.
    """

    first: float = math.nan
    early: tuple[float, ...] = ()
    typical: float = math.nan
    highest: float = math.nan


@dataclass(frozen=True, slots=True)
class Began:
    """The first finite value of a signal, and what was typical of the first ones."""

    reads: str

    def start(self) -> Beginning:
        """Return the state before any value."""
        return Beginning()

    def advance(self, state: Beginning, step: int, value: float) -> Beginning:
        """Return the state after one more value; it no longer changes after `EARLY` finite ones."""
        if state.typical == state.typical or not math.isfinite(value):
            return state
        early = (*state.early, value)
        if len(early) < EARLY:
            return Beginning(early[0], early)
        return Beginning(early[0], (), Rolling.median(early), max(early))


PAUSE = 24
"""The latest so many values are left out of what "before" means, so that a slow blow-up is not its own measure."""

_LOSS, _NORM, _LATELY = Began("loss"), Began("gradient_norm"), Rolling("gradient_norm", 64)


@dataclass(frozen=True, kw_only=True)
class GradientExploding(Detector):
    """The gradient or the update grows far beyond what it was, and the loss with it.

    What it sees.
    One of these, each over several updates and never in a single one: updates that replace a good part of the weights
    while loss and gradient are far above the first ones, or while nothing is learned; a gradient norm far above both
    its early level and its recent median, with a loss that has grown too; the same without the loss, but further; or
    a gradient norm that is absurd by any scale.

    Why it matters.
    Each step then overshoots, and makes the next gradient larger. What was learned is lost within a few updates; soon
    numbers are no longer finite. With clipping or Adam the training may survive as a network that has forgotten
    everything.

    Evidence it shows.
    The gradient norm (median of the last steps), its first value, early level and recent median; the loss and the
    first loss and how many terms it adds up; the largest share of the weights that one update replaced in every
    parameter group.

    False alarms.
    Warm-up bumps, restarts, adversarial games, policy gradients and tiny batches stay below these ratios (measured: a
    gradient of at most 24 times its early level, a loss of at most 1.4 times the first). Losses near zero do not
    count, as everything is compared with the beginning too. Harder data on purpose: say
    `note("data-change")`; a rate that is raised to find its limit: `note("escalation")`.

    What to try.
    Divide the learning rate by ten and look again; sensible updates change about a thousandth of the weights. Clip
    the gradient norm near its usual value. If it happens at the very first steps, check the scale of inputs and
    initial weights, and whether the loss is a sum where a mean was meant.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("gradient_norm", "update_ratio")
    folds: tuple[Fold[Any], ...] = (_LOSS, _NORM, _LATELY)
    release: int = 16
    """So many clear judgements in a row: an explosion that Adam survives ends by itself within about ten."""
    excused_by: tuple[str, ...] = ("data-change", "escalation")

    replaced: float = 0.1
    """An update of a tenth of the weights; healthy runs are rarely there, and their loss has then not grown."""
    replaced_much: float = 0.25
    """On average over three updates, with nothing learned to show for it. Healthy runs whose loss has not fallen yet
    stay below 0.16 (L-BFGS; others 0.11), rates 300 times too high are at 0.5 and more."""
    learned: float = 1.0
    """A loss below the first has fallen: then large updates are only bold."""
    from_zero: float = 1e3
    """A first update so many times the weights: they began at zero, and ratios to them say nothing for a while."""
    loss_growth: float = 3.0
    """So many times the first loss with a growing gradient: healthy runs stay below 1.4 over three updates."""
    gradient_growth: float = 10.0
    """So many times the first gradient, with large updates and a grown loss: healthy runs reach 24, their loss does
    not."""
    sustained: float = 30.0
    """Median of the last 8 against early level and recent median, with a grown loss: healthy runs stay below 17."""
    sustained_alone: float = 100.0
    """The same without the loss, or where the loss can be negative and says nothing."""
    above_all: float = 3.0
    """... and so many times the largest single one before, so that gradients with heavy tails (tiny batches near the
    optimum, a thousandfold from one to the next) are measured by their own kind."""
    absurd: float = 1e9
    """A gradient norm whose fourth power overflows float32, whatever the unit of the loss."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        norm = trace.scalar("gradient_norm")
        if norm is None:
            return self.unknown(trace, "the gradient norm was not measured")
        if not math.isfinite(norm):
            return None if now(trace, "update_skipped") else self.unknown(trace, "the gradient is not finite")
        row = trace.row
        ratios = row.values.get("update_ratio") if row is not None else None
        if ratios is not None and _smallest(ratios) >= self.replaced:
            found = self._updates(trace)
            if found is not None:
                return found
        begin = trace.fold(_NORM)
        if norm < self.sustained * begin.typical or not begin.typical > 0:
            return self._absurd(trace, norm) if norm >= self.absurd else None
        return self._sustained(trace, begin) or (self._absurd(trace, norm) if norm >= self.absurd else None)

    def _updates(self, trace: Trace) -> Finding | None:
        """Judge updates of which the latest replaced at least the share `replaced` of every group's weights."""
        first, first_loss = trace.fold(_NORM).first, trace.fold(_LOSS).first
        norm, loss = _median(trace.last("gradient_norm", 3)[1]), _median(trace.last("loss", 3)[1])
        growth = loss / first_loss if first_loss > 0 else math.nan
        steeper = norm / first if first > 0 else math.nan
        latest = trace.last("update_ratio", 3)[1]
        moved = sum(map(_smallest, latest)) / len(latest)
        began = _smallest(trace.first("update_ratio", 1)[1][0])
        much = len(latest) == 3 and moved >= self.replaced_much and began < self.from_zero
        grown = growth >= self.loss_growth and steeper >= self.gradient_growth
        if growth == growth:
            fires = grown or (much and growth >= self.learned)
        else:
            fires = much and steeper >= self.sustained_alone
        if not fires or trace.count("gradient_norm") < 3:
            return None
        text = f"updates replace {number(moved)} of the weights each at step {trace.step}"
        if growth == growth:
            text += f", the loss is {number(loss)}, {number(growth)} x the first"
        text += f"; gradient norm {number(norm)}, {number(steeper)} x the first (over 3 updates)"
        return self.finding(
            trace,
            severity=Severity.WARNING if growth < self.loss_growth and moved < 1.0 else Severity.ERROR,
            summary=text,
            measured=moved,
            threshold=self.replaced if grown else self.replaced_much,
            evidence={**self._evidence(trace, norm, loss), "update_ratio": moved},
        )

    def _sustained(self, trace: Trace, begin: Beginning) -> Finding | None:
        """Judge a gradient that is far above its early level now."""
        norm, before = _median(trace.last("gradient_norm", 8)[1]), trace.fold(_LATELY)[:-PAUSE]
        lately = Rolling.median(before) if before else begin.typical
        level, ceiling = max(begin.typical, lately), max((begin.highest, *before))
        growth = norm / level if level > 0 else math.nan
        start = trace.fold(_LOSS).typical
        loss = _median(trace.last("loss", 8)[1])
        grown = start > 0 and loss >= self.loss_growth * start
        needed = self.sustained if grown else self.sustained_alone
        if not (growth >= needed and norm >= self.above_all * ceiling):
            return None
        text = f"gradient norm {number(norm)} up to step {trace.step} (median of 8), {number(norm / begin.typical)} x "
        text += "its early level"
        text += f" and {number(norm / lately)} x its median before the last {PAUSE}" if lately > 0 else ""
        text += f"; the loss is {number(loss)}, {number(loss / start)} x its early level" if grown else ""
        return self.finding(
            trace,
            severity=Severity.ERROR if grown else Severity.WARNING,
            summary=text,
            measured=norm,
            threshold=max(needed * level, self.above_all * ceiling),
            evidence=self._evidence(trace, norm, loss),
        )

    def _absurd(self, trace: Trace, norm: float) -> Finding | None:
        latest = trace.last("gradient_norm", 3)[1]
        middle = _median(latest)
        if len(latest) < 3 or not middle >= self.absurd:
            return None
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=f"gradient norm {number(norm)} at step {trace.step}, and above {number(self.absurd)} before",
            measured=middle,
            threshold=self.absurd,
            evidence=self._evidence(trace, middle, _median(trace.last("loss", 3)[1])),
        )

    @staticmethod
    def _evidence(trace: Trace, norm: float, loss: float) -> dict[str, float]:
        begin, begin_loss = trace.fold(_NORM), trace.fold(_LOSS)
        terms = trace.scalar("loss_terms")
        return {
            **({"loss_terms": terms} if terms is not None else {}),
            "gradient_norm": norm,
            "gradient_norm_first": begin.first,
            "gradient_norm_early": begin.typical,
            "gradient_norm_lately": Rolling.median(trace.fold(_LATELY)),
            "loss": loss,
            "loss_first": begin_loss.first,
            "loss_early": begin_loss.typical,
        }


def _median(values: Sequence[Value]) -> float:
    """Return the upper median of the finite ones among a few values, NaN for none."""
    finite = sorted(value for value in values if not isinstance(value, tuple) and math.isfinite(value))
    return finite[len(finite) // 2] if finite else math.nan


def _smallest(ratios: Value) -> float:
    """Return the smallest share that an update replaced in any parameter group that it moved at all."""
    moved = ratios if isinstance(ratios, tuple) else (ratios,)
    return min((ratio for ratio in moved if 0.0 < ratio < math.inf), default=0.0)
