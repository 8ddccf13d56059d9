"""Frozen weights that the loss passes through are still those that torch drew."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class RandomAndFrozen(Detector):
    """Frozen weights that the loss passes through are still those that torch drew.

    What it sees.
    Tensors with `requires_grad=False` that an operation between the loss and a trained tensor uses, and whose values
    are, down to the sharp edge of their range, the uniform draw with which torch begins a layer. Neither a training
    nor a checkpoint of one leaves values like that.

    Why it matters.
    What is frozen must have been trained before. A random decoder that never moves, for instance, caps what the rest
    can learn: the loss falls, then stays on a plateau that no rate, schedule or width changes. Sweeps over such a
    network compare nothing.

    Evidence it shows.
    The names, how many of the frozen tensors on the way they are, their elements among all of the model, and what was
    seen of loads: how many, and how many names they missed.

    False alarms.
    A network of fixed random features is meant to be so: say `note("freeze")`. Pretrained weights have no sharp edge,
    and those that were loaded before Trimtab looked are judged by their values alone. It is judged from the 16th
    update on, for in adversarial games each player is frozen while the other moves, and has moved by then. Weights
    drawn from a normal distribution cannot be told from trained ones, nor are frozen layers seen before the first
    trained one, which no gradient passes.

    What to try.
    Unfreeze them. If they should have been loaded, compare the names with `trimtab checkpoint diff`, load with
    `strict=True`, and freeze afterwards.

    Since.
    0.3.0
    """

    reads: tuple[str, ...] = ("frozen_on_path", "parameter_trainable")
    excused_by: tuple[str, ...] = ("freeze", "frozen", "curriculum")

    from_step: int = 16
    """The values are looked at anew then; whatever is only frozen at times has been trained before."""
    notes: int = 64
    """So many of the latest announcements are looked through for loads."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        on_path = trace.vector("frozen_on_path")
        if on_path is None:
            return self.unknown(trace, "which frozen tensors the loss passes could not be read from its graph")
        trainable = trace.vector("parameter_trainable") or {}
        frozen = [name for name, known in trainable.items() if not known]
        passed = [name for name, there in on_path.items() if there and not trainable.get(name, 0.0)]
        if not frozen and not passed:
            return None
        if not passed:
            return self.unknown(trace, "the graph shows none of the frozen tensors, so that nothing is known of them")
        steps, _ = trace.last("frozen_at_start", 1)
        if not steps or steps[-1] < self.from_step:
            return self.unknown(trace, f"frozen tensors are looked at again at step {self.from_step} or soon after")
        values = trace.vector("frozen_at_start") or {}
        drawn = [name for name in passed if values.get(name) == 1.0]
        if not drawn:
            return None
        loads = [note for note in trace.notes[-self.notes :] if note.kind == "weights-loaded"]
        missing = sum(number for note in loads if isinstance(number := note.facts.get("missing"), float))
        told = f"{len(loads)} loads were seen, which missed {missing:g} names" if loads else "no load was seen"
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=(
                f"{len(drawn)} of {len(passed)} frozen tensors that the loss passes still hold, at step {trace.step}, "
                f"the random values of a new layer: {listed(drawn)}; {told}"
            ),
            measured=float(len(drawn)),
            threshold=0.0,
            evidence={
                "names": tuple(drawn[:32]),
                "tensors": float(len(drawn)),
                "of": float(len(passed)),
                "loads": float(len(loads)),
                "missing": missing,
            },
            since_step=0,
        )
