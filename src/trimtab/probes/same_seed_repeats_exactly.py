"""Training twice with the same seed gives the same start, the same losses and the same weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trimtab.probes._base import Base, listed
from trimtab.probes._copies import Clock, copy_of, differing, same_numbers, tensors_of, updates
from trimtab.probes._probe import Result, Subject
from trimtab.records import Finding, Severity


@dataclass(frozen=True, slots=True)
class _Seen:
    """One short training: the weights before and after, the metrics before, and the losses."""

    start: dict[str, torch.Tensor]
    end: dict[str, torch.Tensor]
    metrics: dict[str, float]
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SameSeedRepeatsExactly(Base):
    """Training twice with the same seed gives the same start, the same losses and the same weights.

    What it claims.
    Weights, data and every random number of a training are a function of its seed. Without that no run can be done
    again, no two runs can be compared in pairs, and a start that decides the result goes unseen.

    How it tests.
    Two copies are made with the same seed, one after the other, and each takes eight updates. Before each, the global
    generators of torch, numpy and Python begin with the seed, as `trimtab.train` does it: what differs all the same
    came from another source, such as a generator of its own without a seed, the clock, the order of a set, or an
    object that both copies share. Weights at the start, metrics at the start, losses and weights at the end must be
    equal to the last bit. A third copy with another seed says whether the seed does anything at all.

    What it costs.
    Three builds, three evaluations, and eight updates twice.

    False alarms.
    Kernels that add up in changing order differ in the last digits from the first update on, while the start is equal.
    That is a warning, and the largest difference is named; `torch.use_deterministic_algorithms(True)` avoids it.

    What to try.
    Seed each generator from the seed that `build` is given; sort what comes out of sets and folders; make everything
    that a training changes inside `build`.

    Since.
    0.2.0
    """

    claim: str = "same-seed-repeats-exactly"
    codes: tuple[str, ...] = ("seed-not-honoured",)
    budget: float = 5.0
    """CPU seconds, making the copies not counted."""
    updates: int = 8
    """A data order or a dropout without seed differs at the first update; the others are for what comes later."""
    rounding: float = 1e-4
    """Losses that lie no further apart than this, relative to their size, differ as kernels round."""

    def _test(self, subject: Subject, clock: Clock) -> Result:
        first = self._seen(subject, subject.seed, clock)
        second = self._seen(subject, subject.seed, clock)
        if not first.losses:
            return self.unknown("there is no batch to compute a loss of")
        found = self._compare(first, second)
        measured: dict[str, float | str] = {
            "losses": float(min(len(first.losses), len(second.losses))),
            "tensors that differ at the start": float(len(differing(first.start, second.start))),
        }
        if clock.left > 0.0:
            other = tensors_of(copy_of(subject, subject.seed + 1).model)
            measured["another seed changes the start"] = "yes" if differing(first.start, other) else "no"
        summary = (
            f"two trainings with seed {subject.seed}: {len(first.start)} tensors, {len(first.metrics)} metrics and "
            f"{len(first.losses)} losses equal to the last bit"
        )
        return self.judged(summary, found, n=2, measured=measured)

    def _seen(self, subject: Subject, seed: int, clock: Clock) -> _Seen:
        training = copy_of(subject, seed)
        start = tensors_of(training.model)
        metrics = {name: float(value) for name, value in training.evaluate().items()}
        losses = []
        for loss in updates(training, self.updates):
            losses.append(loss)
            if clock.spent > self.budget / 2.5 and len(losses) >= 2:
                break
        return _Seen(start, tensors_of(training.model), metrics, tuple(losses))

    def _compare(self, first: _Seen, second: _Seen) -> list[Finding]:
        names = differing(first.start, second.start)
        if names:
            said = f"two trainings with the same seed start from other weights: {len(names)} of {len(first.start)} "
            return [
                self._finding(Severity.ERROR, f"{said}tensors differ: {listed(names)}", len(names), names, names[0])
            ]
        if not same_numbers(first.metrics, second.metrics):
            names = [name for name in first.metrics if repr(first.metrics[name]) != repr(second.metrics.get(name))]
            said = ", ".join(f"{name} {first.metrics[name]:.6g} and {second.metrics[name]:.6g}" for name in names[:3])
            words = f"two trainings with the same seed and the same weights evaluate differently: {said}"
            return [self._finding(Severity.WARNING, words, len(names), names, names[0])]
        pairs = list(zip(first.losses, second.losses, strict=False))
        step = next((at for at, (a, b) in enumerate(pairs) if repr(a) != repr(b)), None)
        if step is not None:
            apart = max(
                abs(a - b) / max(abs(a), abs(b), 1e-12) if math.isfinite(a + b) else math.inf
                for a, b in pairs
                if repr(a) != repr(b)
            )
            small = apart <= self.rounding
            words = (
                f"two trainings with the same seed part at update {step}: loss {pairs[step][0]:.9g} and "
                f"{pairs[step][1]:.9g}, at most {apart:.2g} of their size apart in {len(pairs)} updates"
            )
            words += ", as kernels do that add up in changing order" if small else ""
            return [self._finding(Severity.WARNING if small else Severity.ERROR, words, apart, (), "loss")]
        names = differing(first.end, second.end) if len(first.losses) == len(second.losses) else []
        if names:
            words = f"two trainings with the same seed have equal losses and end with other tensors: {listed(names)}"
            return [self._finding(Severity.WARNING, words, len(names), names, names[0])]
        return []

    def _finding(
        self, severity: Severity, summary: str, measured: float, names: list[str] | tuple[str, ...], subject: str
    ) -> Finding:
        return self.finding(
            "seed-not-honoured", severity, summary, float(measured), {"names": tuple(names[:32])}, subject
        )
