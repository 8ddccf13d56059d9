"""A counter that advances only while a training is healthy, and the log of why it did not.

What StagedEscalation and Curriculum share. It counts looks, not epochs of a clock: a pause costs the looks that it
lasts and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from trimtab.errors import UserError
from trimtab.stabilizers._health import Gate, Look

LOGGED = 200
"""So many entries the log keeps; the oldest go first."""


class Notes(Protocol):
    """Who is told what a schedule does: a Guard."""

    def note(self, kind: str, *, steps: int | None = None, text: str = "", **facts: float | str) -> None:
        """Announce it."""


class Progress:
    """Counts healthy looks from 0 to `steps`.

    Args:
        owner: what it is called in errors.
        kind: kind of the notes that it writes.
        steps: healthy looks from the beginning to the end.
        gate: asked at each look; None: always healthy.
        late: (from which progress on, the gate that is asked from there); None: the same gate to the end.
        clear_for: so many healthy looks in a row are needed after one that was not, before the counter goes on.
        cooldown: looks for which a pause or a back-off lasts at least.
        guard: told of each entry of the log.
        excused_for: updates for which these notes lower the findings of rules that name `kind` as an excuse.
    """

    def __init__(
        self,
        owner: str,
        kind: str,
        *,
        steps: int,
        gate: Gate | None,
        late: tuple[float, Gate] | None = None,
        clear_for: int,
        cooldown: int,
        guard: Notes | None,
        excused_for: int,
    ):
        for name, value, least in (
            ("steps", steps, 1), ("clear_for", clear_for, 1), ("cooldown", cooldown, 0),
            ("excused_for", excused_for, 0),
        ):  # fmt: skip
            if value < least:
                raise UserError(f"{owner}: {name} must be {least} or more, got {value}")
        self.owner, self.kind = owner, kind
        self.steps, self.clear_for, self.cooldown = steps, clear_for, cooldown
        self.gate, self.late = gate, late
        self.guard, self.excused_for = guard, excused_for
        self.done = 0
        self.looks = 0
        self.resting = 0
        self.clear = clear_for
        self.stands = "at the start"
        self.log: list[dict[str, float | str]] = []
        self.facts: Callable[[], Mapping[str, float]] = dict

    def look(self) -> Look:
        """Look once, count it, and say what was seen; a look while resting is reported but goes nowhere."""
        self.looks += 1
        is_late = self.late is not None and self.done >= self.late[0]
        gate = self.late[1] if self.late is not None and is_late else self.gate
        seen = Look(state="healthy") if gate is None else gate.look()
        if seen.state == "healthy":
            self.clear = min(self.clear + 1, self.clear_for)
        else:
            self.clear = 0
        return seen

    def may_go_on(self, seen: Look) -> bool:
        """Say whether the counter may advance after this look; write down where it begins to stand or to go."""
        if self.resting:
            self.resting -= 1
            return False
        if seen.state != "healthy":
            self.say("unknown" if seen.state == "unknown" else "held", seen.because, excuses=False)
            return False
        if self.clear < self.clear_for:
            return False
        if self.stands != "going":
            began = "begins" if self.stands == "at the start" else f"{self.clear} healthy looks in a row"
            self.say("going", began)
        return True

    def advance(self) -> None:
        """Take one step forward; say when the end is reached."""
        if self.done < self.steps:
            self.done += 1
            if self.done == self.steps:
                self.say("complete", f"{self.steps} healthy looks", stands="going")

    def rest(self, looks: int | None = None) -> None:
        """Stand still for at least so many looks, and then until enough healthy ones came."""
        looks = self.cooldown if looks is None else looks
        if looks < 0:
            raise UserError(f"{self.owner}: a pause of {looks} looks; expected 0 or more")
        self.resting = max(self.resting, looks)
        self.clear = 0

    def say(self, what: str, because: str, *, stands: str | None = None, excuses: bool = True) -> None:
        """Write one entry into the log and tell the Guard; saying again how it stands already is no news.

        `excuses` is False for what changes nothing in the training and so explains nothing that is found in it.
        """
        if stands is None:
            if what == self.stands:
                return
            stands = what
        self.stands = stands
        entry: dict[str, float | str] = {
            "look": float(self.looks), "progress": self.done / self.steps, "what": what, "because": because,
            **self.facts(),
        }  # fmt: skip
        self.log.append(entry)
        del self.log[:-LOGGED]
        if self.guard is not None:
            facts = {name: value for name, value in entry.items() if name != "because"}
            self.guard.note(self.kind, steps=self.excused_for if excuses else 0, text=f"{what}: {because}", **facts)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as plain values."""
        return {
            "steps": self.steps, "done": self.done, "looks": self.looks, "resting": self.resting, "clear": self.clear,
            "stands": self.stands, "log": [dict(entry) for entry in self.log],
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a stored state.

        Raises:
            UserError: it is that of another number of steps.
        """
        if state["steps"] != self.steps:
            raise UserError(
                f"{self.owner}: the stored state counts to {state['steps']} steps, this one to {self.steps}; "
                "build it with the settings of the run that is resumed"
            )
        self.done, self.looks, self.resting = int(state["done"]), int(state["looks"]), int(state["resting"])
        self.clear, self.stands = int(state["clear"]), str(state["stands"])
        self.log = [dict(entry) for entry in state["log"]]
