"""Whether the model is evaluated in training mode."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class EvaluatedInTraining(Base):
    """`evaluation_calls`: calls of a root module while gradients were switched off, since the last full row;
    `evaluated_in_training`: the share of them that ran with dropout or batch normalisation in training mode, absent
    where there was none. Host facts.
    """

    name: str = "evaluated_in_training"
    tier: Tier = "norms"

    def read(self, live: Live) -> Reading:
        """Return the count and the share."""
        calls, in_training = live.evaluations
        if calls == 0:
            return {"evaluation_calls": 0.0}
        return {"evaluation_calls": float(calls), "evaluated_in_training": in_training / calls}
