"""What is declared of a sweep before it runs, and can be wrong before it runs: its arms and its bands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.errors import UserError

Band = tuple[float, float]
"""Lowest and highest value, ends included."""


def check_arms(arms: Mapping[str, Mapping[str, Any]], *, where: str = "the sweep") -> None:
    """Refuse two arms whose settings do not differ: comparing them compares a training with itself.

    Args:
        arms: name -> its settings; resolved ones tell more, for a default written out is no difference.
        where: of the error, such as "phase 'curvature'".

    Raises:
        UserError: (arms-do-not-differ) names every such group.
    """
    groups: dict[str, list[str]] = {}
    for name, settings in arms.items():
        groups.setdefault(canonical(settings), []).append(name)
    same = [names for names in groups.values() if len(names) > 1]
    if same:
        groups_text = "; ".join(" = ".join(map(repr, names)) for names in same)
        raise UserError(
            f"{where}: arms-do-not-differ: {groups_text} have the same settings. Runs of one setting are seeds of one "
            f"arm; remove the others, or give them a setting that differs"
        )


def check_bands(
    bands: Mapping[str, Band] | Sequence[tuple[str, Band]],
    *,
    possible: Mapping[str, Band] | None = None,
    where: str = "the sweep",
) -> None:
    """Refuse bands that no run could be inside of at once.

    Args:
        bands: metric -> band, or pairs where one metric has several, all of which must hold.
        possible: metric -> the lowest and highest value that it can have at all, such as a ceiling.
        where: of the error.

    Raises:
        UserError: (bands-not-possible-together) an empty band, bands of one metric that exclude each other, or a band
            beyond what the metric can be.
    """
    pairs = list(bands.items()) if isinstance(bands, Mapping) else list(bands)
    code = f"{where}: bands-not-possible-together"
    met: dict[str, list[Band]] = {}
    for metric, (low, high) in pairs:
        if math.isnan(low) or math.isnan(high) or low > high:
            raise UserError(f"{code}: {metric} in [{low}, {high}] is empty; write the lower end first")
        met.setdefault(metric, []).append((low, high))
    for metric, its in met.items():
        low, high = max(low for low, _ in its), min(high for _, high in its)
        if low > high:
            shown = ", ".join(f"[{one:g}, {other:g}]" for one, other in its)
            raise UserError(
                f"{code}: {metric} cannot be inside all of {shown}; no value is above {low:g} and below {high:g}"
            )
        floor, ceiling = (possible or {}).get(metric, (-math.inf, math.inf))
        if low > ceiling or high < floor:
            raise UserError(
                f"{code}: {metric} in [{low:g}, {high:g}] cannot be reached; "
                f"the metric lies between {floor:g} and {ceiling:g}"
            )


def canonical(settings: Mapping[str, Any]) -> str:
    """Return settings as text that is the same for the same values in any order; 1 and 1.0 are told apart."""
    return json.dumps(settings, sort_keys=True, default=repr)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys whose values differ, sorted; a key that one does not have differs."""
    return tuple(
        key
        for key in sorted({*one, *other})
        if (key in one) != (key in other) or canonical({"": one.get(key)}) != canonical({"": other.get(key)})
    )
