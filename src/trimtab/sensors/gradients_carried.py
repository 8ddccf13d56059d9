"""Whether the gradients of the previous update were still there when this one's backward passes added to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base


@dataclass(frozen=True, kw_only=True)
class GradientsCarried(Base):
    """`gradients_carried`: 1 when no gradient was zeroed or dropped since the previous update, else 0.

    Told by the version counter of `grad`: zeroing bumps it, stepping does not. Legal accumulation (several backward
    passes, one step) never shows. Absent on the first update, where there is nothing to carry. A host fact.
    """

    name: str = "gradients_carried"

    def read(self, live: Live) -> Reading:
        """Return what the attachment saw between the two updates."""
        return {} if math.isnan(live.carried) else {"gradients_carried": live.carried}
