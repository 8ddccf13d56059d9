"""How often to measure what: a few small rules, kept apart so that they can be tested without a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Tier = Literal["step", "often", "norms", "layers", "pairs", "census", "trouble"]
"""How often:

- "step": every step;
- "often": every step unless steps are so short that it would cost too much, then every few;
- "norms": every k-th step and all of the first ones (a "full" row);
- "layers": the very first steps and every fourth full row, for what looks into the layers;
- "pairs": a step that is due for "layers" and the one just after it, for what compares two steps in a row;
- "census": on the first steps and when the graph is new;
- "trouble": only on a row whose loss or gradient is not finite.
"""

FIRST = 32
"""Every one of the first so many steps of a stream is measured in full: most wiring faults show at once."""
BURST = 8
"""So many steps are measured in full after something suspicious."""
LOOKS = 8
"""On each of the first so many steps the layers are looked into."""
SELDOM = 4
"""After that in every so many-th full row: reading what a layer gave costs several times as much as a gradient norm."""
SUSPICIOUS = 10.0
"""A gradient norm so many times its running mean is suspicious (the mean is over about 20 steps, in the logarithm)."""
OFTEN = 8
"""The "often" tier is read so many times as often as full rows are: at the usual one in 8, on every step."""
SLOWEST = 64
"""The cadence is never thinner than one full row in so many steps."""
CENSUSES = 8
"""The graph is looked at on the first so many backward passes, and whenever its end looks different."""


@dataclass(slots=True)
class Burst:
    """Decides from the values of the past rows alone whether a step is measured in full."""

    until: int = -1
    log_mean: float = math.nan

    def due(self, tier: Tier, step: int, every: int) -> bool:
        """Say whether sensors of a tier other than census or trouble are read, with one full row in `every` steps."""
        if tier == "layers":
            return step < LOOKS or step % (SELDOM if step < FIRST or step <= self.until else SELDOM * every) == 0
        if tier == "pairs":
            return self.due("layers", step, every) or self.due("layers", step - 1, every)
        if tier == "step" or step < FIRST or step <= self.until:
            return True
        return step % (every if tier == "norms" else max(every // OFTEN, 1)) == 0

    def saw(self, step: int, loss: float, norm: float) -> bool:
        """Take in a row's loss and gradient norm (NaN where not measured); return whether either is not finite."""
        trouble = math.isinf(loss) or math.isinf(norm) or loss != loss or norm != norm
        if trouble:
            self.until = step + BURST
        elif norm > 0.0:
            log_norm = math.log(norm)
            if self.log_mean == self.log_mean:
                if log_norm - self.log_mean > math.log(SUSPICIOUS):
                    self.until = step + BURST
                self.log_mean += 0.05 * (log_norm - self.log_mean)
            else:
                self.log_mean = log_norm
        return trouble


@dataclass(slots=True)
class Budget:
    """Keeps Trimtab's share of the run's time below `overhead` by measuring the dearer quantities less often.

    `overhead` None keeps `every` as it is, so that which rows are full does not depend on the machine.
    """

    every: int
    overhead: float | None
    slowest: int = SLOWEST
    _floor: int = 0

    def __post_init__(self) -> None:
        self._floor = self.every

    def spent(self, cost: float, elapsed: float) -> None:
        """Take in the seconds that Trimtab used out of the seconds that passed, over a few dozen steps."""
        if self.overhead is None or elapsed <= 0:
            return
        # Our clock does not see the caches that we empty for the training, so we stay well below what is allowed.
        if cost > 0.6 * self.overhead * elapsed:
            self.every = min(self.every * 2, max(self.slowest, self._floor))
        elif cost < 0.25 * self.overhead * elapsed:
            self.every = max(self.every // 2, self._floor)
