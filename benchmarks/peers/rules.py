"""Two rules whose packages cannot be installed here, written anew from their description; no code of theirs is here.

llm-foundry's KillLossSpike: a loss at or above a multiple of the mean of a full window, for more than `patience`
updates in a row, or a window most of which lies above a cap. OLMo-core's SkipStep: a loss or gradient norm more than
`sigmas` deviations above the mean of the last `window` updates, once half a window is there. Comparisons with NaN are
false in both, so that neither sees a number that stops being finite (reproduced on the originals, anchors 1.3).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

from benchmarks.peers.peer import Alarm, Course


def kill_loss_spike(
    course: Course, *, window: int = 100, multiple: float = 2.0, patience: int = 4, cap: float = 10.0
) -> list[Alarm]:
    """Return where the rule would have ended the training; the first is enough, the others are for the record."""
    recent: deque[float] = deque(maxlen=window)
    high, alarms = 0, []
    for step, loss in enumerate(course.losses):
        if len(recent) == window:
            high = high + 1 if loss >= multiple * statistics.fmean(recent) else 0
            if high > patience:
                alarms.append((step, f"loss {loss:.3g} is {multiple:g} times the mean of {window} for {high} updates"))
            elif sum(value > cap for value in recent) > window / 2:
                alarms.append((step, f"most of the last {window} losses are above {cap:g}"))
        recent.append(loss)
    return alarms


def skip_step(course: Course, *, window: int = 128, sigmas: float = 6.0) -> list[Alarm]:
    """Return the updates that the rule would have skipped."""
    alarms = []
    series: tuple[tuple[str, Sequence[float | None]], ...] = (("loss", course.losses), ("gradient norm", course.norms))
    for name, values in series:
        recent: deque[float] = deque(maxlen=window)
        for step, value in enumerate(values):
            if value is None:
                continue
            if len(recent) >= max(2, window // 2):
                mean, deviation = _mean_and_deviation(recent)
                if value - mean > sigmas * deviation:
                    alarms.append((step, f"{name} {value:.3g} is more than {sigmas:g} deviations above {mean:.3g}"))
            recent.append(value)
    return sorted(alarms)


def _mean_and_deviation(values: Sequence[float] | deque[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
