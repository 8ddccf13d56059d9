"""A small training, one update at a time, with the levers that an action may pull."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trimtab.checkpoint import TrainingState
from trimtab.checkpoint.snapshots import Snapshots
from trimtab.levers import Levers
from trimtab.live import Live
from trimtab.records import Finding, Severity, Signal
from trimtab.trace import Trace


def found(code="gradient-exploding", *, step=40, since=40, subject="", came_back=None, **changes):
    """A finding, as the policy hands it to an action."""
    facts = {
        "code": code, "severity": Severity.ERROR, "step": step, "since_step": since, "subject": subject,
        "summary": f"{code} at step {step}", "measured": 1.0, "threshold": 0.0, "event": "opened",
        "evidence": {} if came_back is None else {"came_back": came_back}, **changes,
    }  # fmt: skip
    return Finding(**facts)


def past_of(norms=(), vectors=()):
    """A Trace with these gradient norms at the steps 0, 1, 2, ..."""
    trace = Trace()
    for step in range(max(len(norms), len(vectors))):
        values: dict[str, Any] = {"loss": 1.0}
        if step < len(norms):
            values["gradient_norm"] = norms[step]
        if step < len(vectors):
            values["gradient_norms"] = tuple(vectors[step])
        trace.append(Signal(step=step, update=step, time=0.0, values=values))
    return trace


@dataclass
class Training:
    """A two-layer network, its optimizer, and what a Guard would hand to an action at its next update."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    past: Any = None
    parts: dict[str, Any] = field(default_factory=dict)
    step: int = 40

    def __post_init__(self):
        self.state = TrainingState({"model": self.model}, {"main": self.optimizer}, self.parts)
        self.snapshots = Snapshots(self.state)
        self.levers = Levers(self.state, self.snapshots, past=lambda stream: self.past)

    def gradient(self, norm=1.0):
        """Give each parameter a gradient of the same direction as ever; together they have this norm."""
        generator = torch.Generator().manual_seed(1)
        for parameter in self.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        total = self.norm()
        for parameter in self.model.parameters():
            parameter.grad.mul_(norm / total)

    def norm(self):
        """The norm of the gradient as it is now."""
        return math.hypot(*(float(p.grad.norm()) for p in self.model.parameters() if p.grad is not None))

    def live(self, **changes):
        """The update that is about to be taken."""
        names = tuple(name for name, _ in self.model.named_parameters())
        groups = self.optimizer.param_groups
        place = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
        facts = {
            "stream": "main", "step": self.step, "update": self.step, "optimizer": self.optimizer,
            "parameters": tuple(self.model.parameters()), "axes": {"parameters": names},
            "group_of": tuple(place[id(p)] for p in self.model.parameters()), "levers": self.levers, **changes,
        }  # fmt: skip
        return Live(**facts)

    def update(self, live=None):
        """Take an update with whatever effects are at work, and return the learning rates that it was taken with."""
        live = live or self.live()
        self.levers.begin(self.optimizer, "main", live)
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.optimizer.step()
        self.levers.end(self.optimizer)
        self.step += 1
        return rates


def net():
    """Four tensors: two weights and two biases."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def training(kind="Adam", *, past=None, parts=None, groups=1, **options):
    """A training with an optimizer of torch by the name of its class, in one or two parameter groups."""
    model = net()
    given = list(model.parameters())
    halves = [given] if groups == 1 else [given[:2], given[2:]]
    options = {"lr": 0.1, **options}
    optimizer = getattr(torch.optim, kind)([{"params": half} for half in halves], **options)
    return Training(model, optimizer, past=past, parts=parts or {})
