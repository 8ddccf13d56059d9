"""Evaluating the same weights twice gives the same numbers, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.probes._base import Base, listed
from trimtab.probes._copies import Clock, copy_of, differing, same_numbers, spread, tensors_of, updates
from trimtab.probes._probe import Result, Subject
from trimtab.records import Evidence, Finding, Severity
from trimtab.system import Training


@dataclass(frozen=True, kw_only=True)
class EvaluationRepeatsExactly(Base):
    """Evaluating the same weights twice gives the same numbers, and changes nothing.

    What it claims.
    `evaluate()` is a function of the weights. It draws no random numbers that reach a metric, leaves no state behind,
    and changes no weight and no buffer. A validation score that moves by itself cannot tell two trainings apart, and
    the best of many such scores is better than the training ever was.

    How it tests.
    A copy is evaluated three times in a row before the first update, and three times again after ten updates, for a
    metric that rests at 0 or 1 at the start shows no noise. The numbers must be equal to the last bit, and so must all
    weights and buffers. How far they lie apart is reported for each metric. An update after an evaluation must
    be taken with every module in the mode in which that of a copy was taken that was never evaluated.

    What it costs.
    Six evaluations and eleven updates.

    False alarms.
    A metric that is meant to be an estimate from samples, such as the share of sampled reconstructions, differs by
    construction: then its spread says how much of a difference is noise. Give it a generator that begins anew at each
    evaluation, or record it beside one without samples.

    What to try.
    `model.eval()`, fixed held-out data, the mean of a distribution in place of a sample, a generator of its own that is
    seeded in each evaluation.

    Since.
    0.2.0
    """

    claim: str = "evaluation-repeats-exactly"
    codes: tuple[str, ...] = ("evaluation-not-repeatable",)
    budget: float = 5.0
    """CPU seconds, making the copies not counted."""
    times: int = 3
    """Evaluations of the same weights; noise that two of them hide by chance, a third shows."""
    updates: int = 10
    """Updates before the second look: enough for most metrics to leave 0 and 1."""

    def _test(self, subject: Subject, clock: Clock) -> Result:
        training = copy_of(subject)
        found: list[Finding] = []
        measured: dict[str, float | str] = {}
        n = done = 0
        for look in ("start", "later"):
            if look == "later":
                if clock.left == 0.0:
                    break
                done = sum(1 for _ in updates(training, self.updates))
            before = tensors_of(training.model)
            values = [training.evaluate()]
            if not values[0]:
                return self.unknown("evaluating gives no metric; return numbers by name from evaluate()")
            while len(values) < self.times and (len(values) < 2 or clock.left > 0.0):
                values.append(training.evaluate())
            n += len(values)
            apart = spread(values)
            measured |= {f"spread of {name} after {done} updates": value for name, value in apart.items() if value}
            if not all(same_numbers(values[0], one) for one in values):
                found.append(self._noisy(values[0], apart, len(values), done))
            found += self._changed(training, differing(before, tensors_of(training.model)), done)
            if found:
                break
            if done:
                never = copy_of(subject)
                list(updates(never, 1))
                list(updates(training, 1))
                found += self._left_in_another_mode(_modes(training), _modes(never), done)
        where = f"at the start and after {done} updates" if done else "at the start"
        names = listed(list(values[0]))
        return self.judged(f"{n} evaluations, {where}: {names} equal to the last bit", found, n=n, measured=measured)

    def _noisy(self, value: Evidence, apart: dict[str, float], times: int, done: int) -> Finding:
        moved = sorted((name for name in apart if apart[name] != 0.0), key=lambda name: -apart[name])
        name = moved[0] if moved else next(iter(value))
        return self.finding(
            "evaluation-not-repeatable",
            Severity.WARNING,
            f"{times} evaluations of the same weights after {done} updates differ: {name} by {apart[name]:.3g} around "
            f"{value[name]:.4g}" + (f", and {len(moved) - 1} further metrics" if len(moved) > 1 else ""),
            apart[name],
            {"metrics": tuple(moved), "spreads": tuple(apart[one] for one in moved)},
            name,
        )

    def _left_in_another_mode(self, now: dict[str, bool], modes: dict[str, bool], done: int) -> list[Finding]:
        names = [name or "the model itself" for name in modes if now.get(name) != modes[name]]
        if not names:
            return []
        return [
            self.finding(
                "evaluation-not-repeatable",
                Severity.WARNING,
                f"after an evaluation and {done} updates, the next update is taken with {len(names)} of {len(modes)} "
                f"modules in another mode than before the first evaluation: {listed(names)}",
                float(len(names)),
                {"names": tuple(names[:32])},
                names[0],
            )
        ]

    def _changed(self, training: Training, names: list[str], done: int) -> list[Finding]:
        if not names:
            return []
        parameters = {name for name, _ in training.model.named_parameters()}
        weights = [name for name in names if name in parameters]
        return [
            self.finding(
                "evaluation-not-repeatable",
                Severity.ERROR if weights else Severity.WARNING,
                f"evaluating after {done} updates changes {len(weights)} parameters and {len(names) - len(weights)} "
                f"buffers: {listed(names)}",
                float(len(names)),
                {"names": tuple(names[:32])},
                names[0],
            )
        ]


def _modes(training: Training) -> dict[str, bool]:
    """Return which modules are in training mode, by name."""
    return {name: module.training for name, module in training.model.named_modules()}
