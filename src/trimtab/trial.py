"""One training of a sweep: what was planned, and what came of it.

A Trial is a plan: a target, an arm, a seed and the settings. A TrialResult is what the sweep keeps of it, small enough
that a thousand can be read in a moment; everything else is in the run folder that it names. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

Status = Literal["waiting", "running", "finished", "stopped", "pruned", "failed"]
"""How a trial stands. "stopped" ended by its own early stop, and counts as finished; "failed" raised or was killed."""
ENDED: tuple[Status, ...] = ("finished", "stopped", "pruned", "failed")
"""A trial that stands so is never run again unless asked."""
COMPLETE: tuple[Status, ...] = ("finished", "stopped")
"""A trial that stands so has a result that statistics may use."""

Better = Literal["higher", "lower"]
Point = tuple[int, float]
"""(updates done, value)."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training that a sweep plans.

    Attributes:
        target: name of an installed System, or the path of a training script that ends in ".py".
        phase: the phase of the sweep that it belongs to; empty where there are none.
        arm: name of what is compared, such as "lr=0.001"; unique in its phase.
        seed: of the weights, the data and every random number; the same seeds in every arm make pairs.
        settings: what differs from the preset, by key; plain values of JSON.
        preset: of the System; empty for its default, and for scripts.
    """

    target: str
    phase: str = ""
    arm: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""

    @cached_property
    def key(self) -> str:
        """The hash of everything above, 16 hexadecimal digits: the same plan has the same key on every machine."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What is kept of one trial.

    Attributes:
        trial: the plan.
        status: how it stands.
        attempts: how often it was begun.
        metric, better: what is judged, as it is recorded ("validation/accuracy"), and which direction is good.
        points: every evaluation of that metric, (updates done, value), in order; NaN is kept.
        others: every other recorded metric, by name, in the same form.
        barred: updates of the evaluations that may not be the best one, for the guard of the sweep did not hold there.
        evaluations_again: the metric of the best weights, measured anew after the training; empty if it was not done.
        run: name of the run folder, below the sweep's `runs/`; empty before it began.
        checkpoint: folder of the best weights, below the run folder; empty if there is none.
        checkpoint_hash: content hash of that checkpoint.
        findings: (code, severity) of every finding at warning or above, worst first.
        losses_hash: hash of the training loss of every update, exactly; equal hashes are identical trajectories.
        stop_reason: why it ended before all updates were taken, in words; empty if it did not.
        steps: updates taken.
        cpu_seconds, wall_seconds: of the whole process, imports included; 0.0 where unknown.
        train_cpu_seconds: of the training alone.
        config_hash: of the resolved configuration, seed left out.
        code: git commit of the trained code, with "+" if it was dirty; empty where unknown.
        worker: who ran it: host name and process.
        error: the last line of what went wrong; the rest is in `logs/`.
    """

    trial: Trial
    status: Status
    attempts: int = 1
    metric: str = ""
    better: Better = "higher"
    points: tuple[Point, ...] = ()
    others: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    barred: tuple[int, ...] = ()
    evaluations_again: tuple[float, ...] = ()
    run: str = ""
    checkpoint: str = ""
    checkpoint_hash: str = ""
    findings: tuple[tuple[str, str], ...] = ()
    losses_hash: str = ""
    stop_reason: str = ""
    steps: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    train_cpu_seconds: float = 0.0
    config_hash: str = ""
    code: str = ""
    worker: str = ""
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether statistics may use it: it ended by itself, and its metric was recorded."""
        return self.status in COMPLETE and bool(self.points)

    @property
    def start(self) -> float:
        """The metric before the first update; NaN if it was not evaluated then."""
        return self.points[0][1] if self.points and self.points[0][0] == 0 else math.nan

    @property
    def best(self) -> float:
        """The best value of the metric among the evaluations that are not barred; NaN if there is none."""
        return self._peak[1]

    @property
    def best_step(self) -> int:
        """The updates done at the best evaluation, the first one if there are several; -1 if there is none."""
        return self._peak[0]

    @property
    def final(self) -> float:
        """The metric at the last evaluation; NaN if there is none."""
        return self.points[-1][1] if self.points else math.nan

    @property
    def degradation(self) -> float:
        """How much worse the end is than the best: never negative; NaN if the end is not a number."""
        worse = self.final - self.best
        return worse if self.better == "lower" else -worse

    @property
    def _peak(self) -> Point:
        finite = [point for point in self.points if math.isfinite(point[1]) and point[0] not in self.barred]
        if not finite:
            return (-1, math.nan)
        sign = 1.0 if self.better == "lower" else -1.0
        return min(finite, key=lambda point: sign * point[1])

    def other_at(self, name: str, step: int) -> float:
        """Return another metric at the evaluation after `step` updates; NaN if there is none."""
        return next((value for at, value in self.others.get(name, ()) if at == step), math.nan)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values; JSON writes them with NaN and Infinity as words."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialResult:
        """Read what `as_dict` returned, also after a way through JSON."""
        values = dict(plain)
        values["trial"] = Trial(**values["trial"])
        values["points"] = _points(values.get("points", ()))
        values["others"] = {name: _points(points) for name, points in values.get("others", {}).items()}
        values["barred"] = tuple(values.get("barred", ()))
        values["evaluations_again"] = tuple(float(value) for value in values.get("evaluations_again", ()))
        values["findings"] = tuple((code, severity) for code, severity in values.get("findings", ()))
        return cls(**values)


def _points(plain: Sequence[Sequence[Any]]) -> tuple[Point, ...]:
    return tuple((int(step), float(value)) for step, value in plain)
