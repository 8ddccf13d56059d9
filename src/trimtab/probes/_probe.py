"""What a probe is: an experiment on fresh copies of a training, before or after a run, that tests one claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from trimtab.records import Evidence, Finding
from trimtab.system import System, Training

Verdict = Literal["holds", "fails", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is probed.

    Attributes:
        name: how messages call it.
        make: (configuration, seed) -> a fresh Training; whatever a probe does with it, nobody else sees.
        config: the configuration to probe, a frozen dataclass; None where there is none.
        seed: the seed to probe.
        system: the System, where the subject is one.
        checkpoint: a stored checkpoint to load, where the claim is about one.
    """

    name: str
    make: Callable[[Any, int], Training]
    config: Any = None
    seed: int = 0
    system: System | None = None
    checkpoint: Path | None = None

    def fresh(self, seed: int | None = None) -> Training:
        """Return a new copy of the training, by default with the subject's own seed."""
        return self.make(self.config, self.seed if seed is None else seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a probe says of one claim.

    Attributes:
        claim: the claim in kebab case, the name of the probe's file.
        verdict: "holds", "fails", or "unknown" with a `reason`.
        summary: one sentence with the numbers.
        findings: what is wrong, where the claim fails.
        measured: named numbers and words that let a reader check it.
        n: how many measurements the verdict rests on.
        interval: 95 % interval of the measured quantity, where it is an estimate.
        reason: why nothing could be said.
        seconds: CPU seconds that it took.
    """

    claim: str
    verdict: Verdict
    summary: str = ""
    findings: tuple[Finding, ...] = ()
    measured: Evidence = field(default_factory=dict)
    n: int = 0
    interval: tuple[float, float] | None = None
    reason: str = ""
    seconds: float = 0.0


class Probe(Protocol):
    """An experiment that tests one claim on fresh copies."""

    @property
    def claim(self) -> str:
        """The claim in kebab case: the name of the file."""
        ...

    @property
    def budget(self) -> float:
        """CPU seconds that it may take on a model of up to a million parameters, beside making the copies."""
        ...

    def run(self, subject: Subject) -> Result:
        """Test the claim; leave the process's random numbers, and every model but its own copies, as they were."""
        ...
