"""The learning rate as base x product of named factors, written in one place."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from trimtab.errors import UserError, nearest
from trimtab.stabilizers._factors import (
    Factor,
    Plateau,
    cosine,
    finite,
    in_epochs,
    plateau,
    restarts,
    step,
    warm_up,
)

__all__ = ["Factor", "LearningRate", "Plateau", "cosine", "in_epochs", "plateau", "restarts", "step", "warm_up"]

log = logging.getLogger("trimtab")


class LearningRate:
    """Sets the learning rate of every group of an optimizer: base x multiplier of the group x product of factors.

        rate = LearningRate(optimizer, warm_up=warm_up(500), decay=cosine(9500, begin=500))
        ...
        optimizer.step()
        rate.step()
        ...
        rate.set_factor("backoff", 0.5)

    Steps are calls of `step`: updates where it is called after each update, epochs where it is called after each
    epoch. All factors count the same; `in_epochs` turns the numbers of one into epochs.

    Args:
        optimizer: whose groups are written.
        base: the rate that everything multiplies, one for all groups; None takes what each group has now.
        multipliers: for each group, in order; 1 for all when None.
        on_foreign: "raise" makes a rate that somebody else wrote an error at the next `step`; "assert again" writes it
            again and logs a warning.
        factors: name -> a factor (`warm_up`, `cosine`, `step`, `restarts`, `plateau`, `in_epochs`), or a constant.

    A change for one update only, put back after it, as that of the action `LowerLearningRate`, is not foreign.

    Not for a rate that shall wait for a healthy training: give a constant factor to a `Knob` of `StagedEscalation`
    with `setter=lambda value: rate.set_factor("staged", value)`.

    Raises:
        UserError: a rate or factor that is not finite or is negative, as many multipliers as there are no groups.

    Source: A training of the write-up on attention collapse, whose rate was written by four pieces of code, each of
    which forgot the others.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        base: float | None = None,
        *,
        multipliers: Sequence[float] | None = None,
        on_foreign: Literal["raise", "assert again"] = "raise",
        **factors: Factor | float,
    ):
        groups = optimizer.param_groups
        if base is not None:
            finite("LearningRate", base=base)
        if multipliers is not None and len(multipliers) != len(groups):
            raise UserError(f"LearningRate: {len(multipliers)} multipliers for {len(groups)} groups; give one for each")
        if on_foreign not in ("raise", "assert again"):
            raise UserError(f"LearningRate: on_foreign={on_foreign!r}; expected 'raise' or 'assert again'")
        self.optimizer = optimizer
        self.taken = 0
        self.on_foreign = on_foreign
        self._all = base
        self._bases: list[float] = []
        self._multipliers: list[float] = []
        self._written: list[float] = []
        self._courses: dict[str, Factor] = {}
        self._constants: dict[str, float] = {}
        for name, factor in factors.items():
            if isinstance(factor, (int, float)):
                self._constants[name] = finite("LearningRate", **{name: float(factor)})
            else:
                # A plateau remembers: two schedules built from one must not share what it has seen.
                self._courses[name] = replace(factor) if isinstance(factor, Plateau) else factor
        self._take_in_groups()
        for place, multiplier in enumerate(multipliers or ()):
            self._multipliers[place] = finite("LearningRate", multiplier=multiplier)
        self._write()

    @property
    def factors(self) -> dict[str, float]:
        """Every factor by name, as it is now."""
        return {name: course.at(self.taken) for name, course in self._courses.items()} | self._constants

    @property
    def multipliers(self) -> tuple[float, ...]:
        """The multiplier of each group."""
        return tuple(self._multipliers)

    @property
    def rates(self) -> tuple[float, ...]:
        """The rate of each group, as it was written."""
        return tuple(self._written)

    def step(self) -> None:
        """Count one step and write the rates for the next update.

        Raises:
            UserError: somebody else wrote a rate since the last one.
        """
        self._mine()
        self.taken += 1
        self._take_in_groups()
        self._write()

    def set_factor(self, name: str, value: float) -> None:
        """Set a constant factor, new or known, and write the rates at once; 1 takes it away.

        Raises:
            UserError: the name is that of a course, or the value is negative or not finite.
        """
        if name in self._courses:
            raise UserError(f"LearningRate: {name!r} follows a course; choose another name for a constant factor")
        finite("LearningRate", **{name: value})
        self._constants[name] = float(value)
        self._write_if_mine()

    def set_multiplier(self, group: int, value: float) -> None:
        """Set the multiplier of one group and write its rate at once."""
        finite("LearningRate", multiplier=value)
        self._multipliers[group] = float(value)
        self._write_if_mine()

    def take(self, metric: str, value: float) -> None:
        """Take in one value of the metric that a plateau watches, and write the rates at once.

        Raises:
            UserError: no plateau watches it.
        """
        watching = [course for course in self._courses.values() if isinstance(course, Plateau)]
        known = sorted({course.metric for course in watching})
        if metric not in known:
            raise UserError(f"LearningRate: no plateau watches {metric!r}.{nearest(metric, known)} Watched: {known}")
        for course in watching:
            if course.metric == metric:
                course.take(float(value))
        self._write_if_mine()

    def state_dict(self) -> dict[str, Any]:
        """Return steps taken, bases, multipliers, constants and what plateaus remember, as plain values."""
        return {
            "taken": self.taken,
            "bases": list(self._bases),
            "multipliers": list(self._multipliers),
            "constants": dict(self._constants),
            "courses": sorted(self._courses),
            "plateaus": {
                name: {"value": c.value, "best": c.best, "bad": c.bad, "resting": c.resting}
                for name, c in self._courses.items()
                if isinstance(c, Plateau)
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a stored state and write the rates that belong to it.

        Raises:
            UserError: it is that of other groups or other factors.
        """
        groups, courses = len(self.optimizer.param_groups), sorted(self._courses)
        if len(state["bases"]) != groups or list(state["courses"]) != courses:
            raise UserError(
                f"LearningRate: the stored state has {len(state['bases'])} groups and the factors {state['courses']}, "
                f"this one {groups} groups and the factors {courses}; build it with the settings of that run"
            )
        self.taken = int(state["taken"])
        self._bases = [float(base) for base in state["bases"]]
        self._multipliers = [float(multiplier) for multiplier in state["multipliers"]]
        self._constants = {name: float(value) for name, value in state["constants"].items()}
        for name, remembered in state["plateaus"].items():
            course = self._courses[name]
            assert isinstance(course, Plateau)
            course.value, course.best = remembered["value"], remembered["best"]
            course.bad, course.resting = remembered["bad"], remembered["resting"]
        self._written = [math.nan] * groups
        self._write()

    def _take_in_groups(self) -> None:
        """Take in groups that were added to the optimizer; their rate is their base."""
        for group in self.optimizer.param_groups[len(self._bases) :]:
            self._bases.append(finite("LearningRate", base=float(group["lr"]) if self._all is None else self._all))
            self._multipliers.append(1.0)
            self._written.append(float(group["lr"]))

    def _write_if_mine(self) -> None:
        """Write between two steps, unless somebody else wrote: then the next step says so.

        While a stored state is put back the optimizer may have its rates already, and this object its state not yet.
        """
        if not self._foreign():
            self._write()

    def _foreign(self) -> list[tuple[int, float, float]]:
        """Return group, rate and what was written, for each rate that is not what was written."""
        pairs = enumerate(zip(self.optimizer.param_groups, self._written, strict=False))
        return [
            (place, float(group["lr"]), wrote)
            for place, (group, wrote) in pairs
            if float(group["lr"]) != wrote
            and not (torch.is_tensor(group["lr"]) and math.isclose(float(group["lr"]), wrote, rel_tol=1.2e-7))
        ]

    def _mine(self) -> None:
        for place, found, wrote in self._foreign():
            text = f"the rate of group {place} is {found:g} where {wrote:g} was written: somebody else writes it too"
            if self.on_foreign == "raise":
                raise UserError(
                    f"LearningRate: {text}. Remove the other scheduler or set a factor with set_factor, or give "
                    "on_foreign='assert again' to overwrite what the other one says"
                )
            log.warning("LearningRate: %s; it is written again", text)

    def _write(self) -> None:
        factor = 1.0
        for value in self.factors.values():
            factor *= value
        for place, group in enumerate(self.optimizer.param_groups[: len(self._bases)]):
            rate = self._bases[place] * self._multipliers[place] * factor
            self._written[place] = rate
            if torch.is_tensor(group["lr"]):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
