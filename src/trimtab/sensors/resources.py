"""What a step takes: seconds of wall time, and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from trimtab.cadence import Tier
from trimtab.live import Live, Reading
from trimtab.sensors._sensor import Base

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, kw_only=True)
class Resources(Base):
    """`step_seconds`: wall time since the last full row of this stream, divided by the updates taken since;
    `memory_bytes`: what torch has allocated on the accelerator that the parameters are on, else the memory of this
    process that is resident. Host facts; what the system does not tell is absent.

    Evaluation, saving and waiting for data count as part of the steps between which they happen. Cost: 10 microseconds.
    """

    name: str = "resources"
    tier: Tier = "norms"
    clock: Callable[[], float] = time.perf_counter

    def read(self, live: Live) -> Reading:
        """Return seconds and bytes; no seconds on the first row."""
        reading: dict[str, float] = {}
        now = self.clock()
        then, step = live.memory.get(self.name, (now, live.step))
        if live.step > step:
            reading["step_seconds"] = (now - then) / (live.step - step)
        live.memory[self.name] = (now, live.step)
        memory = _memory(live)
        if memory is not None:
            reading["memory_bytes"] = memory
        return reading


def _memory(live: Live) -> float | None:
    parameter = live.parameters[0] if live.parameters else None
    if parameter is not None and parameter.is_cuda:
        return float(torch.cuda.memory_allocated(parameter.device))
    try:
        return float(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
