"""The norm of one tensor runs away while the others keep theirs."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._measured import middle
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import HEAD, RING, Trace

_OUR_OWN = frozenset(("gradient_norm", "gradient_norm_applied", "gradient_norms", "update_norms", "weight_norms"))


@dataclass(frozen=True, kw_only=True)
class NormGrowing(Detector):
    """The norm of one tensor runs away while the others keep theirs.

    What it sees.
    The norm of a weight, or a norm that the user records (any name with "norm" in it), is many times what it was at
    step 32, and most of that came in the second half of the training; or a weight that began at a usual size is many
    times as large as it began. The other weights have grown little.

    Why it matters.
    An adapter, a hyper-network's delta or a gain that grows without bound takes the network over: what the other
    weights know no longer counts, and after that numbers overflow.

    Evidence it shows.
    The norm now, at half of the steps (where that was asked) and at the reference, the growth of the middle tensor
    beside it.

    False alarms.
    A tensor that begins at zero (an adapter, a head) is compared with what it was after 32 updates, and steady drift
    doubles it from half of the training to the whole: three times is faster than that. Gains that begin far below their
    neighbours grow a thousandfold by design, and are only held to their own pace. Where all weights grow it is no
    single tensor's fault, and other rules speak. What grew late and settles has slowed down by the last quarter. Biases
    are left out.

    What to try.
    Normalise what the tensor adds or bound its norm, decay its weights, give it a lower learning rate.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("weight_norms",)
    confirm: int = 4
    """So many measured rows in a row, half a hundred steps: growth that saturates looks like a runaway for a while."""
    release: int = 4

    growth: float = 10.0
    """So many times the reference. Healthy trainings of the tuning families reach 6 from the very first step, and a
    logistic regression from nearly zero 13; less than half of that from step 32 on."""
    at_once: float = 15.0
    """So many times the first norm, at any pace. Healthy trainings reach 6 while the middle tensor has grown less than
    three times; adapters with a rate 300 times too high pass 15 within 20 updates."""
    usual: float = 0.1
    """... where it began at this share of the middle norm or more."""
    early: int = 16
    """From this step on a weight may have run away at once."""
    lately: float = 3.0
    """So many times what it was at half of the steps; linear growth gives 2."""
    latest: float = 1.6
    """So many times what it was at three quarters of the steps; linear growth gives 1.33, exponential 1.73."""
    others: float = 3.0
    """The middle tensor has grown less than so many times."""
    reference: int = 31
    """Norms are compared with the first measurement from this step on."""
    least: int = 128
    """From this step on there is a second half to speak of."""

    def detect(self, trace: Trace) -> Finding | Sequence[Finding] | Unknown | None:
        row = trace.row
        norms = row.values.get("weight_norms") if row is not None else None
        if not isinstance(norms, tuple):
            return self.unknown(trace, "the norm of each weight was not measured")
        if trace.step < self.early:
            return None
        found = self._at_once(trace, norms)
        if trace.step < self.least or found:
            return found or None
        recorded = [name for name in trace.names() if "norm" in name and name not in _OUR_OWN]
        found += [one for name in recorded if (one := self._recorded(trace, name)) is not None]
        steps, rows = trace.first("weight_norms", self.reference + 1)
        place = bisect.bisect_left(steps, self.reference)
        began = rows[place] if place < len(rows) else None
        if not isinstance(began, tuple) or len(began) != len(norms):
            return found or None
        if _grown(norms, began, self.growth):
            found += self._tensors(trace, norms, began, steps[place])
        return found or None

    def _at_once(self, trace: Trace, norms: tuple[float, ...]) -> list[Finding]:
        steps, rows = trace.first("weight_norms", 1)
        began = rows[0]
        if not isinstance(began, tuple) or len(began) != len(norms) or not _grown(norms, began, self.at_once):
            return []
        names, size = trace.labels("weight_norms"), middle([then for then in began if then > 0.0])
        beside = middle([now / then for now, then in zip(norms, began, strict=True) if then > 0.0])
        if not beside < self.others:
            return []
        return [
            self._finding(trace, name, now, then, math.nan, beside, steps[0])
            for name, now, then in zip(names, norms, began, strict=True)
            if now > self.at_once * then and then >= self.usual * size and "bias" not in name.lower()
        ]

    def _tensors(
        self, trace: Trace, norms: tuple[float, ...], began: tuple[float, ...], since: int
    ) -> Sequence[Finding]:
        names = trace.labels("weight_norms")
        grown = [now / then if then > 0.0 else math.nan for now, then in zip(norms, began, strict=True)]
        beside, size = middle(grown), middle(norms)
        half, late = _at(trace, trace.step // 2), _at(trace, 3 * trace.step // 4)
        if not beside < self.others or len(half) != len(norms) or len(late) != len(norms):
            return []
        found = []
        for index, name in enumerate(names):
            now, before = norms[index], half[index]
            if "bias" in name.lower() or not grown[index] >= self.growth:
                continue
            if now >= max(self.lately * before, self.latest * late[index], 0.5 * size):
                found.append(self._finding(trace, name, now, began[index], before, beside, since))
        return found

    def _recorded(self, trace: Trace, name: str) -> Finding | None:
        """Judge a norm that the user recorded."""
        steps, values = trace.first(name, HEAD)
        if "grad" in name or isinstance(values[0], tuple):
            return None
        place = next((i for i, step in enumerate(steps) if step >= self.reference), None)
        now = middle(trace.last(name, 3)[1])
        if place is None or trace.count(name) < place + 16:
            return None
        then = middle(values[place : place + 3])
        if not (then > 0.0 and now >= self.growth * then):
            return None
        latest, lately = trace.last(name, RING)
        before = middle([value for step, value in zip(latest, lately, strict=True) if step >= trace.step // 2][:3])
        late = middle([value for step, value in zip(latest, lately, strict=True) if step >= 3 * trace.step // 4][:3])
        if not now >= max(self.lately * before, self.latest * late):
            return None
        return self._finding(trace, name, now, then, before, math.nan, steps[place])

    def _finding(
        self, trace: Trace, name: str, now: float, then: float, before: float, beside: float, since: int
    ) -> Finding:
        text = f"the norm of {name} is {number(now)} at step {trace.step}, {number(now / then)} x what it was at step "
        text += f"{since}"
        text += f", and {number(now / before)} x what it was at half of the steps" if before == before else ""
        if beside == beside:
            text += f"; the middle tensor has grown {number(beside)} x"
        return self.finding(
            trace,
            severity=Severity.WARNING,
            subject=name,
            summary=text,
            measured=now / then,
            threshold=self.growth,
            since_step=since,
            evidence={"norm": now, "reference": then, "at_half": before, "growth_of_others": beside},
        )


def _at(trace: Trace, step: int) -> tuple[float, ...]:
    """Return the norms that were measured at a step or soon after."""
    rows = trace.window("weight_norms", trace.step - step + 1)[1]
    return rows[0] if rows and isinstance(rows[0], tuple) else ()


def _grown(norms: tuple[float, ...], began: tuple[float, ...], times: float) -> bool:
    """Say whether any tensor that did not begin at zero is so many times as large; asked on each full row."""
    return True in [now > times * then > 0.0 for now, then in zip(norms, began, strict=True)]
