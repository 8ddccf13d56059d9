"""Parameters that the loss depends on are held by no optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class ParametersOutsideOptimizer(Detector):
    """Parameters that the loss depends on are held by no optimizer.

    What it sees.
    Tensors that require a gradient and are reached by the loss, but are in no parameter group of any optimizer.

    Why it matters.
    They keep their initial values for ever while the rest of the network learns around them. It happens when a head
    is replaced, or a model wrapped or moved, after the optimizer was built, or when the list of parameters is made by
    hand.

    Evidence it shows.
    The names, how many of the trainable tensors that the loss reaches they are, and whether the last layer is among
    them: then the output itself is not trained, which is an error.

    False alarms.
    Tensors that the loss never reaches and tensors with `requires_grad=False` are not counted: the latter is how
    freezing is declared. Training only the last layers without that declaration stays a warning.

    What to try.
    Build the optimizer after the last change of the model, or add the tensors with `add_param_group`. If they are
    meant to stay as they are, declare it: `requires_grad_(False)`.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("parameter_held",)
    confirm: int = 3
    """Three rows in a row, so that an optimizer which takes its first step a little later is known by then."""
    excused_by: tuple[str, ...] = ("freeze",)

    from_step: int = 8
    """The other optimizers of a training, such as a generator's that steps after five steps of its critic, have then
    taken a step and are known."""
    most: float = 0.5
    """More than half of the tensors untrained, other than all below some layer, is no plan but a lost optimizer."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        held, trainable = trace.vector("parameter_held"), trace.vector("parameter_trainable")
        if held is None or trainable is None:
            return self.unknown(trace, "the model's parameters are not known")
        outside = [name for name, is_held in held.items() if not is_held and trainable.get(name)]
        if not outside:
            return None
        if trace.step < self.from_step:
            return self.unknown(trace, f"not every optimizer may be known before step {self.from_step}")
        reached = self._reached(trace)
        if not reached:
            return self.unknown(trace, "which parameters the loss reaches could not be read from its graph")
        outside = [name for name in outside if name in reached]
        if not outside:
            return None
        relevant = [name for name in held if trainable.get(name) and name in reached]
        share, last = len(outside) / len(relevant), outside[-1] == relevant[-1]
        below = set(outside) == set(relevant[: len(outside)])
        text = (
            f"{len(outside)} of {len(relevant)} trainable tensors that the loss reaches are in no optimizer "
            f"at step {trace.step}: {listed(outside)}"
        )
        return self.finding(
            trace,
            severity=Severity.ERROR if last or (share > self.most and not below) else Severity.WARNING,
            summary=text + ("; the last layer is among them" if last else ""),
            measured=share,
            threshold=0.0,
            evidence={
                "names": tuple(outside[:32]),
                "tensors": float(len(outside)),
                "of": float(len(relevant)),
                "last_layer": float(last),
            },
        )

    @staticmethod
    def _reached(trace: Trace) -> set[str]:
        """Return the parameters that a loss of this stream was seen to reach."""
        labels = trace.labels("parameter_reached")
        rows = trace.first("parameter_reached", trace.count("parameter_reached"))[1]
        vectors: Sequence[tuple[float, ...]] = [row for row in rows if isinstance(row, tuple)]
        return {name for index, name in enumerate(labels) if any(row[index] for row in vectors if index < len(row))}
