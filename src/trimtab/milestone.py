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

    By default the best value up to then counts, so that noise misses none: "reached 0.9 by step 500". With
    `counts="last"` it is the latest one: "still holds at step 500". That is for what a training has at its start and
    must not lose, and for what can be reached and lost again.

    With several optimizers the updates of the stream "main" count, or of the one that has taken most.
    """

    metric: str
    comparison: Comparison
    value: float
    by_step: int
    counts: Literal["best", "last"] = "best"

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
        return f"{self.metric} {self.comparison} {self.value:g} {self.word} step {self.by_step}"

    @property
    def word(self) -> str:
        """The word before the step: "by" where the best value counts, "at" where the last one does."""
        return "by" if self.counts == "best" else "at"

    @classmethod
    def parse(cls, text: str) -> Milestone:
        """Read 'METRIC >= VALUE by STEP' or '... at STEP'; raise UserError that shows the form otherwise."""
        words = text.replace(" by step ", " by ").replace(" at step ", " at ").split()
        comparison = next((one for one in _COMPARISONS if len(words) == 5 and words[1] == one), None)
        if comparison is None or words[3] not in ("by", "at"):
            raise UserError(
                f"milestone {text!r}: expected 'METRIC >= VALUE by STEP', such as 'loss <= 0.5 by 500', or 'at STEP' "
                "where the last value up to then counts and not the best"
            )
        counts: Literal["best", "last"] = "best" if words[3] == "by" else "last"
        try:
            return cls(
                metric=words[0], comparison=comparison, value=float(words[2]), by_step=int(words[4]), counts=counts
            )
        except ValueError as error:
            raise UserError(f"milestone {text!r}: {error}; write it like 'loss <= 0.5 by 500'") from None
