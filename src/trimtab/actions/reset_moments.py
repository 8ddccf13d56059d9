"""Let the optimizer forget what it remembers of past gradients."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import optim

from trimtab.actions._action import Action
from trimtab.errors import UserError, nearest
from trimtab.live import Live
from trimtab.records import Finding, Outcome

BEGINS_ANEW: tuple[type[optim.Optimizer], ...] = tuple(
    getattr(optim, name)
    for name in (
        "SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adadelta", "RMSprop", "Rprop", "ASGD", "SparseAdam",
        "Adafactor", "Muon",
    )
    if hasattr(optim, name)
)  # fmt: skip
"""Classes of torch that make the state of a tensor at its first update, so that forgetting it is beginning anew.
Rprop's step sizes begin at the learning rate again. Checked for each by a test."""


@dataclass(frozen=True, kw_only=True)
class ResetMoments(Action):
    """Clear the optimizer's memory of the named tensors: moments, momentum, and the count of updates.

    The next update of these tensors is like the first one of a training. For Adam and its kin that is a step of full
    length in the direction of a single gradient, so lower the learning rate for a while as well:
    `(ResetMoments(), LowerLearningRate(steps=20))`. The weights stay as they are; only what the optimizer adds to them
    changes.

    `parameters` are patterns of tensor names ("head.*"), `groups` places of parameter groups; what is in both is
    cleared. A pattern that matches nothing is an error, and so is a group that does not exist: the outcome is failed,
    and nothing was cleared.

    Declined where clearing has no such meaning: LBFGS, and classes that are not torch's own.
    """

    name: ClassVar[str] = "reset-moments"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "weights"
    groups: tuple[int, ...] | None = None
    parameters: str | tuple[str, ...] = "*"

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Clear the state of the chosen tensors of the finding's stream."""
        optimizer = live.optimizer if live is not None else None
        if live is None or optimizer is None:
            return self.outcome(finding, "declined", "there is no update, and so no optimizer, to act on")
        kind = known_as(optimizer)
        if kind is None:
            return self.outcome(
                finding, "declined",
                f"what {type(optimizer).__name__} would do without its state is not known; go back to a snapshot",
            )  # fmt: skip
        chosen = self._chosen(live, optimizer)
        held = [parameter for parameter in chosen if optimizer.state.get(parameter)]
        if not held:
            return self.outcome(
                finding, "declined", f"{type(optimizer).__name__} remembers nothing of these {len(chosen)} tensors"
            )
        for parameter in held:
            if kind is optim.Adagrad:
                _as_at_the_start(optimizer, parameter)
            else:
                del optimizer.state[parameter]
        return self.outcome(finding, "done", f"{type(optimizer).__name__} forgot its state of {len(held)} tensors")

    def _chosen(self, live: Live, optimizer: optim.Optimizer) -> list[torch.Tensor]:
        """Return the tensors that are meant; raise UserError for a pattern or group that means none."""
        names = live.axes.get("parameters") or tuple(map(str, range(len(live.parameters))))
        patterns = (self.parameters,) if isinstance(self.parameters, str) else self.parameters
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise UserError(
                    f"reset-moments: no tensor of stream {live.stream!r} matches {pattern!r}.{nearest(pattern, names)}"
                )
        count = len(optimizer.param_groups)
        for group in self.groups or ():
            if not 0 <= group < count:
                raise UserError(f"reset-moments: there is no group {group}; stream {live.stream!r} has {count}")
        wanted = range(count) if self.groups is None else self.groups
        of_groups = {id(p) for group in wanted for p in optimizer.param_groups[group]["params"]}
        return [
            parameter
            for name, parameter in zip(names, live.parameters, strict=True)
            if id(parameter) in of_groups and _matches(name, patterns)
        ]


def known_as(optimizer: optim.Optimizer) -> type[optim.Optimizer] | None:
    """Return the class of torch whose `step` an optimizer takes, None for a step that is somebody's own."""
    kinds: tuple[type[optim.Optimizer], ...] = (*BEGINS_ANEW, optim.Adagrad)
    step = inspect.unwrap(type(optimizer).step)
    return next((kind for kind in kinds if inspect.unwrap(kind.step) is step), None)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _as_at_the_start(optimizer: optim.Optimizer, parameter: torch.Tensor) -> None:
    """Set the state that Adagrad makes when it is built to what it was then."""
    group = next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))
    start = group.get("initial_accumulator_value", optimizer.defaults["initial_accumulator_value"])
    state = optimizer.state[parameter]
    state["step"].zero_()
    state["sum"].fill_(complex(start, start) if state["sum"].is_complex() else start)
