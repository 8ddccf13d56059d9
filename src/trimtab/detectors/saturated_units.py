"""A squashing layer stands at its ends, where no gradient comes through."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors import _looks
from trimtab.detectors._detector import Detector, listed, number
from trimtab.detectors._measured import middle
from trimtab.detectors.dead_units import lasting
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class SaturatedUnits(Detector):
    """A squashing layer stands at its ends, where no gradient comes through.

    What it sees.
    In several looks in a row nearly all values of a tanh are beyond 0.99, or of a sigmoid outside 0.01 to 0.99: from
    the first update on, or later while the loss has not fallen.

    Why it matters.
    The slope of a squashing function at its ends is a fiftieth of what it is in the middle, and less further out. The
    layers before it learn next to nothing: the network trains what comes after on features that are signs and nothing
    more.

    Evidence it shows.
    The worst layer, its saturated share now and at the first look, how many layers are like it, and the loss against
    the first one.

    False alarms.
    A classifier that has learned its data drives its last hidden layers to their ends, which is how it becomes sure;
    while the loss has fallen this is no finding. Outputs and the gates of fused recurrences are not looked at.

    What to try.
    Smaller initial weights (Xavier), inputs of mean 0 and deviation 1, a normalisation before the activation, a lower
    learning rate; or ReLU in its place.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("saturated_share",)
    release: int = 2

    from_start: float = 0.8
    """Fresh networks begin below 0.02; weights 30 times too large give 0.88, inputs 300 times too large 0.98."""
    later: float = 0.9
    """Healthy trainings reach 0.67 within 300 steps, and more the longer they go on."""
    not_fallen: float = 0.5
    """A loss above half of the first: then the layer is not saturated because it is sure."""
    known_already: float = 0.3
    """A first loss below this share of its chance level: the network was trained before."""
    looks: int = 3
    """So many looks in a row: a single one may come at a batch unlike others."""
    apart: int = 16
    """Two looks are enough when they are so many steps apart: in a calm run the layers are looked into seldom."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if trace.last_step("saturated_share") != trace.step:
            return self.unknown(trace, "no squashing layer inside the network was looked into")
        shares = lasting(trace, "saturated_share", self.looks, self.apart)
        if not shares:
            return self.unknown(trace, "no squashing layer was looked into often enough")
        if max(shares.values()) < self.from_start:
            return None
        begin = _looks.first(trace, ("saturated_share",), self.looks)
        began = {label: min(_looks.values(begin[label])) for label in shares if label in begin}
        first, loss = middle(trace.first("loss", 8)[1]), middle(trace.last("loss", 8)[1])
        chance = trace.scalar("chance_level")
        trained_before = chance is not None and first < self.known_already * chance
        stuck = first > 0 and loss > self.not_fallen * first
        at_once = [
            label for label, share in shares.items()
            if min(share, began.get(label, 0.0)) >= self.from_start and not trained_before
        ]  # fmt: skip
        at_last = [label for label, share in shares.items() if share >= self.later and stuck]
        if not at_once and not at_last:
            return None
        saturated = at_once or at_last
        layer = max(saturated, key=lambda label: shares[label])
        now = (trace.vector("saturated_share") or {})[layer]
        when = (
            "from the first look on"
            if at_once
            else f"and the loss is {number(loss)}, {number(loss / first)} x at first"
        )
        others = f"; {len(saturated)} of {len(shares)} layers: {listed(saturated)}" if len(saturated) > 1 else ""
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"{number(100 * now)} % of what {layer} gives is saturated at step {trace.step}, {when}{others}",
            measured=shares[layer],
            threshold=self.from_start if at_once else self.later,
            evidence={
                "layer": layer,
                "layers": tuple(saturated),
                "layers_judged": float(len(shares)),
                "saturated_share": now,
                "saturated_share_first": began.get(layer, 0.0),
                "from_start": float(bool(at_once)),
                "loss": loss,
                "loss_first": first,
            },
            since_step=begin[layer][0][0] if at_once else trace.last("saturated_share", 2)[0][0],
        )
