"""Which parameters learn at which rate, and how rates and weights of losses change from update to update.

Source: the write-up, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The learning rate as a multiple of its peak: a linear rise, then a half cosine.

    Attributes:
        steps: updates of the whole training, not batches.
        warmup_ratio: share of them in which the rate rises.
        start: multiple at the first update.
        end: multiple that the cosine ends at.
        constant: the peak from the first update on instead.
    """

    steps: int
    warmup_ratio: float = 0.1
    start: float = 0.1
    end: float = 0.01
    constant: bool = False

    def factor(self, step: int) -> float:
        """Return the multiple for update number `step`."""
        if self.constant:
            return 1.0
        warmup = self.warmup_ratio * self.steps
        if step < warmup:
            return self.start + (1 - self.start) * step / warmup
        passed = min((step - warmup) / max(self.steps - warmup, 1), 1.0)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * passed)) / 2


class Rates:
    """Sets the rate of every group of an optimizer before each update; its `peak` was put into the group.

    Args:
        optimizer: whose rates are set.
        course: of the rates.
        jumps: update -> factor on its rates; nothing in a sound training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, course: Course, jumps: Mapping[int, float] | None = None):
        self.optimizer, self.course, self.jumps = optimizer, course, jumps or {}
        self.before(0)

    def after(self, step: int) -> None:
        """Set the rates for the update that follows update number `step`."""
        self.before(step + 1)

    def before(self, step: int) -> None:
        """Set the rates for update number `step`."""
        factor = self.course.factor(step) * self.jumps.get(step, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def ramp(step: int, initial: float, final: float, steps: float) -> float:
    """Return a weight that goes from `initial` to `final` in equal parts over so many updates, and stays there."""
    return final if step >= steps else initial + (final - initial) * step / steps


def groups(
    model: nn.Module,
    modules: Sequence[tuple[str, type[nn.Module] | tuple[type[nn.Module], ...]]],
    queries: Sequence[nn.Parameter],
    peaks: Mapping[str, float],
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer: each parameter in exactly one, by the module that it lies in.

    A parameter belongs to the innermost of the given modules around it, to "slot_queries" if it is one of `queries`,
    and to "base" otherwise. What has fewer than two dimensions (biases, norms, temperatures, gates) and the slot
    queries are not decayed.

    Args:
        model: whose parameters are shared out, those that do not learn left out.
        modules: name of a part, and the classes of the modules that make it up.
        queries: the slot queries.
        peaks: part -> peak rate; one is needed for each part, "base" and "slot_queries".
        weight_decay: of what is decayed.
    """
    part_of = {id(query): "slot_queries" for query in queries}
    for module in model.modules():  # from the outside in, so that the innermost has the last word
        part = next((name for name, kind in modules if isinstance(module, kind)), None)
        if part is not None:
            for parameter in module.parameters():
                if part_of.get(id(parameter)) != "slot_queries":
                    part_of[id(parameter)] = part
    shared: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            part = part_of.get(id(parameter), "base")
            decayed = parameter.dim() >= 2 and part != "slot_queries"
            shared.setdefault((part, decayed), []).append(parameter)
    made = [
        {
            "params": parameters, "name": part if decayed else f"{part} (no decay)", "part": part,
            "peak": peaks[part], "lr": peaks[part], "weight_decay": weight_decay if decayed else 0.0,
        }
        for (part, decayed), parameters in sorted(shared.items())
    ]  # fmt: skip
    everywhere = sorted(id(parameter) for parameters in shared.values() for parameter in parameters)
    learning = sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert everywhere == learning, "a parameter is in no group or in two"
    return made
