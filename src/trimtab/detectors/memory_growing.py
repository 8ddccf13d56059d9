"""The memory grows with every step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._line import quiet, straightness
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class MemoryGrowing(Detector):
    """The memory grows with every step.

    What it sees.
    The memory of the process (of torch on the accelerator, where the model is there) rises along a straight line
    through the whole run, by half and by hundreds of megabytes, and has not come to rest.

    Why it matters.
    The run will end when the memory does, often after days and before the checkpoint. What is kept from step to step is
    mostly a graph: a loss that is added up without `.item()`, outputs in a list, a hidden state with its history.

    Evidence it shows.
    Bytes at the beginning and now, bytes a step, how straight the line is, seconds of a step at the beginning and now.

    False alarms.
    The first steps, which allocate, are left out. A cache or a replay buffer grows as straight until it is full: say
    `note("cache")`.

    What to try.
    `total += loss.item()`, `outputs.append(output.detach())`, `hidden = hidden.detach()`. Count live tensors with `gc`
    every hundred steps and look which shape multiplies.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("memory_bytes",)
    confirm: int = 2
    """Seen twice: one look may fall on an evaluation."""
    release: int = 64
    """So many clear judgements in a row, about 512 steps."""
    excused_by: tuple[str, ...] = ("cache",)

    times: float = 1.5
    """So many times the memory after the first steps: allocators and libraries that load late add a tenth."""
    bytes: float = 200e6
    """... and by so many bytes: a small process can double without harm."""
    steps: int = 500
    """A shorter run tells loading and warming up from nothing."""
    warm: int = 40
    """The first so many rows are left out."""
    parts: int = 6
    """The rest is divided into so many parts, each larger than the one before."""
    straight: float = 0.97
    """Share of the variance that a straight line explains: leaks give 0.99 and more, what levels off less."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        latest, first = trace.scalar("memory_bytes"), trace.first("memory_bytes", self.warm)[1]
        if latest is None or not first:
            return self.unknown(trace, "the memory of the process was not measured")
        least = first[-1]
        if isinstance(least, tuple) or trace.step < self.steps or latest < least + self.bytes:
            return None
        if latest < self.times * least:
            return None
        steps, values = trace.last("memory_bytes", 4096)
        steps, kept = steps[self.warm :], [v for v in values[self.warm :] if isinstance(v, float)]
        if len(steps) < 5 * self.parts:
            return None
        levels, middles = quiet(steps, kept, self.parts)
        line = straightness(middles, levels)
        rising = all(b > a for a, b in pairwise(levels))
        growth = [b - a for a, b in pairwise(levels)]
        if not rising or line < self.straight or growth[-1] < 0.5 * max(growth):
            return None
        rate = (levels[-1] - levels[0]) / (middles[-1] - middles[0])
        evidence = {"memory_first": least, "memory": latest, "bytes_per_step": rate, "straight": line}
        seconds = trace.first("step_seconds", self.warm)[1]
        if seconds and isinstance(seconds[-1], float):
            evidence |= {"seconds_first": seconds[-1], "seconds": trace.scalar("step_seconds") or 0.0}
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the memory is at {number(latest / 1e6)} MB at step {trace.step}, {number(latest / least)} x what it "
                f"was after the first steps: it grows by {number(rate / 1e6)} MB a step in a straight line"
            ),
            measured=latest / least,
            threshold=self.times,
            evidence=evidence,
            since_step=steps[0],
        )
