"""Numbers and counts as the words of verdicts and remarks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from trimtab.statistics import Interval

SHOWN = 4
"""So many names are spelled out; the rest is a number."""


def number(value: float, width: float = math.nan) -> str:
    """Return a number with four significant digits, or with as many decimals as show two digits of `width`."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite" if value > 0 else "-infinite"
    if not math.isfinite(width) or width <= 0.0:
        return f"{value + 0.0:.4g}"  # without the sign of -0.0
    decimals = 1 - math.floor(math.log10(width))
    if not -6 < decimals <= 8:
        return f"{value:.4g}"
    text = f"{value:.{max(0, decimals)}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def interval(one: Interval) -> str:
    """Return "[0.012, 0.050]", or words where it has no ends."""
    if not one.known:
        return "no interval"
    width = one.high - one.low
    return f"[{number(one.low, width)}, {number(one.high, width)}]"


def probability(p: float) -> str:
    """Return "p = 0.031", or "p < 0.0001"."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def listed(names: Iterable[str], shown: int = SHOWN, between: str = ", ") -> str:
    """Return "a, b, c", or with another sign between them, with how many more there are where there are many."""
    every = list(names)
    more = len(every) - shown
    return between.join(every if more <= 0 else [*every[:shown], f"{more} more"])


def middle(values: Sequence[float]) -> float:
    """Return the median; NaN for none."""
    ordered = sorted(values)
    half = len(ordered) // 2
    if not ordered:
        return math.nan
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
