"""The signals of a run as lines over its steps, with findings and milestones marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from trimtab.report.ink import DASHES, INK, SERIES, STYLE, WIDTH, axes_on, canvas, element, number, power
from trimtab.report.series import Floats, Line

MOST_MARKS = 12
"""So many findings are marked in one drawing; the rest stand in the table."""
MOST = 1e100
"""Values beyond are drawn as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A finding in a drawing: where it opened, how bad it was, what it is called there."""

    step: int
    severity: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A declared milestone: the value to reach by a step; `below` says where its label has room."""

    step: int
    value: float
    label: str
    below: bool = False


def draw(
    key: str,
    title: str,
    lines: Sequence[Line],
    *,
    marks: Sequence[Mark] = (),
    targets: Sequence[Target] = (),
    scale: str = "auto",
    last: int = 0,
) -> str:
    """Return one drawing as an `<svg>` element.

    Args:
        key: prefix of the ids in the drawing; another one for each drawing of a page.
        title: what a screen reader says.
        lines: what is drawn; several get a legend.
        marks: findings, drawn as upright lines.
        targets: milestones.
        scale: "linear", "log", or "auto", which takes the one on which the values can be seen.
        last: the last step of the axis.
    """
    lines = [_within(line) for line in lines]
    values = np.concatenate([line.values for line in lines]) if lines else np.empty(0)
    with rc_context(STYLE):
        figure = canvas()
        names = _names(lines)
        legend = len(set(names)) > 1
        rows = math.ceil(len(set(names)) / 2) if legend else 0
        top = 22 + 16 * rows
        axes = axes_on(figure, left=56, right=12, top=top, bottom=38)
        _scale(axes, values, scale, targets)
        _frame(axes, last)
        first = _draw_lines(axes, lines, names)
        _draw_marks(axes, marks)
        for target in targets:
            _draw_target(axes, target, last)
        if legend:
            handles = [first[name] for name in dict.fromkeys(names)]
            figure.legend(
                handles=handles, ncols=2, loc="upper left", bbox_to_anchor=(44 / WIDTH, 1.0), frameon=False,
                handlelength=1.8, columnspacing=1.4, labelcolor=INK["ink"], borderpad=0.1, labelspacing=0.25,
            )  # fmt: skip
    return element(figure, key, title)


def _within(line: Line) -> Line:
    """Bring finite values within what an axis can be drawn for; none of them is zero that was not."""
    values = line.values
    finite = np.isfinite(values) & (values != 0)
    size = np.clip(np.abs(values, where=finite, out=np.ones_like(values)), 1 / MOST, MOST)
    smooth = line.smooth and (line.smooth[0], np.clip(line.smooth[1], -MOST, MOST))
    return replace(line, values=np.where(finite, np.copysign(size, values), values), smooth=smooth)


def _names(lines: Sequence[Line]) -> list[str]:
    """Return what each line is called: no more words than it takes to tell them apart."""
    streams = len({line.stream for line in lines}) > 1
    labels = len({line.label for line in lines}) > 1
    signals = len({line.name for line in lines}) > 1
    names = []
    for line in lines:
        parts = [line.name if signals else "", line.stream if streams else "", line.label if labels else ""]
        names.append(" · ".join(part for part in parts if part))
    return names


def _scale(axes: Axes, values: Floats, scale: str, targets: Sequence[Target]) -> None:
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    steep = len(positive) == len(finite) > 0 and positive.max() > 50 * positive.min()
    if scale == "log" or (scale == "auto" and steep):
        if not len(positive):
            axes.set_ylim(0, 1)
            return
        axes.set_yscale("log", nonpositive="mask")
        low, high = positive.min(), positive.max()
        low, high = (low / 3, high * 3) if high < 10 * low else (low / 1.3, high * 1.3)
        axes.set_ylim(low, high)
        fine = (1.0, 2.0, 5.0) if high < 120 * low else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=fine, numticks=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    else:
        reach = np.concatenate([finite, [target.value for target in targets]])
        low, high = (reach.min(), reach.max()) if len(reach) else (0.0, 1.0)
        if np.abs(reach).max(initial=0) > 1e4 and scale != "linear" and high - low > 0 and low < 0:
            axes.set_yscale("symlog", linthresh=max(float(np.median(np.abs(finite))), 1e-12))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _frame(axes: Axes, last: int) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK["rule"])
    axes.grid(axis="y", color=INK["rule"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK["muted"], pad=5)
    axes.set_xlim(-0.01 * max(last, 1), max(last, 1) * 1.01)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_xlabel("step", color=INK["muted"], labelpad=2)


def _draw_lines(axes: Axes, lines: Sequence[Line], names: Sequence[str]) -> dict[str, object]:
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    first: dict[str, object] = {}
    across, said = axes.get_xaxis_transform(), False
    for line, name in zip(lines, names, strict=True):
        place, smooth = order[name], line.smooth
        colour = INK[f"series-{place % SERIES}"]
        finite = np.isfinite(line.values)
        values = np.where(finite, line.values, np.nan)
        (handle,) = axes.plot(
            line.steps, values, color=colour, label=name, linestyle=DASHES[place // SERIES % len(DASHES)],
            linewidth=1.6 if smooth is None else 0.9, alpha=0.4 if line.faint or smooth is not None else 1.0,
            marker="o" if len(line.steps) <= 40 else "", markersize=3.2, solid_joinstyle="round",
        )  # fmt: skip
        if smooth is not None:
            (handle,) = axes.plot(*smooth, color=colour, linewidth=1.8, alpha=0.4 if line.faint else 1.0, zorder=3)
            handle.set_label(name)
        if name not in first or not line.faint:
            first[name] = handle
        if not finite.all():
            bad = line.steps[~finite]
            axes.plot(
                bad, np.full(len(bad), 0.965), transform=across, linestyle="", marker="v", markersize=6,
                color=INK["fatal"], clip_on=False, zorder=5,
            )  # fmt: skip
            if said:
                continue
            said = True
            left = bad[0] < 0.7 * axes.get_xlim()[1]
            box = {"facecolor": INK["card"], "edgecolor": "none", "pad": 1.5}
            axes.annotate(
                "not finite", (float(bad[0]), 0.965), xycoords=across, xytext=(7 if left else -9, -11),
                textcoords="offset points", color=INK["fatal"], fontsize=11.5, ha="left" if left else "right",
                bbox=box,
            )  # fmt: skip
    return first


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    across = axes.get_xaxis_transform()
    taken: list[float] = []
    room = 0.06 * (axes.get_xlim()[1] - axes.get_xlim()[0])
    for mark in sorted(marks, key=lambda mark: mark.step)[:MOST_MARKS]:
        colour = INK[mark.severity]
        axes.plot(
            [mark.step] * 2, [0, 1], transform=across, color=colour, linewidth=1.1, linestyle=(0, (3, 2)), zorder=1
        )
        if all(abs(mark.step - other) >= room for other in taken):
            taken.append(mark.step)
            axes.annotate(
                mark.label, (mark.step, 1.0), xycoords=across, xytext=(0, 3), textcoords="offset points",
                color=colour, fontsize=11.5, ha="center", annotation_clip=False,
            )  # fmt: skip


def _draw_target(axes: Axes, target: Target, last: int) -> None:
    colour = INK["muted"]
    step = min(target.step, last)
    axes.plot([0, step], [target.value] * 2, color=colour, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.plot([step], [target.value], color=colour, marker="D", markersize=4.5, linestyle="", zorder=4)
    right = step > 0.5 * last
    axes.annotate(
        target.label, (step, target.value), xytext=(-8 if right else 8, -13 if target.below else 5),
        textcoords="offset points", color=colour, fontsize=11.5, ha="right" if right else "left",
    )  # fmt: skip
