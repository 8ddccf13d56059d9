"""What a learning rate is multiplied with: courses over steps, and one that follows a metric."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

from trimtab.errors import UserError


class Factor(Protocol):
    """Steps taken -> what the base is multiplied with."""

    def at(self, step: int) -> float:
        """Return the factor after so many calls of `LearningRate.step`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _WarmUp:
    steps: int
    start: float

    def at(self, step: int) -> float:
        return 1.0 if step >= self.steps else self.start + (1.0 - self.start) * step / self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cosine:
    steps: int
    minimum: float
    begin: int

    def at(self, step: int) -> float:
        part = min(max(step - self.begin, 0) / self.steps, 1.0)
        return self.minimum + (1.0 - self.minimum) * (1.0 + math.cos(math.pi * part)) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    every: int
    gamma: float

    def at(self, step: int) -> float:
        return float(self.gamma ** (step // self.every))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Restarts:
    period: int
    times: int
    minimum: float

    def at(self, step: int) -> float:
        period = self.period
        while step >= period:
            step -= period
            period *= self.times
        return self.minimum + (1.0 - self.minimum) * (1.0 + math.cos(math.pi * step / period)) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _InEpochs:
    factor: Factor
    updates: int

    def at(self, step: int) -> float:
        return self.factor.at(step // self.updates)


@dataclass(slots=True, kw_only=True)
class Plateau:
    """A factor that falls by `gamma` when a metric has not become better for more than `patience` values."""

    metric: str
    better: Literal["higher", "lower"]
    patience: int
    gamma: float
    threshold: float
    cooldown: int
    minimum: float
    value: float = field(default=1.0, init=False)
    best: float | None = field(default=None, init=False)
    bad: int = field(default=0, init=False)
    resting: int = field(default=0, init=False)

    def at(self, step: int) -> float:
        """Return the factor; the step plays no part."""
        return self.value

    def take(self, value: float) -> None:
        """Take in one value of the metric; one that is not a number is no better one."""
        if self._is_better(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.resting:
            self.resting -= 1
            self.bad = 0
        if self.bad > self.patience:
            self.value = max(self.value * self.gamma, self.minimum)
            self.resting, self.bad = self.cooldown, 0

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        margin = self.threshold * abs(self.best)
        return value > self.best + margin if self.better == "higher" else value < self.best - margin


def warm_up(steps: int, start: float = 0.0) -> Factor:
    """Rise linearly from `start` to 1 in so many steps, as `LinearLR` does; with 0 the first update moves nothing."""
    positive("warm_up", steps=steps)
    share("warm_up", start=start)
    return _WarmUp(steps=steps, start=start)


def cosine(steps: int, minimum: float = 0.1, *, begin: int = 0) -> Factor:
    """Fall from 1 to `minimum` along half a cosine, from step `begin` on for so many steps, and stay there.

    `CosineAnnealingLR` does the same up to its end and rises again behind it. After a warm-up of W of S steps:
    `warm_up(W)` and `cosine(S - W, begin=W)`.
    """
    positive("cosine", steps=steps)
    share("cosine", minimum=minimum)
    if begin < 0:
        raise UserError(f"cosine: begin={begin}; expected a step, 0 or more")
    return _Cosine(steps=steps, minimum=minimum, begin=begin)


def step(every: int, gamma: float = 0.1) -> Factor:
    """Multiply by `gamma` at each `every`-th step, as `StepLR` does."""
    positive("step", every=every)
    finite("step", gamma=gamma)
    return _Step(every=every, gamma=gamma)


def restarts(period: int, times: int = 1, minimum: float = 0.0) -> Factor:
    """Fall along half a cosine and begin again at 1, each period `times` as long as the one before.

    As `CosineAnnealingWarmRestarts` does with `T_0=period, T_mult=times, eta_min=minimum * base`.
    """
    positive("restarts", period=period, times=times)
    share("restarts", minimum=minimum)
    return _Restarts(period=period, times=times, minimum=minimum)


def plateau(
    metric: str,
    *,
    better: Literal["higher", "lower"] = "lower",
    patience: int = 10,
    gamma: float = 0.1,
    threshold: float = 1e-4,
    cooldown: int = 0,
    minimum: float = 0.0,
) -> Plateau:
    """Fall by `gamma` when a metric has not become better, as `ReduceLROnPlateau` does.

    Args:
        metric: its name; values come by `LearningRate.take(name, value)`.
        better: which direction is good.
        patience: values without a better one that are borne.
        gamma: what each fall multiplies by.
        threshold: share of the best value by which a value must be better.
        cooldown: values after a fall that are not counted.
        minimum: the factor falls no lower.
    """
    if better not in ("higher", "lower"):
        raise UserError(f"plateau: better={better!r}; expected 'higher' or 'lower'")
    if patience < 0 or cooldown < 0:
        raise UserError(f"plateau: patience {patience} and cooldown {cooldown} must be 0 or more")
    share("plateau", gamma=gamma, minimum=minimum)
    return Plateau(
        metric=metric, better=better, patience=patience, gamma=gamma, threshold=threshold, cooldown=cooldown,
        minimum=minimum,
    )  # fmt: skip


def in_epochs(factor: Factor, updates: int) -> Factor:
    """Let a factor count epochs of so many updates where `LearningRate.step` is called at each update."""
    positive("in_epochs", updates=updates)
    if isinstance(factor, Plateau):
        raise UserError("in_epochs: a plateau counts values of its metric, not steps; hand it over as it is")
    return _InEpochs(factor=factor, updates=updates)


def finite(where: str, **values: float) -> float:
    """Return the one number that was given if it is finite and not negative."""
    ((name, value),) = values.items()
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{where}: {name}={value}; expected a finite number, 0 or more")
    return value


def positive(where: str, **values: int) -> None:
    """Complain of a count below 1."""
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{where}: {name}={value}; expected 1 or more")


def share(where: str, **values: float) -> None:
    """Complain of a number that is no share of 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{where}: {name}={value}; expected a share between 0 and 1")
