"""Trainable parameters have not moved once since the training began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Trace

_MISSING, _ZERO, _LOST, _IDLE, _TINY = "no gradient", "gradient zero", "update lost", "idle", "tiny"

_REASONS = {
    _MISSING: "no gradient ever came: the loss does not reach them, or a detach cuts them off",
    _ZERO: "their gradient is exactly zero: what lies behind them is dead or masked",
    _LOST: "they have a gradient but the update does not arrive: a learning rate of zero, or a lost update",
}


@dataclass(frozen=True, kw_only=True)
class ParametersNeverChanged(Detector):
    """Trainable parameters have not moved once since the training began.

    What it sees.
    Tensors that an optimizer holds and that require a gradient are bit for bit the same after each of the measured
    updates.

    Why it matters.
    That part of the network stays what it was at the start. A graph cut by `detach` or `.data`, a module that the
    forward pass never calls, a parameter group without a learning rate and an optimizer kernel that drops an update all
    look like this, and the loss may fall all the same.

    Evidence it shows.
    The names, and for each the reason that the measurements support: no gradient ever came, the gradient is exactly
    zero, or there is a gradient and the update does not arrive.

    False alarms.
    Tensors with `requires_grad=False` are declared frozen and not counted. Modules that run only at times (stochastic
    depth, sparse embeddings) move at times. Experts that a router has not chosen yet are known by `idle_names` and
    reported as info; so are tensors whose gradient cancels (a bias before a normalisation, `tiny`, or the last bias of
    a critic, where the weight beside it moves) and updates that are smaller than the rounding of the weights
    (`resolution`). While all learning rates are zero nothing can move, and `learning-rate-zero` speaks.

    What to try.
    Follow the forward pass from the first tensor named to the loss and look for a `detach`, `.data`, `no_grad`, an
    argmax or a module that is never called. With "update lost" look at the learning rate of its group, and at the
    optimizer.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("update_norms",)
    excused_by: tuple[str, ...] = ("freeze",)

    measurements: int = 32
    """So many measured updates without moving: all of the first 32 steps are measured, so a wiring fault is named at
    step 31, and a module that runs in one step out of five has moved with probability 0.999."""
    most: float = 0.5
    """With more than half of the trainable tensors at rest the run will not give the result."""
    idle_names: tuple[str, ...] = ("expert",)
    """Parts of a name that mean that a router chooses which modules run, so that some may rest for long."""
    tiny: float = 1e-5
    """A gradient of less than this share of the gradient of all tensors is rounding: a bias before a normalisation has
    a true gradient of zero and a measured one of 1e-8 of the others."""
    resolution: float = 1e-5
    """An update of less than this share of the weights is near the rounding of float32 (6e-8 of each element), where
    tensors with large elements stand still while others move."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        row = trace.row
        moved = row.values.get("update_norms") if row is not None else None
        if not isinstance(moved, tuple):
            return self.unknown(trace, "how far each tensor moves was not measured")
        if 0.0 not in moved:
            return None
        names, last = trace.labels("update_norms"), trace.last("update_norms", self.measurements)
        trainable = self._trainable(trace, names, 1)
        still = _all_zero(last[1], [i for i, norm in enumerate(moved) if norm == 0.0 and trainable[i]])
        still = _all_zero(trace.first("update_norms", self.measurements)[1], still)
        if not still or self._rates_are_zero(trace, last[0][0]):
            return None
        if len(last[0]) < self.measurements:
            return self.unknown(
                trace, f"some tensors have not moved yet; {self.measurements} measured updates are needed to judge"
            )
        all_along = self._trainable(trace, names, self.measurements)
        still = [index for index in still if all_along[index]]
        return self._report(trace, names, still, sum(trainable)) if still else None

    def _report(self, trace: Trace, names: Sequence[str], still: Sequence[int], trainable: int) -> Finding:
        because = self._reasons(trace, names, still)
        harmless = because.pop(_IDLE, []) + because.pop(_TINY, [])
        resting = [name for group in because.values() for name in group]
        share = len(resting) / trainable
        ratios = [row for row in trace.last("update_ratio", 1)[1] if isinstance(row, tuple)]
        rounding = set(because) == {_LOST} and max((max(row) for row in ratios), default=1.0) < self.resolution
        severity = Severity.ERROR if share > self.most else Severity.WARNING
        if not resting or (rounding and share <= self.most):
            severity = Severity.INFO
        told = [f"{listed(group)} ({_REASONS[reason]})" for reason, group in because.items()]
        if harmless:
            told.append(f"{listed(harmless)} (experts not chosen yet, or gradients that cancel)")
        return self.finding(
            trace,
            severity=severity,
            summary=(
                f"{len(still)} of {trainable} trainable tensors have not moved once in {self.measurements} measured "
                f"updates up to step {trace.step}: {'; '.join(told)}"
            ),
            measured=share,
            threshold=0.0,
            evidence={
                "tensors": float(len(still)),
                "of": float(trainable),
                **{reason.replace(" ", "_"): tuple(group[:32]) for reason, group in because.items()},
                **({"harmless": tuple(harmless[:32])} if harmless else {}),
            },
            since_step=trace.first("update_norms", 1)[0][0],
        )

    def _reasons(self, trace: Trace, names: Sequence[str], still: Sequence[int]) -> dict[str, list[str]]:
        """Sort the tensors at rest by what the measurements say about their gradients."""
        gradients = [row for row in trace.last("gradient_norms", self.measurements)[1] if isinstance(row, tuple)]
        without = set(_all_one(trace.last("gradient_missing", self.measurements)[1], still))
        zero = set(_all_zero(gradients, still))
        at_rest = set(still)
        moving = {name.rpartition(".")[0] for index, name in enumerate(names) if index not in at_rest}
        groups: dict[str, list[str]] = {}
        for index in still:
            reason = _MISSING if index in without else _ZERO if index in zero else _LOST
            if reason != _LOST and any(part in names[index].lower() for part in self.idle_names):
                reason = _IDLE
            else:
                rounding = all(row[index] <= self.tiny * max(row) for row in gradients if index < len(row))
                beside = names[index].rpartition(".")[0] in moving
                if (reason == _LOST and rounding) or (reason == _ZERO and beside):
                    reason = _TINY
            groups.setdefault(reason, []).append(names[index])
        return groups

    def _trainable(self, trace: Trace, names: Sequence[str], measurements: int) -> list[bool]:
        """Say for each tensor whether it required a gradient in the latest measurements, as far as is known."""
        places = {name: index for index, name in enumerate(trace.labels("parameter_trainable"))}
        rows = [row for row in trace.last("parameter_trainable", measurements)[1] if isinstance(row, tuple)]
        known = [places.get(name, -1) for name in names]
        return [place < 0 or all(row[place] for row in rows) for place in known]

    def _rates_are_zero(self, trace: Trace, since: int) -> bool:
        rows = trace.window("learning_rate", trace.step - since + 1)[1]
        return bool(rows) and not any(isinstance(row, tuple) and any(row) for row in rows)


def _all_zero(rows: Iterable[Value], candidates: list[int] | Sequence[int]) -> list[int]:
    """Return the candidates whose entry is zero in every row."""
    left = list(candidates)
    for row in rows:
        if not left:
            break
        left = [index for index in left if isinstance(row, tuple) and index < len(row) and row[index] == 0.0]
    return left


def _all_one(rows: Sequence[Value], candidates: Sequence[int]) -> list[int]:
    """Return the candidates whose entry is one in every row; none when there are no rows."""
    left = list(candidates) if rows else []
    for row in rows:
        left = [index for index in left if isinstance(row, tuple) and index < len(row) and row[index] == 1.0]
    return left
