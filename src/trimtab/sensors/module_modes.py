"""Which modules train and which are in evaluation mode while the weights are updated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base

ROOT = "(model)"
"""The label of a root module: a module within it never has a bracket in its name."""


@dataclass(frozen=True, kw_only=True)
class ModuleModes(Base):
    """`modules_training`: 1 in training mode and 0 in evaluation mode, for each root module, `(model)`, and for each
    module in it that behaves differently in the two: dropout above zero, batch normalisation, dropout in a recurrent
    or attention layer. Modules of a part that no optimizer trains are left out. Host facts.

    Cost: about 1 microsecond a module, on rows of the "layers" tier.
    """

    name: str = "module_modes"
    tier: Tier = "layers"
    axes: Mapping[str, str] = field(default_factory=lambda: {"modules_training": "modules"})

    def read(self, live: Live) -> Reading:
        """Return label -> mode; nothing for models that have no such module."""
        modes: dict[str, float] = {}
        for place, model in enumerate(live.models):
            prefix = f"{place}." if len(live.models) > 1 else ""
            found = {prefix + name: float(module.training) for name, module in _dependent(model, live.held)}
            if found:
                modes |= {prefix + ROOT: float(model.training), **found}
        return {"modules_training": modes} if modes else {}


def depends_on_mode(module: nn.Module) -> bool:
    """Say whether a module does something else in evaluation mode than in training mode."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return module.track_running_stats
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout > 0
    return False


def _dependent(model: nn.Module, held: frozenset[int]) -> Iterator[tuple[str, nn.Module]]:
    modules = dict(model.named_modules())
    known: dict[str, bool | None] = {}
    for name, module in modules.items():
        if name and depends_on_mode(module) and _is_trained(modules, name, held, known):
            yield name, module


def _is_trained(
    modules: Mapping[str, nn.Module], name: str, held: frozenset[int], known: dict[str, bool | None]
) -> bool:
    """Say whether of the smallest part around a module that has parameters an optimizer trains one.

    `known` keeps the answer for each part, None for one without parameters: siblings ask the same one.
    """
    while True:
        if name not in known:
            trained = [p.requires_grad and id(p) in held for p in modules[name].parameters()]
            known[name] = any(trained) if trained else None
        answer = known[name]
        if answer is not None or not name:
            return bool(answer)
        name = name.rpartition(".")[0]
