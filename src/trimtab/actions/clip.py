"""Shorten a gradient that is too long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import optim

from trimtab.actions._action import Action
from trimtab.errors import UserError
from trimtab.live import Live
from trimtab.records import Finding, Outcome

ENOUGH = 16
"""An adaptive bound needs so many finite norms from before the finding."""
WINDOW = 256
"""It is taken from the last so many steps before the finding."""


@dataclass(frozen=True, kw_only=True)
class Clip(Action):
    """Shorten the gradient of this update, and of the next `steps`, to a bound where it is longer.

    With `max_norm` the bound is that. Without, it is the run's own: `times` the `quantile` of the finite gradient norms
    of the 256 steps before the finding began; declined with fewer than 16 of them. Norms are unscaled and as backward
    made them, before any clipping of the loop. `per="tensor"` bounds each tensor by itself, by its own norms.

    The norm that Trimtab has measured for this update is used, unless the loop has clipped since: then it is measured
    again, and the shorter of both bounds holds. Direction is kept, as with `torch.nn.utils.clip_grad_norm_`.

    Declined for a gradient that is not finite, which no factor mends: use SkipStep.
    """

    name: ClassVar[str] = "clip"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "weights"
    max_norm: float | None = None
    per: Literal["global", "tensor"] = "global"
    quantile: float = 0.9
    times: float = 1.0
    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per not in ("global", "tensor"):
            raise UserError(f"clip: per={self.per!r}; expected 'global' or 'tensor'")
        if self.max_norm is not None and not 0.0 < self.max_norm < math.inf:
            raise UserError(f"clip: max_norm={self.max_norm}; expected a number above 0, or None for the run's own")
        if not (0.0 < self.quantile <= 1.0 and 0.0 < self.times < math.inf):
            raise UserError(f"clip: quantile={self.quantile}, times={self.times}; expected above 0 to 1, and above 0")
        if self.steps < 0:
            raise UserError(f"clip: steps={self.steps}; expected 0 or more updates after this one")

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Bound the gradients from this update on."""
        if live is None or live.optimizer is None or live.levers is None:
            return self.outcome(finding, "declined", "there is no update to act on")
        if live.closure:
            return self.outcome(finding, "declined", "the gradients of this update come inside its closure")
        norms = _norms(live.optimizer, live)
        total = float(torch.linalg.vector_norm(norms))
        if not math.isfinite(total):
            return self.outcome(finding, "declined", "the gradient is not finite, and no factor mends that: SkipStep")
        bounds, why = self._bounds(live, finding, norms)
        if bounds is None:
            return self.outcome(finding, "declined", why)
        live.levers.around(Bounded(stream=live.stream, bounds=bounds, updates=self.steps + 1))
        text = f"{why}; gradient norm {total:.3g} at this update; it holds for {self.steps} more"
        return self.outcome(finding, "done", text)

    def _bounds(self, live: Live, finding: Finding, norms: torch.Tensor) -> tuple[torch.Tensor | None, str]:
        """Return the bound (0-D, or one a tensor) and what it is, or None and why there is none."""
        if self.max_norm is not None:
            bound = norms.new_tensor(self.max_norm)
            of_each = self.per == "tensor"
            return bound.expand(len(norms)) if of_each else bound, f"norm bounded by {self.max_norm:g}"
        before = finding.since_step if 0 <= finding.since_step < live.step else live.step
        past = live.levers.past(live.stream) if live.levers is not None else None
        name = "gradient_norm" if self.per == "global" else "gradient_norms"
        columns = _columns(past, name, before)
        fewest = min((len(column) for column in columns), default=0)
        if fewest < ENOUGH:
            return None, f"only {fewest} finite gradient norms are known from before step {before}, of {ENOUGH} needed"
        # A tensor without a gradient so far has no length of its own yet, and no bound.
        limits = [self.times * _quantile(column, self.quantile) or math.inf for column in columns]
        if self.per == "global":
            return norms.new_tensor(limits[0]), f"norm bounded by {limits[0]:.3g}, {self._rule(len(columns[0]))}"
        if len(limits) != len(norms):
            return None, f"norms are known of {len(limits)} tensors, and this update has {len(norms)}"
        return norms.new_tensor(limits), f"norm of each tensor bounded by {self._rule(fewest)} of its own"

    def _rule(self, count: int) -> str:
        return f"{self.times:g} x the {self.quantile:g} quantile of {count} norms before"


class Bounded:
    """The change that stands: gradients of a stream no longer than a bound.

    Args:
        stream: whose updates.
        bounds: 0-D for the norm of all together, or shape (P,) for each tensor in forward order.
        updates: for how many, the one that is about to be taken included.
    """

    def __init__(self, *, stream: str, bounds: torch.Tensor, updates: int):
        self.stream, self.bounds = stream, bounds
        self.updates = updates
        self.taken = self.shortened = 0

    @property
    def over(self) -> bool:
        """Whether it has held for as long as it shall."""
        return self.taken >= self.updates

    def before(self, optimizer: optim.Optimizer, live: Live) -> None:
        """Shorten the gradients that are too long; those that are not finite stay as they are."""
        norms = _norms(optimizer, live)
        if len(norms) != len(live.parameters) or (self.bounds.dim() and len(self.bounds) != len(norms)):
            return  # other tensors than those that the bounds were made for
        measured = norms if self.bounds.dim() else torch.linalg.vector_norm(norms)
        factors = torch.where(measured.isfinite(), self.bounds.to(measured) / measured, 1.0)
        factors = torch.where(factors < 1.0, factors, 1.0).expand(len(norms))
        short = [
            (parameter.grad.data, factor)
            for parameter, factor in zip(live.parameters, factors.tolist(), strict=True)
            if parameter.grad is not None and factor < 1.0
        ]
        if short:
            self.shortened += 1
            torch._foreach_mul_([gradient for gradient, _ in short], [factor for _, factor in short])

    def after(self, optimizer: optim.Optimizer) -> None:
        """Count the update."""
        self.taken += 1


def _norms(optimizer: optim.Optimizer, live: Live) -> torch.Tensor:
    """Return the L2 norm of each gradient as it is now but unscaled, shape (P,); a missing one counts 0."""
    if live.gradient_norms is not None and not live.clipped:
        return live.gradient_norms.detach().float()
    gradients = [parameter.grad for parameter in live.parameters]
    zero = torch.zeros((), device=live.parameters[0].device if len(live.parameters) else None)
    dense = [g.coalesce().values() if g is not None and g.is_sparse else g for g in gradients]
    norms = torch.stack([zero if g is None else torch.linalg.vector_norm(g.detach()).to(zero) for g in dense])
    scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer unscales inside its step
    return norms / scale.to(norms) if isinstance(scale, torch.Tensor) else norms


def _columns(past: Any, name: str, before: int) -> list[list[float]]:
    """Return the finite values of a signal before a step: one list for a scalar, one for each entry of a vector."""
    if past is None:
        return []
    steps, values = past.window(name, past.step - before + 1 + WINDOW)
    rows = [value for step, value in zip(steps, values, strict=True) if step < before]
    if not rows:
        return []
    if not isinstance(rows[0], tuple):
        return [[value for value in rows if math.isfinite(value)]]
    width = len(rows[-1])
    return [[row[place] for row in rows if len(row) == width and math.isfinite(row[place])] for place in range(width)]


def _quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
