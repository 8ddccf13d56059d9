"""Small traces written by hand, and what a rule says about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.detectors import DETECTORS, MilestoneMissed, PatienceSpent
from trimtab.judge import Detector, Event, replay
from trimtab.milestone import Milestone
from trimtab.patience import Patience
from trimtab.records import Finding, Note, Signal, Unknown, Value

TRACES = Path(__file__).parent.parent / "traces"
BY_CODE = {detector.code: detector for detector in DETECTORS}


@dataclass(frozen=True, kw_only=True)
class Story:
    """A stored trace: rows and notes, the milestones and the patience declared, the step by which a rule must fire."""

    path: Path
    rows: tuple[Signal, ...]
    notes: tuple[Note, ...]
    milestones: tuple[Milestone, ...]
    by: int
    patience: Patience | None = None

    def detectors(self) -> tuple[Detector, ...]:
        """The catalogue, with this story's milestones and patience."""
        return tuple(self.fit(detector) for detector in DETECTORS)

    def fit(self, detector: Detector) -> Detector:
        """The detector, with this story's milestones or patience where it judges such."""
        if isinstance(detector, PatienceSpent):
            return replace(detector, patience=self.patience)
        return replace(detector, milestones=self.milestones) if isinstance(detector, MilestoneMissed) else detector


def stories(kind: str, code: str = "*") -> list[Story]:
    """The stored traces of a kind ("fires" or "silent") of one detector, or of all."""
    return [read(path) for path in sorted(TRACES.glob(f"{code}/{kind}/*.jsonl"))]


def read(path: Path) -> Story:
    """Read a stored trace."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    head = lines.pop(0) if "values" not in lines[0] else {}
    labels = {name: tuple(names) for name, names in head.get("labels", {}).items()}
    return Story(
        path=path,
        rows=tuple(
            row(line["step"], line["values"], labels, line.get("stream", "main"), update)
            for update, line in enumerate(lines)
        ),
        notes=tuple(Note(**note) for note in head.get("notes", ())),
        milestones=tuple(Milestone.parse(text) for text in head.get("milestones", ())),
        by=head.get("by", 0),
        patience=Patience(**head["patience"]) if "patience" in head else None,
    )


def row(
    step: int,
    values: Mapping[str, Any],
    labels: Mapping[str, tuple[str, ...]] | None = None,
    stream: str = "main",
    update: int | None = None,
    attempt: int = 0,
) -> Signal:
    """One row; lists become vectors and whole numbers become floats."""
    measured: dict[str, Value] = {
        name: tuple(float(part) for part in value) if isinstance(value, (list, tuple)) else float(value)
        for name, value in values.items()
    }
    return Signal(
        attempt=attempt,
        step=step,
        update=step if update is None else update,
        stream=stream,
        time=0.1 * step,
        values=measured,
        labels={name: names for name, names in (labels or {}).items() if name in measured},
    )


def rows(each: Iterable[Mapping[str, Any]], labels: Mapping[str, tuple[str, ...]] | None = None) -> list[Signal]:
    """Rows of the steps 0, 1, 2, ..."""
    return [row(step, values, labels) for step, values in enumerate(each)]


def events(detector: Detector, history: Sequence[Signal], notes: Iterable[Note] = ()) -> list[Event]:
    """What comes of a rule that judges these rows; a rule that raises fails the test."""
    happened, judge = replay([detector], history, notes)
    assert judge.disabled == {}
    return happened


def opened(detector: Detector, history: Sequence[Signal], notes: Iterable[Note] = ()) -> list[Finding]:
    """The findings that were opened or grew worse."""
    return [e for e in events(detector, history, notes) if isinstance(e, Finding) and e.event != "resolved"]


def the(findings: Sequence[Finding]) -> Finding:
    """The only finding."""
    assert len(findings) == 1, findings
    return findings[0]


def reasons(detector: Detector, history: Sequence[Signal]) -> list[str]:
    """Why the rule could not judge, in order; an empty text where it could again."""
    return [event.reason for event in events(detector, history) if isinstance(event, Unknown)]
