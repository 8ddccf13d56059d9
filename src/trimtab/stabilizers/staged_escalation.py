"""Knobs that move from a base to a target, and only while the training is healthy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trimtab.errors import UserError
from trimtab.stabilizers._health import Gate, HealthGate, Look
from trimtab.stabilizers._progress import Notes, Progress

__all__ = ["Gate", "HealthGate", "Knob", "Look", "StagedEscalation"]

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda part: part,
    "cosine": lambda part: 0.5 - 0.5 * math.cos(math.pi * part),
}
"""Part of the way in progress (0 to 1) -> part of the way of the knobs (0 to 1)."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One number of a training that is moved from `base` to `target`.

    Attributes:
        name: what it is called in logs.
        base: where it begins.
        target: where it ends; below the base if it shall fall.
        setter: called with each new value.
        getter: returns the value that is in use. With it a value that somebody else wrote is noticed; without it it
            cannot be.
    """

    name: str
    base: float
    target: float
    setter: Callable[[float], object]
    getter: Callable[[], float] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.base) and math.isfinite(self.target)):
            raise UserError(f"knob {self.name!r}: base {self.base} and target {self.target} must be finite numbers")

    @classmethod
    def of(cls, owner: Any, attribute: str, target: float, *, base: float | None = None, name: str = "") -> Knob:
        """Return the knob that is an attribute of an object; its value now is the base unless another is given."""
        if not hasattr(owner, attribute):
            raise UserError(f"knob: {type(owner).__name__} has no attribute {attribute!r}")
        return cls(
            name=name or attribute,
            base=float(getattr(owner, attribute)) if base is None else base,
            target=target,
            setter=lambda value: setattr(owner, attribute, value),
            getter=lambda: float(getattr(owner, attribute)),
        )


class StagedEscalation:
    """Moves knobs from base to target on a counter that advances only while a gate says healthy.

        gate = HealthGate(guard, codes=("metric-dropped", "attention-uniform"))
        escalation = StagedEscalation([Knob.of(adapter, "scale", target=0.3)], steps=2000, gate=gate, guard=guard)
        ...
        optimizer.step()
        escalation.step()

    A knob stands at `base + reach * schedule(progress) * (target - base)`. The progress counts healthy looks, so a
    pause costs the looks that it lasts and nothing more. Unknown is not healthy. Nothing jumps: what was held goes on
    where it stood.

    Args:
        knobs: what is moved. This object is their only writer.
        steps: healthy calls of `step` from base to target.
        schedule: "linear", "cosine", or a function from [0, 1] to [0, 1].
        gate: asked at each step; None: always healthy.
        clear_for: so many healthy looks in a row are needed after one that was not.
        on_unhealthy: "hold" stands still; "back off" multiplies `reach` by `factor` first, at once and again after
            each cooldown that did not help. Unknown is always held and never backed off.
        factor: what a back-off leaves of the way from the base, between 0 and 1.
        cooldown: looks for which a pause or a back-off lasts at least; where `step` is called at each update, hundreds.
        restore: what each healthy look gives back of the reach, before the progress goes on; where `step` is called at
            each update, hundredths, or it comes back faster than it was first raised and is backed off again.
        late_from: progress (0 to 1) from which `late_gate` is asked in place of `gate`.
        late_gate: the stricter gate of the late phase.
        on_foreign: "raise" makes a knob that somebody else wrote an error; "assert again" writes it again and logs it.
        guard: told of each entry of the log by a note of the kind "escalation".
        excused_for: updates for which these notes lower findings to info; 0, for a rule that an escalation silences
            cannot hold it.

    Attributes:
        log: what happened and why, one plain record for each change of state; the newest 200 are kept.

    It has `state_dict` and `load_state_dict`; `pause` and `back_off` are what the action `BackOff` calls. After a
    rollback it stands where it stood, so a policy goes back first and backs off then: `(RollBack(), BackOff())`.

    Not for a learning rate with a course of its own: that is `LearningRate`.

    Raises:
        UserError: no knob, two of one name, or a setting out of range; in `step`, a knob that somebody else wrote.

    Source: The meta-escalation of the write-up on attention collapse, whose gate took missing numbers for healthy
    ones, went on by the calendar while it was paused, and needed 108 stable epochs to close the gap again.
    """

    kind: ClassVar[str] = "escalation"

    def __init__(
        self,
        knobs: Sequence[Knob],
        steps: int,
        *,
        schedule: Literal["linear", "cosine"] | Callable[[float], float] = "linear",
        gate: Gate | None = None,
        clear_for: int = 3,
        on_unhealthy: Literal["hold", "back off"] = "hold",
        factor: float = 0.5,
        cooldown: int = 10,
        restore: float = 0.2,
        late_from: float | None = None,
        late_gate: Gate | None = None,
        on_foreign: Literal["raise", "assert again"] = "raise",
        guard: Notes | None = None,
        excused_for: int = 0,
    ):
        names = [knob.name for knob in knobs]
        if not names or len(set(names)) != len(names):
            raise UserError(f"StagedEscalation: knobs are called {names}; expected one or more, each with its own name")
        if isinstance(schedule, str) and schedule not in SCHEDULES:
            raise UserError(
                f"StagedEscalation: schedule={schedule!r}; expected one of {', '.join(SCHEDULES)}, or a function"
            )
        if on_unhealthy not in ("hold", "back off"):
            raise UserError(f"StagedEscalation: on_unhealthy={on_unhealthy!r}; expected 'hold' or 'back off'")
        if on_foreign not in ("raise", "assert again"):
            raise UserError(f"StagedEscalation: on_foreign={on_foreign!r}; expected 'raise' or 'assert again'")
        if not 0 < restore <= 1:
            raise UserError(f"StagedEscalation: restore={restore}; expected more than 0 and at most 1")
        if (late_from is None) != (late_gate is None):
            raise UserError("StagedEscalation: late_from and late_gate belong together; give both or neither")
        if late_from is not None and not 0 <= late_from <= 1:
            raise UserError(f"StagedEscalation: late_from={late_from}; expected a progress between 0 and 1")
        late = None if late_from is None or late_gate is None else (late_from * steps, late_gate)
        self.knobs = tuple(knobs)
        self.factor = self._checked(factor)
        self.restore = restore
        self.on_unhealthy, self.on_foreign = on_unhealthy, on_foreign
        self.reach = 1.0
        self._schedule = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
        self._counter = Progress(
            "StagedEscalation", self.kind, steps=steps, gate=gate, late=late, clear_for=clear_for, cooldown=cooldown,
            guard=guard, excused_for=excused_for,
        )  # fmt: skip
        self._counter.facts = lambda: {knob.name: self.value(knob) for knob in self.knobs}
        self._written: dict[str, float] = {}
        self._write()

    @property
    def progress(self) -> float:
        """How far it is, from 0 at the base to 1 at the target; it never goes back but in a rollback."""
        return self._counter.done / self._counter.steps

    @property
    def values(self) -> dict[str, float]:
        """The value of each knob now."""
        return dict(self._written)

    @property
    def stands(self) -> str:
        """How it stands: at the start, going, held, unknown, paused, backed off."""
        return self._counter.stands

    @property
    def log(self) -> list[dict[str, float | str]]:
        """What happened and why: look, progress, what, because, and the value of each knob."""
        return self._counter.log

    def value(self, knob: Knob) -> float:
        """Return where a knob stands at this progress and reach."""
        part = self._schedule(self.progress)
        if not 0 <= part <= 1:
            raise UserError(f"StagedEscalation: schedule({self.progress:g}) is {part}; expected 0 to 1")
        part *= self.reach
        return knob.target if part == 1 else knob.base + part * (knob.target - knob.base)

    def step(self) -> Look:
        """Look once, and move on when all is well; call it after each update, or after each epoch.

        Returns:
            What the gate said.

        Raises:
            UserError: somebody else wrote a knob.
        """
        self._mine()
        counter = self._counter
        seen = counter.look()
        if seen.state == "unhealthy" and self.on_unhealthy == "back off" and not counter.resting:
            self.back_off(seen.because)
        elif counter.may_go_on(seen):
            if self.reach < 1:
                self.reach = min(1.0, self.reach + self.restore)
                if self.reach == 1:
                    counter.say("restored", "the reach is whole again", stands="going")
            else:
                counter.advance()
        self._write()
        return seen

    def pause(self, because: str, looks: int | None = None) -> None:
        """Stand still for `looks` calls of `step` (the cooldown when None), and then until it is healthy again."""
        self._counter.rest(looks)
        self._counter.say("paused", because, stands="paused", excuses=False)

    def back_off(self, because: str, factor: float | None = None) -> None:
        """Pull every knob back toward its base at once, and stand still for the cooldown.

        Args:
            because: what goes into the log.
            factor: what is left of the way from the base; that of this object when None.
        """
        self._mine()
        self.reach *= self.factor if factor is None else self._checked(factor)
        self._counter.rest()
        self._counter.say("backed off", because, stands="backed off")
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return progress, reach, cooldown and log as plain values."""
        return {"reach": self.reach, "knobs": [knob.name for knob in self.knobs], "counter": self._counter.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a stored state and set the knobs to it.

        Raises:
            UserError: it is that of other knobs or of another number of steps.
        """
        mine = [knob.name for knob in self.knobs]
        if list(state["knobs"]) != mine:
            raise UserError(f"StagedEscalation: the stored state has the knobs {state['knobs']}, this one has {mine}")
        self._counter.load_state_dict(state["counter"])
        self.reach = float(state["reach"])
        self._write()

    @staticmethod
    def _checked(factor: float) -> float:
        if not 0 <= factor < 1:
            raise UserError(f"StagedEscalation: factor={factor}; expected 0 or more and less than 1")
        return factor

    def _mine(self) -> None:
        """Notice a knob that somebody else wrote since the last write."""
        for knob in self.knobs:
            found = None if knob.getter is None else knob.getter()
            wrote = self._written[knob.name]
            if found is None or found == wrote or _same_single(found, wrote):
                continue
            text = f"knob {knob.name!r} is {found:g} where {wrote:g} was written: somebody else writes it too"
            if self.on_foreign == "raise":
                raise UserError(
                    f"StagedEscalation: {text}. Leave it to one writer, or give on_foreign='assert again' to overwrite "
                    "what the other one says"
                )
            self._counter.say("asserted again", text, stands=self._counter.stands)

    def _write(self) -> None:
        for knob in self.knobs:
            value = self.value(knob)
            self._written[knob.name] = value
            if knob.getter is None or knob.getter() != value:
                knob.setter(value)


def _same_single(found: float, wrote: float) -> bool:
    """Say whether a knob that is kept in single precision holds what was written."""
    return math.isclose(found, wrote, rel_tol=1.2e-7, abs_tol=1e-38)
