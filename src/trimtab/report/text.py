"""A run in a few lines of plain text."""

from __future__ import annotations

from collections import Counter

from trimtab.diagnose import NOTHING, Verdict
from trimtab.records import Severity
from trimtab.run import Run
from trimtab.run.writer import default_root


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
