"""What a training showed of itself, on the page: tables as tables, maps and scatters as drawings.

The drawings are written by hand and not by matplotlib: a map is one path for each shade and a scatter one marker for
each point, so that a page with many of them stays small.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from trimtab.panels import Map, Panel, Scatter, Table
from trimtab.report.columns import column_texts, is_numeric
from trimtab.report.ink import HEIGHT, SERIES, SHADES, SMALL, WIDTH, number
from trimtab.report.page import show
from trimtab.report.plots import MOST
from trimtab.run.shown import Shown

MOST_BYTES = 500_000
"""All panels of a page together take no more; what comes later is named and not drawn."""
MOST_ROWS = 200
"""So many rows of a table are on the page."""
MOST_CELLS = 60
"""A map with more rows or columns joins neighbours."""
MOST_POINTS = 2000
"""Of more points every second, third or later one is drawn."""
MOST_LABELLED = 60
"""So many points of a scatter get their label beside them, where there is room."""
MOST_TITLED = 400
"""So many points say their label when the pointer rests on them."""
MOST_GROUPS = 2 * SERIES
"""So many groups of a scatter are told apart, the largest; the others are one."""
OTHERS = "other groups"

_LETTER, _CAPITAL = 6.3, 8.2
"""About the widths of a small letter and of a capital of size SMALL."""
_ROW_NAME, _COLUMN_NAME = 24, 18
"""Letters of a name beside a map; a longer one is cut, and the pointer says the whole."""
_SMALLEST, _LARGEST = 13, 26
"""Height of a row of a map."""
_WRITTEN = 30
"""A cell as wide as this has room for its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a table as it is written."""

    text: str
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelRow:
    """A panel on the page: a table has headings and rows, a drawing its `svg`, one that was left out neither.

    `wide` is a panel that needs the width of the page, `least` and `most` the widths in pixels between which a wide
    drawing is scaled (a narrower page scrolls it), and `key` the ends of a map's colours.
    """

    name: str
    title: str
    caption: str
    step: int
    headings: tuple[Cell, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    svg: Markup | None = None
    wide: bool = False
    least: int = 0
    most: int = 0
    key: tuple[str, str, bool] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it adds to the page."""
        cells = sum(len(escape(cell.text)) + 32 for row in (self.headings, *self.rows) for cell in row)
        return len((self.svg or "").encode()) + cells + len(self.caption) + 200


def panel_rows(panels: Mapping[str, Shown]) -> list[PanelRow]:
    """Return the panels in their order, ready for the template; together they take no more than `MOST_BYTES`."""
    rows, left = [], MOST_BYTES
    for name, shown in panels.items():
        row = _row(name, shown)
        if row.size > left:
            row = PanelRow(
                name=name, title=row.title, step=row.step,
                caption=f"{row.caption} Not drawn, for the page would be too large: see panels/{name}.json of the run.",
            )  # fmt: skip
        left -= row.size
        rows.append(row)
    return rows


def _row(name: str, shown: Shown) -> PanelRow:
    panel = shown.panel
    if isinstance(panel, Table):
        return _table(name, shown.step, panel)
    if isinstance(panel, Map):
        return _map(name, shown.step, panel)
    return _scatter(name, shown.step, panel)


def _captioned(panel: Panel, *more: str) -> str:
    return " ".join(part for part in (panel.caption.strip(), *more) if part)


def _table(name: str, step: int, table: Table) -> PanelRow:
    shown = table.rows[:MOST_ROWS]
    columns = [column_texts([row[place] for row in shown]) for place in range(len(table.columns))]
    right = [is_numeric(row[place] for row in shown) for place in range(len(table.columns))]
    rest = len(table.rows) - len(shown)
    return PanelRow(
        name=name,
        title=table.title,
        caption=_captioned(table, f"The first {MOST_ROWS} rows; {rest:,} more are not shown." if rest else ""),
        step=step,
        headings=tuple(Cell(text=text, right=to) for text, to in zip(table.columns, right, strict=True)),
        rows=tuple(
            tuple(
                Cell(text=column[place], right=not isinstance(cell, str) or to)
                for column, cell, to in zip(columns, row, right, strict=True)
            )
            for place, row in enumerate(shown)
        ),
        wide=len(table.columns) > 5,
    )


# -- maps ----------------------------------------------------------------------------------------------------------


def _map(name: str, step: int, panel: Map) -> PanelRow:
    values, rows, columns = _joined(np.array(panel.values, dtype=float), panel.rows, panel.columns)
    per = [math.ceil(len(all_) / len(few)) for all_, few in ((panel.rows, rows), (panel.columns, columns))]
    said = f"Neighbours are joined: a cell is the mean of up to {per[0]} by {per[1]}." if max(per) > 1 else ""
    low, high = _ends(panel, values)
    finite = np.isfinite(values)
    with np.errstate(all="ignore"):
        place = (values - low) / (high - low) * SHADES if high > low else np.full(values.shape, SHADES / 2)
    shades = np.clip(np.nan_to_num(place, nan=0, posinf=0, neginf=0), 0, SHADES - 1).astype(int)
    kinds = np.where(finite, np.char.add("h", shades.astype(str)), "bad")
    svg, width = _cells(name, panel.title, values, kinds, rows, columns)
    return PanelRow(
        name=name, title=panel.title, caption=_captioned(panel, said), step=step, svg=Markup(svg), wide=width > WIDTH,
        least=round(0.75 * width) if width > WIDTH else 0, most=round(1.25 * width),
        key=(show(float(f"{low:.3g}")), show(float(f"{high:.3g}")), not finite.all()),
    )  # fmt: skip


def _joined(values: Any, rows: Sequence[str], columns: Sequence[str]) -> tuple[Any, list[str], list[str]]:
    """Return values and names; of more than `MOST_CELLS` neighbours are joined, and what is not finite stays so."""
    names = []
    for axis, old in enumerate((rows, columns)):
        if len(old) <= MOST_CELLS:
            names.append(list(old))
            continue
        parts = list(pairwise(np.linspace(0, len(old), MOST_CELLS + 1).astype(int)))
        with np.errstate(all="ignore"):
            values = np.stack([values.take(range(a, b), axis).mean(axis) for a, b in parts], axis)
        names.append([f"{old[a]} …" if b - a > 1 else old[a] for a, b in parts])
    return values, names[0], names[1]


def _ends(panel: Map, values: Any) -> tuple[float, float]:
    """Return the numbers of the palest and the darkest colour."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    low = panel.low if panel.low is not None and math.isfinite(panel.low) else low
    high = panel.high if panel.high is not None and math.isfinite(panel.high) else high
    return float(low), float(high)


def _cells(
    key: str, title: str, values: Any, kinds: Any, rows: Sequence[str], columns: Sequence[str]
) -> tuple[str, float]:
    """Return the drawing of a map, and its width."""
    left = 8 + max(_width(word, _ROW_NAME) for word in rows)
    longest = max(_width(word, _COLUMN_NAME) for word in columns)
    across = max(_SMALLEST, min((WIDTH - left - 4) / len(columns), 72))
    down = min(max(across, _SMALLEST), _LARGEST)
    upright = longest + 4 > across
    top = 8 + (longest if upright else 14)
    width = max(WIDTH, left + across * len(columns) + 4)
    height = top + down * len(rows) + 4
    paths: dict[str, list[str]] = {}
    for (row, column), kind in np.ndenumerate(kinds):
        x, y = left + across * column, top + down * row
        paths.setdefault(str(kind), []).append(f"M{x:.1f} {y:.1f}h{across - 1:.1f}v{down - 1:.1f}h{1 - across:.1f}z")
    body = [f'<path class="{kind}" d="{"".join(parts)}"/>' for kind, parts in sorted(paths.items())]
    for place, word in enumerate(rows):
        y = top + down * (place + 0.5) - 0.5
        body.append(_name(word, _ROW_NAME, f'x="{left - 5:.1f}" y="{y:.1f}" dy=".36em" text-anchor="end"'))
    for place, word in enumerate(columns):
        x = left + across * (place + 0.5) - 0.5
        where = f'text-anchor="middle" x="{x:.1f}" y="{top - 6:.1f}"'
        if upright:
            where = f'transform="translate({x:.1f} {top - 5:.1f}) rotate(-90)" dy=".36em"'
        body.append(_name(word, _COLUMN_NAME, where))
    if across >= _WRITTEN:
        texts = [[_short(value) for value in row] for row in values]
        if max(_width(text, len(text)) for row in texts for text in row) <= across - 2:
            for (row, column), kind in np.ndenumerate(kinds):
                x, y = left + across * (column + 0.5) - 0.5, top + down * (row + 0.5) - 0.5
                ink = "on-dark" if kind == "bad" or int(kind[1:]) > SHADES // 2 else "on-pale"
                body.append(
                    f'<text class="{ink}" x="{x:.1f}" y="{y:.1f}" dy=".36em" text-anchor="middle">'
                    f"{texts[row][column]}</text>"
                )
    return _svg(key, title, width, height, "".join(body)), width


def _short(value: float) -> str:
    """Write a number into a cell: two decimals below ten, no more digits than four."""
    if not math.isfinite(value) or abs(value) >= 1e4 or 0 < abs(value) < 0.01:
        return show(float(f"{value:.2g}"))
    if value == int(value):
        return show(value)
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"


# -- scatters ------------------------------------------------------------------------------------------------------

_SHAPES = ("circle", "square", "up", "diamond", "down", "plus")


def _scatter(name: str, step: int, panel: Scatter) -> PanelRow:
    finite = [
        (_within(x), _within(y), label, group)
        for x, y, label, group in panel.points
        if math.isfinite(x) and math.isfinite(y)
    ]
    every = math.ceil(len(finite) / MOST_POINTS) if finite else 1
    drawn = finite[::every]
    said = [f"{len(drawn):,} of {len(finite):,} points are drawn." if every > 1 else ""]
    gone = len(panel.points) - len(finite)
    said.append(f"{gone:,} {'more are' if drawn else 'points, all'} not finite." if gone else "")
    said.append("There is no point to draw." if not drawn else "")
    return PanelRow(
        name=name, title=panel.title, caption=_captioned(panel, *said), step=step,
        svg=Markup(_points(name, panel.title, drawn)) if drawn else None,
    )  # fmt: skip


def _within(value: float) -> float:
    """Return a number that an axis can be drawn for."""
    return min(max(value, -MOST), MOST)


def _points(key: str, title: str, points: Sequence[tuple[float, float, str, str]]) -> str:
    counts = Counter(group for *_, group in points)
    kept = {group for group, _ in counts.most_common(MOST_GROUPS - (len(counts) > MOST_GROUPS))}
    order = [group for group in counts if group in kept]
    legend, legend_height = _legend([*order, OTHERS] if len(counts) > len(order) else order)
    height = HEIGHT + 80 + legend_height
    x_at, x_ticks = _axis([x for x, *_ in points], 50.0, WIDTH - 14.0)
    y_at, y_ticks = _axis([y for _, y, *_ in points], height - 26.0, legend_height + 12.0)
    body = [legend]
    for value in y_ticks:
        y = y_at(value)
        body.append(f'<path class="grid" d="M46 {y:.1f}H{WIDTH - 8}"/>')
        body.append(f'<text x="40" y="{y:.1f}" dy=".36em" text-anchor="end">{number(value)}</text>')
    for value in x_ticks:
        body.append(f'<text x="{x_at(value):.1f}" y="{height - 8}" text-anchor="middle">{number(value)}</text>')
    spots = [(x_at(x), y_at(y)) for x, y, *_ in points]
    size = 4.2 if len(points) <= 200 else 3.2 if len(points) <= 800 else 2.4
    titled = len(points) <= MOST_TITLED
    for place, group in enumerate([*order, OTHERS]):
        mine = [at for at, point in enumerate(points) if (point[3] if point[3] in kept else OTHERS) == group]
        colour = _colour(place, group)
        marks = [_marker(place, *spots[at], size) for at in mine]
        if titled:
            body += [
                f'<path class="{colour}" d="{mark}"><title>{escape(points[at][2] or group)}</title></path>'
                for at, mark in zip(mine, marks, strict=True)
            ]
        elif marks:
            body.append(f'<path class="{colour}" d="{"".join(marks)}"/>')
    body += _labels([point[2] for point in points], spots, legend_height + 4.0, height - 22.0)
    return _svg(key, title, WIDTH, height, "".join(body))


def _axis(values: Sequence[float], begin: float, end: float) -> tuple[Any, list[float]]:
    """Return where a value lies between two places of the drawing, and the values that get a number."""
    low, high = min(values), max(values)
    middle, half = low / 2 + high / 2, high / 2 - low / 2
    half = half * 1.04 or max(abs(middle) * 0.1, 0.5)

    def at(value: float) -> float:
        return begin + (end - begin) * ((value - middle) / half + 1) / 2

    ticks = MaxNLocator(5).tick_values(middle - half, middle + half)
    return at, [float(tick) for tick in ticks if abs(tick - middle) <= half]


def _legend(groups: Sequence[str]) -> tuple[str, float]:
    """Return the legend of a scatter above it, and its height; none for one group without a name."""
    if not any(groups):
        return "", 0.0
    parts, x, y = [], 50.0, 12.0
    for place, group in enumerate(groups):
        word = group or "no group"
        width = 32 + _width(word, _ROW_NAME)
        if x > 50 and x + width > WIDTH:
            x, y = 50.0, y + 17
        parts.append(f'<path class="{_colour(place, group)}" d="{_marker(place, x + 5, y, 4.6)}"/>')
        parts.append(_name(word, _ROW_NAME, f'class="name" x="{x + 15:.1f}" y="{y:.1f}" dy=".36em"'))
        x += width
    return "".join(parts), y + 12


def _colour(place: int, group: str) -> str:
    return "s-other" if group == OTHERS else f"s{place % SERIES}"


def _marker(place: int, x: float, y: float, r: float) -> str:
    """Return the outline of a marker: the shape changes with the colour, and otherwise in the second round."""
    shape = _SHAPES[(place + place // SERIES) % len(_SHAPES)]
    if shape == "circle":
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r:.1f} 0a{r} {r} 0 1 0 {-2 * r:.1f} 0z"
    if shape == "square":
        s = 0.88 * r
        return f"M{x - s:.1f} {y - s:.1f}h{2 * s:.1f}v{2 * s:.1f}h{-2 * s:.1f}z"
    if shape == "diamond":
        s = 1.25 * r
        return f"M{x:.1f} {y - s:.1f}l{s:.1f} {s:.1f} {-s:.1f} {s:.1f} {-s:.1f} {-s:.1f}z"
    if shape == "plus":
        a, b = 1.2 * r, 0.42 * r
        arm = a - b
        return (
            f"M{x - b:.1f} {y - a:.1f}h{2 * b:.1f}v{arm:.1f}h{arm:.1f}v{2 * b:.1f}h{-arm:.1f}v{arm:.1f}h{-2 * b:.1f}"
            f"v{-arm:.1f}h{-arm:.1f}v{-2 * b:.1f}h{arm:.1f}z"
        )
    s, down = 1.15 * r, 1 if shape == "up" else -1
    return f"M{x:.1f} {y - down * s:.1f}l{s:.1f} {down * 1.8 * s:.1f}h{-2 * s:.1f}z"


def _labels(words: Sequence[str], spots: Sequence[tuple[float, float]], top: float, bottom: float) -> list[str]:
    """Return the labels that find room beside their points; none where there are too many."""
    named = [(word, spot) for word, spot in zip(words, spots, strict=True) if word]
    if not named or len(named) > MOST_LABELLED:
        return []
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    placed = []
    for word, (x, y) in named:
        width = _width(word, _ROW_NAME)
        for left, middle in ((x + 7, y), (x - 7 - width, y), (x - width / 2, y - 12), (x - width / 2, y + 12)):
            box = (left, middle - 6, left + width, middle + 6)
            inside = left >= 44 and box[2] <= WIDTH and box[1] >= top and box[3] <= bottom
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                placed.append(_name(word, _ROW_NAME, f'class="name" x="{left:.1f}" y="{middle:.1f}" dy=".36em"'))
                break
    return placed


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# -- both ----------------------------------------------------------------------------------------------------------


def _width(word: str, most: int) -> float:
    """Return about how wide the first letters of a word are."""
    return sum(_CAPITAL if one.isupper() or one in "…mw_%@" else _LETTER for one in word[:most])


def _name(word: str, most: int, where: str) -> str:
    """Return a text of a drawing; one that is too long is cut, and the pointer says the whole."""
    if len(word) <= most:
        return f"<text {where}>{escape(word)}</text>"
    return f"<text {where}>{escape(word[: most - 1])}…<title>{escape(word)}</title></text>"


def _svg(key: str, title: str, width: float, height: float, body: str) -> str:
    return (
        f'<svg class="plot panel" role="img" aria-labelledby="panel-{key}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-size="{SMALL}"><title id="panel-{key}">{escape(title)}</title>{body}</svg>'
    )
