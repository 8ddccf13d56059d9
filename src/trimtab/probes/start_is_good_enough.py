"""The start meets the declared condition, for every seed: a gate before the first update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab.errors import UserError, nearest
from trimtab.milestone import Milestone
from trimtab.probes._base import Base
from trimtab.probes._copies import Clock, apart, copy_of
from trimtab.probes._probe import Result, Subject
from trimtab.records import Severity
from trimtab.statistics import wilson
from trimtab.system import Training

SPLIT = "validation/"
"""The metrics of a Training are recorded under this split; conditions may name them with it or without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One start: its seed, its metrics before the first update, and whether every condition was met."""

    seed: int
    metrics: Mapping[str, float]
    good: bool

    def __str__(self) -> str:
        """Write it out: 'seed 3: hierarchy 0.412, refused'."""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"seed {self.seed}: {numbers}, {'accepted' if self.good else 'refused'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodStart:
    """A start that was accepted: the training, ready to run, the seed that it has, and all tries up to it."""

    training: Training
    seed: int
    tries: tuple[Try, ...]


def conditions(accept: str | Milestone | Sequence[str | Milestone]) -> tuple[Milestone, ...]:
    """Read what a start must meet.

    Args:
        accept: texts such as "validation/hierarchy <= 0", or Milestones, which count as due before the first update.

    Raises:
        UserError: a text has another form.
    """
    given = (accept,) if isinstance(accept, (str, Milestone)) else tuple(accept)
    read = []
    for one in given:
        try:
            read.append(one if isinstance(one, Milestone) else Milestone.parse(f"{one} by 0"))
        except UserError:
            raise UserError(f"accept={one!r}: expected 'METRIC <= VALUE', such as 'validation/loss <= 3.5'") from None
    return tuple(read)


def first_good_start(
    subject: Subject, accept: str | Milestone | Sequence[str | Milestone], tries: int = 10
) -> GoodStart:
    """Return the first start that meets a condition, beginning with the subject's own seed.

    Args:
        subject: what is to be trained.
        accept: what its metrics must meet before the first update, such as "validation/hierarchy <= 0".
        tries: so many seeds are tried at most: the subject's own, the next one, and so on.

    Returns:
        The training of that seed, not yet begun, and the log of all tries. Store the log with the run: a start that was
        chosen is not one that was drawn.

    Raises:
        UserError: no start was accepted, or the condition names a metric that is not evaluated; the message has every
            try.
    """
    wanted, log = conditions(accept), []
    if tries < 1:
        raise UserError(f"tries={tries}: expected 1 or more")
    for seed in range(subject.seed, subject.seed + tries):
        with apart():
            training = copy_of(subject, seed)
            metrics = {name: float(value) for name, value in training.evaluate().items()}
        log.append(Try(seed=seed, metrics=metrics, good=_met(wanted, metrics)))
        if log[-1].good:
            with apart():  # one that was not evaluated yet: an evaluation may move its generators
                return GoodStart(training=copy_of(subject, seed), seed=seed, tries=tuple(log))
    words = ", ".join(_condition(one) for one in wanted)
    raise UserError(
        f"{subject.name}: none of {tries} starts meets {words} ({'; '.join(map(str, log))}). A start that is often bad "
        "is seldom chance: look at what is loaded and at the loss before taking more tries"
    )


def _condition(one: Milestone) -> str:
    return f"{one.metric} {one.comparison} {one.value:g}"


def _met(wanted: Sequence[Milestone], metrics: Mapping[str, float]) -> bool:
    for one in wanted:
        name = one.metric.removeprefix(SPLIT)
        if name not in metrics:
            raise UserError(
                f"the condition {_condition(one)!r} names a metric that is not evaluated.{nearest(name, metrics)} "
                f"Evaluated: {', '.join(metrics) or 'none'}"
            )
    return all(one.met_by(metrics[one.metric.removeprefix(SPLIT)]) for one in wanted)


@dataclass(frozen=True, kw_only=True)
class StartIsGoodEnough(Base):
    """The start meets the declared condition, for every seed: a gate before the first update.

    What it claims.
    Before the first update the metrics meet the declared condition, with the subject's own seed and with the seeds
    after it. Where a training only goes well from a lucky start, its result says more of the start than of the method.

    How it tests.
    Copies with the next seeds are evaluated before their first update. The conditions are `accept`, or the milestones
    of the System that are due by step 0. Every try is in `measured`; the interval is that of Wilson for the share of
    good starts. The gate for a loop of one's own is `first_good_start(subject, accept, tries)`.

    What it costs.
    A build and an evaluation for each of ten seeds.

    False alarms.
    None that are not in the condition: it is the user's. Without one nothing is judged.

    What to try.
    A start that is bad now and then: look at what is loaded, with which names and which settings
    (`checkpoint-loads-identically`), then at the initialisation. `first_good_start` treats the symptom alone.

    Since.
    0.2.0
    """

    claim: str = "start-is-good-enough"
    codes: tuple[str, ...] = ("start-too-bad",)
    budget: float = 10.0
    """CPU seconds, making the copies not counted."""
    accept: tuple[str, ...] = ()
    """Conditions such as "validation/hierarchy <= 0"; without them the milestones of the System due by step 0."""
    seeds: int = 10
    """Starts: with ten good ones the interval of the share reaches down to 0.72, with five only to 0.57."""

    def _test(self, subject: Subject, clock: Clock) -> Result:
        wanted = conditions(self.accept)
        if not wanted and subject.system is not None:
            wanted = tuple(one for one in subject.system.milestones(subject.config) if one.by_step <= 0)
        if not wanted:
            return self.unknown(
                "no condition is declared; pass accept='METRIC <= VALUE', or give the System a milestone by step 0"
            )
        tries: list[Try] = []
        for seed in range(subject.seed, subject.seed + self.seeds):
            if tries and clock.left == 0.0:
                break
            training = copy_of(subject, seed)
            metrics = {name: float(value) for name, value in training.evaluate().items()}
            tries.append(Try(seed=seed, metrics=metrics, good=_met(wanted, metrics)))
        good, n = sum(one.good for one in tries), len(tries)
        share = wilson(good, n)
        names = [one.metric.removeprefix(SPLIT) for one in wanted]
        measured = {f"seed {one.seed}": self._numbers(one, names) for one in tries}
        words = " and ".join(_condition(one) for one in wanted)
        found = []
        if good < n:
            own = "" if tries[0].good else f", seed {subject.seed} among them"
            bad = [one for one in tries if not one.good]
            values = [one.metrics[name] for one in bad for name in names]
            finite = [value for value in values if math.isfinite(value)]
            span = f"{min(finite):.4g} to {max(finite):.4g}" if finite else "not finite"
            found.append(
                self.finding(
                    "start-too-bad",
                    Severity.WARNING if tries[0].good else Severity.ERROR,
                    f"{len(bad)} of {n} starts do not meet {words}{own} ({span}); the share of good starts is "
                    f"{good / n:.2f}, with 95 % between {share.low:.2f} and {share.high:.2f}",
                    len(bad) / n,
                    {"seeds": tuple(str(one.seed) for one in bad), "values": tuple(values)},
                    names[0],
                )
            )
        holds = f"{n} of {n} starts meet {words}; with 95 % at least {share.low:.2f} of all do"
        return self.judged(holds, found, n=n, interval=(share.low, share.high), measured=measured)

    @staticmethod
    def _numbers(one: Try, names: Sequence[str]) -> str:
        return ", ".join(f"{name} {one.metrics[name]:.4g}" for name in names) + (", good" if one.good else ", bad")
