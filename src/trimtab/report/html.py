"""The report: one HTML file that opens from disk without a network, a script or anything beside it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from trimtab import __version__
from trimtab.diagnose import Verdict, diagnose
from trimtab.errors import UserError
from trimtab.records import Note, Severity
from trimtab.report import page, plots
from trimtab.report.ink import SHADES, number
from trimtab.report.panels import panel_rows
from trimtab.report.series import Heat, Line, Signals, gather
from trimtab.run import Run
from trimtab.run.shown import Shown

MOST_BYTES = 1_500_000
"""A report is never larger."""
MOST_HEAT_ROWS = 48
"""A heat map of more tensors joins neighbours."""
MOST_METRICS = 12
"""So many recorded quantities are drawn."""

_TITLES = {
    "loss": ("Training loss", "auto", "Mean of the backward passes of an update."),
    "gradient_norm": ("Gradient norm", "log", "Global L2 norm, unscaled; solid before clipping."),
    "learning_rate": ("Learning rate", "auto", "As the optimizer was about to use it, for each parameter group."),
    "update_ratio": ("Update ratio", "log", "How far an update moves the weights, as a share of their norm."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One figure of the page."""

    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatRow:
    """One row of the heat map: a tensor, or several neighbours, as one path for each shade."""

    label: str
    svg: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """The gradient norm of every tensor over the steps, in forward order."""

    stream: str
    rows: tuple[HeatRow, ...]
    first: int
    last: int
    low: str
    high: str
    bad: bool
    zero: bool
    joined: bool
    renamed: int


def render(run: Run, verdict: Verdict) -> str:
    """Return the report of a run as the text of one HTML file; the same run gives the same text."""
    remarks = list(verdict.remarks)
    signals: Signals = page.safely(lambda: gather(run.rows()), Signals(), remarks)
    notes: list[Note] = page.safely(run.notes, [], remarks)
    config: Mapping[str, Any] = page.safely(run.config, {}, remarks)
    panels: Mapping[str, Shown] = page.safely(run.shown, {}, remarks)
    findings = page.finding_rows(verdict, signals.last, run.facts.system)
    causes = page.cause_rows(verdict)
    text = environment().get_template("template.html").render(
        run=run,
        facts=run.facts,
        verdict=verdict,
        word=page.severity_word(verdict.severity, verdict.judged),
        headline=page.headline(verdict),
        lead=page.lead(verdict),
        next_action=page.next_action(verdict),
        key_facts=page.key_facts(run, verdict, signals.last, signals.rows),
        ended=page.how_it_ended(run),
        traceback=str((run.facts.how or {}).get("traceback", "")),
        causes=causes,
        leading=page.LEADING,
        findings=findings,
        last=max(signals.last.values(), default=0),
        drawings=_drawings(signals, findings, notes, config),
        heat_maps=[_heat_map(stream, heat) for stream, heat in signals.heat.items()],
        panels=panel_rows(panels),
        changed=[(key, page.show(a), page.show(b)) for key, (a, b) in verdict.settings_changed.items()],
        settings=page.flat(page.safely(run.settings, {}, remarks)),
        config=page.flat(config.get("config") or {}),
        thresholds=page.flat(config.get("trimtab") or {}),
        environment=page.flat(page.safely(run.environment, {}, remarks)),
        notes=[note for note in notes if note.kind not in ("ignore", "metric")],
        answers=page.answer_rows(verdict.outcomes),
        log=page.log_tail(run),
        remarks=list(dict.fromkeys([*remarks, *run.remarks])),
        show=page.show,
        version=__version__,
    )  # fmt: skip
    return text


def write(run: Run, path: Path | None = None, verdict: Verdict | None = None) -> Path:
    """Write the report of a run and return the file: `report.html` in the run folder unless `path` says another.

    Raises:
        UserError: the file cannot be written.
    """
    target = run.path / "report.html" if path is None else Path(path)
    text = render(run, verdict or diagnose(run))
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"report: cannot write {target} ({error.strerror}); name another file with -o") from None
    return target


def prose(text: object) -> Markup:
    """Set words between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(str(text)))))


@cache
def environment() -> Environment:
    """Return what sets the templates of this folder; what a user wrote is text in them, never markup."""
    made = Environment(
        loader=PackageLoader("trimtab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["prose"] = prose
    return made


def _drawings(
    signals: Signals, findings: Sequence[page.FindingRow], notes: Sequence[Note], config: Mapping[str, Any]
) -> list[Drawing]:
    last = max(signals.last.values(), default=0)
    marks = [
        plots.Mark(step=row.finding.since_step, severity=str(row.finding.severity), label=row.label)
        for row in findings
        if row.finding.severity >= Severity.WARNING and row.finding.since_step >= 0
    ]
    targets = _targets(config)
    drawings = []
    for name, (title, scale, caption) in _TITLES.items():
        lines = list(signals.lines.get(name, []))
        if name == "gradient_norm":
            lines += _where_clipped(signals)
        if lines:
            more = signals.left_out.get(name)
            caption += (
                f" The first {len({line.label for line in lines})} groups; {more} more are not drawn." if more else ""
            )
            svg = plots.draw(name, title, lines, marks=marks, scale=scale, last=last, targets=targets.pop(name, ()))
            drawings.append(Drawing(title=title, caption=caption, svg=Markup(svg)))
    better = {note.text: str(note.facts.get("better", "")) for note in notes if note.kind == "metric"}
    by_base: dict[str, list[Line]] = {}
    for name, lines in signals.metrics.items():
        by_base.setdefault(name.rpartition("/")[2], []).extend(lines)
    for base, lines in list(by_base.items())[:MOST_METRICS]:
        names = list(dict.fromkeys(line.name for line in lines))
        direction = next((better[name] for name in names if better.get(name)), "")
        caption = f"Recorded as {', '.join(names)}." + (f" {direction.capitalize()} is better." if direction else "")
        title = names[0].replace("/", " ") if len(names) == 1 else base
        svg = plots.draw(
            f"metric-{len(drawings)}", title, lines, marks=marks, last=last,
            targets=[target for name in names for target in targets.get(name, ())],
        )  # fmt: skip
        drawings.append(Drawing(title=title[:1].upper() + title[1:], caption=caption, svg=Markup(svg)))
    return drawings


def _where_clipped(signals: Signals) -> list[Line]:
    """Return the applied norm of the streams where it ever differed from the norm before clipping."""
    before = {(line.stream, line.attempt): line for line in signals.lines.get("gradient_norm", [])}
    differing = []
    for line in signals.lines.get("gradient_norm_applied", []):
        other = before.get((line.stream, line.attempt))
        same = other is not None and np.nanmedian(np.abs(_ratio(line, other) - 1)) < 1e-3
        if not same:
            differing.append(line)
    return differing


def _ratio(line: Line, other: Line) -> Any:
    at = np.interp(line.steps, other.steps, np.where(np.isfinite(other.values), other.values, np.nan))
    with np.errstate(all="ignore"):
        ratio = np.where(at > 0, line.values / at, 1.0)
    return np.where(np.isfinite(ratio), ratio, 1.0)


def _targets(config: Mapping[str, Any]) -> dict[str, list[plots.Target]]:
    declared = (((config.get("trimtab") or {}).get("detectors") or {}).get("milestone-missed") or {}).get("milestones")
    targets: dict[str, list[plots.Target]] = {}
    for one in declared or ():
        sign = {">=": "≥", "<=": "≤"}.get(one["comparison"], one["comparison"])
        word = "at" if one.get("counts") == "last" else "by"
        label = f"{sign} {number(float(one['value']))} {word} {one['by_step']}"
        target = plots.Target(step=int(one["by_step"]), value=float(one["value"]), label=label, below=sign in "≥>")
        targets.setdefault(str(one["metric"]), []).append(target)
    return targets


def _heat_map(stream: str, heat: Heat) -> HeatMap:
    every, labels = _lasting(heat)
    cells, names = _joined(every, labels)
    positive = cells[np.isfinite(cells) & (cells > 0)]
    low, high = np.quantile(positive, (0.02, 0.98)) if len(positive) else (1e-3, 1.0)
    middle = math.sqrt(low * high)
    low, high = max(min(low, middle / 10), high / 1e4), max(high, middle * 10)
    with np.errstate(all="ignore"):
        place = np.log(cells / low) / math.log(high / low) * SHADES
    shades = np.clip(np.nan_to_num(place, nan=0, posinf=0, neginf=0), 0, SHADES - 1).astype(int)
    rows = []
    for label, values, shade in zip(names, cells, shades, strict=True):
        kinds = ["" if v == -1 else "bad" if not math.isfinite(v) else "zero" if v == 0 else f"h{s}"
                 for v, s in zip(values, shade, strict=True)]  # fmt: skip
        rows.append(HeatRow(label=label, svg=Markup(_strip(kinds))))
    return HeatMap(
        stream=stream,
        rows=tuple(rows),
        first=heat.first,
        last=heat.first + heat.columns * heat.width - 1,
        low=page.show(float(f"{low:.1g}")),
        high=page.show(float(f"{high:.1g}")),
        zero=bool((cells == 0).any()),
        bad=bool((~np.isfinite(cells)).any()),
        joined=len(names) < len(labels),
        renamed=len(heat.labels) - len(labels),
    )


def _lasting(heat: Heat) -> tuple[Any, list[str]]:
    """Return cells and labels, without names that tensors had in the first bin alone, before all models were known."""
    lasting = (heat.cells[:, 1:] != -1).any(axis=1) if heat.columns > 8 else np.ones(len(heat.labels), dtype=bool)
    return heat.cells[lasting], [label for label, lasts in zip(heat.labels, lasting, strict=True) if lasts]


def _joined(cells: Any, labels: list[str]) -> tuple[Any, list[str]]:
    """Return cells and labels; of too many tensors neighbours are joined, the largest norm of each bin standing."""
    if len(labels) <= MOST_HEAT_ROWS:
        return cells, labels
    pairs = list(itertools.pairwise(np.linspace(0, len(labels), MOST_HEAT_ROWS + 1).astype(int)))
    joined = np.stack([cells[a:b].max(axis=0) for a, b in pairs])
    return joined, [f"{labels[a]} … {labels[b - 1]}" if b - a > 1 else labels[a] for a, b in pairs]


def _strip(kinds: Sequence[str]) -> str:
    """Return a row of cells as an SVG one unit high, equal neighbours drawn as one."""
    paths: dict[str, str] = {}
    begin = 0
    for place in range(1, len(kinds) + 1):
        if place == len(kinds) or kinds[place] != kinds[begin]:
            if kinds[begin]:
                width = place - begin
                paths[kinds[begin]] = paths.get(kinds[begin], "") + f"M{begin} 0h{width}v1h-{width}z"
            begin = place
    body = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items())
    return f'<svg viewBox="0 0 {len(kinds)} 1" preserveAspectRatio="none" aria-hidden="true">{body}</svg>'
