"""What the sensors of the catalogue share: the fields of the protocol with their usual values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab.cadence import Tier
from trimtab.live import Point


@dataclass(frozen=True, kw_only=True)
class Base:
    """Fields of a sensor; a concrete sensor overrides the ones that differ and adds `read`."""

    name: str
    points: tuple[Point, ...] = ("before",)
    tier: Tier = "step"
    axes: Mapping[str, str] = field(default_factory=dict)
    sparse: tuple[str, ...] = ()
    copies_weights: bool = False
