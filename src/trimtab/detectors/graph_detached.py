"""The loss reaches the last layers only: the graph is cut in the middle of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GraphDetached(Detector):
    """The loss reaches the last layers only: the graph is cut in the middle of the network.

    What it sees.
    The autograd graph of each of the first backward passes. Trainable parameters that this optimizer holds are in none
    of them, and what is missing is the front of the network: everything up to one place.

    Why it matters.
    A `detach`, `.data`, `no_grad`, numpy call or argmax stands at that place. What lies before it never learns; what
    lies behind trains on frozen random features, so the loss falls all the same, and less than it could.

    Evidence it shows.
    Where the cut is: the last parameter that the loss does not reach and the first that it does, and how many tensors
    lie before it.

    False alarms.
    What is frozen by `requires_grad=False` or held by another optimizer is not counted. Modules that the forward pass
    does not call (an auxiliary head, an expert, a pooling layer at the end) leave holes and no cut: info. A single
    tensor in front (an unused embedding) is info, too.

    What to try.
    Look at the forward pass between the two parameters named, and take out what cuts the graph.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("parameter_reached",)
    excused_by: tuple[str, ...] = ("freeze",)

    passes: int = 4
    """So many backward passes must agree: layers that are left out at random, and losses that take turns, are reached
    in one of them with probability 0.94 (one in two) or more."""
    front: int = 2
    """At least so many tensors in front are cut off: one alone is an embedding or a bias that is not used."""
    share: float = 0.1
    """... and at least this share of the tensors."""
    most: float = 0.5
    """With more than half of the tensors cut off the run will not give the result."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        row = trace.row
        reached = row.values.get("parameter_reached") if row is not None else None
        if not isinstance(reached, tuple):
            return self.unknown(trace, "no autograd graph was looked at")
        names = trace.labels("parameter_reached")
        trainable, held = _latest(trace, "parameter_trainable"), _latest(trace, "parameter_held")
        if trainable is None or held is None:
            return self.unknown(trace, "which parameters are trainable and held was not measured")
        if trainable and len(trainable) == len(reached) and min(reached) == 1.0:
            return None
        mine = set(trace.labels("gradient_norms")) or set(trace.labels("update_norms"))
        if not mine:
            return self.unknown(trace, "which parameters this optimizer holds is not known")
        own = [
            i
            for i, name in enumerate(names)
            if name in mine and i < len(trainable) and trainable[i] == 1.0 and i < len(held) and held[i] == 1.0
        ]
        steps, rows = trace.last("parameter_reached", 2 * self.passes)
        if len(rows) < self.passes:
            return None
        missing = [i for i in own if not any(isinstance(each, tuple) and each[i] == 1.0 for each in rows)]
        if not missing or len(missing) == len(own):
            return None
        return self._where(trace, names, own, missing, steps[0])

    def _where(
        self, trace: Trace, names: Sequence[str], own: Sequence[int], missing: Sequence[int], since: int
    ) -> Finding:
        gone = set(missing)
        front = next(place for place, index in enumerate(own) if index not in gone)
        cut = front == len(missing) and front >= self.front and front >= self.share * len(own)
        share = len(missing) / len(own)
        if cut:
            last, first = names[own[front - 1]], names[own[front]]
            severity = Severity.ERROR if share > self.most else Severity.WARNING
            text = (
                f"the loss reaches none of the first {front} of {len(own)} trainable tensors, in {self.passes} "
                f"backward passes or more up to step {trace.step}: the graph is cut between {last} and {first}"
            )
            evidence: dict[str, float | str | tuple[str, ...]] = {"last_unreached": last, "first_reached": first}
        else:
            severity = Severity.INFO
            unreached = [names[i] for i in missing]
            text = (
                f"the loss does not reach {listed(unreached)} ({len(missing)} of {len(own)} trainable tensors) in "
                f"{self.passes} backward passes or more up to step {trace.step}: modules that are not called"
            )
            evidence = {"unreached": tuple(unreached[:32])}
        return self.finding(
            trace,
            severity=severity,
            summary=text,
            measured=share,
            threshold=self.share,
            since_step=since,
            evidence={"tensors": float(len(missing)), "of": float(len(own)), **evidence},
        )


def _latest(trace: Trace, name: str) -> tuple[float, ...] | None:
    rows: Sequence[Value] = trace.last(name, 1)[1]
    return rows[0] if rows and isinstance(rows[0], tuple) else None
