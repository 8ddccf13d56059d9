"""The present of a training: what sensors may look at during one step.

A Live is built for one optimizer update and thrown away after it. It holds references, never copies, except
`weights_before`, which exists only on steps where a sensor asked for it. Sensors read it; only Actions change what it
refers to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trimtab.cadence import Tier

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trimtab.graph import Layer
    from trimtab.levers import Levers

Point = Literal["backward", "gradients", "before", "after"]
"""When a sensor is read: at the root of a backward pass, when the gradients are whole and not yet clipped, just before
the optimizer step, just after it."""

Reading = Mapping[str, "float | Sequence[float] | torch.Tensor | Mapping[str, float | torch.Tensor]"]
"""What a sensor returns: name -> number, or 0-D tensor, or a vector as long as its axis has labels; for an axis in
`GROWING` a mapping label -> number or 0-D tensor."""

GROWING = ("layers", "attentions", "modules", "losses")
"""Axes whose labels are learned from what sensors return. A label that was met keeps its place; where a row has no
number for it stands NaN."""


UNSCALED = "_trimtab_unscaled"
"""Attribute of a tensor that GradScaler.scale returned: the loss that it was made from, detached, and the scaler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """One root of a backward pass.

    `value` is the unscaled loss: a number where reading it does not wait for a device, else a detached tensor of any
    shape. `node` is its autograd node, present only
    inside the "backward" point, for holding it longer would keep the graph alive.
    """

    value: float | torch.Tensor
    node: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """References to one step of one stream (one optimizer).

    Attributes:
        stream, step, update: as in `Signal`.
        optimizer: the stream's optimizer; None at the "backward" point, where it is not known yet.
        parameters: the stream's tensors in forward order, P of them.
        axes: label lists by axis name: "parameters" (P names), "groups" (optimizer parameter groups), and
            "everything" (every known parameter of every model, whether an optimizer holds it or not; E of them), and
            those of `GROWING` as far as their labels are known.
        group_of: index of the parameter group of each of the P parameters.
        model_parameters: the E tensors that the axis "everything" names.
        held: ids of all parameters that any optimizer holds.
        models: the root modules that own the parameters.
        roots: backward roots since the last update of this stream.
        batch: what the user handed over with `allows(batch=...)`, or None.
        thorough: at the "backward" point, whether to look at everything: a row of the "norms" tier, or a loss that is
            already known not to be finite.
        gradient_norms: P norms measured unscaled and before clipping, on the parameters' device, or None.
        clipped: whether a clipping function ran on these gradients since the last update.
        learning_rates: the rate of each parameter group, as the optimizer is about to use it; NaN for a group without.
        scale: factor by which the gradients in `.grad` are too large (loss scaling), 1.0 when unscaled; a 0-D tensor
            where reading it would wait for the device.
        weights_before: copies of the parameters before the update, on steps where a sensor of that tier is due; the
            sensor that declared `copies_weights` may overwrite them.
        carried: whether some gradient was still the one of the previous update when this backward began (1.0/0.0),
            NaN when it is not known.
        loaders: (batch size, rows of its data set) of each DataLoader of this process.
        memory: a dictionary of the stream that lives as long as it does, for a sensor to keep its previous sample in,
            under its own name; at the "backward" point, where the stream is not known, one of the whole training.
        layers: at the "backward" point on rows of the "layers" tier, what `graph.layers` read; else empty.
        compiled: at the "backward" point on those rows, whether torch.compile has hidden the layers from the graph.
        evaluations: calls of a root module while gradients were switched off, since the last row of the "norms" tier,
            and how many of them ran with dropout or batch normalisation in training mode.
        levers: what an action may pull, in a training that responds; None in one that only observes.
        closure: whether this update runs a closure, so that its backward passes come inside it.
        skipped: whether a GradScaler leaves this update out.
    """

    stream: str
    step: int
    update: int
    optimizer: torch.optim.Optimizer | None = None
    parameters: Sequence[torch.Tensor] = ()
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group_of: Sequence[int] = ()
    model_parameters: Sequence[torch.Tensor] = ()
    held: frozenset[int] = frozenset()
    models: Sequence[nn.Module] = ()
    roots: Sequence[Root] = ()
    batch: Any = None
    thorough: bool = True
    gradient_norms: torch.Tensor | None = None
    clipped: bool = False
    learning_rates: tuple[float, ...] = ()
    scale: float | torch.Tensor = 1.0
    weights_before: Sequence[torch.Tensor] | None = None
    carried: float = float("nan")
    loaders: Sequence[tuple[int, int]] = ()
    memory: dict[str, Any] = field(default_factory=dict)
    layers: Sequence[Layer] = ()
    compiled: bool = False
    evaluations: tuple[int, int] = (0, 0)
    levers: Levers | None = None
    closure: bool = False
    skipped: bool = False


def fill(live: Live, **facts: Any) -> Live:
    """Write into a Live what has become known during its step, and return it; only measuring does this."""
    for name, value in facts.items():
        object.__setattr__(live, name, value)
    return live


class Sensor(Protocol):
    """Reads Live, returns numbers; the only thing that measures.

    A sensor draws no random numbers, writes no gradients and leaves tensors on their device. `points` says when it is
    read, and `tier` how often; on thin steps one of the "step" tier is read some steps later, from a Live that has only
    `stream`, `step`, `update`, `roots`, `learning_rates` and `carried`. `axes` says for each vector that it returns
    which of Live's label lists names its entries; scalars are not listed. A name in `sparse` is written only on rows
    of the "norms" tier and on rows whose loss or gradient is not finite, although it is measured on each.
    """

    @property
    def name(self) -> str: ...
    @property
    def points(self) -> tuple[Point, ...]: ...
    @property
    def tier(self) -> Tier: ...
    @property
    def axes(self) -> Mapping[str, str]: ...
    @property
    def sparse(self) -> tuple[str, ...]: ...
    @property
    def copies_weights(self) -> bool: ...

    def read(self, live: Live) -> Reading:
        """Return what there is to say about this step; an empty mapping when there is nothing."""
        ...
