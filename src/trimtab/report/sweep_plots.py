"""The pictures of a sweep: seeds of arms, curves, best against end, settings against score, start against best.

Each function takes arms that are ready to be drawn and returns one `<svg>` element. An arm is told from the next by its
place or by its dashes and its marker as well as by its colour, so that the pictures can be read in grey.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from trimtab.report.ink import DASHES, INK, SERIES, SHADES, SMALL, STYLE, WIDTH, axes_on, canvas, element, number
from trimtab.trial import Point

ROW = 30
"""Height of an arm in a picture that gives each a row of its own."""
NAME_WIDTH = 22
"""Letters of an arm's name in one line beside its row; a longer name takes two lines and is then cut."""
MOST_ROWS = 16
"""So many arms get a row; the others stand in the table."""
MOST_CURVES = 6
"""So many arms are drawn as curves: as many as there are colours."""
MOST_SEEDS = 20
"""So many seeds of an arm are drawn as thin lines or arrows."""
MOST_LINES = 300
"""So many arms are drawn across parallel axes."""
FEW_LINES = 24
"""Of more arms only the best ones stand out."""
MOST_AXES = 7
"""So many settings get an axis; more cannot be read."""
MOST_POINTS = 600
"""So many trials are drawn in a scatter."""
MANY_TENTHS = 20.0
"""A setting whose largest value is so many times its smallest gets a logarithmic axis."""

UNSET = "as preset"
"""What a setting is called that an arm leaves alone."""

_MARKERS = ("o", "s", "^", "D", "v", "P")
_FARTHEST = 1e100


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One training of an arm: its seed, where it began, its best, its end and its curve; NaN where there is none."""

    seed: int
    start: float
    best: float
    final: float
    score: float
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One arm, ready to be drawn.

    Attributes:
        name: of the arm.
        seeds: its complete trainings.
        mean: of the scores; NaN if there is none.
        low, high: its 95 % interval; NaN if there is none.
        failed: how many of its trials failed.
        settings: by key, as the arm sets them.
        rank: 1 for the best mean; 0 where there is no score.
        baseline: whether the others are held against it.
    """

    name: str
    seeds: tuple[Seed, ...]
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    failed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 0
    baseline: bool = False


def leading(arms: Sequence[Drawn], most: int) -> list[Drawn]:
    """Return the arms in their order; of more than `most` the best ones by rank, and the baseline."""
    if len(arms) <= most:
        return list(arms)
    ranked = sorted(arms, key=lambda arm: (not arm.baseline, arm.rank == 0, arm.rank))[:most]
    return sorted(ranked, key=lambda arm: (arm.rank == 0, arm.rank))


def arm_means(key: str, title: str, arms: Sequence[Drawn], *, label: str) -> str:
    """Draw each arm as a row: every seed a dot, the mean with its interval, the same seed joined from arm to arm."""
    arms = leading(arms, MOST_ROWS)
    with rc_context(STYLE):
        figure, axes = _rows(arms, label, [one.score for arm in arms for one in arm.seeds], _ends(arms))
        for above, below in itertools.pairwise(range(len(arms))):
            partners = {one.seed: one.score for one in arms[below].seeds[:MOST_SEEDS]}
            for one in arms[above].seeds[:MOST_SEEDS]:
                ends = (one.score, partners.get(one.seed, math.nan))
                if all(map(math.isfinite, ends)):
                    axes.plot(ends, (above, below), color=INK["muted"], alpha=0.35, linewidth=0.8, zorder=1)
        for place, arm in enumerate(arms):
            if math.isfinite(arm.low) and math.isfinite(arm.high):
                axes.plot((arm.low, arm.high), (place, place), color=INK["series-0"], linewidth=5, alpha=0.32, zorder=2)
            scores = [one.score for one in arm.seeds if math.isfinite(one.score)]
            axes.plot(
                scores, [place] * len(scores), linestyle="", marker="o", markersize=4.6, color=INK["series-0"],
                markerfacecolor=INK["card"], markeredgewidth=1.2, zorder=3,
            )  # fmt: skip
            if math.isfinite(arm.mean):
                axes.plot([arm.mean] * 2, (place - 0.3, place + 0.3), color=INK["ink"], linewidth=2.2, zorder=4)
            if arm.baseline and math.isfinite(arm.mean):
                axes.axvline(arm.mean, color=INK["muted"], linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        return element(figure, key, title)


def peak_and_end(key: str, title: str, arms: Sequence[Drawn], *, label: str) -> str:
    """Draw each arm as a row: one arrow for each seed, from its best value (a dot) to its last one."""
    arms = leading(arms, MOST_ROWS)
    with rc_context(STYLE):
        ends = [value for arm in arms for one in arm.seeds[:MOST_SEEDS] for value in (one.best, one.final)]
        figure, axes = _rows(arms, label, ends, ())
        reach = abs(np.subtract(*axes.get_xlim()))
        for place, arm in enumerate(arms):
            seeds = arm.seeds[:MOST_SEEDS]
            offsets = np.linspace(-0.3, 0.3, len(seeds)) if len(seeds) > 1 else np.zeros(len(seeds))
            for one, offset in zip(seeds, offsets, strict=True):
                if not math.isfinite(one.best):
                    continue
                at = place + float(offset)
                axes.plot([one.best], [at], linestyle="", marker="o", markersize=3, color=INK["series-0"], zorder=3)
                if math.isfinite(one.final) and abs(one.final - one.best) > 0.004 * reach:
                    axes.annotate(
                        "", (one.final, at), (one.best, at), annotation_clip=False,
                        arrowprops={"arrowstyle": "-|>,head_width=0.14,head_length=0.28", "color": INK["series-1"],
                                    "linewidth": 1, "shrinkA": 0, "shrinkB": 0},
                    )  # fmt: skip
                elif not math.isfinite(one.final):
                    axes.plot([one.best], [at], linestyle="", marker="x", markersize=6, color=INK["fatal"], zorder=4)
        return element(figure, key, title)


def curves(key: str, title: str, arms: Sequence[Drawn]) -> str:
    """Draw the metric over the updates: a strong line for an arm's mean, a band from its worst to its best seed.

    The mean reaches as far as every seed of the arm was evaluated; beyond that the seeds stand alone, as thin lines.
    """
    arms = leading([arm for arm in arms if arm.seeds], MOST_CURVES)
    with rc_context(STYLE):
        legend = len(arms) > 1
        top = 22 + 16 * (math.ceil(len(arms) / 2) if legend else 0)
        figure = canvas()
        axes = axes_on(figure, left=56, right=12, top=top, bottom=38)
        values = [value for arm in arms for one in arm.seeds for _, value in one.points]
        _limits(axes, values, along="y")
        last = max((one.points[-1][0] for arm in arms for one in arm.seeds if one.points), default=1)
        axes.set_xlim(-0.01 * max(last, 1), max(last, 1) * 1.01)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        _quiet(axes, grid="y")
        axes.set_xlabel("updates", color=INK["muted"], labelpad=2)
        handles = []
        for place, arm in enumerate(arms):
            colour, dashes = INK[f"series-{place % SERIES}"], DASHES[place % len(DASHES)]
            for one in arm.seeds[:MOST_SEEDS]:
                axes.plot(
                    [step for step, _ in one.points], [_drawable(value) for _, value in one.points], color=colour,
                    linewidth=0.7, alpha=0.4, linestyle=dashes,
                )  # fmt: skip
            steps, table = _together(arm.seeds)
            if len(arm.seeds) > 1 and len(steps):
                axes.fill_between(steps, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.13, linewidth=0)
            (handle,) = axes.plot(
                steps, table.mean(axis=0), color=colour, linewidth=2, linestyle=dashes, label=_short(arm.name, 28),
                marker="o" if len(steps) == 1 else "", markersize=4, zorder=3,
            )  # fmt: skip
            handles.append(handle)
        if any(not math.isfinite(value) for value in values):
            axes.annotate(
                "some values are not finite", (1, 1), xycoords="axes fraction", xytext=(-4, -12), ha="right",
                textcoords="offset points", color=INK["fatal"], fontsize=SMALL,
            )  # fmt: skip
        if legend:
            figure.legend(
                handles=handles, ncols=2, loc="upper left", bbox_to_anchor=(44 / WIDTH, 1.0), frameon=False,
                handlelength=2.4, columnspacing=1.4, labelcolor=INK["ink"], borderpad=0.1, labelspacing=0.25,
            )  # fmt: skip
        return element(figure, key, title)


def parallel(key: str, title: str, arms: Sequence[Drawn], *, better: str, label: str) -> str:
    """Draw one line for each arm across its settings to its mean score; the better the score, the stronger the line."""
    scored = [arm for arm in arms if math.isfinite(arm.mean)]
    ranked = sorted(scored, key=lambda arm: arm.mean, reverse=better == "lower")  # the best is drawn last, on top
    if len(ranked) > MOST_LINES:
        ranked = [ranked[int(place)] for place in np.linspace(0, len(ranked) - 1, MOST_LINES)]
    names = varied(arms)[:MOST_AXES]
    columns = [_Column.of(name, [arm.settings.get(name, UNSET) for arm in ranked]) for name in names]
    columns.append(_Column.of(label, [arm.mean for arm in ranked]))
    with rc_context(STYLE):
        figure = canvas(250)
        axes = axes_on(figure, left=34, right=34, top=46, bottom=14)
        axes.set_axis_off()
        axes.set_xlim(0, len(columns) - 1)
        axes.set_ylim(-0.04, 1.04)
        for place, heights in enumerate(zip(*(column.heights for column in columns), strict=True)):
            share = ((place + 1) / len(ranked)) ** (1 if len(ranked) <= FEW_LINES else 3)
            axes.plot(
                range(len(columns)), heights, color=INK[f"h{2 + round((SHADES - 3) * share)}"],
                linewidth=0.7 + 1.3 * share, zorder=2,
            )  # fmt: skip
        letters = int((WIDTH - 68) / max(len(columns) - 1, 1) / 6.4)
        for at, column in enumerate(columns):
            axes.plot((at, at), (0, 1), color=INK["muted"], linewidth=1, zorder=3)
            side = {0: "left", len(columns) - 1: "right"}.get(at, "center")
            nudge = {"left": -30, "right": 30}.get(side, 0)
            box = {"facecolor": INK["card"], "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
            for height, words in column.ticks:
                axes.annotate(
                    _short(words, letters), (at, height), xytext=(nudge, 0), textcoords="offset points", ha=side,
                    va="center", color=INK["muted"], fontsize=SMALL, annotation_clip=False, bbox=box, zorder=4,
                )  # fmt: skip
            axes.annotate(
                _short(column.name, letters * (2 if len(columns) > 4 else 1)), (at, 1),
                xytext=(nudge, 13 + 14 * (at % 2 if len(columns) > 4 else 0)), textcoords="offset points", ha=side,
                color=INK["ink"], fontsize=SMALL, annotation_clip=False,
            )  # fmt: skip
        return element(figure, key, title)


def start_and_best(key: str, title: str, arms: Sequence[Drawn], *, metric: str) -> str:
    """Draw one point for each training: where it began against its best; on the dotted line nothing was gained."""
    with rc_context(STYLE):
        figure = canvas(264)
        few = 1 < len(arms) <= len(_MARKERS)
        rows = math.ceil(len(arms) / 2) if few else 0
        axes = axes_on(figure, left=60, right=22, top=14 + 16 * rows, bottom=40)
        pairs = [(one.start, one.best) for arm in arms for one in arm.seeds]
        pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
        _limits(axes, [start for start, _ in pairs], along="x")
        _limits(axes, [best for _, best in pairs], along="y")
        _quiet(axes, grid="both")
        low = max(axes.get_xlim()[0], axes.get_ylim()[0])
        high = min(axes.get_xlim()[1], axes.get_ylim()[1])
        if low < high:
            axes.plot((low, high), (low, high), color=INK["muted"], linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        left, handles = MOST_POINTS, []
        if not few:  # drawn alike, so at once: each call takes some milliseconds
            arms = [Drawn(name="", seeds=tuple(one for arm in arms for one in arm.seeds))]
        for place, arm in enumerate(arms):
            shown = [one for one in arm.seeds if math.isfinite(one.start) and math.isfinite(one.best)][:left]
            left -= len(shown)
            colour = INK[f"series-{place % SERIES}"] if few else INK["series-0"]
            (handle,) = axes.plot(
                [one.start for one in shown], [one.best for one in shown], linestyle="",
                marker=_MARKERS[place] if few else "o", markersize=4.6, color=colour, alpha=0.8,
                label=_short(arm.name, 28), zorder=2,
            )  # fmt: skip
            handles.append(handle)
        axes.set_xlabel(f"{_short(metric, 36)} before the first update", color=INK["muted"], labelpad=2)
        axes.set_ylabel("best", color=INK["muted"], labelpad=2)
        if few:
            figure.legend(
                handles=handles, ncols=2, loc="upper left", bbox_to_anchor=(48 / WIDTH, 1.0), frameon=False,
                handlelength=1.2, columnspacing=1.4, labelcolor=INK["ink"], borderpad=0.1, labelspacing=0.25,
            )  # fmt: skip
        return element(figure, key, title)


def varied(arms: Sequence[Drawn]) -> list[str]:
    """Return the settings that are not the same in all arms, in the order in which they are met."""
    names = dict.fromkeys(name for arm in arms for name in arm.settings)
    return [name for name in names if len({repr(arm.settings.get(name, UNSET)) for arm in arms}) > 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One upright axis: its name, the height in 0..1 of each line, and what stands beside it at which height."""

    name: str
    heights: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> _Column:
        """Return the axis of these values: numbers at their place, anything else at even distances."""
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < len(values) or not all(map(math.isfinite, numbers)):
            words = list(dict.fromkeys(_word(value) for value in values))
            step = 1 / max(len(words) - 1, 1)
            at = {word: place * step if len(words) > 1 else 0.5 for place, word in enumerate(words)}
            shown = words if len(words) <= 8 else [words[0], words[-1]]
            return cls(
                name=name,
                heights=tuple(at[_word(value)] for value in values),
                ticks=tuple((at[word], word) for word in shown),
            )
        low, high = min(numbers), max(numbers)
        steep = low > 0 and high >= MANY_TENTHS * low
        move = math.log10 if steep else float
        span = move(high) - move(low)
        heights = [(move(value) - move(low)) / span if span else 0.5 for value in numbers]
        few = sorted(set(zip(heights, map(number, numbers), strict=True)))
        if len(few) > 6:
            middle = 10 ** ((move(high) + move(low)) / 2) if steep else (high + low) / 2
            few = [(0.0, number(low)), (0.5, number(float(f"{middle:.2g}"))), (1.0, number(high))]
        kept: list[tuple[float, str]] = []
        for tick in few:
            if not kept or tick[0] - kept[-1][0] >= 0.075:
                kept.append(tick)
        return cls(name=name, heights=tuple(heights), ticks=tuple(kept))


def _word(value: Any) -> str:
    return number(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _ends(arms: Sequence[Drawn]) -> list[float]:
    return [value for arm in arms for value in (arm.low, arm.high, arm.mean)]


def _rows(arms: Sequence[Drawn], label: str, values: Sequence[float], more: Sequence[float]) -> tuple[Figure, Axes]:
    """Return a figure with a named row for each arm, from the top, and an axis for `values` below."""
    names = [_in_two_lines(arm.name) for arm in arms]
    letters = max((len(line) for name in names for line in name.split("\n")), default=1)
    troubles = [_trouble(arm) for arm in arms]
    figure = canvas(ROW * max(len(arms), 1) + 52)
    axes = axes_on(figure, left=22 + 6.3 * letters, right=76 if any(troubles) else 24, top=8, bottom=44)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    _limits(axes, [*values, *more], along="x")
    _quiet(axes, grid="x")
    axes.set_yticks(range(len(arms)), names, fontsize=SMALL, color=INK["ink"])
    axes.set_xlabel(_short(label, 60), color=INK["muted"], labelpad=2)
    for place, words in enumerate(troubles):
        if words:
            axes.annotate(
                words, (1, place), xycoords=axes.get_yaxis_transform(), xytext=(6, 0), textcoords="offset points",
                va="center", color=INK["error"], fontsize=SMALL, annotation_clip=False,
            )  # fmt: skip
    return figure, axes


def _in_two_lines(name: str) -> str:
    """Break a name where it has a space, else in its middle; one that needs more than two lines is cut."""
    lines = textwrap.wrap(name, NAME_WIDTH)
    if len(lines) > 2:
        short = _short(name, 2 * NAME_WIDTH)
        lines = [short[:NAME_WIDTH], short[NAME_WIDTH:]]
    return "\n".join(lines)


def _trouble(arm: Drawn) -> str:
    """Say in two short lines how many trials of an arm are not to be seen in its row."""
    lost = sum(not math.isfinite(one.score) for one in arm.seeds)
    return "\n".join(words for words in (arm.failed and f"{arm.failed} failed", lost and f"{lost} not finite") if words)


def _limits(axes: Axes, values: Sequence[float], *, along: str) -> None:
    """Set the range of one axis so that every finite value can be seen; logarithmic where they are steep."""
    finite = np.array([_drawable(value) for value in values if math.isfinite(value)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    axis = axes.xaxis if along == "x" else axes.yaxis
    set_scale = axes.set_xscale if along == "x" else axes.set_yscale
    set_limits = axes.set_xlim if along == "x" else axes.set_ylim
    if low > 0 and high > 50 * low:
        set_scale("log", nonpositive="mask")
        set_limits(low / 1.3, high * 1.3)
        axis.set_minor_locator(NullLocator())
    else:
        if (
            len(finite)
            and max(abs(low), abs(high)) > 1e4
            and max(abs(low), abs(high)) > 1e3 * np.median(np.abs(finite))
        ):
            set_scale("symlog", linthresh=max(float(np.median(np.abs(finite))), 1e-12))
        room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
        set_limits(low - room, high + room)
        axis.set_major_locator(MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(float(f"{value:.10g}"))))


def _quiet(axes: Axes, *, grid: str) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK["rule"])
    axes.grid(axis=grid, color=INK["rule"], linewidth=0.8)  # type: ignore[arg-type]  # a literal of three words
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK["muted"], pad=5)


def _together(seeds: Sequence[Seed]) -> tuple[Any, Any]:
    """Return the updates after which every seed was evaluated, and the finite values there, (seeds, updates)."""
    by_seed = [{step: value for step, value in one.points if math.isfinite(value)} for one in seeds]
    shared = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    return np.array(shared), np.array([[_drawable(values[step]) for step in shared] for values in by_seed])


def _drawable(value: float) -> float:
    return max(-_FARTHEST, min(_FARTHEST, value)) if math.isfinite(value) else math.nan


def _short(text: str, letters: int) -> str:
    """Cut a text in its middle: its end often tells it from the next."""
    if len(text) <= letters:
        return text
    head = max((letters - 1) // 2, 1)
    return f"{text[:head]}…{text[len(text) - max(letters - 1 - head, 1) :]}"
