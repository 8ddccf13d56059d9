"""Easy examples first: a threshold on a quantity of each example, raised as the training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch

from trimtab.batches import Batches
from trimtab.errors import UserError
from trimtab.stabilizers._health import Gate, Look
from trimtab.stabilizers._progress import Notes, Progress

ANNOUNCED = 0.1
"""A pacing that adds examples at each step is announced each time that their share has grown by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Examples up to a difficulty, from one step on; `begins` counts healthy calls of `Curriculum.step`."""

    begins: int
    at_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Competence:
    """A share of the examples, the easiest, that grows from `start` to all in so many steps.

    The share is `(start**power + part * (1 - start**power)) ** (1 / power)`: 1 is linear, 2 grows fast first, so that
    new examples come ever more slowly.

    Source: Platanios and others, "Competence-based curriculum learning", 2019.
    """

    steps: int
    start: float = 0.1
    power: float = 2.0

    def share(self, part: float) -> float:
        """Return the share of examples at a part of the way."""
        first = self.start**self.power
        return 1.0 if part >= 1 else float((first + part * (1.0 - first)) ** (1.0 / self.power))


class Curriculum:
    """Says which examples a training may meet now.

        curriculum = Curriculum(lengths, [Stage(begins=0, at_most=6), Stage(begins=3000, at_most=math.inf)])
        for indices_B in curriculum.batches(32, seed=0):
            ...
            optimizer.step()
            curriculum.step()

    Args:
        difficulty: (N,) numbers, one for each example; any quantity of which more is harder.
        pacing: stages, or a `Competence`. Where two quantities count, take one curriculum for each and
            `numpy.intersect1d` of their indices.
        gate: asked at each step; None: always healthy. While it does not say healthy, no harder example comes.
        clear_for: so many healthy looks in a row are needed after one that was not.
        cooldown: looks for which a pause or a back-off lasts at least.
        guard: told of each change by a note of the kind "curriculum".
        excused_for: updates for which the note of a change lowers the findings of rules that a jump of the loss sets
            off. Rules of a `HealthGate` count all the same.

    Attributes:
        log: what happened and why, one plain record for each change.

    It has `state_dict` and `load_state_dict`; `pause` and `back_off` are what the action `BackOff` calls.

    Raises:
        UserError: a difficulty that is no number, stages out of order, a stage that holds no example, or
            one that changes nothing.

    Source: Curricula by epoch whose ranges overlapped, one with caps that no example reached, and one that a
    loss-spike rule could roll back again and again: the write-up on structural invariance.
    """

    kind: ClassVar[str] = "curriculum"

    def __init__(
        self,
        difficulty: Sequence[float] | np.ndarray[Any, Any] | torch.Tensor,
        pacing: Sequence[Stage] | Competence,
        *,
        gate: Gate | None = None,
        clear_for: int = 3,
        cooldown: int = 10,
        guard: Notes | None = None,
        excused_for: int = 100,
    ):
        hard = np.asarray(difficulty.cpu() if torch.is_tensor(difficulty) else difficulty, dtype=np.float64)
        if hard.ndim != 1 or not len(hard) or np.isnan(hard).any():
            raise UserError(
                f"Curriculum: difficulty has the shape {hard.shape} and {int(np.isnan(hard).sum())} NaN; expected one "
                "number for each example"
            )
        self._order = np.argsort(hard, kind="stable")
        self._sorted = hard[self._order]
        self.pacing = pacing if isinstance(pacing, Competence) else tuple(pacing)
        self._check()
        steps = self.pacing.steps if isinstance(self.pacing, Competence) else max(self.pacing[-1].begins, 1)
        self._counter = Progress(
            "Curriculum", self.kind, steps=steps, gate=gate, clear_for=clear_for, cooldown=cooldown, guard=guard,
            excused_for=excused_for,
        )  # fmt: skip
        self._counter.facts = lambda: {"limit": self.limit, "examples": float(self.count)}
        self._announced = self.count

    @property
    def stage(self) -> int:
        """The place of the stage that holds now; 0 for a `Competence`."""
        if isinstance(self.pacing, Competence):
            return 0
        return max(place for place, stage in enumerate(self.pacing) if stage.begins <= self._counter.done)

    @property
    def count(self) -> int:
        """How many examples may be met now."""
        if isinstance(self.pacing, Competence):
            share = self.pacing.share(self._counter.done / self._counter.steps)
            hardest = self._sorted[max(math.ceil(share * len(self._sorted) - 1e-9), 1) - 1]
        else:
            hardest = self.pacing[self.stage].at_most
        return int(np.searchsorted(self._sorted, hardest, side="right"))

    @property
    def limit(self) -> float:
        """The difficulty of the hardest example that may be met now."""
        return float(self._sorted[self.count - 1])

    @property
    def log(self) -> list[dict[str, float | str]]:
        """What happened and why: look, progress, what, because, limit and examples."""
        return self._counter.log

    def indices(self) -> torch.Tensor:
        """Return the (n,) indices of the examples that may be met now, in their own order."""
        return torch.from_numpy(np.sort(self._order[: self.count]))

    def batches(self, batch_size: int, seed: int = 0) -> CurriculumBatches:
        """Return an endless iterator of (B,) indices of examples that may be met; it follows every change at once."""
        return CurriculumBatches(self, batch_size, seed)

    def step(self) -> Look:
        """Look once, and go on when all is well; call it after each update, or after each epoch."""
        seen = self._counter.look()
        if self._counter.may_go_on(seen):
            before = self.stage
            self._counter.advance()
            count = self.count
            grown = (count - self._announced) / len(self._sorted)
            if self.stage != before or grown >= ANNOUNCED or (count == len(self._sorted) != self._announced):
                self._say_changed()
        return seen

    def pause(self, because: str, looks: int | None = None) -> None:
        """Let nothing harder come for `looks` calls of `step` (the cooldown when None), and until it is healthy."""
        self._counter.rest(looks)
        self._counter.say("paused", because, stands="paused", excuses=False)

    def back_off(self, because: str, factor: float | None = None) -> None:
        """Go back to easier examples at once: to the stage before, or to `factor` of the way (half, when None)."""
        factor = 0.5 if factor is None else factor
        if not 0 <= factor < 1:
            raise UserError(f"Curriculum: factor={factor}; expected 0 or more and less than 1")
        done = math.floor(self._counter.done * factor)
        if not isinstance(self.pacing, Competence):
            done = min(done, self.pacing[max(self.stage - 1, 0)].begins)
        self._counter.done = done
        self._counter.rest()
        self._counter.say("backed off", because, stands="backed off")
        self._announced = self.count

    def state_dict(self) -> dict[str, Any]:
        """Return progress, cooldown and log as plain values."""
        return {"examples": len(self._sorted), "announced": self._announced, "counter": self._counter.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a stored state.

        Raises:
            UserError: it is that of other data or of another pacing.
        """
        if state["examples"] != len(self._sorted):
            raise UserError(
                f"Curriculum: the stored state is of {state['examples']} examples, there are {len(self._sorted)} now"
            )
        self._counter.load_state_dict(state["counter"])
        self._announced = int(state["announced"])

    def _say_changed(self) -> None:
        self._announced = self.count
        text = f"{self.count} of {len(self._sorted)} examples, up to {self.limit:g}"
        self._counter.say("changed", text, stands=self._counter.stands)

    def _check(self) -> None:
        pacing = self.pacing
        if isinstance(pacing, Competence):
            if pacing.steps < 1 or not 0 < pacing.start <= 1 or not pacing.power > 0:
                raise UserError(f"Curriculum: {pacing}; expected steps >= 1, 0 < start <= 1 and power > 0")
            return
        begins = [stage.begins for stage in pacing]
        if not begins or begins[0] != 0 or any(a >= b for a, b in pairwise(begins)):
            raise UserError(f"Curriculum: stages begin at {begins}; expected 0 first, and each later than the last")
        for place, stage in enumerate(pacing):
            if not stage.at_most >= self._sorted[0]:
                raise UserError(
                    f"Curriculum: stage {place} takes examples up to {stage.at_most:g} and there is none; the easiest "
                    f"has {self._sorted[0]:g}"
                )
        counts = [int(np.searchsorted(self._sorted, stage.at_most, side="right")) for stage in pacing]
        for place, (one, other) in enumerate(pairwise(counts)):
            if one == other:
                raise UserError(
                    f"Curriculum: stage {place + 1} (up to {pacing[place + 1].at_most:g}) takes the same {one} "
                    f"examples as the one before; the hardest has {self._sorted[-1]:g}"
                )


class CurriculumBatches:
    """An endless iterator of (B,) indices of the examples that a curriculum allows.

    A change of the curriculum begins a new epoch over what is allowed then. Its position is that in the data: a
    rollback that goes on with other batches leaves it where it is.
    """

    is_data = True

    def __init__(self, curriculum: Curriculum, batch_size: int, seed: int = 0):
        self.curriculum, self.batch_size, self.seed = curriculum, batch_size, seed
        self._batches = Batches(curriculum.count, batch_size, seed)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        count = self.curriculum.count
        if count != self._batches.examples:
            epoch = self._batches.epoch + 1
            self._batches = self._of(count)
            self._batches.epoch = epoch
        places_B: torch.Tensor = next(self._batches)
        return torch.from_numpy(self.curriculum._order)[places_B]

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return self._batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a stored position.

        Raises:
            UserError: it is one in another order.
        """
        batches = self._of(int(state["examples"]))
        batches.load_state_dict(state)
        self._batches = batches

    def _of(self, count: int) -> Batches:
        return Batches(count, self.batch_size, self.seed)
