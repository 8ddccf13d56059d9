"""Every setting changes something that the training computes."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch

from trimtab.errors import UserError, nearest
from trimtab.probes._base import Base, listed
from trimtab.probes._copies import Clock, copy_of, updates
from trimtab.probes._probe import Result, Subject
from trimtab.probes._settings import (
    Reads,
    annotation_of,
    changed,
    gates,
    neighbours,
    settings_of,
    traced,
    value_of,
)
from trimtab.records import Finding, Severity
from trimtab.system import Training

Seen = tuple[str, str]
"""Where in a training something was computed, and what it was, to the last bit."""


Gate = Literal["no", "neutral", "choice", "switch"]
"""What keeps a setting from acting: nothing known, a zero or a factor of one, a choice among words, a yes-or-no."""


LEAST = 3
"""A training is not made shorter than so many of its epochs: what happens between two of them happens twice then."""
NO_OTHER = "no other value is known for it"


@dataclass(slots=True)
class _Setting:
    """What is known of one setting: where it first made a difference, or why nothing can be said.

    `tried` are the values with which nothing differed, `gate` the setting that would let it act and `gated` what kind
    of setting that is, `depth` after how many updates it was looked at last, `whole` whether the training ended there,
    `aside` whether it is not tested because it is to change no number.
    """

    name: str
    value: Any
    where: str = ""
    reason: str = ""
    tried: list[Any] = field(default_factory=list)
    gate: str = ""
    gated: Gate = "no"
    depth: int = 0
    whole: bool = False
    length: str = "the training"
    aside: bool = False


@dataclass(frozen=True, kw_only=True)
class SettingsHaveEffect(Base):
    """Every setting changes something that the training computes.

    What it claims.
    Each setting of the configuration makes a difference: to the weights, a loss, a metric, the schedule, the length,
    or a milestone. A setting without effect invites sweeps over nothing, whose best arm is the luckiest seed.

    How it tests.
    The training is recorded, to the last bit: what it declares (length, clipping, evaluations, early stop, options of
    the optimizers), its metrics at the start, each loss and learning rate of the first updates, its metrics after them,
    and a hash of every weight that has had a gradient. Then one setting at a time gets another sensible value: another
    option, twice or half the number, a hundredth or a hundred times it, what another preset has. The first difference
    settles it. Where there is none, the milestones, the schedule over its whole length, and the whole training are
    compared, or one with fewer updates if the whole one is too long for the budget.
    Beside that it is noted which settings are read at all while the training is built and runs; what reads all of them
    at once (`replace`, `asdict`, a comparison) says nothing of a single one.
    A setting is accused only when nothing differs to the very end. One that no code reads is excused when it is read
    after a yes-or-no, a choice or a zero is changed: it belongs to what is switched off. One that is read without
    effect is excused when a zero, or a factor of one, keeps it from acting; it is only told (info) when it belongs to
    another choice among words, and accused when a yes-or-no silences it. What could not be settled in the budget is
    listed as unknown.

    What it costs.
    A build and up to 20 updates for each setting, mostly far fewer; more for those that seem to have no effect.

    False alarms.
    A limit that is nowhere near reached, even at a hundredth of its value. A file name, and other settings that have no
    neighbours, are unknown and never accused. What says where or how fast it runs (`num_workers`, `log_every`) is not
    tested unless it is asked for by `only`.

    What to try.
    Remove the setting, or connect it. Before a sweep: `only=("curvature",)`.

    Since.
    0.2.0
    """

    claim: str = "settings-have-effect"
    codes: tuple[str, ...] = ("setting-without-effect",)
    budget: float = 30.0
    """CPU seconds, making the copies not counted; shared out over the settings, and what was not reached is said."""
    only: tuple[str, ...] = ()
    """Settings to test; all by default."""
    aside: tuple[str, ...] = (
        "*num_workers*", "*pin_memory*", "*prefetch*", "*persistent_workers*", "device", "*verbose*", "*progress*",
        "log_every*", "*.log_every*", "save_every*", "*.save_every*", "*log_interval*", "*save_interval*",
    )  # fmt: skip
    """Patterns of settings that say where, how fast or with how much talk it runs, and are to change no number."""
    updates: int = 20
    """Updates that are compared first; most settings differ at the first one."""
    values: int = 6
    """Other values of a setting that are tried before it is suspected: a number has so many neighbours."""
    long_values: int = 2
    """Other values that are tried to the end of a training."""
    gate_updates: int = 4
    """Updates that are compared with another setting switched on."""
    schedule_steps: int = 20_000
    """So many calls of a schedule are compared."""

    def _test(self, subject: Subject, clock: Clock) -> Result:
        config = subject.config
        if config is None or not dataclasses.is_dataclass(config) or isinstance(config, type):
            return self.unknown("there is no configuration; give the training a frozen dataclass of settings")
        known = list(settings_of(config))
        for name in self.only:
            if name not in known:
                raise UserError(
                    f"only={name!r}: there is no such setting.{nearest(name, known)} Known: {', '.join(known)}"
                )
        names = [name for name in known if not self.only or name in self.only]
        reads = Reads()
        base = self._base(subject, config, reads, self.updates)
        if base != list(self._record(subject, config, self.updates)):
            return self.unknown(
                "two trainings with the same seed and settings differ, so that a difference says nothing; see "
                "same-seed-repeats-exactly"
            )
        presets = self._presets(subject)
        states: list[_Setting] = []
        for place, name in enumerate(names):
            state = _Setting(name, value_of(config, name))
            states.append(state)
            if not self.only and any(fnmatchcase(name.lower(), pattern) for pattern in self.aside):
                state.aside = True
                continue
            share = clock.left / (len(names) - place)
            self._first_look(subject, config, state, base, presets, clock, share)
        suspects = [one for one in states if not one.where and not one.reason and not one.aside]
        self._look_longer(subject, config, suspects, reads, states, clock)
        return self._result(states, reads, names)

    # --- what is computed -------------------------------------------------------------------------

    def _base(self, subject: Subject, config: Any, reads: Reads, count: int) -> list[Seen]:
        """Return the record of the training as it is, and note what it reads; unread is unknown where it cannot be."""
        try:
            twin = traced(config, reads)
            seen = list(self._record(subject, twin, count))
            if subject.system is not None:
                subject.system.milestones(twin)
        except Exception:  # noqa: BLE001 - a configuration that cannot be traced is used as it is
            reads.whole = True
            seen = list(self._record(subject, config, count))
        return seen

    def _record(self, subject: Subject, config: Any, count: int | None) -> Iterator[Seen]:
        """Yield what a training computes in its first `count` updates, or in all of them; in order, as it comes."""
        training = copy_of(subject, config=config)
        yield "in what it declares", _declared(training)
        yield "in the metrics of the start", _numbers(training.evaluate())
        touched: set[str] = set()
        count = training.steps if count is None else min(count, training.steps)

        def look(step: int) -> None:
            for name, one in training.model.named_parameters():
                if name not in touched and one.grad is not None and bool(one.grad.any()):
                    touched.add(name)

        done = 0
        for loss in updates(training, count, look):
            done += 1
            yield f"at update {done}", f"{loss!r} {_rates(training)}"
            if done == count or done % max(training.evaluate_every, 1) == 0:
                yield f"in the metrics after {done} updates", _numbers(training.evaluate())
        yield f"in the weights after {done} updates", _weights(training, touched)

    def _schedule(self, subject: Subject, config: Any) -> str:
        """Return what the schedule does over its whole length to options and to what is frozen, without updates."""
        training = copy_of(subject, config=config)
        digest = hashlib.sha256()
        if training.schedule is not None:
            for step in range(min(training.steps, self.schedule_steps)):
                try:
                    training.schedule(step)
                except Exception as error:  # noqa: BLE001 - one that needs updates between its calls ends here
                    digest.update(type(error).__name__.encode())
                    break
                free = [one.requires_grad for one in training.model.parameters()]
                digest.update(f"{_rates(training)} {free}".encode())
        return digest.hexdigest()

    def _part(self, subject: Subject, config: Any, base: Sequence[Seen], count: int | None) -> str | None:
        """Return where a training first differs from the record of another; None where it does not.

        Raises:
            Exception: whatever the settings, the model or the loss raise with these values.
        """
        for here, there in itertools.zip_longest(self._record(subject, config, count), base):
            if here != there:
                known = here if here is not None else there
                return known[0] if known is not None else None
        return None

    # --- one setting ------------------------------------------------------------------------------

    def _first_look(
        self,
        subject: Subject,
        config: Any,
        state: _Setting,
        base: Sequence[Seen],
        presets: Sequence[Any],
        clock: Clock,
        share: float,
    ) -> None:
        """Try other values of one setting until one makes a difference in the first updates."""
        began = clock.spent
        if clock.left == 0.0:
            state.reason = "the budget was spent before it"
            return
        elsewhere = [value_of(one, state.name) for one in presets if _has(one, state.name)]
        refused = ""
        for value in neighbours(annotation_of(config, state.name), state.value, elsewhere):
            try:
                other = changed(config, state.name, value)
                if subject.system is not None and subject.system.milestones(other) != subject.system.milestones(config):
                    state.where = "in the milestones"
                else:
                    state.where = self._part(subject, other, base, self.updates) or ""
            except Exception as error:  # noqa: BLE001 - a value that is refused, or does not fit, is no neighbour
                refused = f"{value!r}: {type(error).__name__}: {' '.join(str(error).split())[:80]}"
                continue
            if state.where:
                return
            state.tried.append(value)
            if len(state.tried) >= self.values or (clock.spent - began > share and clock.left < self.budget / 2):
                break
        if not state.tried:
            state.reason = f"other values were refused ({refused})" if refused else NO_OTHER
        state.depth = self.updates

    def _look_longer(
        self,
        subject: Subject,
        config: Any,
        suspects: Sequence[_Setting],
        reads: Reads,
        states: Sequence[_Setting],
        clock: Clock,
    ) -> None:
        """Compare schedules, then with others switched on, then to the end of the training."""
        if not suspects:
            return
        schedule = self._schedule(subject, config)
        for one in suspects:
            if any(self._schedule(subject, changed(config, one.name, value)) != schedule for value in one.tried[:2]):
                one.where = "in the schedule"
        suspects = [one for one in suspects if not one.where]
        self._switch_on(subject, config, suspects, reads, clock)
        suspects = [one for one in suspects if not self._excused(one, reads)]
        short, whole, length = self._shortened(subject, config, states, suspects, clock)
        if not suspects or short is None:
            return
        long = list(self._record(subject, short, None if whole else self.updates))
        steps = sum(1 for where, _ in long if where.startswith("at update"))
        for one in suspects:
            for value in one.tried[: self.long_values]:
                if clock.left == 0.0:
                    break
                try:
                    one.where = (
                        self._part(subject, changed(short, one.name, value), long, None if whole else steps) or ""
                    )
                except Exception:  # noqa: BLE001 - in the shorter training the value does not fit
                    continue
                one.depth, one.whole, one.length = steps, whole, length
                if one.where:
                    break

    def _switch_on(
        self, subject: Subject, config: Any, suspects: Sequence[_Setting], reads: Reads, clock: Clock
    ) -> None:
        """Find for each suspect a setting that lets it act."""
        limit = clock.spent + clock.left / 2
        for gate, value in gates(config):
            if all(one.gate for one in suspects) or clock.spent > limit:
                return
            waiting = [one for one in suspects if not one.gate and one.name != gate]
            if not waiting:
                continue
            there = Reads()
            try:
                on = changed(config, gate, value)
                base = self._base(subject, on, there, self.gate_updates)
            except Exception:  # noqa: BLE001 - a combination that does not exist
                continue
            old = value_of(config, gate)
            kind: Gate = "switch" if isinstance(old, bool) else "choice" if isinstance(old, str) else "neutral"
            for one in waiting:
                acts = self._acts(subject, on, one, base) if self._read(one, reads) else one.name in there.used
                if acts:
                    one.gate, one.gated = f"{gate}={value!r}", kind

    @staticmethod
    def _read(one: _Setting, reads: Reads) -> bool:
        """Say whether the setting was read, as far as that is known."""
        return reads.whole or one.name in reads.used

    def _excused(self, one: _Setting, reads: Reads) -> bool:
        """Say whether the setting belongs to what is switched off."""
        return bool(one.gate) and (one.gated != "switch" or not self._read(one, reads))

    def _acts(self, subject: Subject, config: Any, one: _Setting, base: Sequence[Seen]) -> bool:
        try:
            return self._part(subject, changed(config, one.name, one.tried[0]), base, self.gate_updates) is not None
        except Exception:  # noqa: BLE001 - a value that does not fit there
            return False

    def _shortened(
        self,
        subject: Subject,
        config: Any,
        states: Sequence[_Setting],
        suspects: Sequence[_Setting],
        clock: Clock,
    ) -> tuple[Any, bool, str]:
        """Return a configuration whose whole training fits the budget, whether it is whole, and what to call it.

        A setting that changes the length of the training makes it shorter; without one the updates that fit are taken.
        """
        if not suspects or clock.left == 0.0:
            return None, False, ""
        began, training = clock.spent, copy_of(subject)
        training.evaluate()
        taken = sum(1 for _ in updates(training, min(self.updates, training.steps)))
        each = max((clock.spent - began) / max(taken, 1), 1e-6)
        fit = clock.left * 0.7 / (each * (1 + self.long_values * len(suspects)))
        if fit >= training.steps:
            return config, True, "the training"
        for one in states:
            if one.where != "in what it declares" or type(one.value) is not int or one.value < 2:
                continue
            value = max(int(one.value * fit / training.steps), LEAST)
            if value >= one.value:
                continue
            try:
                short = changed(config, one.name, value)
                if copy_of(subject, config=short).steps <= max(training.steps * value // one.value, 1):
                    return short, True, f"a training with {one.name}={value}"
            except Exception:  # noqa: BLE001 - the settings do not allow a training as short as that
                continue
        return config, False, ""

    @staticmethod
    def _presets(subject: Subject) -> list[Any]:
        if subject.system is None:
            return []
        made = [make() for make in subject.system.presets.values()]
        return [one for one in made if type(one) is type(subject.config)]

    # --- what is said of it -----------------------------------------------------------------------

    def _result(self, states: Sequence[_Setting], reads: Reads, names: Sequence[str]) -> Result:
        found: list[Finding] = []
        measured: dict[str, float | str] = {}
        unknown = 0
        for one in states:
            unread = not self._read(one, reads)
            if one.aside:
                measured[one.name] = "not tested: by its name it is to change no number"
            elif one.where:
                measured[one.name] = f"differs {one.where}"
            elif one.reason:
                measured[one.name], unknown = f"unknown: {one.reason}", unknown + 1
            elif self._excused(one, reads):
                measured[one.name] = f"no effect here; acts with {one.gate}"
                if one.gated == "choice" and not unread:
                    found.append(self._accused(one, unread, Severity.INFO))
            elif one.gate or one.whole:
                measured[one.name] = "no effect"
                found.append(self._accused(one, unread, Severity.WARNING))
            else:
                unknown += 1
                measured[one.name] = f"unknown: no difference in {one.depth} updates; the rest did not fit the budget"
        acting = sum(1 for one in states if one.where)
        if acting + len(found) == 0 and unknown:
            first = next(one.name for one in states if measured[one.name] != "")
            return self.unknown(f"of {len(names)} settings none could be settled ({first}: {measured[first]})",
                                measured=measured, n=len(names))  # fmt: skip
        summary = f"{acting} of {len(names)} settings make a difference"
        aside = sum(1 for one in states if one.aside)
        idle = len(names) - acting - unknown - len(found) - aside
        if aside:
            summary += f", {aside} were not tested, for they are to change no number"
        if idle > 0:
            summary += f", {idle} belong to what is switched off"
        if unknown:
            left = [one.name for one in states if str(measured[one.name]).startswith("unknown")]
            summary += f", {unknown} could not be told ({listed(left)})"
        found.sort(key=lambda one: -one.severity)
        return self.judged(summary, found, n=len(names), measured=measured)

    def _accused(self, one: _Setting, unread: bool, severity: Severity) -> Finding:
        tried = listed([f"{value!r:.30}" for value in one.tried], 4)
        far = f"all {one.depth} updates of {one.length}" if one.whole else f"the first {one.depth} updates"
        words = (
            f"{one.name} has no effect: with {tried} in place of {one.value!r:.30} every loss, metric and weight of "
            f"{far} is the same to the last bit, and so is the schedule"
        )
        words += "; nothing reads it" if unread else ""
        words += f"; it would act with {one.gate}" if one.gate else ""
        return self.finding(
            "setting-without-effect",
            severity,
            words,
            float(one.depth),
            {"setting": one.name, "tried": tuple(repr(value) for value in one.tried), "read": float(not unread)},
            one.name,
        )


def _has(config: Any, name: str) -> bool:
    try:
        value_of(config, name)
    except AttributeError:
        return False
    return True


def _declared(training: Training) -> str:
    options = {
        name: (type(one).__name__, [{k: v for k, v in group.items() if k != "params"} for group in one.param_groups])
        for name, one in training.optimizers.items()
    }
    return repr(
        (
            training.steps, training.evaluate_every, training.clip, training.evaluate_first, training.early_stop,
            sorted(training.better.items()), options,
        )
    )  # fmt: skip


def _numbers(metrics: Any) -> str:
    return repr({name: repr(float(value)) for name, value in metrics.items()})


def _rates(training: Training) -> str:
    return repr([[group["lr"] for group in one.param_groups] for one in training.optimizers.values()])


def _weights(training: Training, names: set[str]) -> str:
    digest = hashlib.sha256()
    for name, one in training.model.named_parameters():
        if name in names:
            value = one.detach().cpu().contiguous().reshape(-1)
            digest.update(name.encode() + value.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
