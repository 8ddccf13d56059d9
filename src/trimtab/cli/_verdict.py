"""A verdict on a terminal: headline, findings, causes, and sums that a person can redo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.cli import _show
from trimtab.diagnose import Verdict
from trimtab.report import page, text
from trimtab.run import Run

if TYPE_CHECKING:
    from rich.console import Console

SUMMED = 3
"""So many leading causes are shown with their terms."""
MOST = 6
"""So many causes are listed."""


def print_verdict(console: Console, run: Run, verdict: Verdict) -> None:
    """Print everything that a person wants to know about a run, the most important first."""
    colour = _show.COLOURS.get(page.severity_word(verdict.severity, verdict.judged), "")
    console.print(_show.text(page.sentence(verdict.headline), f"bold {colour}"))
    lead = page.lead(verdict)
    if lead:
        console.print(lead)
    console.print(_show.text("Do next: ", "bold") + page.next_action(verdict))
    facts = f"run {text.reference(run)}, {verdict.status}; {text.counted(verdict)}; {text.judged(verdict)}"
    console.print(_show.text(facts, "dim"))
    _print_findings(console, verdict)
    if verdict.outcomes:
        _heading(console, "What Trimtab did")
        done = [(one.steps, one.action, one.code, one.because) for one in page.answer_rows(verdict.outcomes)]
        console.print(_show.table(["step", "action", "finding", "because"], done, wrap="because"))
    _print_causes(console, verdict)
    if verdict.settings_changed:
        rows = [(key, page.show(before), page.show(now)) for key, (before, now) in verdict.settings_changed.items()]
        _heading(console, f"Different from the good run {verdict.good_run}")
        console.print(_show.table(["setting", "there", "here"], rows, wrap="here"))
    if verdict.unknown:
        _heading(console, "Not judged")
        console.print(_show.table(["rule", "because"], list(verdict.unknown.items()), wrap="because"))
    if verdict.ignored:
        _heading(console, "Ignored on request")
        ignored = [(one.rule, one.how, one.because) for one in verdict.ignored]
        console.print(_show.table(["rule", "what it did", "because"], ignored, wrap="because"))
    if verdict.rejudged:
        _heading(console, "Today's rules differ")
    for line in (*map(str, verdict.rejudged), *(f"note: {remark}" for remark in verdict.remarks)):
        console.print(_show.text(line, "dim"))


def _heading(console: Console, words: str) -> None:
    console.print()
    console.print(_show.text(words, "bold"))


def _print_findings(console: Console, verdict: Verdict) -> None:
    if not verdict.findings:
        return
    _heading(console, "Findings")
    rows = [
        (row.label, _show.coloured(row.finding.severity), row.name, row.when, row.finding.summary)
        for row in page.finding_rows(verdict, {})
    ]
    console.print(_show.table(["", "severity", "finding", "when", "what"], rows, wrap="what"))


def _print_causes(console: Console, verdict: Verdict) -> None:
    causes = page.cause_rows(verdict)
    if not causes:
        return
    _heading(console, "Causes, the likeliest first (decibans: +10 is ten times as likely)")
    rows = [(f"{row.rank}.", row.score, row.odds, row.diagnosis.cause, row.diagnosis.summary) for row in causes[:MOST]]
    console.print(_show.table(["", "score", "odds", "cause", "what"], rows, right=["", "score"], wrap="what"))
    if len(causes) > MOST:
        console.print(_show.text(f"and {len(causes) - MOST} less likely ones", "dim"))
    leading = [row for row in causes if not row.is_none and not row.unlikely][:SUMMED] or causes[1:2]
    for row in leading:
        _heading(console, f"{row.rank}. {row.diagnosis.cause}: how the score adds up")
        terms = [(term.decibans, term.what, _show.text(term.why, "dim")) for term in row.terms]
        sums = (_show.text(row.score, "bold"), _show.text("score", "bold"), row.odds)
        console.print(_show.table(["dB", "what", "why"], [*terms, sums], right=["dB"], wrap="why"))
        if row.diagnosis.unknown:
            console.print(f"Not judged, counted as 0: {', '.join(row.diagnosis.unknown)}")
        if row.diagnosis.probe:
            console.print(
                f"Would decide: whether {row.diagnosis.probe.replace('-', ' ')} (probe {row.diagnosis.probe})"
            )
        for place, remedy in enumerate(row.diagnosis.remedies):
            change = ", ".join(f"{key}={value}" for key, value in remedy.change.items())
            console.print(f"{'Try:' if not place else '    '} {remedy.text}{f' [{change}]' if change else ''}")
