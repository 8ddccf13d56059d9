"""What a peer is: something that looks at a training and raises alarms, in one of its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from benchmarks.cases.training import Metrics, Training

Alarm = tuple[int, str]
"""The step at which something was raised, and what."""


@dataclass(kw_only=True)
class Course:
    """What a training left behind, number by number: the same for every rule that reads scalars.

    Attributes:
        losses: the loss of each update.
        norms: the gradient norm of each update before clipping, None where the step was left out.
        rates: the learning rate of each update, of the first group.
        evaluations: each evaluation with its step.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float | None] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, Metrics]] = field(default_factory=list)


Finish = Callable[[Course], list[Alarm]]
"""Called when the training is over; returns the alarms."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One tool in one setting.

    `begin` gets the training that is about to run and a function that builds the same one again; it may attach hooks
    to the first and may spend the second. A rule that is re-stated here has no package.
    """

    name: str
    setting: str
    how: str
    begin: Callable[[Training, Callable[[], Training]], Finish]
    package: str = ""
    wanted: str = ""

    @property
    def key(self) -> str:
        """Name the tool and the setting."""
        return f"{self.name}/{self.setting}"

    @property
    def missing(self) -> str:
        """Why this peer cannot run here, empty when it can."""
        if not self.package:
            return ""
        try:
            found = version(self.package)
        except PackageNotFoundError:
            return f"{self.package} is not installed"
        return "" if found == self.wanted else f"{self.package} is {found}, not {self.wanted}"


def replayed(rule: Callable[[Course], list[Alarm]]) -> Callable[[Training, Callable[[], Training]], Finish]:
    """Turn a rule about scalars into a peer's `begin`."""
    return lambda training, again: rule
