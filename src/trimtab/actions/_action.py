"""What an Action is: it takes a finding, does one thing to the training or declines, and says which."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab.live import Live
from trimtab.records import Finding, Outcome


@dataclass(frozen=True, kw_only=True)
class Action:
    """One way to respond to a finding.

    `changes` says what it may change: "nothing" leaves weights, schedule and gradients bit for bit as they are.
    `at_most` is its budget in one run; when it is spent and the finding comes again, the Guard stops the training and
    says so. None means without limit, which only an action that changes nothing may have. What was declined does not
    count.

    `each_update` says that it holds for one update only, so that a finding which goes on is answered again at each
    update; `goes_back`, that it needs snapshots.
    """

    name: ClassVar[str]
    changes: ClassVar[Literal["nothing", "schedule", "weights"]]
    each_update: ClassVar[bool] = False
    goes_back: ClassVar[bool] = False
    at_most: int | None = 3

    def __post_init__(self) -> None:
        if self.at_most is None and self.changes != "nothing":
            raise ValueError(f"{self.name} changes the {self.changes}: give it a budget, such as at_most=3")
        if self.at_most is not None and self.at_most < 1:
            raise ValueError(f"{self.name}: at_most must be 1 or more, got {self.at_most}")

    @abstractmethod
    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Do it, or decline; return what happened. `live` is None when no further update came."""

    def needed(self, live: Live | None, finding: Finding) -> bool:
        """Say whether there is anything to do; where there is not, nothing is recorded and no budget is used."""
        return True

    def outcome(
        self, finding: Finding, result: Literal["done", "declined", "failed"], because: str = "", *, stops: bool = False
    ) -> Outcome:
        """Return the record of what this action did about `finding`."""
        return Outcome(
            action=self.name,
            code=finding.code,
            subject=finding.subject,
            stream=finding.stream,
            attempt=finding.attempt,
            step=finding.step,
            result=result,
            changes=self.changes,
            because=because,
            stops=stops,
        )
