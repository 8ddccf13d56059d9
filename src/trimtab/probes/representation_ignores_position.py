"""The same thing at another place of the input has the same representation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trimtab.errors import UserError
from trimtab.probes._base import Base
from trimtab.probes._copies import Clock, copy_of, updates
from trimtab.probes._probe import Result, Subject
from trimtab.records import Severity
from trimtab.statistics import t_interval
from trimtab.system import Training

ALIKE = 1e-6
"""Rows whose spread is below this part of their size are all the same one, rounded."""


@dataclass(slots=True)
class _Look:
    """What one look at the weights showed: shift -> the drift of each thing; shift -> the error that it ended with."""

    done: int
    drift: dict[int, torch.Tensor] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    unmoved: list[int] = field(default_factory=list)
    reason: str = ""

    @property
    def worst(self) -> float:
        """The largest drift of all; 0 where nothing was compared."""
        return max((float(one.max()) for one in self.drift.values()), default=0.0)


@dataclass(frozen=True, kw_only=True)
class RepresentationIgnoresPosition(Base):
    """The same thing at another place of the input has the same representation.

    What it claims.
    What the model makes of a thing, such as a word, does not depend on where in the input it stands. A model that is to
    work on longer inputs than it was trained on needs that: a place that it has never seen has no meaning to it.

    How it tests.
    `Training.represent(model, batch, shift)` gives a row for each thing of a batch whose input was moved by `shift`
    places, the same things in the same order for each shift. Rows of moved things are compared with those of shift 0,
    in evaluation mode, before the first update and after ten. The drift of a thing is the distance of its two rows,
    over the typical distance between the rows of different things; one drift above `tolerance` refutes the claim. The
    interval is that of the mean drift over the things. A shift at which the model raises an error refutes it too.
    Nothing is said where all things have the same row, and where no operation of torch saw anything move.

    What it costs.
    A build, ten updates, and ten passes over a batch.

    False alarms.
    A context that is moved along changes nothing; one that is put in front does, for a model that reads it. Move the
    input by padding where the claim is about places, and by words where it is about context as well.

    What to try.
    Positions that enter as differences (rotary, relative, a penalty on distance) in place of learned absolute ones; a
    part that reads one thing at a time, where no context is needed.

    Since.
    0.2.0
    """

    claim: str = "representation-ignores-position"
    codes: tuple[str, ...] = ("representation-depends-on-position",)
    budget: float = 2.0
    """CPU seconds, making the copies not counted."""
    tolerance: float = 1e-3
    """Drift that is allowed. Sums in another order stay below 1e-5; absolute positions as weak as a fiftieth of the
    embeddings give 2e-2."""
    shifts: tuple[int, ...] = (1, 2, 5, 13)
    """Places by which the input is moved: even and odd ones, and further than most inputs are long."""
    updates: int = 10
    """Updates before the second look: positions that start at zero have left it by then."""

    def _test(self, subject: Subject, clock: Clock) -> Result:
        training = copy_of(subject)
        if training.represent is None:
            return self.unknown("the training does not say what it represents; give it represent=(model, batch, shift)")
        batch = next(training.batches, None)
        if batch is None:
            return self.unknown("there is no batch to represent")
        looks = [self._look(training, batch, 0)]
        if self.updates and clock.left > 0.0 and looks[0].worst <= self.tolerance and not looks[0].refused:
            done = sum(1 for _ in updates(training, self.updates))
            looks.append(self._look(training, batch, done))
        return self._judge(looks)

    def _look(self, training: Training, batch: Any, done: int) -> _Look:
        """Return how far the rows of each shift lie from those of shift 0."""
        look = _Look(done)
        with _evaluating(training.model):
            rows_MD, seen = self._rows(training, batch, 0)
            if rows_MD is None or not rows_MD.numel():
                look.reason = "represent gives nothing for a batch that was not moved"
                return look
            spread = float((rows_MD - rows_MD.mean(0)).square().sum(1).mean().sqrt())
            size = float(rows_MD.square().sum(1).mean().sqrt())
            if not spread > ALIKE * size:  # NaN is no spread either
                look.reason = f"the rows of different things do not differ (spread {spread:.3g}, size {size:.3g})"
                return look
            for shift in self.shifts:
                try:
                    moved_MD, seen_moved = self._rows(training, batch, shift)
                except Exception as error:  # noqa: BLE001 - whatever a model does at a place that it was not made for
                    look.refused[shift] = f"{type(error).__name__}: {' '.join(str(error).split()):.120}"
                    continue
                if moved_MD is None:
                    continue
                if moved_MD.shape != rows_MD.shape:
                    raise UserError(
                        f"represent gave {tuple(moved_MD.shape)} at shift {shift} and {tuple(rows_MD.shape)} at 0; "
                        "return the same things in the same order for every shift"
                    )
                if seen_moved == seen:
                    look.unmoved.append(shift)
                    continue
                look.drift[shift] = (moved_MD - rows_MD).norm(dim=1) / (2**0.5 * spread)
        return look

    @staticmethod
    def _rows(training: Training, batch: Any, shift: int) -> tuple[torch.Tensor | None, list[tuple[Any, ...]]]:
        """Return the rows (things, numbers) of a shift, and what the operations of torch saw meanwhile."""
        assert training.represent is not None
        with torch.no_grad(), _Seen() as seen:
            rows = training.represent(training.model, batch, shift)
        if rows is None:
            return None, seen.inputs
        if not isinstance(rows, torch.Tensor) or rows.ndim < 2:
            what = f"a tensor {tuple(rows.shape)}" if isinstance(rows, torch.Tensor) else f"a {type(rows).__name__}"
            raise UserError(f"represent gave {what}; expected a tensor with a row for each thing (things, numbers)")
        return rows.detach().flatten(1).double(), seen.inputs

    def _judge(self, looks: Sequence[_Look]) -> Result:
        compared = [one for one in looks if one.drift or one.refused]
        if not compared:
            reason = next((one.reason for one in looks if one.reason), "")
            if not reason and any(one.unmoved for one in looks):
                reason = "at every shift all operations of torch saw the same numbers: represent moves nothing"
            return self.unknown(reason or "represent gives nothing for any shift")
        look = max(compared, key=lambda one: (not one.worst <= self.tolerance, bool(one.refused), one.done))
        drift_SM = torch.stack(list(look.drift.values())) if look.drift else torch.zeros(0, 0)
        measured: dict[str, float | str] = {
            f"largest drift at shift {shift}": float(one.max()) for shift, one in look.drift.items()
        }
        measured |= {f"shift {shift}": words for shift, words in look.refused.items()}
        measured |= {f"shift {shift}": "represent moved nothing" for shift in look.unmoved}
        interval, mean = None, 0.0
        if look.drift:
            per_thing = drift_SM.mean(0).tolist()
            mean, of_mean = sum(per_thing) / len(per_thing), t_interval(per_thing)
            interval = (of_mean.low, of_mean.high) if of_mean.known else None
        found = []
        when = f"after {look.done} updates" if look.done else "before the first update"
        if look.refused or not look.worst <= self.tolerance:
            shift = max(look.drift, key=lambda one: float(look.drift[one].max()), default=0)
            parts = []
            if not look.worst <= self.tolerance:
                share = float((drift_SM > self.tolerance).double().mean())
                parts.append(
                    f"moved by {shift}, a thing changes by {look.worst:.3g} of the distance between different things "
                    f"(allowed {self.tolerance:g}); mean {mean:.3g}, {share:.0%} of {drift_SM.numel()} changed"
                )
            if look.refused:
                first = next(iter(look.refused))
                parts.append(f"moved by {first}, the model cannot represent it ({look.refused[first]})")
            finding = self.finding(
                "representation-depends-on-position",
                Severity.WARNING,
                f"{when}: {'; '.join(parts)}",
                look.worst if not look.worst <= self.tolerance else float(len(look.refused)),
                {"shifts": tuple(float(one) for one in look.drift), "mean": mean, "updates": float(look.done)},
                f"shift {shift or next(iter(look.refused))}",
            )
            found.append(replace(finding, threshold=self.tolerance if look.worst > self.tolerance else 0.0))
        furthest = max(look.drift, default=0)
        holds = (
            f"{drift_SM.shape[-1]} things moved by up to {furthest} places keep their representation: at most "
            f"{look.worst:.2g} of the distance between different things, {when}"
        )
        return self.judged(holds, found, n=drift_SM.numel(), interval=interval, measured=measured)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode while a block runs, and each module back into its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Seen(TorchDispatchMode):
    """Notes the shape and the sum of every tensor that goes into an operation of torch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.inputs: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for one in tree_leaves((args, kwargs)):
            if isinstance(one, torch.Tensor):
                weighed = one.detach().reshape(-1)[:10_000]
                places = torch.arange(1, weighed.numel() + 1, device=one.device, dtype=torch.float64)
                self.inputs.append((tuple(one.shape), repr(float((weighed.to(torch.float64) * places).sum()))))
        return func(*args, **(kwargs or {}))
