"""What a training with one fault shows: the small language in which signatures of causes are written.

Those of the kernel are in `test_hypotheses.py`, the others in files `signatures_*.py` beside this one, each with a
tuple `SIGNATURES`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.detectors import DETECTORS
from trimtab.diagnose import ABOUT_TRIMTAB
from trimtab.records import Finding, Severity

ERROR = Severity.ERROR
CODES = {detector.code for detector in DETECTORS}
JUDGED = CODES - ABOUT_TRIMTAB - {"milestone-missed"}


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a training with one fault shows; `judged` are the rules that were able to judge it."""

    cause: str
    found: tuple[Finding, ...]
    judged: frozenset[str] = field(default=frozenset(JUDGED))


def found(code, severity=ERROR, *, measured=1.0, since=40, subject="", **evidence):
    return Finding(
        code=code, severity=severity, step=max(since, 0), since_step=since, subject=subject, summary=code,
        measured=measured, threshold=0.0, evidence=evidence,
    )  # fmt: skip


def missed(**evidence):
    return found("milestone-missed", since=100, **evidence)


def elsewhere() -> tuple[Signature, ...]:
    """The signatures of the files `signatures_*.py`."""
    stems = sorted(path.stem for path in Path(__file__).parent.glob("signatures_*.py"))
    return tuple(one for stem in stems for one in importlib.import_module(f"tests.contracts.{stem}").SIGNATURES)
