"""Phases of a training in which different parts of a model train, and a proof that each phase took effect."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trimtab.errors import TrimtabError, UserError, nearest
from trimtab.stabilizers._progress import Notes
from trimtab.stabilizers.learning_rate import LearningRate

LEFT_OUT = 8
"""So many updates in a row may come without any gradient (a response leaves updates out) before that is an error."""


class NoEffect(TrimtabError):
    """A phase of a ModuleSchedule did not take effect; the message says which part is not as the phase wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What trains from one step on.

    Attributes:
        name: what it is called in logs.
        begins: calls of `ModuleSchedule.step` after which it holds; the first phase begins at 0.
        trains: patterns of module or parameter names, such as `"head"` or `"encoder.layers.1?"`; everything else is
            frozen. `("*",)` trains all.
        learning_rate: pattern -> what the rate of these groups is multiplied by; 1 for those not named.
        weight_decay: pattern -> the same for the weight decay.
    """

    name: str
    begins: int
    trains: tuple[str, ...]
    learning_rate: Mapping[str, float] = field(default_factory=dict)
    weight_decay: Mapping[str, float] = field(default_factory=dict)


def parameter_groups(model: nn.Module, patterns: Sequence[str], **defaults: Any) -> list[dict[str, Any]]:
    """Return groups for an optimizer that phases can tell apart: one for each pattern, one for what is left.

    Args:
        model: whose parameters are grouped; each goes to the first pattern that matches it.
        patterns: of module or parameter names.
        defaults: put into every group, such as `lr=1e-3`.

    Raises:
        UserError: a pattern matches nothing that no pattern before it has taken.
    """
    left = dict(model.named_parameters())
    groups = []
    for pattern in patterns:
        taken = {name: left.pop(name) for name in _matching(pattern, list(left), "parameter_groups")}
        groups.append({"params": list(taken.values()), "name": pattern, **defaults})
    if left:
        groups.append({"params": list(left.values()), "name": "others", **defaults})
    return groups


class ModuleSchedule:
    """Lets different parts of a model train in different phases, with one optimizer.

        optimizer = torch.optim.AdamW(parameter_groups(model, ["backbone", "head"]), lr=1e-3)
        schedule = ModuleSchedule(model, optimizer, [
            Phase(name="head only", begins=0, trains=("head",)),
            Phase(name="all", begins=1000, trains=("*",), learning_rate={"backbone": 0.1}),
        ])
        ...
        optimizer.step()
        schedule.step()

    What is frozen has `requires_grad=False` and no gradient, so that neither moments nor weight decay of an earlier
    phase can move it: an optimizer leaves out a parameter without a gradient, and moves one whose gradient is zero.

    Each phase is proved at its first update: the flags are as it wants them; each pattern that trains got a gradient;
    rates and decays are those that were written; frozen parameters are bit for bit what they were. At later updates
    the version counters of frozen parameters are compared, which costs no wait for a device; an optimizer that writes
    past them (`parameter.data`) is seen at the first update only.

    Args:
        model: whose parameters are frozen and thawed.
        optimizer: the one that updates them; it keeps its state through all phases.
        phases: in order of `begins`.
        rate: the writer of the learning rate, if there is one; the multipliers go to it.
        guard: told of each phase by a note of the kind "freeze".
        excused_for: updates for which this note lowers findings to info; `requires_grad=False` needs none.

    Not for buffers: the running statistics of a frozen BatchNorm move while it is in training mode. Call `eval()` on
    such a module after each `model.train()`.

    Raises:
        UserError: a pattern matches nothing, a part that shall train is in no group of the optimizer, or a multiplier
            is for half a group.
        NoEffect: in `optimizer.step`, at the first update of a phase that did not take effect.

    Source: Training plans by epoch of two write-ups, in which an optimizer was made anew in each phase, or a part was
    frozen whose momentum went on moving it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        phases: Sequence[Phase],
        *,
        rate: LearningRate | None = None,
        guard: Notes | None = None,
        excused_for: int = 0,
    ):
        begins = [phase.begins for phase in phases]
        if not begins or begins[0] != 0 or any(a >= b for a, b in pairwise(begins)):
            raise UserError(f"ModuleSchedule: phases begin at {begins}; expected 0 first, and each later than the last")
        if rate is not None and rate.optimizer is not optimizer:
            raise UserError("ModuleSchedule: rate writes another optimizer; hand over the LearningRate of this one")
        self.model, self.optimizer, self.phases = model, optimizer, tuple(phases)
        self.taken = 0
        self._rate, self._guard, self._excused_for = rate, guard, excused_for
        self._named = {name: p for name, p in model.named_parameters() if p.is_floating_point() or p.is_complex()}
        groups = optimizer.param_groups
        self._rates = [float(group["lr"]) for group in groups]
        self._decays = [float(group.get("weight_decay", 0.0)) for group in groups]
        self._trains = [self._trained(phase) for phase in phases]
        self._lr_factors = [self._of_groups(phase, "learning_rate") for phase in phases]
        self._decay_factors = [self._of_groups(phase, "weight_decay") for phase in phases]
        self._sets_rates = any(phase.learning_rate for phase in phases)
        self._sets_decays = any(phase.weight_decay for phase in phases)
        self._frozen: tuple[str, ...] = ()
        self._unproved, self._empty = True, 0
        self._versions: list[int] = []
        self._before: list[torch.Tensor] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._update_begins),
            optimizer.register_step_post_hook(self._update_ended),
        ]
        self._enter()
        self._tell()

    @property
    def phase(self) -> Phase:
        """The phase that holds now."""
        return self.phases[self._place]

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the parameters that do not train now."""
        return self._frozen

    def step(self) -> bool:
        """Count one step, and say whether a phase began; call it after each update, or after each epoch.

        Raises:
            NoEffect: a phase ends before any update was taken in which it could be proved.
        """
        before = self._place
        self.taken += 1
        if self._place == before:
            return False
        if self._unproved:
            raise NoEffect(
                f"phase {self.phases[before].name!r} ends at step {self.taken} and its optimizer took no update in it"
            )
        self._enter()
        self._tell()
        return True

    def close(self) -> None:
        """Take the hooks off the optimizer; flags and rates stay as they are."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the rates and decays before any phase, as plain values."""
        return {
            "taken": self.taken, "phase": self.phase.name, "rates": list(self._rates), "decays": list(self._decays),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a stored state; its phase holds again and is proved again.

        Raises:
            UserError: it is that of other phases or of another number of groups.
        """
        here = next(p for p in reversed(self.phases) if p.begins <= state["taken"])
        if here.name != state["phase"] or len(state["rates"]) != len(self._rates):
            raise UserError(
                f"ModuleSchedule: the stored state is in phase {state['phase']!r} with {len(state['rates'])} groups at "
                f"step {state['taken']}, where this one has {here.name!r} and {len(self._rates)} groups"
            )
        self.taken = int(state["taken"])
        self._rates, self._decays = [float(r) for r in state["rates"]], [float(d) for d in state["decays"]]
        self._enter()

    # -- what a phase wants, found once ------------------------------------------------------------------------------

    @property
    def _place(self) -> int:
        return max(place for place, phase in enumerate(self.phases) if phase.begins <= self.taken)

    def _trained(self, phase: Phase) -> dict[str, frozenset[str]]:
        """Return pattern -> names of the parameters that it trains."""
        where = f"ModuleSchedule: phase {phase.name!r}: trains"
        if isinstance(phase.trains, str) or not phase.trains:
            raise UserError(f"{where} {phase.trains!r}; expected a tuple of patterns, such as ('head',)")
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        found = {pattern: frozenset(_matching(pattern, self._named, where)) for pattern in phase.trains}
        for pattern, names in found.items():
            outside = sorted(name for name in names if id(self._named[name]) not in held)
            if outside:
                raise UserError(
                    f"{where} {pattern!r}, but {outside[0]!r}{_more(outside)} is in no group of the optimizer and "
                    "would never train; build the optimizer with parameter_groups(model, ...)"
                )
        return found

    def _of_groups(self, phase: Phase, what: str) -> list[float]:
        """Return one factor for each group of the optimizer."""
        factors = [1.0] * len(self.optimizer.param_groups)
        said: dict[int, str] = {}
        for pattern, value in getattr(phase, what).items():
            where = f"ModuleSchedule: phase {phase.name!r}: {what}"
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{where} of {pattern!r} is {value}; expected a finite number, 0 or more")
            wanted = {id(self._named[name]) for name in _matching(pattern, self._named, where)}
            for place, group in enumerate(self.optimizer.param_groups):
                inside = sum(id(p) in wanted for p in group["params"])
                if not inside:
                    continue
                if inside < len(group["params"]):
                    raise UserError(
                        f"{where} of {pattern!r} is for {inside} of the {len(group['params'])} tensors of group {place}"
                        "; build the optimizer with parameter_groups(model, [...]), one pattern for each part"
                    )
                if place in said:
                    raise UserError(
                        f"{where}: group {place} is named by {said[place]!r} and by {pattern!r}; name it once"
                    )
                if what == "weight_decay" and "weight_decay" not in group:
                    raise UserError(f"{where} of {pattern!r}: {type(self.optimizer).__name__} has no weight decay")
                said[place], factors[place] = pattern, value
        return factors

    # -- making it so, and proving it --------------------------------------------------------------------------------

    def _enter(self) -> None:
        trained = frozenset().union(*self._trains[self._place].values())
        self._frozen = tuple(name for name in self._named if name not in trained)
        frozen = set(self._frozen)
        for name, parameter in self._named.items():
            parameter.requires_grad_(name not in frozen)
            if name in frozen:
                parameter.grad = None
        for place, group in enumerate(self.optimizer.param_groups):
            if self._sets_rates and self._rate is not None:
                self._rate.set_multiplier(place, self._lr_factors[self._place][place])
            elif self._sets_rates:
                _put(group, "lr", self._rates[place] * self._lr_factors[self._place][place])
            if self._sets_decays:
                _put(group, "weight_decay", self._decays[place] * self._decay_factors[self._place][place])
        self._unproved, self._empty = True, 0
        self._versions, self._before = [], []

    def _tell(self) -> None:
        if self._guard is not None:
            frozen, trained = len(self.frozen), len(self._named) - len(self.frozen)
            self._guard.note(
                "freeze", steps=self._excused_for,
                text=f"phase {self.phase.name!r}: {', '.join(self.phase.trains)} trains ({trained} tensors), "
                f"{frozen} tensors are frozen",
                phase=self.phase.name, trained=float(trained), frozen=float(frozen),
            )  # fmt: skip

    def _update_begins(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        frozen = [self._named[name] for name in self.frozen]
        for parameter in frozen:
            parameter.grad = None  # one that was left over, or put back by a rollback, would move it
        self._versions = [parameter._version for parameter in frozen]
        if self._unproved:
            self._prove_settings()
            self._before = [parameter.detach().clone() for parameter in frozen]
            self._prove_gradients()

    def _update_ended(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        names = self.frozen
        frozen = [self._named[name] for name in names]
        moved = [n for n, p, v in zip(names, frozen, self._versions, strict=True) if p._version != v]
        if self._before:
            moved += [n for n, p, b in zip(names, frozen, self._before, strict=True) if not _same(p, b)]
            self._before = []
        if moved:
            raise self._failed(
                f"{moved[0]!r}{_more(moved)} is frozen and the update moved it: {type(optimizer).__name__} does not "
                "leave out parameters without a gradient; take them out of its groups"
            )
        if not self._unproved:
            return
        if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
            self._prove_gradients()  # those of a closure are only here now
            self._unproved, self._empty = False, 0
        else:
            self._empty += 1
            if self._empty >= LEFT_OUT:
                raise self._failed(f"{LEFT_OUT} updates in a row came without a gradient for any parameter")

    def _prove_settings(self) -> None:
        frozen = set(self.frozen)
        for name, parameter in self._named.items():
            if parameter.requires_grad == (name in frozen):
                wanted = "frozen" if name in frozen else "trained"
                raise self._failed(
                    f"{name!r} shall be {wanted}, but its requires_grad is {parameter.requires_grad}: somebody else "
                    "set it after the phase began"
                )
        for place, group in enumerate(self.optimizer.param_groups):
            factor = self._lr_factors[self._place][place]
            if self._sets_rates and self._rate is not None and self._rate.multipliers[place] != factor:
                raise self._failed(
                    f"the multiplier of group {place} is {self._rate.multipliers[place]:g} where {factor:g} was set: "
                    "restore the LearningRate together with this schedule, and set no multiplier by hand"
                )
            pairs = []
            if self._sets_rates and self._rate is None:
                pairs.append(("lr", self._rates[place] * self._lr_factors[self._place][place]))
            if self._sets_decays:
                pairs.append(("weight_decay", self._decays[place] * self._decay_factors[self._place][place]))
            for key, wrote in pairs:
                if not math.isclose(float(group[key]), wrote, rel_tol=1.2e-7):
                    raise self._failed(
                        f"{key} of group {place} is {float(group[key]):g} where {wrote:g} was written: a scheduler "
                        "writes it too; hand over rate=LearningRate(optimizer, ...) and use no other"
                    )

    def _prove_gradients(self) -> None:
        if all(p.grad is None for group in self.optimizer.param_groups for p in group["params"]):
            return  # a closure computes them later, or a response leaves this update out
        for pattern, names in self._trains[self._place].items():
            if all(self._named[name].grad is None for name in names):
                raise self._failed(
                    f"{pattern!r} shall train, and none of its {len(names)} tensors got a gradient: the loss does not "
                    "reach it, or it is detached on the way"
                )

    def _failed(self, text: str) -> NoEffect:
        return NoEffect(f"phase {self.phase.name!r} did not take effect (step {self.taken}): {text}")


def _put(group: dict[str, Any], key: str, value: float) -> None:
    """Write a setting of a group; a tensor keeps its identity."""
    if torch.is_tensor(group[key]):
        group[key].fill_(value)
    else:
        group[key] = value


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors are equal; NaN equals NaN."""
    return bool(((one == other) | (one != one) & (other != other)).all())


def _matching(pattern: str, names: Iterable[str], where: str) -> list[str]:
    """Return the names of parameters that a pattern of modules or parameters matches."""
    known = list(names)
    found = [n for n in known if fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(n, f"{pattern}.*")]
    if not found:
        modules = {part.rpartition(".")[0] for part in known} | {part.partition(".")[0] for part in known} | set(known)
        raise UserError(f"{where}: the pattern {pattern!r} matches no parameter.{nearest(pattern, sorted(modules))}")
    return found


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
