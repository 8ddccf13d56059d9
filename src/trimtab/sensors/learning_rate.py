"""The learning rate of each parameter group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class LearningRate(Base):
    """`learning_rate`: one number for each parameter group, as the optimizer is about to use it. A host fact."""

    name: str = "learning_rate"
    axes: Mapping[str, str] = field(default_factory=lambda: {"learning_rate": "groups"})

    def read(self, live: Live) -> Reading:
        """Return the rates in the order of the groups; a group without a rate (some custom optimizers) counts NaN."""
        return {"learning_rate": live.learning_rates} if live.learning_rates else {}
