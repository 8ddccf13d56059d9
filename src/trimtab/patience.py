"""How long a training may go on without a metric getting better: the declaration that early stopping reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trimtab.errors import UserError

Unit = Literal["evaluations", "updates", "epochs"]
UNITS: tuple[Unit, ...] = ("evaluations", "updates", "epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """A declared end: stop when `metric` was not better than at its best for `patience` `unit`.

    A value is better when it beats the best one by more than `min_delta`, in the unit of the metric. One that is not
    finite never is. Updates are those of the stream "main", or of the one that has taken most; they are counted when
    the metric is recorded, so that nobody is stopped just before an evaluation.

    Attributes:
        metric: as it is recorded, with its split: "validation/accuracy".
        better: which direction is good; never guessed.
        patience: how many evaluations, updates or epochs.
        unit: what `patience` counts; "epochs" needs `updates_per_epoch`.
        min_delta: a gain up to this is none, 0 or more.
        updates_per_epoch: how many updates an epoch has.

    Raises:
        UserError: a patience below 1, a negative `min_delta`, an unknown word, or epochs of unknown length.
    """

    metric: str
    better: Literal["higher", "lower"]
    patience: int
    unit: Unit = "evaluations"
    min_delta: float = 0.0
    updates_per_epoch: int | None = None

    def __post_init__(self) -> None:
        where = f"patience for {self.metric!r}"
        if self.better not in ("higher", "lower"):
            raise UserError(f"{where}: better={self.better!r}; expected 'higher' or 'lower'")
        if self.unit not in UNITS:
            raise UserError(f"{where}: unit={self.unit!r}; expected one of {', '.join(map(repr, UNITS))}")
        if self.patience < 1:
            raise UserError(f"{where}: patience={self.patience}; expected 1 or more {self.unit}")
        if not (math.isfinite(self.min_delta) and self.min_delta >= 0.0):
            raise UserError(f"{where}: min_delta={self.min_delta}; expected 0 or more, in the unit of the metric")
        if self.unit == "epochs" and (self.updates_per_epoch is None or self.updates_per_epoch < 1):
            raise UserError(f"{where}: unit='epochs' needs updates_per_epoch, such as updates_per_epoch=len(loader)")

    @property
    def higher(self) -> bool:
        """Whether higher is better."""
        return self.better == "higher"

    @property
    def updates(self) -> int | None:
        """The patience in updates; None when it counts evaluations."""
        match self.unit:
            case "evaluations":
                return None
            case "updates":
                return self.patience
            case "epochs":
                return self.patience * (self.updates_per_epoch or 1)

    def beats(self, value: float, best: float) -> bool:
        """Say whether `value` is better than `best` by more than `min_delta`; any finite value is better than NaN."""
        if not math.isfinite(value):
            return False
        if math.isnan(best):
            return True
        gain = value - best if self.higher else best - value
        return gain > self.min_delta

    def __str__(self) -> str:
        return f"{self.metric} {self.better} within {self.patience} {self.unit}"
