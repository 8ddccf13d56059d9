"""Most units of a layer are dead: whatever the input, they give nothing and learn nothing."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors import _looks
from trimtab.detectors._detector import Detector, listed, number
from trimtab.detectors._measured import largest
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


def lasting(trace: Trace, name: str, looks: int, apart: int) -> dict[str, float]:
    """Return the smallest value of each entry in the last looks: two that are so far apart, or `looks` of them."""
    steps = trace.last(name, 2)[0]
    wanted = 2 if len(steps) == 2 and steps[1] - steps[0] >= apart else looks
    courses = _looks.last(trace, (name,), wanted)
    return {label: min(_looks.values(course)) for label, course in courses.items() if len(course) == wanted}


@dataclass(frozen=True, kw_only=True)
class DeadUnits(Detector):
    """Most units of a layer are dead: whatever the input, they give nothing and learn nothing.

    What it sees.
    In several looks in a row no example of the sample makes more than a tenth of the units of a relu-like layer
    active; for GELU and SiLU those count as dead whose slope is below a thousandth.

    Why it matters.
    No gradient flows through a dead unit, so it does not come back by itself. The layer has the width of what is left
    of it, and where all are dead the layers before it learn nothing any more.

    Evidence it shows.
    The worst layer, its share of dead units now and at the first look, since when, how many layers are like it, and
    the largest share of the weights that one update replaced around the time when the units died.

    False alarms.
    A unit that is active for few examples is not dead: of each look up to 512 rows count, and fewer than 8 do not.
    Idle experts get few rows or none. Layers that no weights come after (hinge losses, outputs) and layers of fewer
    than four units are left out. Healthy trainings stay below 0.4, networks of eight layers below 0.6.

    What to try.
    Units that were dead from the start: look at the first biases and at inputs that are not centred. Units that died
    later: lower the learning rate or warm it up, clip the gradient. LeakyReLU or GELU, or a normalisation before the
    activation, let units come back.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("dead_share",)
    release: int = 2

    share: float = 0.9
    """Healthy trainings of 23 small networks had at most 0.33 in three looks in a row, those of eight layers without
    normalisation 0.56; bursts of the learning rate leave 0.92 to 1, biases of -10 leave 1."""
    whole: float = 0.999
    """A layer without a single unit that is alive lets nothing through: the run will not give the result."""
    looks: int = 3
    """So many looks in a row: a single one may come at a batch unlike others."""
    apart: int = 16
    """Two looks are enough when they are so many steps apart: in a calm run the layers are looked into seldom."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if trace.last_step("dead_share") != trace.step:
            return self.unknown(trace, "no layer whose units can die was looked into")
        shares = lasting(trace, "dead_share", self.looks, self.apart)
        if not shares:
            return self.unknown(trace, "no layer whose units can die was looked into often enough")
        layer = max(shares, key=lambda label: shares[label])
        if shares[layer] < self.share:
            return None
        dead = [label for label, share in shares.items() if share >= self.share]
        whole = _looks.since(trace, ("dead_share",), 0)[layer]
        now = whole[-1][1]
        before = max((step for step, share in whole if share < self.share), default=-1)
        began = min(step for step, _ in whole if step > before)
        evidence: dict[str, float | str | tuple[str, ...]] = {
            "layer": layer,
            "layers": tuple(dead),
            "layers_judged": float(len(shares)),
            "dead_share": now,
            "from_start": float(before < 0),
        }
        if before >= 0:
            ratios = trace.window("update_ratio", trace.step - before + 1)[1]
            evidence["update_ratio"] = max((largest(row) for row in ratios), default=0.0)
        when = "from the first look on" if before < 0 else f"since step {began}, at step {before} not yet"
        others = f"; {len(dead)} of {len(shares)} layers: {listed(dead)}" if len(dead) > 1 else ""
        return self.finding(
            trace,
            severity=Severity.ERROR if shares[layer] >= self.whole else Severity.WARNING,
            summary=f"{number(100 * now)} % of the units of {layer} are dead at step {trace.step}, {when}{others}",
            measured=shares[layer],
            threshold=self.share,
            evidence=evidence,
            since_step=began,
        )
