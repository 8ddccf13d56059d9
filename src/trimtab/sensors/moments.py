"""How large the optimizer believes the gradients to be."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Point, Reading
from trimtab.sensors._sensor import Base

_NAMES = ("exp_avg_sq", "square_avg", "sum")
"""Where Adam and its kin, RMSprop and Adagrad keep the running mean (or sum) of squared gradients."""


@dataclass(frozen=True, kw_only=True)
class Moments(Base):
    """`moment_scale`: square root of the mean of the optimizer's second moment of each tensor, in forward order.

    Adam and its kin divide each gradient by it, so while it is far above the gradients the updates are small. 0 for a
    tensor without a state; absent where the optimizer keeps none (SGD, a factored second moment). As stored, without
    the correction of the bias. `optimizer_age`: how many updates its state has seen, as it counts them itself (`step`);
    absent where it does not count, and NaN once where the weights are not those of the row before (another fold). Cost:
    one multi-tensor norm, on rows of the "norms" tier.
    """

    name: str = "moments"
    points: tuple[Point, ...] = ("after",)
    tier: Tier = "norms"
    axes: Mapping[str, str] = field(default_factory=lambda: {"moment_scale": "parameters"})

    def read(self, live: Live) -> Reading:
        """Return the vector on the device."""
        if live.optimizer is None:
            return {}
        age = _age(live.optimizer.state, live.parameters, live.memory)
        found = [_second(live.optimizer.state, parameter) for parameter in live.parameters]
        present = [moment for moment in found if moment is not None and moment.numel()]
        if not present:
            return age
        # No square is negative, so the sum of magnitudes is the sum; on a CPU it is six times as slow as a plain sum.
        on_cpu = all(moment.is_cpu for moment in present)
        sums = iter([moment.sum() for moment in present] if on_cpu else torch._foreach_norm(present, 1))
        zero = torch.zeros((), device=present[0].device)
        sizes = [float(moment.numel()) if moment is not None and moment.numel() else 1.0 for moment in found]
        totals = [next(sums).to(zero) if moment is not None and moment.numel() else zero for moment in found]
        return {"moment_scale": (torch.stack(totals) / zero.new_tensor(sizes)).sqrt(), **age}


def _age(
    state: Mapping[Any, Any], parameters: Sequence[torch.Tensor], memory: dict[str, Any]
) -> dict[str, float | torch.Tensor]:
    """Return the count of updates of the first tensor that has one."""
    for parameter in parameters:
        step = state.get(parameter, {}).get("step")
        if isinstance(step, torch.Tensor) and step.numel() == 1:
            age: float | torch.Tensor = float(step) if step.is_cpu else step.detach().reshape(()).float()
        elif isinstance(step, (int, float)):
            age = float(step)
        else:
            continue
        before, memory[_SEEN] = memory.get(_SEEN), weakref.ref(parameter)
        return {"optimizer_age": age if before is None or before() is parameter else math.nan}
    return {}


_SEEN = "moments/counted"
"""The tensor whose count was read last, in the memory of the stream."""


def _second(state: Mapping[Any, Any], parameter: torch.Tensor) -> torch.Tensor | None:
    """Return the second moment of a tensor; `get`, for looking into a `defaultdict` must not write."""
    own = state.get(parameter, {})
    for name in _NAMES:
        moment = own.get(name)
        if isinstance(moment, torch.Tensor) and moment.shape == parameter.shape and not moment.is_sparse:
            moment = moment.detach()
            return torch.view_as_real(moment) if moment.is_complex() else moment
    return None
