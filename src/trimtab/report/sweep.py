"""The report of a sweep: one HTML file that opens from disk without a network, a script or anything beside it.

Links lead to the reports of single runs, where those stand in the sweep's folder.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from trimtab import __version__
from trimtab.compare.summary import PhaseSummary, SweepSummary
from trimtab.compare.words import interval
from trimtab.errors import UserError
from trimtab.report import sweep_page, sweep_plots, sweep_text
from trimtab.report.html import Drawing, environment
from trimtab.report.page import flat, show
from trimtab.report.sweep_page import About
from trimtab.report.sweep_plots import Drawn
from trimtab.trial import TrialResult

MOST_FAILED = 20
"""So many errors are printed; the other failed trials stand in the table."""
MOST_PHASES_DRAWN = 12
"""So many phases get their pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseOnPage:
    """One phase with all that the page says and draws of it."""

    key: str
    summary: PhaseSummary
    lead: str
    sentences: list[str]
    arms: list[sweep_page.ArmRow]
    left_out: int
    against: list[sweep_page.Against]
    drawings: list[Drawing]
    settings: tuple[list[str], list[tuple[str, list[str]]]]
    constant: list[tuple[str, str]]


def render(summary: SweepSummary, results: Sequence[TrialResult], about: About, *, beside: Path | None = None) -> str:
    """Return the report of a sweep as the text of one HTML file; the same sweep gives the same text.

    Args:
        summary: what is known of it.
        results: every trial.
        about: what stands beside them.
        beside: the folder in which the page will stand, for its links; that of the sweep when None.
    """
    trials = sweep_page.trial_rows(results, about.folder, beside)
    failed = [row for row in trials if row.status == "failed"]
    return environment().get_template("sweep.html").render(
        about=about,
        word=sweep_page.severity_word(summary),
        headline=sweep_text.headline(summary),
        by_phase=sweep_text.by_phase(summary),
        know_first=sweep_page.know_first(summary),
        key_facts=sweep_page.key_facts(summary, about),
        remarks=sweep_page.remark_rows(summary.remarks),
        phases=[_phase(place, phase, summary, results) for place, phase in enumerate(summary.phases)],
        metric=summary.metric,
        most_sentences=sweep_page.MOST_SENTENCES,
        peaks=sweep_page.peak_rows(summary),
        runs=len(summary.peak.runs),
        causes=[(cause, count) for cause, count in summary.peak.causes.items() if count and cause != "none"],
        scatter=_scatter(summary, results),
        checkpoints=sweep_page.checkpoint_rows(summary),
        counted=sweep_text.trials(summary.totals.counts),
        took=sweep_text.took(summary),
        trials=trials,
        total=len(results),
        open_trials=sweep_page.OPEN_TRIALS,
        failed=failed[:MOST_FAILED],
        more_failed=max(len(failed) - MOST_FAILED, 0),
        versions=", ".join(f"{name} {version}" for name, version in about.versions.items()),
        codes=", ".join(summary.totals.codes),
        plan=flat(about.plan),
        version=__version__,
    )  # fmt: skip


def write(summary: SweepSummary, results: Sequence[TrialResult], about: About, path: Path | None = None) -> Path:
    """Write the report of a sweep and return the file: `report.html` in its folder unless `path` says another.

    Raises:
        UserError: there is neither a folder nor a path, or the file cannot be written.
    """
    target = path or (about.folder / "report.html" if about.folder is not None else None)
    if target is None:
        raise UserError(f"report: sweep {about.name!r} has no folder; say by `path` where its report shall be written")
    try:
        target.write_text(render(summary, results, about, beside=target.parent), encoding="utf-8")
    except OSError as error:
        raise UserError(f"report: cannot write {target} ({error.strerror}); name another file with -o") from None
    return target


def as_json(summary: SweepSummary, results: Sequence[TrialResult], about: About) -> dict[str, Any]:
    """Return what the report says as nested dicts and lists; `trimtab.run.safe_json` writes it, NaN included."""
    return {
        "sweep": {
            "name": about.name,
            "path": None if about.folder is None else str(about.folder),
            "target": about.target,
            "preset": about.preset,
            "command": about.command,
            "created": about.created,
            "versions": dict(about.versions),
            "plan": about.plan,
        },
        "headline": sweep_text.headline(summary),
        "summary": summary.as_dict(),
        "trials": [{"key": result.trial.key, **result.as_dict()} for result in results],
    }


def _phase(place: int, phase: PhaseSummary, summary: SweepSummary, results: Sequence[TrialResult]) -> PhaseOnPage:
    rows = sweep_page.arm_rows(phase)
    arms = sweep_page.drawn(phase, results)
    key = f"phase-{place + 1}"
    drawings = _drawings(key, phase, arms, summary) if place < MOST_PHASES_DRAWN else []
    judged = f"judged by the {phase.score} {summary.metric}, {summary.better} is better" if summary.metric else ""
    parts = [f"{len(phase.arms)} arm{'s' if len(phase.arms) > 1 else ''}", judged, sweep_text.trials(phase.counts)]
    return PhaseOnPage(
        key=key,
        summary=phase,
        lead="; ".join(part for part in parts if part) + f"; {sweep_text.duration(phase.cpu_seconds)} of CPU.",
        sentences=sweep_text.sentences(phase),
        arms=rows,
        left_out=len(phase.arms) - len(rows),
        against=sweep_page.against(phase),
        drawings=drawings,
        settings=sweep_page.settings_table(phase),
        constant=[(name, show(value)) for name, value in phase.constant.items()],
    )


def _drawings(key: str, phase: PhaseSummary, arms: Sequence[Drawn], summary: SweepSummary) -> list[Drawing]:
    """Return the pictures of a phase; one that would show nothing is left out."""
    made: list[Drawing] = []
    direction = f"{summary.better} is better"
    scored = [arm for arm in arms if any(math.isfinite(one.score) for one in arm.seeds)]
    if not scored:
        return made
    paired = any(
        len({one.seed for one in above.seeds} & {one.seed for one in below.seeds}) > 0
        for above, below in itertools.pairwise(arms)
    )
    label = f"{phase.score} {summary.metric}, {direction}"
    means = sweep_plots.arm_means(f"{key}-means", "Every seed of every arm", arms, label=label)
    made.append(
        _drawing(
            "Every seed of every arm",
            f"Circles: the {phase.score} value of each seed. Upright stroke: mean; pale bar: its 95 % interval."
            + (" Thin lines join the same seed." if paired else "")
            + _beyond(len(arms), sweep_plots.MOST_ROWS, "arms"),
            means,
        )
    )
    if any(len(one.points) > 1 for arm in scored for one in arm.seeds):
        made.append(
            _drawing(
                "Best against end",
                f"A dot for the best value of each seed, an arrow to its last one; {direction}. A cross: it did not "
                "end in a number." + _beyond(len(arms), sweep_plots.MOST_ROWS, "arms"),
                sweep_plots.peak_and_end(f"{key}-peaks", "Best against end of every seed", arms, label=summary.metric),
            )
        )
        made.append(
            _drawing(
                "Over the updates",
                "Strong: mean over the seeds, as far as all were evaluated; band: from the lowest to the highest seed; "
                "thin: each seed." + _beyond(len(scored), sweep_plots.MOST_CURVES, "arms")
                + _beyond(max(len(arm.seeds) for arm in scored), sweep_plots.MOST_SEEDS, "seeds"),
                sweep_plots.curves(f"{key}-curves", f"{summary.metric} over the updates", arms),
            )
        )  # fmt: skip
    varied = sweep_plots.varied(arms)
    if len(varied) >= 2 and len(scored) >= 2:
        made.append(
            _drawing(
                "Settings and score",
                f"One line for each arm; the better its mean, the stronger the line; {direction}."
                + _beyond(len(scored), sweep_plots.MOST_LINES, "arms", "from best to worst")
                + _beyond(len(varied), sweep_plots.MOST_AXES, "settings"),
                sweep_plots.parallel(
                    f"{key}-settings", "Settings and score", arms, better=summary.better, label=f"mean {phase.score}"
                ),
            )
        )
    return made


def _scatter(summary: SweepSummary, results: Sequence[TrialResult]) -> Drawing | None:
    """Return where each run began against its best, over the whole sweep; None where fewer than two began somewhere."""
    groups = [
        Drawn(name=phase.name, seeds=tuple(one for arm in sweep_page.drawn(phase, results) for one in arm.seeds))
        for phase in summary.phases
    ]
    if len(groups) == 1:
        groups = sweep_page.drawn(summary.phases[0], results)
    known = [math.isfinite(one.start) and math.isfinite(one.best) for group in groups for one in group.seeds]
    if sum(known) < 2:
        return None
    r = summary.peak.start_to_best
    words = "" if math.isnan(r.r) else f" r = {r.r:.2f} {interval(r.interval) if r.interval.known else ''}, n = {r.n}."
    caption = "One point for each run; on the dotted line nothing was gained." + words
    groups = [group for group in groups if any(math.isfinite(one.start) for one in group.seeds)]
    svg = sweep_plots.start_and_best("start-and-best", "Start against best", groups, metric=summary.metric)
    return _drawing("Start against best", caption + _beyond(sum(known), sweep_plots.MOST_POINTS, "runs"), svg)


def _drawing(title: str, caption: str, svg: str) -> Drawing:
    return Drawing(title=title, caption=caption, svg=Markup(svg))


def _beyond(count: int, most: int, what: str, which: str = "the leading ones") -> str:
    """Say that not all are drawn; nothing where they are."""
    return f" {most} of {count} {what} are drawn, {which}." if count > most else ""
