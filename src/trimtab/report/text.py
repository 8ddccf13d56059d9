"""A run in a few lines of plain text."""

from __future__ import annotations

from collections import Counter

from trimtab.diagnose import NOTHING, Verdict
from trimtab.panels import Table
from trimtab.records import Severity
from trimtab.report.columns import column_texts, is_numeric
from trimtab.run import Run
from trimtab.run.writer import default_root

MOST_ROWS = 50
"""So many rows of a table are printed; the report has more."""


def closing(run: Run, verdict: Verdict) -> list[str]:
    """Return what to say when a run is over: the verdict, what was found, what to type next."""
    name = reference(run)
    lines = [verdict.headline, f"{counted(verdict)}; {judged(verdict)}"]
    if verdict.ignored:
        lines.append(f"ignored on request: {'; '.join(map(str, verdict.ignored))}")
    if verdict.next_action != NOTHING:
        lines.append(f"do next: {verdict.next_action}")
    lines += [f"details: trimtab diagnose {name}", f"plots: trimtab report {name}"]
    return lines


def tables(run: Run) -> list[str]:
    """Return the tables that were shown with `closing=True` as lines of plain text, an empty line after each."""
    lines: list[str] = []
    for name, shown in run.shown().items():
        if isinstance(shown.panel, Table) and shown.panel.closing:
            lines += [f"{shown.panel.title} (step {shown.step}; panel {name})", *_aligned(shown.panel), ""]
    return lines


def _aligned(table: Table) -> list[str]:
    """Return a table as lines of equal columns: numbers to the right, at most `MOST_ROWS` rows."""
    rows = table.rows[:MOST_ROWS]
    columns = [[row[place] for row in rows] for place in range(len(table.columns))]
    right = [is_numeric(column) for column in columns]
    texts = [
        [_one_line(one) for one in (head, *column_texts(cells))]
        for head, cells in zip(table.columns, columns, strict=True)
    ]
    widths = [max(map(len, column)) for column in texts]
    lines = [
        "  ".join(
            text.rjust(width) if to else text.ljust(width) for text, width, to in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in zip(*texts, strict=True)
    ]
    rest = len(table.rows) - len(rows)
    return ["  " + line for line in (*lines, *([f"and {rest:,} more rows"] if rest else []))]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def counted(verdict: Verdict) -> str:
    """Say how many findings there are, by severity: '3 findings (1 error, 2 info)'."""
    severities = Counter(finding.severity for finding in verdict.findings)
    if not severities:
        return "no findings"
    total = sum(severities.values())
    parts = ", ".join(
        f"{severities[severity]} {severity}" for severity in sorted(Severity, reverse=True) if severities[severity]
    )
    return f"{total} finding{'s' if total > 1 else ''} ({parts})"


def judged(verdict: Verdict) -> str:
    """Say how much was judged: 'judged 9 of 11 rules'."""
    return f"judged {len(verdict.judged)} of {len(verdict.judged) + len(verdict.unknown)} rules"


def reference(run: Run) -> str:
    """Return the shortest words by which the command line finds the run from here."""
    if run.path.resolve().parent != default_root().resolve():
        return str(run.path)
    return run.path.name
