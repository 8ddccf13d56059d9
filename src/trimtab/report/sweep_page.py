"""What stands on the page of a sweep: words and numbers of its summary and its trials, ready to be set."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trimtab.compare.summary import ArmSummary, PairSummary, PhaseSummary, Remark, SweepSummary
from trimtab.compare.words import interval, number
from trimtab.report import sweep_text
from trimtab.report.page import flat, show
from trimtab.report.sweep_plots import UNSET, Drawn, Seed
from trimtab.trial import TrialResult

MOST_ARMS = 60
"""So many arms of a phase are listed, the best ones first where there are more."""
MOST_TRIALS = 1_000
"""So many trials are listed, failed ones first where there are more."""
MOST_EVIDENCE = 40
"""So many numbers of a remark are shown."""
OPEN_TRIALS = 24
"""A table of more trials is folded away."""
MOST_SENTENCES = 20
"""So many sentences of a phase stand open."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What is told of a sweep beside its results.

    Attributes:
        name: of the sweep.
        target, preset: what was trained.
        command: how it was started; empty from Python.
        created: when, as text.
        versions: of the programs that made it.
        folder: of the sweep, where its runs and logs are looked for; None for none.
        plan: plain values; what was declared before.
    """

    name: str
    target: str = ""
    preset: str = ""
    command: str = ""
    created: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemarkRow:
    """A remark with its evidence as words."""

    remark: Remark
    evidence: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRow:
    """A row of the table of arms."""

    name: str
    baseline: bool
    rank: str
    n: str
    failed: int
    mean: str
    sd: str
    interval: str
    best: str
    final: str
    at: str
    cpu: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """A row of a table of comparisons."""

    arm: str
    n: str
    paired: bool
    difference: str
    interval: str
    p: str
    detectable: str
    needed: str
    verdict: str
    sure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The comparisons with one arm."""

    baseline: str
    declared: bool
    rows: tuple[PairRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakRow:
    """A row of the peak analysis: one arm."""

    phase: str
    arm: str
    n: int
    best: str
    at: str
    final: str
    fall: str
    fell: str
    cause: str
    r: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRow:
    """A row of the best checkpoints: one arm."""

    phase: str
    arm: str
    seed: int
    best: str
    at: int
    again: str
    agrees: bool | None
    where: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A row of the table of trials; `link` leads to the report of its run, `log` to what its process said."""

    phase: str
    arm: str
    seed: int
    status: str
    attempts: int
    start: str
    best: str
    at: str
    final: str
    steps: int
    cpu: str
    stop_reason: str
    findings: tuple[tuple[str, str], ...]
    run: str
    link: str
    log: str
    error: str


def severity_word(summary: SweepSummary) -> str:
    """Return the worst of what is wrong: a failed trial counts as an error; 'clear' where nothing is known."""
    if not any(phase.ranking for phase in summary.phases):
        return "error" if summary.totals.counts.get("failed") else "unjudged"
    worst = summary.remarks[0].severity if summary.remarks else "clear"
    return "error" if summary.totals.counts.get("failed") else worst


def know_first(summary: SweepSummary) -> str:
    """Return the sentence that a reader must not miss."""
    failed = summary.totals.counts.get("failed", 0)
    if not any(phase.ranking for phase in summary.phases):
        return f"{failed} of {summary.totals.trials} trials failed, and none has a result; their errors stand below."
    if summary.remarks:
        first = summary.remarks[0]
        more = len(summary.remarks) - 1
        return first.summary + (f" ({more} more below.)" if more else "")
    if failed:
        return f"{failed} of {summary.totals.trials} trials failed; their errors stand below."
    return "No rule found anything that speaks against this sweep. What its seeds can tell apart stands in each phase."


def key_facts(summary: SweepSummary, about: About) -> list[tuple[str, str]]:
    """Return the facts of the head of the page."""
    seeds = summary.totals.seeds
    facts = [
        ("Target", about.target + (f", preset {about.preset}" if about.preset else "")),
        ("Judged by", f"{summary.metric}, {summary.better} is better" if summary.metric else ""),
        ("Trials", sweep_text.trials(summary.totals.counts).partition(": ")[2]),
        ("Seeds", ", ".join(map(str, seeds)) if len(seeds) <= 12 else f"{len(seeds)} from {seeds[0]} to {seeds[-1]}"),
        ("CPU time", sweep_text.duration(summary.totals.cpu_seconds)),
        ("Remarks", sweep_text.warned(summary)),
    ]
    return [(name, value) for name, value in facts if value]


def remark_rows(remarks: Sequence[Remark]) -> list[RemarkRow]:
    """Return the remarks, each with its evidence."""
    rows = []
    for one in remarks:
        evidence = flat(one.evidence)
        more = len(evidence) - MOST_EVIDENCE
        shown = [*evidence[:MOST_EVIDENCE], ("and", f"{more:,} more, in summary.json")] if more > 0 else evidence
        rows.append(RemarkRow(remark=one, evidence=tuple(shown)))
    return rows


def arm_rows(phase: PhaseSummary) -> list[ArmRow]:
    """Return the arms of a phase; the best ones of very many."""
    return [_arm_row(phase, arm) for arm in sweep_text.shown_arms(phase, MOST_ARMS)]


def _arm_row(phase: PhaseSummary, arm: ArmSummary) -> ArmRow:
    spread = arm.sd if arm.sd > 0 else math.nan
    return ArmRow(
        name=arm.name,
        baseline=arm.name == phase.baseline and any(pair.declared for pair in phase.pairs),
        rank=str(arm.rank) if arm.rank else "-",
        n=str(arm.n) if arm.n == arm.trials else f"{arm.n} of {arm.trials}",
        failed=arm.failed,
        mean=_value(arm.mean, spread),
        sd=_value(arm.sd, spread),
        interval=interval(arm.interval) if arm.interval.known else "-",
        best=_value(arm.best, spread),
        final=_value(arm.final, spread),
        at=_value(arm.best_step),
        cpu=sweep_text.duration(arm.cpu_seconds),
        verdict=arm.verdict,
    )


def against(phase: PhaseSummary) -> list[Against]:
    """Return the comparisons of a phase, those with a declared baseline first."""
    pairs = sweep_text.shown_pairs(phase, sweep_text.shown_arms(phase, MOST_ARMS))
    return [
        Against(
            baseline=base,
            declared=next(pair.declared for pair in pairs if pair.baseline == base),
            rows=tuple(_pair_row(pair) for pair in pairs if pair.baseline == base),
        )
        for base in dict.fromkeys(pair.baseline for pair in pairs)
    ]


def _pair_row(pair: PairSummary) -> PairRow:
    width = pair.interval.high - pair.interval.low if pair.interval.known else math.nan
    return PairRow(
        arm=pair.arm,
        n=str(pair.n),
        paired=pair.paired,
        difference=_value(pair.difference, width),
        interval=interval(pair.interval) if pair.interval.known else "-",
        p=sweep_text.p_value(pair.p),
        detectable=sweep_text.size(pair.smallest_detectable),
        needed="-" if pair.seeds_to_tell is None else f"{pair.seeds_to_tell:,}",
        verdict=pair.verdict,
        sure=bool(pair.better),
    )


def peak_rows(summary: SweepSummary) -> list[PeakRow]:
    """Return the peak analysis, arm by arm."""
    rows = []
    for arm in summary.peak.arms[:MOST_ARMS]:
        r = arm.start_to_best
        rows.append(
            PeakRow(
                phase=arm.phase,
                arm=arm.arm,
                n=arm.n,
                best=_value(arm.best),
                at=_value(arm.best_step),
                final=_value(arm.final),
                fall=_value(float(f"{arm.degradation:.3g}")),
                fell=f"{arm.fell} of {arm.n}",
                cause=arm.cause if arm.fell else "",
                r="-" if math.isnan(r.r) else f"{r.r:.2f} {interval(r.interval) if r.interval.known else ''}".strip(),
            )
        )
    return rows


def checkpoint_rows(summary: SweepSummary) -> list[CheckpointRow]:
    """Return the best checkpoint of each arm that kept one."""
    rows = []
    for phase in summary.phases:
        for arm in sweep_text.shown_arms(phase, MOST_ARMS):
            best = arm.best_run
            if best is None or not best.checkpoint:
                continue
            rows.append(
                CheckpointRow(
                    phase=phase.name,
                    arm=arm.name,
                    seed=best.seed,
                    best=_value(best.best),
                    at=best.best_step,
                    again=sweep_text.verified(best.again, best.verified),
                    agrees=best.verified,
                    where=f"runs/{best.run}/{best.checkpoint}",
                    hash=best.checkpoint_hash[:12],
                )
            )
    return rows


def trial_rows(results: Sequence[TrialResult], folder: Path | None, beside: Path | None = None) -> list[TrialRow]:
    """Return the trials in the order given; of very many the failed ones and the first of the others.

    Args:
        results: every trial.
        folder: of the sweep; None where there is none to link to.
        beside: the folder of the page, that of the sweep when None.
    """
    links = _Links(folder, beside)
    shown = list(results)
    if len(shown) > MOST_TRIALS:
        failed = [result for result in shown if result.status == "failed"][:MOST_TRIALS]
        rest = [result for result in shown if result.status != "failed"][: MOST_TRIALS - len(failed)]
        kept = {id(result) for result in [*failed, *rest]}
        shown = [result for result in shown if id(result) in kept]
    return [_trial_row(result, links) for result in shown]


def _trial_row(result: TrialResult, links: _Links) -> TrialRow:
    return TrialRow(
        phase=result.trial.phase,
        arm=result.trial.arm,
        seed=result.trial.seed,
        status=result.status,
        attempts=result.attempts,
        start=_value(result.start),
        best=_value(result.best),
        at=str(result.best_step) if result.best_step >= 0 else "-",
        final=_value(result.final) if result.points else "-",
        steps=result.steps,
        cpu=sweep_text.duration(result.cpu_seconds) if result.cpu_seconds else "-",
        stop_reason=result.stop_reason,
        findings=result.findings,
        run=result.run,
        link=links.to("runs", result.run, "report.html") if result.run else "",
        log=links.to("logs", f"{result.trial.key}.txt"),
        error=result.error,
    )


@dataclass(frozen=True, slots=True)
class _Links:
    """Links from a page in `beside` to files in the folder of a sweep."""

    folder: Path | None
    beside: Path | None

    def to(self, *parts: str) -> str:
        """Return the link to a file; empty where it is not there."""
        if self.folder is None or not self.folder.joinpath(*parts).is_file():
            return ""
        way = os.path.relpath(self.folder.absolute(), (self.beside or self.folder).absolute())
        return "/".join(quote(part) for part in (*([] if way == "." else Path(way).parts), *parts))


def settings_table(phase: PhaseSummary) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the settings that vary, and for each arm that is shown its name and what it sets them to."""
    names = list(phase.varied)
    arms = sweep_text.shown_arms(phase, MOST_ARMS)
    return names, [(arm.name, [show(arm.settings.get(name, UNSET)) for name in names]) for arm in arms]


def drawn(phase: PhaseSummary, results: Sequence[TrialResult]) -> list[Drawn]:
    """Return the arms of a phase as the pictures take them: in the order planned, or by rank if they are too many.

    Args:
        phase: its summary.
        results: its trials.
    """
    by_arm: dict[str, list[TrialResult]] = {}
    for result in results:
        if result.trial.phase == phase.name and result.complete:
            by_arm.setdefault(result.trial.arm, []).append(result)
    declared = any(pair.declared for pair in phase.pairs)
    arms = []
    for arm in phase.arms:
        seeds = sorted(by_arm.get(arm.name, []), key=lambda result: result.trial.seed)
        arms.append(
            Drawn(
                name=arm.name,
                seeds=tuple(
                    Seed(
                        seed=one.trial.seed,
                        start=one.start,
                        best=one.best,
                        final=one.final,
                        score=one.best if phase.score == "best" else one.final,
                        points=one.points,
                    )
                    for one in seeds
                ),
                mean=arm.mean,
                low=arm.interval.low,
                high=arm.interval.high,
                failed=arm.failed,
                settings=arm.settings,
                rank=arm.rank,
                baseline=declared and arm.name == phase.baseline,
            )
        )
    return arms


def _value(value: float, width: float = math.nan) -> str:
    return "-" if math.isnan(value) else number(value, width)
