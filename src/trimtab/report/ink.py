"""What every drawing of a report shares: stand-in colours, one frame, and how a figure becomes an element of a page.

matplotlib draws with stand-in colours; each is replaced by a `var(--...)` of the report's style sheet, so that one
drawing serves the light and the dark page. Text stays text, and the same data give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH, HEIGHT = 460, 240
"""Size of a drawing in its own units; the page scales it."""
SERIES = 6
"""Lines differ by so many colours, then by their dashes."""
SHADES = 9
"""Steps of the ramp from little to much; its lightness falls all the way, so that it can be read in grey."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
SMALL = 11.5
"""Size of a label inside a drawing; a page as narrow as a phone still shows it at more than 8.5 pixels."""

STAND_INS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--card)",
    "#0a0000": "var(--info)",
    "#0a0001": "var(--warning)",
    "#0a0002": "var(--error)",
    "#0a0003": "var(--fatal)",
    **{f"#0b000{place}": f"var(--series-{place})" for place in range(SERIES)},
    **{f"#0c000{place}": f"var(--h{place})" for place in range(SHADES)},
}
INK = {variable[6:-1]: stand_in for stand_in, variable in STAND_INS.items()}
"""Name of a colour in the style sheet -> what matplotlib draws it with."""
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 12.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "trimtab",
    "path.simplify": False,
    "axes.unicode_minus": True,
}


def canvas(height: float = HEIGHT) -> Figure:
    """Return an empty figure, WIDTH x `height` units; draw on it within `rc_context(STYLE)`."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    FigureCanvasSVG(figure)
    return figure


def axes_on(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Return axes that leave so many units free at each side."""
    height = figure.get_figheight() * 72
    return figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    )


def element(figure: Figure, key: str, title: str) -> str:
    """Return a figure as an `<svg>` element of a page.

    Args:
        figure: what was drawn.
        key: prefix of the ids in the drawing; another one for each drawing of a page.
        title: what a screen reader says.
    """
    file = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None})
    height = round(figure.get_figheight() * 72)
    return clean(file.getvalue(), key, title, height)


def clean(svg: str, key: str, title: str, height: int = HEIGHT) -> str:
    """Make a file that stands alone into an element of a page."""
    body = svg[svg.index("<g id=") : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", body)
    for stand_in, variable in STAND_INS.items():
        body = body.replace(stand_in, variable)
    used = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', body))
    body = re.sub(r' id="([\w.-]+)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'xlink:href="#|href="#', f'href="#{key}-', body).replace("url(#", f"url(#{key}-")
    body = re.sub(r"\s*\n\s*", " ", body)
    body = re.sub(r'="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), body)
    return (
        f'<svg class="plot" role="img" aria-labelledby="{key}-title" viewBox="0 0 {WIDTH} {height}" '
        f'preserveAspectRatio="xMidYMid meet"><title id="{key}-title">{escape(title)}</title>{body}</svg>'
    )


def number(value: float) -> str:
    """Write a number of an axis: 0.001, 250, 10k, 3e-5."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def power(value: float) -> str:
    """Write a number of a logarithmic axis: powers of ten with their exponent raised."""
    exponent = math.log10(value) if value > 0 else 0.0
    if abs(exponent - round(exponent)) > 1e-6 or -3 <= round(exponent) <= 4:
        return number(value)
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + str(round(exponent)).translate(digits)
