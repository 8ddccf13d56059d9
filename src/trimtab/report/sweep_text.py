"""A sweep in plain text: what to know before believing it, each phase's arms and pairs, the best checkpoints.

Every line fits a terminal of 80 columns, save names that are longer; nothing depends on colours.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from trimtab.compare.summary import WEIGHTS, ArmSummary, PairSummary, PhaseSummary, Remark, SweepSummary
from trimtab.compare.words import interval, listed, number
from trimtab.statistics import ALPHA
from trimtab.trial import ENDED

COLUMNS = 80
"""Lines are broken to fit so many."""
MOST_ARMS = 16
"""So many arms of a phase are listed, the best ones first where there are more; the JSON document has all."""
MOST_VERDICTS = 12
"""So many sentences of a phase are printed."""
NOT_TOLD = "not distinguishable"
"""How the verdict of a pair begins that shows no difference."""
NAME = 19
"""Letters of a name that fit beside its numbers; a longer name has a line of its own."""


def closing(summary: SweepSummary) -> list[str]:
    """Return what to say when a sweep is over: headline, remarks, phases, best checkpoints, what it took."""
    lines = [*_wrapped(headline(summary), ""), *_wrapped(counted(summary), "")]
    lines += [line for name, found in by_phase(summary) for line in _wrapped(f"{name}: {found}", "  ")]
    lines += _remarks(summary.remarks)
    for phase in summary.phases:
        lines += ["", *_phase(phase, summary)]
    lines += _checkpoints(summary)
    if len(summary.phases) > 1:
        lines += ["", "trials and CPU time of each phase", *_table(TOOK, took(summary))]
    lines += ["", *_legend(summary.phases)]
    return [line.rstrip() for line in lines]


def headline(summary: SweepSummary) -> str:
    """Say in one sentence what the sweep found."""
    with_result = [phase for phase in summary.phases if phase.ranking]
    if not with_result:
        return "No trial has a result."
    if len(with_result) == 1:
        return _found(with_result[0])
    several = [phase for phase in with_result if len(phase.ranking) > 1]
    firm = [phase for phase in several if _others(phase) > len(phase.tied)]
    near = [phase for phase in several if phase.behind and phase not in firm]
    if not several:
        return f"{len(with_result)} phases with one arm each: nothing is compared."
    if not firm and not near:
        return f"In none of {len(several)} phases can any arm be told from the best one."
    if not firm:
        return f"In {len(near)} of {len(several)} phases the best arm is ahead of others by the interval alone."
    whole = [phase for phase in firm if not phase.tied]
    said = f"The best arm is told from others in {len(firm)} of {len(several)} phases"
    said += f", from all of them in {len(whole)}" if whole else ", in none of them from all"
    return said + (f"; in {len(near)} more it is ahead by the interval alone." if near else ".")


def by_phase(summary: SweepSummary) -> list[tuple[str, str]]:
    """Return what each phase found, (name, sentence); nothing where the headline says it already."""
    with_result = [phase for phase in summary.phases if phase.ranking]
    return [(phase.name, _found(phase)) for phase in with_result] if len(with_result) > 1 else []


def _found(phase: PhaseSummary) -> str:
    best = phase.arm(phase.ranking[0])
    value = f"{phase.score} {number(best.mean, best.sd)}, n={best.n}"
    if _others(phase) == 0:
        unranked = len(phase.arms) - 1
        more = f"; {_plural(unranked, 'other arm')} without a result" if unranked else ""
        return f"{best.name}: {value}{more}."
    others = {1: "the other one", 2: "both others"}.get(_others(phase), f"all {_others(phase)} others")
    if not phase.tied:
        return f"{best.name} is best ({value}), told from {others}."
    told, near = _others(phase) - len(phase.tied), len(phase.behind)
    if not told and not near and best.n == 1:
        return f"{best.name} has the best value ({value}), but one seed an arm tells nothing apart."
    if not told and not near:
        return f"No arm can be told from {best.name}, the best by its mean ({value})."
    said = f"{best.name} is best by its mean ({value})"
    said += f", told from {told} of {_others(phase)} others" if told else ""
    if near:
        whom = others if near == _others(phase) else f"{near} more" if told else f"{near} of {_others(phase)} others"
        settled = _settled(phase)
        said += f", ahead of {whom} by the interval alone" + (f"; {settled}" if settled else "")
    return said + "."


def _settled(phase: PhaseSummary) -> str:
    """Say how many seeds could settle what the interval alone says; empty where it is not for lack of seeds."""
    blind = [
        pair
        for pair in phase.pairs
        if pair.ahead and phase.ranking[0] in (pair.arm, pair.baseline) and pair.lowest_p >= ALPHA
    ]
    needed = max((pair.seeds_to_tell or 0 for pair in blind), default=0)
    has = min((pair.n for pair in blind), default=0)
    return f"{has} seeds an arm are too few for the test, {needed} could settle it" if needed else ""


def _others(phase: PhaseSummary) -> int:
    """Return how many arms have a result beside the best one."""
    return len(phase.ranking) - 1


def counted(summary: SweepSummary) -> str:
    """Say how many trials there were and how they ended, and how much there is to know before believing it."""
    return f"{trials(summary.totals.counts)}, {duration(summary.totals.cpu_seconds)} of CPU; {warned(summary)}"


def warned(summary: SweepSummary) -> str:
    """Say how many remarks there are, by weight: '2 errors, 1 warning'."""
    weights = Counter(remark.severity for remark in summary.remarks)
    return ", ".join(_plural(weights[weight], weight) for weight in WEIGHTS if weights[weight]) or "no remarks"


def trials(counts: Mapping[str, int]) -> str:
    """Say how trials ended: '55 trials: 53 finished, 2 failed'."""
    order = [status for status in ENDED if counts.get(status)] + [one for one in counts if one not in ENDED]
    return f"{_plural(sum(counts.values()), 'trial')}: " + (
        ", ".join(f"{counts[status]} {status}" for status in order) or "none"
    )


def duration(seconds: float) -> str:
    """Write a time as a person says it: 4.2 s, 3.1 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def p_value(p: float) -> str:
    """Write a p-value; '-' where there is no test."""
    return "-" if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.2g}"


def size(value: float) -> str:
    """Write a smallest detectable difference; 'any size' cannot be detected with one seed."""
    return "none" if math.isinf(value) else "-" if math.isnan(value) else number(value, value)


def shown_arms(phase: PhaseSummary, most: int) -> list[ArmSummary]:
    """Return the arms to show: all in the order planned, or the `most` best ones and the baseline."""
    if len(phase.arms) <= most:
        return list(phase.arms)
    ranked = sorted(phase.arms, key=lambda arm: (arm.rank == 0, arm.rank))
    best = ranked[:most]
    return best + [arm for arm in ranked[most:] if arm.name == phase.baseline]


def shown_pairs(phase: PhaseSummary, arms: Iterable[ArmSummary]) -> list[PairSummary]:
    """Return the pairs of the arms that are shown."""
    names = {arm.name for arm in arms}
    return [pair for pair in phase.pairs if pair.arm in names and pair.baseline in names]


def _remarks(remarks: Sequence[Remark]) -> list[str]:
    lines = [""] if remarks else []
    for remark in remarks:
        where = f", phase {remark.phase}" if remark.phase else ""
        lines += _wrapped(f"{remark.severity}: {remark.summary} ({remark.code}{where})", "  ")
    return lines


def _phase(phase: PhaseSummary, summary: SweepSummary) -> list[str]:
    title = f"phase {phase.name}" if phase.name else "arms"
    head = f"{title}: {phase.score} {summary.metric}, {summary.better} is better; {trials(phase.counts)}"
    arms = shown_arms(phase, MOST_ARMS)
    lines = _wrapped(head, "  ")
    other = "final" if phase.score == "best" else "best"
    headings = ("arm", "n", "mean +- sd", "95 % interval", other, "best at")
    lines += _table(headings, [_arm(arm, other) for arm in arms])
    if len(arms) < len(phase.arms):
        lines.append(f"  and {len(phase.arms) - len(arms)} more arms, worse by their mean or without a result")
    pairs = shown_pairs(phase, arms)
    for base in dict.fromkeys(pair.baseline for pair in pairs):
        its = [pair for pair in pairs if pair.baseline == base]
        called = "the baseline" if its[0].declared else "the best mean"
        lines += ["", f"  against {base}, {called}"]
        lines += _table(("arm", "n", "difference", "95 % interval", "p", "detectable"), [_pair(pair) for pair in its])
    every = sentences(phase)
    said = every[:MOST_VERDICTS]
    lines += [""] if said else []
    for sentence in said:
        lines += _wrapped(f"- {sentence}", "  ")
    if len(said) < len(every):
        lines.append(f"  and {len(every) - len(said)} more; --format json has all")
    return lines


def sentences(phase: PhaseSummary) -> list[str]:
    """Return what is said of a phase in words; arms that cannot be told from the same one share a sentence."""
    said = [sentence for sentence in phase.verdicts if sentence.startswith("ranking: ")]
    said += [f"{arm.name}: {arm.verdict}" for arm in phase.arms if arm.verdict]
    alike: dict[tuple[str, int], list[str]] = {}
    for pair in phase.pairs:
        if pair.n and pair.verdict.startswith(NOT_TOLD):
            alike.setdefault((pair.baseline, pair.n), []).append(pair.arm)
    results = {arm.name for arm in phase.arms if arm.n}
    for pair in phase.pairs:
        if pair.arm not in results or pair.baseline not in results:
            continue  # said of the arm
        its = alike.get((pair.baseline, pair.n), [])
        if pair.arm not in its or len(its) == 1:
            said.append(f"{pair.arm} against {pair.baseline}: {pair.verdict}")
        elif pair.arm == its[0]:
            said.append(f"{NOT_TOLD} from {pair.baseline} with n={pair.n}: {listed(its, MOST_ARMS)}")
    return said


def _legend(phases: Sequence[PhaseSummary]) -> list[str]:
    """Say what the columns mean, once for all tables."""
    lines = ["how to read the tables"]
    lines += _wrapped("n: runs with a score, of those planned; sd with n - 1; interval: Student's, of the mean; final, "
                      "best: means; best at: median of the updates done", "  ")  # fmt: skip
    if any(phase.pairs for phase in phases):
        lines += _wrapped("p: sign-flip test on pairs, after Holm's correction; detectable: the smallest difference "
                          "that a t-test of so many seeds finds in 80 of 100 sweeps; better: p below 0.05 and an "
                          "interval away from 0", "  ")  # fmt: skip
    for note in dict.fromkeys(phase.coverage for phase in phases if phase.ranking and phase.coverage):
        lines += _wrapped(note, "  ")
    return lines


def _arm(arm: ArmSummary, other: str) -> tuple[str, ...]:
    n = f"{arm.n}" if arm.n == arm.trials else f"{arm.n}/{arm.trials}"
    spread = arm.sd if arm.sd > 0 else math.nan
    mean = "-" if math.isnan(arm.mean) else number(arm.mean, spread)
    sd = "" if math.isnan(arm.sd) else f" +- {number(arm.sd, spread)}"
    around = interval(arm.interval) if arm.interval.known else "-"
    value = arm.final if other == "final" else arm.best
    at = "-" if math.isnan(arm.best_step) else f"{arm.best_step:.0f}"
    return arm.name, n, mean + sd, around, "-" if math.isnan(value) else number(value, spread), at


def _pair(pair: PairSummary) -> tuple[str, ...]:
    width = pair.interval.high - pair.interval.low if pair.interval.known else math.nan
    difference = "-" if math.isnan(pair.difference) else number(pair.difference, width)
    around = interval(pair.interval) if pair.interval.known else "-"
    return pair.arm, str(pair.n), difference, around, p_value(pair.p), size(pair.smallest_detectable)


def _checkpoints(summary: SweepSummary) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for phase in summary.phases:
        for arm in shown_arms(phase, MOST_ARMS):
            best = arm.best_run
            if best is None or not best.checkpoint:
                continue
            again = verified(best.again, best.verified)
            name = f"{phase.name}: {arm.name}" if phase.name else arm.name
            rows.append((name, str(best.seed), number(best.best), str(best.best_step), again, best.checkpoint_hash[:8]))
    if not rows:
        return []
    headings = ("arm", "seed", "best", "at", "measured anew", "hash")
    return ["", "best checkpoint of each arm", *_table(headings, rows)]


def verified(again: Sequence[float], agrees: bool | None) -> str:
    """Say what measuring the best weights anew gave: the mean of the finite values, and whether it agrees."""
    finite = [value for value in again if math.isfinite(value)]
    if agrees is None or not finite:
        return "not measured"
    return f"{number(math.fsum(finite) / len(finite))} {'agrees' if agrees else 'DIFFERS'}"


TOOK = ("phase", "arms", "trials", "failed", "CPU time")


def took(summary: SweepSummary) -> list[tuple[str, ...]]:
    """Return a row for each phase, under TOOK: what it held and what it took."""
    return [
        (phase.name, str(len(phase.arms)), str(sum(phase.counts.values())), str(phase.counts.get("failed", 0)),
         duration(phase.cpu_seconds))
        for phase in summary.phases
    ]  # fmt: skip


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table, indented by two; the first column is set to the left, numbers to the right."""
    longest = max((len(row[0]) for row in rows), default=0)
    widths = [
        max(len(heading), *(len(row[place]) for row in rows)) if rows else len(heading)
        for place, heading in enumerate(headings)
    ]
    rest = sum(widths[1:]) + 2 * len(widths)
    widths[0] = max(len(headings[0]), min(longest, max(NAME, COLUMNS - rest)))
    lines = []
    for row in (headings, *rows):
        name = row[0]
        if len(name) > widths[0]:
            lines.append(f"  {name}")
            name = ""
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(["", name.ljust(widths[0]), *cells]))
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    """Break a text at COLUMNS; later lines stand further in."""
    start = text[: len(text) - len(text.lstrip())] or indent
    return textwrap.wrap(
        text.strip(), COLUMNS, initial_indent=start, subsequent_indent=start + "  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
