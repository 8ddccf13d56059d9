"""A stored sweep as it is told: its summary, and what stands beside it.

The sweep, its statistics and its report do not know each other; they meet here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.records import Severity

if TYPE_CHECKING:
    from trimtab.compare import SweepSummary
    from trimtab.report.sweep_page import About
    from trimtab.sweep.folder import StoredSweep

FACTS = "sweep.json"
"""The file by which the folder of a sweep is known; a test holds it to `trimtab.sweep.folder.FACTS`."""


def summary_of(stored: StoredSweep, baseline: str | None = None) -> SweepSummary:
    """Return all that can be said of a sweep.

    Args:
        stored: the sweep.
        baseline: the arm to compare with in every phase that has it and declares none of its own.
    """
    from trimtab.compare import summarize

    phases = {name: facts for name, facts in stored.facts.items() if _has(stored, name)}
    return summarize(
        stored.results, phases=phases, baseline=baseline, metric=stored.plan.metric, better=stored.plan.better,
        losses_of=stored.losses,
    )  # fmt: skip


def about_of(stored: StoredSweep) -> About:
    """Return what the report tells of a sweep beside its results."""
    from trimtab.report.sweep_page import About

    return About(
        name=stored.name, target=stored.plan.target, preset=stored.plan.preset, command=stored.command,
        created=stored.created, versions=stored.versions, folder=stored.path, plan=stored.plan.as_dict(),
    )  # fmt: skip


def severity_of(summary: SweepSummary, stored: StoredSweep) -> Severity | None:
    """Return the worst of what was found: remarks, findings in runs, and error for a trial that failed."""
    found = [Severity.parse(remark.severity) for remark in summary.remarks]
    found += [Severity.parse(severity) for result in stored.results for _, severity in result.findings]
    found += [Severity.ERROR for result in stored.results if result.status == "failed"]
    return max(found, default=None)


def is_sweep(path: Path | str | None) -> bool:
    """Say whether a folder is that of a sweep, at once: to import `trimtab.sweep.folder` takes half a second."""
    return path is not None and (Path(path) / FACTS).is_file()


def _has(stored: StoredSweep, phase: str) -> bool:
    return any(result.trial.phase == phase for result in stored.results)
