"""The optimizer has begun from nothing again, several times."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class OptimizerStateReset(Detector):
    """The optimizer has begun from nothing again, several times.

    What it sees.
    The optimizer counts its own updates, and that count has fallen back again and again: its state was cleared, or
    another one took its place over the same weights.

    Why it matters.
    Adam divides by what it remembers of the gradients. With an empty memory each of the first steps is as long as the
    learning rate allows, whatever the gradient, and the momentum is gone. Arms of a sweep that differ in it compare
    that, and a decay of the moments over a thousand updates never takes place.

    Evidence it shows.
    How often, at which steps, the highest count before a fall, and the longest update just after a fall and otherwise.

    False alarms.
    One fresh start or two, at a new phase or after parts were unfrozen, are usual. Restarts that are meant are
    announced with `note("restart")`. After going back to a snapshot the count goes back with the weights, which is no
    reset. An
    optimizer that does not count, such as SGD, is not judged.

    What to try.
    Build the optimizer once, before the loop over epochs. Where parts change, use `add_param_group`, or carry the state
    over with `load_state_dict`.

    Since.
    0.3.0
    """

    reads: tuple[str, ...] = ("optimizer_age",)
    excused_by: tuple[str, ...] = ("restart", "escalation")

    times: int = 3
    """So many fresh starts; gradual unfreezing makes one or two."""
    kept: int = 64
    """So many steps of resets are shown at most."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if not trace.has("optimizer_age"):
            return self.unknown(trace, "the optimizer does not count its updates, or keeps no state")
        steps, ages = trace.window("optimizer_age", trace.step + 1)
        resets: list[int] = []
        highest, before = 0.0, -1.0
        for step, age in zip(steps, ages, strict=True):
            if not isinstance(age, float):
                continue
            if age < before:
                resets.append(step)
                highest = max(highest, before)
            before = age
        if len(resets) < self.times:
            return None
        longest, usual = self._updates(trace, set(resets))
        update = f"; updates just after it change {number(100 * longest)} % of the weights" if longest > 0 else ""
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the optimizer began from nothing {len(resets)} times up to step {trace.step}, first near step "
                f"{resets[0]}; its count of updates never passed {number(highest)}{update}"
            ),
            measured=float(len(resets)),
            threshold=float(self.times),
            evidence={
                "resets": tuple(float(step) for step in resets[-self.kept :]),
                "age_highest": highest,
                "update_after": longest,
                "update_otherwise": usual,
            },
            since_step=resets[0],
        )

    @staticmethod
    def _updates(trace: Trace, resets: set[int]) -> tuple[float, float]:
        """Return the largest measured update ratio on the rows of resets and the largest on the others, 0 for none."""
        after, others = 0.0, 0.0
        for step, ratios in zip(*trace.window("update_ratio", trace.step + 1), strict=True):
            largest = max((one for one in ratios if one < 1e300), default=0.0) if isinstance(ratios, tuple) else 0.0
            if step in resets:
                after = max(after, largest)
            elif step > min(resets):
                others = max(others, largest)
        return after, others
