"""The write-up's answer to a loss that leaps: a rule with its threshold, and the actions of Trimtab that it asks for.

Trimtab has a rule of its own, `loss-spike`, that compares with the highest of the recent losses and not with their
mean; this one is the write-up's, with the write-up's number.

Source: the write-up, section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.actions import LowerLearningRate, RollBack, SkipStep
from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.respond import Policy
from trimtab.trace import Fold, Rolling, Trace
from trimtab_systems.sci.write_up.settings import TrainingSettings

FOR_EVER = 1_000_000_000
"""Updates for which a rate that was halved stays so: the write-up knows no way back."""
MOST = 50
"""So many updates are left out at most; a fault in the code would come at each."""


@dataclass(frozen=True, kw_only=True)
class LossAboveAverage(Detector):
    """The loss is several times the mean of the losses before it.

    What it sees.
    A loss above `times` times the mean of the `window` losses before.

    Why it matters.
    One batch can throw weights off that took thousands to learn.

    Evidence it shows.
    The loss, and the mean before it.

    False alarms.
    Where examples change their kind, as a curriculum does, or a term of the loss begins to count, a leap is what was
    asked for; so nothing is told for `after_change` updates behind each of `changes`, nor in the first `first`. A loss
    near zero leaps by three times without harm: then a larger threshold is better.

    What to try.
    Look at the batch of that step; go back, leave the update out, or halve the rate.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("loss",)

    times: float = 3.0
    """The write-up's."""
    window: int = 100
    """The write-up speaks of the recent average; ours are as many."""
    first: int = 200
    """Updates at the start in which the loss falls fast and means little."""
    changes: tuple[int, ...] = ()
    """Updates with which the examples or the loss become others."""
    after_change: int = 100
    """So many updates until the mean is one of the new losses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "folds", (self._losses,))

    @property
    def _losses(self) -> Fold[tuple[float, ...]]:
        return Rolling("loss", self.window + 1)

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        """Judge the latest loss."""
        step = trace.step
        if step < self.first or any(0 <= step - change < self.after_change for change in self.changes):
            return None
        *before, latest = trace.fold(self._losses) or (0.0,)
        if len(before) < self.window // 2:
            return self.unknown(trace, f"fewer than {self.window // 2} losses were measured before this one")
        mean = sum(before) / len(before)
        if not latest > self.times * mean:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"loss {number(latest)} at step {step}, {number(latest / mean)} x the mean of the {len(before)} "
            f"losses before, {number(mean)}",
            measured=latest / mean,
            threshold=self.times,
            evidence={"loss": latest, "mean": mean},
        )


def detector(config: TrainingSettings, changes: Sequence[int]) -> LossAboveAverage:
    """Return the rule with the settings' numbers; `changes` are the updates with which phases begin or ramps end."""
    return LossAboveAverage(
        times=config.spike_threshold,
        window=config.spike_window,
        first=config.spike_grace,
        changes=tuple(sorted(set(changes))),
        after_change=config.spike_grace_after_change,
    )


def policy(config: TrainingSettings) -> Policy:
    """Return what answers `loss-above-average`: nothing for the action "none"."""
    actions: dict[str, Any] = {
        "rollback": RollBack(at_most=config.spike_rollbacks),
        "skip": SkipStep(at_most=MOST),
        "reduce_lr": LowerLearningRate(factor=0.5, steps=FOR_EVER, ramp=0),
    }
    return {LossAboveAverage.code: actions[config.spike_action]} if config.spike_action in actions else {}
