"""The steps take longer and longer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._line import quiet, straightness
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Rolling, Trace


@dataclass(frozen=True, kw_only=True)
class StepSlowing(Detector):
    """The steps take longer and longer.

    What it sees.
    The time of a step rises from one part of the run to the next, every time, to several times what it was. Of each
    part the fast steps are compared, as anything else on the machine can only add to the slow ones.

    Why it matters.
    A graph that is kept from step to step grows without end, and backward goes through all of it; so does a list that
    is searched at each step. The run becomes a matter of days, and then of memory.

    Evidence it shows.
    Seconds of a step at the beginning and now, how straight the rise is, memory at the beginning and now.

    False alarms.
    Another job on the machine comes and goes, which is not a straight line; what is not straight is info. Sequences
    that grow longer on purpose: say `note("curriculum")`.

    What to try.
    Look for tensors with a history that outlive the step: `total += loss` wants `loss.item()`, a hidden state that is
    carried over wants `detach()`, `retain_graph=True` is rarely needed.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("step_seconds",)
    confirm: int = 2
    """Seen twice: one look may fall on a pause."""
    release: int = 64
    """So many clear judgements in a row, about 512 steps."""
    excused_by: tuple[str, ...] = ("curriculum", "data-change")

    times: float = 3.0
    """So many times as slow as at the beginning: clocks that slow down under heat reach 1.5."""
    steps: int = 500
    """A shorter run tells loading and warming up from nothing."""
    parts: int = 6
    """The run is divided into so many parts, each slower than the one before: by chance once in 720 runs."""
    straight: float = 0.95
    """Share of the variance that a straight line explains: what grows with each step gives 0.99, load that comes and
    goes 0.3 to 0.9."""
    warm: int = 8
    """The first so many rows are left out: they compile, allocate and open files."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if not trace.has("step_seconds"):
            return self.unknown(trace, "how long a step takes was not measured")
        began = [value for value in trace.first("step_seconds", 40)[1][self.warm :] if isinstance(value, float)]
        latest = trace.scalar("step_seconds")
        if len(began) < 8 or latest is None or trace.step < self.steps:
            return None
        if latest < self.times * Rolling.quantile(tuple(began), 0.2):
            return None
        steps, values = trace.last("step_seconds", 4096)
        if len(steps) < 10 * self.parts:
            return None
        levels, middles = quiet(
            steps[self.warm :], [v for v in values[self.warm :] if isinstance(v, float)], self.parts
        )
        if any(b <= a for a, b in pairwise(levels)) or levels[-1] < self.times * levels[0]:
            return None
        line = straightness(middles, levels)
        evidence = {"seconds_first": levels[0], "seconds": levels[-1], "straight": line}
        memory = trace.first("memory_bytes", 1)[1]
        if memory and isinstance(memory[0], float):
            evidence |= {"memory_first": memory[0], "memory": trace.scalar("memory_bytes") or 0.0}
        return self.finding(
            trace,
            severity=Severity.WARNING if line >= self.straight else Severity.INFO,
            summary=(
                f"a step takes {number(1e3 * levels[-1])} ms at step {trace.step}, {number(levels[-1] / levels[0])} x "
                f"the {number(1e3 * levels[0])} ms of the first part of the run, and longer in each part"
            ),
            measured=levels[-1] / levels[0],
            threshold=self.times,
            evidence=evidence,
            since_step=steps[0],
        )
