"""The runs of a folder in one line each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any

from trimtab.errors import TrimtabError
from trimtab.records import Severity
from trimtab.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One run: how it stands and the worst that was found; `worst` is a code, `started` a time in UTC."""

    id: str
    name: str
    project: str
    status: str
    steps: int
    severity: Severity | None
    worst: str
    mark: str
    started: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "severity": None if self.severity is None else str(self.severity)}


def listing(runs: Iterable[Run], remarks: list[str]) -> list[Listed]:
    """Return a line for each run, in the given order; a damaged file is remarked on and leaves its place empty."""
    rows = []
    for run in runs:
        findings = []
        try:
            findings = run.findings()
        except TrimtabError as error:
            remarks.append(str(error))
        worst = max(findings, key=lambda finding: finding.severity, default=None)
        rows.append(
            Listed(
                id=run.path.name,
                name=run.facts.name,
                project=run.facts.project,
                status=run.status,
                steps=_steps(run),
                severity=None if worst is None else worst.severity,
                worst="" if worst is None else worst.code,
                mark=run.facts.mark,
                started=f"{run.facts.started.astimezone(UTC):%Y-%m-%d %H:%M}",
            )
        )
    return rows


def _steps(run: Run) -> int:
    """Return how many updates the run took: as written at its end, else counted from its rows."""
    if run.facts.updates:
        return run.facts.updates
    try:
        return max((row.update + 1 for row in run.rows()), default=0)
    except TrimtabError:
        return 0
