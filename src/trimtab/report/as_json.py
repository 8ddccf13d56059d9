"""A run and its verdict as plain values, for programs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from trimtab.diagnose import Verdict
from trimtab.panels import Panel
from trimtab.run import Run


def as_json(run: Run, verdict: Verdict) -> dict[str, Any]:
    """Return what the report says as nested dicts and lists; `trimtab.run.safe_json` writes it, NaN included."""
    facts = run.facts
    return {
        "path": str(run.path),
        "run": {
            "id": run.id,
            "name": facts.name,
            "project": facts.project,
            "description": facts.description,
            "tags": list(facts.tags),
            "system": facts.system,
            "seed": facts.seed,
            "mark": facts.mark,
            "started": facts.started.isoformat(),
            "ended": None if facts.ended is None else facts.ended.isoformat(),
            "how": facts.how,
        },
        "panels": {
            name: {"kind": type(shown.panel).__name__.lower(), "step": shown.step, **_plain(shown.panel)}
            for name, shown in run.shown().items()
        },
        "verdict": verdict.as_dict(),
    }


def _plain(panel: Panel) -> dict[str, Any]:
    return {field.name: getattr(panel, field.name) for field in fields(panel)}
