"""Loading a checkpoint again gives the same weights and the same metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from trimtab.checkpoint import load
from trimtab.errors import CheckpointError
from trimtab.probes._base import Base, listed
from trimtab.probes._copies import Clock, Loads, copy_of, differing, loads, put_into, spread, tensors_of
from trimtab.probes._probe import Result, Subject
from trimtab.records import Evidence, Finding, Severity
from trimtab.system import Training


@dataclass(frozen=True, slots=True)
class _Made:
    """What one copy held after it was made and loaded.

    `tensors` are those that the load is about; `filled` the names that it wrote; `frozen` those that no update changes;
    `sizes` how many numbers each parameter has.
    """

    tensors: dict[str, torch.Tensor]
    filled: frozenset[str]
    frozen: frozenset[str]
    sizes: dict[str, int]
    unexpected: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckpointLoadsIdentically(Base):
    """Loading a checkpoint again gives the same weights and the same metrics.

    What it claims.
    After a load the weights are a function of the checkpoint alone. A tensor that still depends on the seed was left at
    its random initialisation, and with it everything that is computed from it.

    How it tests.
    Five copies are made with five seeds, and their tensors are compared bit by bit.
    With `checkpoint=` each copy is loaded by `trimtab.checkpoint.load`, which is strict: a refusal fails the claim. All
    parameters and buffers count.
    Without it, the loads that happen while a copy is built are listened to (`load_state_dict`, and those of Trimtab).
    Then what counts are the tensors of the modules into which something was loaded, also those that the load did not
    fill: exactly these may not depend on the seed. A module beside them, such as a head that nothing was loaded into,
    may.
    For the metrics these tensors of each copy are put into a copy of the first seed and evaluated there, so that
    held-out data, random numbers and everything that was not loaded are the same for all.

    What it costs.
    Ten builds, five loads and five evaluations.

    False alarms.
    A head that is meant to begin anew inside a module that was loaded with `strict=False`. Where the load met no
    unexpected name and the tensors are trained, this is a warning; `fresh=("head.*",)` says that they are meant to be
    so. Where it did meet unexpected names, or the tensors are frozen, it is an error.

    What to try.
    Load with `strict=True`, or with `trimtab.checkpoint.load`, which names each missing and unexpected tensor, likely
    renames and differing settings. Build the model with the settings that it was stored with.

    Since.
    0.2.0
    """

    claim: str = "checkpoint-loads-identically"
    codes: tuple[str, ...] = ("load-not-repeatable",)
    budget: float = 10.0
    """CPU seconds, making the copies not counted."""
    loads: int = 5
    """Copies, each with a seed of its own. Two show what is random; five show how far the metrics scatter."""
    fresh: tuple[str, ...] = ()
    """Patterns of names, such as "head.*", that are meant to begin anew."""

    def _test(self, subject: Subject, clock: Clock) -> Result:
        made: list[_Made] = []
        for seed in range(subject.seed, subject.seed + self.loads):
            if len(made) >= 2 and clock.spent > self.budget / 2:
                break
            with loads() as seen:
                training = copy_of(subject, seed)
            if subject.checkpoint is not None:
                try:
                    load(subject.checkpoint, training.model)
                except CheckpointError as error:
                    return self._refused(error, subject.checkpoint)
                made.append(self._of_checkpoint(training))
            elif not seen.filled(training.model):
                return self.unknown("nothing is loaded while it is built, and no checkpoint was given")
            else:
                made.append(self._of_build(training, seen))
        metrics = self._metrics(subject, made, clock)
        first = made[0]
        random = {name for one in made[1:] for name in differing(first.tensors, one.tensors)}
        names = [name for name in first.tensors if name in random and not self._meant(name)]
        apart = spread(metrics)
        numbers = sum(first.sizes.values())
        share = sum(first.sizes.get(name, 0) for name in names) / max(numbers, 1)
        measured: dict[str, float | str] = {
            "loads": float(len(made)),
            "tensors": float(len(first.tensors)),
            "tensors that differ": float(len(names)),
            "share of the parameters": share,
            "names that the model does not have": float(len(first.unexpected)),
            **{f"spread of {name}": value for name, value in apart.items()},
        }
        found = [self._left(first, names, share, apart, len(made))] if names else []
        if not names and any(value != 0.0 for value in apart.values() if math.isfinite(value)):
            name = max(apart, key=lambda one: apart[one] if math.isfinite(apart[one]) else -1.0)
            words = f"{len(made)} loads give the same tensors and other metrics: {name} differs by {apart[name]:.3g}"
            found = [self._finding(Severity.WARNING, words, apart[name], {"metrics": tuple(apart)}, name)]
        holds = f"{len(made)} loads over {len(made)} seeds: {len(first.tensors)} tensors and {len(apart)} metrics equal"
        return self.judged(holds, found, n=len(made), measured=measured)

    def _of_checkpoint(self, training: Training) -> _Made:
        tensors = tensors_of(training.model)
        return self._made(training, tensors, frozenset(tensors), ())

    def _of_build(self, training: Training, seen: Loads) -> _Made:
        everything, covered = tensors_of(training.model), seen.covered(training.model)
        tensors = {name: value for name, value in everything.items() if name in covered}
        unexpected = tuple(name for one in seen.seen for name in one.unexpected)
        return self._made(training, tensors, frozenset(seen.filled(training.model)), unexpected)

    @staticmethod
    def _made(
        training: Training,
        tensors: dict[str, torch.Tensor],
        filled: frozenset[str],
        unexpected: tuple[str, ...],
    ) -> _Made:
        parameters = dict(training.model.named_parameters())
        frozen = frozenset(name for name, one in parameters.items() if not one.requires_grad)
        sizes = {name: one.numel() for name, one in parameters.items()}
        return _Made(tensors, filled, frozen, sizes, unexpected)

    def _metrics(self, subject: Subject, made: list[_Made], clock: Clock) -> list[dict[str, float]]:
        values: list[dict[str, float]] = []
        for one in made:
            if len(values) >= 2 and clock.left == 0.0:
                break
            training = copy_of(subject)
            put_into(training.model, {name: value for name, value in one.tensors.items() if not self._meant(name)})
            values.append({name: float(value) for name, value in training.evaluate().items()})
        return values

    def _meant(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.fresh)

    def _left(self, first: _Made, names: list[str], share: float, apart: dict[str, float], times: int) -> Finding:
        frozen = [name for name in names if name in first.frozen]
        grave = bool(frozen or first.unexpected or set(names) & first.filled)
        words = (
            f"{times} loads with {times} seeds differ in {len(names)} of {len(first.tensors)} tensors "
            f"({share:.1%} of the parameters), which were left at their initialisation: {listed(names)}"
        )
        if first.unexpected:
            words += (
                f"; {len(first.unexpected)} stored names have no place in the model: {listed(list(first.unexpected))}"
            )
        if frozen:
            words += f"; {len(frozen)} of them are frozen"
        moved = {name: value for name, value in apart.items() if value != 0.0}
        if moved:
            words += "; " + ", ".join(f"{name} differs by {value:.3g}" for name, value in list(moved.items())[:3])
        evidence: Evidence = {
            "names": tuple(names[:32]), "unexpected": first.unexpected[:32], "metrics": tuple(moved),
            "spreads": tuple(moved.values()),
        }  # fmt: skip
        return self._finding(Severity.ERROR if grave else Severity.WARNING, words, share, evidence, names[0])

    def _refused(self, error: CheckpointError, path: Path) -> Result:
        words = f"the checkpoint {path.name} cannot be loaded: {' '.join(str(error).split())}"
        found = self._finding(Severity.ERROR, words, 1.0, {"checkpoint": path.name}, path.name)
        return self.judged("", [found], n=1)

    def _finding(self, severity: Severity, words: str, measured: float, evidence: Evidence, subject: str) -> Finding:
        return self.finding("load-not-repeatable", severity, words, measured, evidence, subject)
