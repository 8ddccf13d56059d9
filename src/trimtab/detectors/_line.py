"""How straight a series rises: what the rules about time and memory share."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.trace import Rolling


def quiet(steps: Sequence[int], values: Sequence[float], parts: int) -> tuple[list[float], list[float]]:
    """Divide a series into parts by step; return the lower decile of each part and its middle step."""
    begin, length = steps[0], max(steps[-1] - steps[0] + 1, 1)
    held: list[list[float]] = [[] for _ in range(parts)]
    for step, value in zip(steps, values, strict=False):
        held[(step - begin) * parts // length].append(value)
    middles = [begin + (place + 0.5) * length / parts for place in range(parts)]
    return [Rolling.quantile(tuple(part), 0.1) for part in held], middles


def straightness(places: Sequence[float], values: Sequence[float]) -> float:
    """Return how much of the variance of `values` a straight line over `places` explains; 0 when all are alike."""
    x, y = sum(places) / len(places), sum(values) / len(values)
    xy = sum((a - x) * (b - y) for a, b in zip(places, values, strict=True))
    xx, yy = sum((a - x) ** 2 for a in places), sum((b - y) ** 2 for b in values)
    return xy * xy / (xx * yy) if xx > 0 and yy > 0 else 0.0
