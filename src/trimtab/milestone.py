"""A declared check of a training: what a metric must have reached by a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab.errors import UserError

Comparison = Literal[">=", "<=", ">", "<"]
_COMPARISONS: tuple[Comparison, ...] = (">=", "<=", ">", "<")


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """A declared check: `metric` must be `comparison` `value` once `by_step` updates are done.

    With several optimizers the updates of the stream "main" count, or of the one that has taken most.
    """

    metric: str
    comparison: Comparison
    value: float
    by_step: int

    def met_by(self, measured: float) -> bool:
        """Say whether `measured` satisfies the comparison; NaN never does."""
        match self.comparison:
            case ">=":
                return measured >= self.value
            case "<=":
                return measured <= self.value
            case ">":
                return measured > self.value
            case "<":
                return measured < self.value

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.value:g} by step {self.by_step}"

    @classmethod
    def parse(cls, text: str) -> Milestone:
        """Read 'METRIC >= VALUE by STEP'; raise UserError that shows the form otherwise."""
        words = text.replace(" by step ", " by ").split()
        comparison = next((one for one in _COMPARISONS if len(words) == 5 and words[1] == one), None)
        if comparison is None or words[3] != "by":
            raise UserError(f"milestone {text!r}: expected 'METRIC >= VALUE by STEP', such as 'loss <= 0.5 by 500'")
        try:
            return cls(metric=words[0], comparison=comparison, value=float(words[2]), by_step=int(words[4]))
        except ValueError as error:
            raise UserError(f"milestone {text!r}: {error}; write it like 'loss <= 0.5 by 500'") from None
