"""Which parameters can be trained, are held by an optimizer, and got a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class OptimizerCoverage(Base):
    """`parameter_trainable` and `parameter_held`: 1 or 0 for every parameter of every model;
    `gradient_missing`: 1 where `grad` is None, for each tensor of this stream. Host facts.
    """

    name: str = "optimizer_coverage"
    tier: Tier = "norms"
    axes: Mapping[str, str] = field(
        default_factory=lambda: {
            "parameter_trainable": "everything",
            "parameter_held": "everything",
            "gradient_missing": "parameters",
        }
    )

    def read(self, live: Live) -> Reading:
        """Return the three vectors; the first two only while a model is known."""
        reading = {"gradient_missing": tuple(float(p.grad is None) for p in live.parameters)}
        if live.model_parameters:
            reading["parameter_trainable"] = tuple(float(p.requires_grad) for p in live.model_parameters)
            reading["parameter_held"] = tuple(float(id(p) in live.held) for p in live.model_parameters)
        return reading
