"""A result is better than it can honestly be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._course import chance_of, median
from trimtab.detectors._detector import NEVER, Detector, number
from trimtab.records import Finding, Note, Severity, Unknown
from trimtab.trace import Trace

CEILING = "ceiling"
"""Kind of the Note that says how good a metric can be: its text is the metric, `value` and `better` are its facts."""


@dataclass(frozen=True, kw_only=True)
class BetterThanPossible(Detector):
    """A result is better than it can honestly be.

    What it sees.
    One of these: the last three values of a metric lie beyond the ceiling that was declared for it, by
    `note("ceiling", text="validation/accuracy", value=0.76)`; or the loss has fallen from chance to less than a
    hundredth of it within 24 updates.

    Why it matters.
    The network sees what it is to predict: the target is among the inputs, a future value, the same example on both
    sides of the split. The result is worth nothing, and will only be found out where the target is not known.

    Evidence it shows.
    The metric and its ceiling, or the first losses and the chance level.

    False alarms.
    A task that is really that easy. Updates that evaluate the loss many times, as those of L-BFGS, are not judged by
    their number, nor is a network that was trained before.

    What to try.
    Predict the target from each input alone; one that suffices by itself is the leak. Look for examples that stand on
    both sides of the split.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio", "trimtab_seconds")
    release: int = NEVER
    """A leak that was seen does not close by itself."""
    per_stream: bool = False

    margin: float = 0.001
    """So far beyond the ceiling, as a share of the way from the first value to it: rounding does not count."""
    values: int = 3
    """So many values in a row."""
    within: int = 24
    """So many updates: healthy first losses of easy tasks have not halved by then."""
    share: float = 0.01
    """This share of chance."""
    passes: float = 4.0
    """More backward passes than so many in an update make it no ordinary one."""

    def detect(self, trace: Trace) -> Sequence[Finding] | Unknown | None:
        ceilings = [note for note in trace.notes if note.kind == CEILING]
        found = [finding for note in ceilings if (finding := self._above(trace, note)) is not None]
        judged = any(trace.has(note.text) for note in ceilings)
        if trace.count("loss") >= self.within:
            if trace.step > 2 * trace.first("loss", self.within)[0][-1] + 64 and not found:
                return None
            chance = chance_of(trace)
            if chance is not None:
                judged = True
                sudden = self._sudden(trace, chance)
                if sudden is not None:
                    found.append(sudden)
        if found:
            return found
        return None if judged else self.unknown(trace, "no ceiling was declared, and the chance level is not known")

    def _above(self, trace: Trace, note: Note) -> Finding | None:
        value, better = note.facts.get("value"), note.facts.get("better")
        if better is None:
            told = [one.facts.get("better") for one in trace.notes if one.kind == "metric" and one.text == note.text]
            better = told[-1] if told else None
        if not isinstance(value, (int, float)) or better not in ("higher", "lower"):
            return None
        sign = 1.0 if better == "higher" else -1.0
        latest = [one for one in trace.last(note.text, self.values)[1] if not isinstance(one, tuple)]
        began = [one for one in trace.first(note.text, 1)[1] if not isinstance(one, tuple)]
        if len(latest) < self.values or not began:
            return None
        beyond = min(sign * (one - value) for one in latest)
        if not beyond > self.margin * abs(value - began[0]):
            return None
        return self.finding(
            trace,
            severity=Severity.ERROR,
            subject=note.text,
            summary=(
                f"{note.text} is {number(latest[-1])} at step {trace.last_step(note.text)}, where {number(value)} was "
                f"declared to be the best possible"
            ),
            measured=latest[-1],
            threshold=float(value),
            evidence={"declared": 1.0, "ceiling": float(value), "beyond": beyond},
        )

    def _sudden(self, trace: Trace, chance: float) -> Finding | None:
        values = [one for one in trace.first("loss", self.within)[1] if not isinstance(one, tuple)]
        passes = trace.first("backward_calls", 1)[1]
        if passes and not isinstance(passes[0], tuple) and passes[0] > self.passes:
            return None
        last, begin = median(values[-8:]), median(values[:1])
        if not (begin >= 0.5 * chance and last < self.share * chance and math.isfinite(last)):
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the loss fell from {number(begin)} to {number(last)} by step {self.within - 1}, where a guess that "
                f"knows nothing has {number(chance)}: faster than anything is learned"
            ),
            measured=last / chance,
            threshold=self.share,
            evidence={"declared": 0.0, "loss": last, "loss_first": begin, "chance_level": chance},
            since_step=0,
        )
