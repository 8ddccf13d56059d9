"""How the columns of a shown table are written, on the page and on a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from trimtab.report.page import show


def column_texts(cells: Sequence[str | float]) -> list[str]:
    """Return the cells of a column as they are written: its numbers with equally many decimals where that can be.

    >>> column_texts([0.5, 0.3333333, 1.0, "all"])
    ['0.5000', '0.3333', '1.0000', 'all']
    """
    numbers = [float(cell) for cell in cells if not isinstance(cell, str)]
    finite = [abs(one) for one in numbers if math.isfinite(one)]
    even = finite and max(finite) < 1e6 and min((one for one in finite if one), default=1.0) >= 1e-3
    places = 0
    if even:
        most = 4 if max(finite) < 10 else 3 if max(finite) < 100 else 2 if max(finite) < 1000 else 1
        places = next((p for p in range(most) if all(abs(one - round(one, p)) < 1e-9 for one in finite)), most)
    written = []
    for cell in cells:
        if isinstance(cell, str) or not even or not math.isfinite(cell):
            written.append(show(cell))
        else:
            written.append(f"{cell:.{places}f}".replace("-", "\N{MINUS SIGN}"))
    return written


def is_numeric(cells: Iterable[str | float]) -> bool:
    """Say whether a column holds numbers, beside at most a few texts such as '-'."""
    kinds = Counter(isinstance(cell, str) for cell in cells)
    return kinds[False] > kinds[True]
