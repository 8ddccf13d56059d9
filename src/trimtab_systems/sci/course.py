"""Where a training of SCI-Loop stands: what it learns now, with how much help, and what it does when that fails.

An attempt has three parts. First the outer loop and which words are structure, over phrases of the scaffold. Then the
inner loop and which words are pattern, from the scaffold's phrases; for that no likelihood is needed. Last everything
together, with neither scaffold nor aid. How well the training commands are answered decides when a part is over and
whether it failed; validation and test are not looked at. What failed is drawn anew, and that is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from trimtab_systems.sci.losses import Aids, Loss
from trimtab_systems.sci.model import SCILoop

Part = Literal["outer", "inner", "whole"]
COPIED = 0.9
"""Share of the spans whose phrase the inner loop must say as the scaffold does; of the others either may be right."""
_LEARNT: Mapping[Part, tuple[str, ...]] = {
    "outer": ("embedding", "context", "structure", "outer", "scaffold"),
    "inner": ("pattern", "inner", "lexicon"),
    "whole": ("embedding", "context", "structure", "pattern", "outer", "inner", "lexicon"),
}
"""The parts of the model that learn; the others are frozen meanwhile."""
_NEXT: Mapping[str, Part] = {"outer": "inner", "inner": "whole"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long parts last, in updates, and how the aids go to zero."""

    outer: int
    inner: int
    whole: int
    check_every: int
    fit: float
    warmup: int
    floors_until: int
    call_until: int
    structure_floor: float
    pattern_floor: float
    pattern_from: int
    end_floor: float
    stop_floor: float
    call_bonus: float
    steady_from: int
    steady: int
    guesses: int
    guesses_until: int
    explorations: int


@dataclass(slots=True, kw_only=True)
class Place:
    """Where a training stands; plain values, so that a checkpoint can hold it.

    Attributes:
        part: what is learnt now.
        begun: the update with which this part began.
        attempt: how often everything was drawn anew.
        inner: how often the inner loop alone was drawn anew in this attempt.
        redrawn: how often anything was drawn anew in all.
        fit: share of the sampled training commands, or spans, that were right when it was last looked.
        done: the last part is over.
        next: the update that comes next.
    """

    part: Part = "outer"
    begun: int = 0
    attempt: int = 0
    inner: int = 0
    redrawn: int = 0
    fit: float = 0.0
    done: bool = False
    next: int = 0


class Course:
    """Moves a training from part to part.

    Args:
        plan: how long and with how much help.
        model: whose parts are drawn anew where they failed.
        optimizer: whose rates are set, and whose moments of what was drawn anew are cleared; each group has a "peak".
        fit: (scaffold) -> share of the training commands that is right, of a fixed sample by the scaffold where it is
            True, else of all without it.
        copied: () -> share of the sample's spans whose phrase the inner loop says as the scaffold does.
        seed: of what is drawn anew.
    """

    def __init__(
        self,
        plan: Plan,
        model: SCILoop,
        optimizer: torch.optim.Optimizer,
        fit: Callable[[bool], float],
        copied: Callable[[], float],
        seed: int,
    ):
        self.plan, self.model, self.optimizer = plan, model, optimizer
        self.fit, self.copied, self.seed = fit, copied, seed
        self.place = Place()
        self.latest: Loss | None = None
        self._freeze()
        self.before(0)

    def aids(self, step: int) -> Aids:
        """Return how much help update number `step` has."""
        plan, now = self.plan, step - self.place.begun
        if self.place.part == "whole":
            return Aids(steady=plan.steady)
        if self.place.part == "inner":
            if now < plan.pattern_from:
                return Aids(pattern=0.5)
            left = 1.0 - (now - plan.pattern_from) / (0.7 * (plan.inner - plan.pattern_from))
            return Aids(pattern=max(0.02, plan.pattern_floor * left))
        left = max(0.0, 1.0 - now / plan.floors_until)
        return Aids(
            structure=max(1e-3, plan.structure_floor * left),
            end=plan.end_floor * left,
            stop=plan.stop_floor * left,
            call=plan.call_bonus * max(0.0, 1.0 - now / plan.call_until),
            scaffold=True,
            steady=plan.steady if now >= plan.steady_from else 0,
        )

    def guesses(self, step: int) -> int:
        """Return how many choices of roles are tried for each command."""
        early = self.place.part == "outer" and step - self.place.begun < self.plan.guesses_until
        return self.plan.guesses if early else 1

    def after(self, step: int) -> None:
        """Look how update number `step` left the training, and set the rates of the next."""
        done = step + 1 - self.place.begun
        longest = getattr(self.plan, self.place.part)
        if done % self.plan.check_every == 0 or done >= longest:
            self._look(done, longest, step + 1)
        self.before(step + 1)

    def before(self, step: int) -> None:
        """Set the rates for update number `step`."""
        self.place.next = step
        now, plan = step - self.place.begun, self.plan
        if self.place.part == "outer":
            factor = min(1.0, (now + 1) / plan.warmup)
        elif self.place.part == "inner":
            self._freeze()
            factor = min(1.0, (now + 1) / 10) * (1.0 - 0.9 * min(1.0, now / plan.inner))
        else:
            factor = 0.5 * (1.0 - 0.9 * min(1.0, now / plan.whole))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    def _look(self, done: int, longest: int, step: int) -> None:
        part, fit = self.place.part, self.plan.fit
        reached = self.copied() if part == "inner" else self.fit(part == "outer")
        self.place.fit = reached
        over = done >= longest
        if part == "whole" and (reached >= 1.0 or (over and reached >= fit)):
            self.place.done = True
        elif part == "inner" and reached >= COPIED and done >= longest // 2:
            self._begin("whole", step)
        elif part == "outer" and reached >= fit:
            self._begin("inner", step)
        elif over and self.place.redrawn < self.plan.explorations:
            again = part == "inner" and self.place.inner < 2
            self.place.redrawn += 1
            self.place.inner = self.place.inner + 1 if again else 0
            self.place.attempt += not again
            self._draw_anew(inner=again)
            self._begin("inner" if again else "outer", step)
        elif over:  # nothing is left to try: go on to the end with what there is
            if part == "whole":
                self.place.done = True
            else:
                self._begin(_NEXT[part], step)

    def _begin(self, part: Part, step: int) -> None:
        self.place.part, self.place.begun = part, step
        self._freeze()

    def _freeze(self) -> None:
        for name, child in self.model.named_children():
            child.requires_grad_(name in _LEARNT[self.place.part])
        if self.place.part == "inner":
            self.model.pattern.requires_grad_(self.place.next - self.place.begun >= self.plan.pattern_from)

    def _draw_anew(self, *, inner: bool) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1009 + self.place.redrawn)
            for parameter in self.model.forget(inner=inner):
                self.optimizer.state.pop(parameter, None)

    def state_dict(self) -> dict[str, Any]:
        """Return where the training stands."""
        return asdict(self.place)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.place = Place(**state)
        self._freeze()
