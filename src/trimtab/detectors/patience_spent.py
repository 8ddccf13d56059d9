"""A metric has not become better for as long as was declared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from trimtab.detectors._detector import Detector, number
from trimtab.patience import Patience
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


class Waited(NamedTuple):
    """How long a metric has not become better.

    Attributes:
        best: the best value, NaN before the first finite one.
        best_step: its step; of the first value when none was finite.
        since: how many values came after the best one.
        values: how many values there were, those that are not finite included.
        last, last_step: the latest value and its step.
    """

    best: float = math.nan
    best_step: int = -1
    since: int = 0
    values: int = 0
    last: float = math.nan
    last_step: int = -1


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """The best value of the metric that a patience names, and what came after it."""

    patience: Patience

    @property
    def reads(self) -> str:
        """The metric."""
        return self.patience.metric

    def start(self) -> Waited:
        """Return the state before the first value."""
        return Waited()

    def advance(self, state: Waited, step: int, value: float) -> Waited:
        """Return the state with one more value."""
        values = state.values + 1
        if self.patience.beats(value, state.best):
            return Waited(best=value, best_step=step, values=values, last=value, last_step=step)
        begin = state.best_step if state.values else step
        return Waited(state.best, begin, state.since + 1, values, value, step)


@dataclass(frozen=True, kw_only=True)
class PatienceSpent(Detector):
    """A metric has not become better for as long as was declared.

    What it sees.
    The declared number of evaluations, updates or epochs has passed since the metric was last better than its best by
    more than `min_delta`.

    Why it matters.
    Somebody who knows this training said when waiting is no longer worth the time. The weights of the best step are
    the result; those of later ones are at most as good.

    Evidence it shows.
    The best value and its step, the last value, how many evaluations and updates have passed since.

    False alarms.
    As many as the patience was too short. A metric that scatters reaches its best by chance and then seems to rest; a
    larger patience or a `min_delta` of the size of the scatter helps. One that is not finite counts as not better.

    What to try.
    Stop and keep the weights of the best step: `EarlyStop` does both. If the metric was to go on rising, lower the
    learning rate from the best step on before giving up.

    Since.
    0.2.0
    """

    per_stream: bool = False

    patience: Patience | None = None
    """The declared patience: the metric, its direction, how long, and what counts as better."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience is None:
            object.__setattr__(self, "reads", ("trimtab_seconds",))
        else:
            object.__setattr__(self, "reads", (self.patience.metric,))
            object.__setattr__(self, "folds", (WaitingFor(self.patience),))

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        patience = self.patience
        if patience is None:
            return self.unknown(trace, "no patience was declared")
        waited = trace.fold(WaitingFor(patience))
        if waited.values == 0:
            return self.unknown(trace, f"{patience.metric} was not recorded")
        passed, most = waited.last_step - waited.best_step, patience.updates
        spent = float(passed if most is not None else waited.since)
        threshold = float(patience.patience if most is None else most)
        if spent < threshold:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            subject=patience.metric,
            summary=(
                f"{patience.metric} was best at step {waited.best_step} ({number(waited.best)}) and not better by more "
                f"than {number(patience.min_delta)} in the {waited.since} evaluations and {passed} updates since; "
                f"the patience was {patience.patience} {patience.unit}"
            ),
            measured=spent,
            threshold=threshold,
            evidence={
                "best": waited.best,
                "best_step": float(waited.best_step),
                "last": waited.last,
                "evaluations": float(waited.since),
                "updates": float(passed),
                "min_delta": patience.min_delta,
            },
            since_step=waited.best_step,
        )
