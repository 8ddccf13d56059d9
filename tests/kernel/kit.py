"""A small training that goes wrong on purpose, and a rule that sees it at once."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from trimtab.detectors import DETECTORS, Detector
from trimtab.detectors._detector import now
from trimtab.records import Severity


@dataclass(frozen=True, kw_only=True)
class TooSteep(Detector):
    """A gradient that is absurdly long, or not finite."""

    code: str = "too-steep"
    reads: tuple[str, ...] = ("gradient_norm",)

    def detect(self, trace):
        norm = now(trace, "gradient_norm")
        if norm is None or norm < 1e4:
            return None
        return self.finding(
            trace, severity=Severity.ERROR, summary=f"gradient norm {norm}", measured=norm, threshold=1e4
        )


RULES = (*DETECTORS, TooSteep())
LEAN = (TooSteep(), *(rule for rule in DETECTORS if rule.code in ("loss-not-finite", "gradient-not-finite")))
"""Enough for most of these tests, and quicker."""


def net(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3, bias=False))


def batch(index):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(index))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def loss_of(model, index, factor=1.0):
    x, y = batch(index)
    return F.cross_entropy(model(x), y) * factor


def train(model, optimizer, factors):
    """Take one update for each factor of the loss."""
    for index, factor in enumerate(factors):
        loss_of(model, index, factor).backward()
        optimizer.step()
        optimizer.zero_grad()


def everything(model, optimizer):
    """Copies of the weights and of all that the optimizer holds."""
    return copy.deepcopy([p.detach() for p in model.parameters()]), copy.deepcopy(optimizer.state_dict())


def same(a, b):
    """Whether two nests are bit for bit the same."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))
