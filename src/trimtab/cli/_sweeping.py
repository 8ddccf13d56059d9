"""A sweep while it runs: a live table on a terminal, one line for each ended trial elsewhere; on standard error.

`with live(...) as show:` gives what `trimtab.sweep.Sweep` takes as `progress`. It only counts and prints.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from trimtab.cli import _show
from trimtab.report.page import show
from trimtab.trial import ENDED, Trial, TrialResult

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_RUNNING = 16
"""So many running trials are listed at once; the rest are counted."""
REFRESHES = 2.0
"""How often the table is drawn anew in a second: often enough to see it move, at about 1 % of a core."""


class Progress(Protocol):
    """What a sweep tells while it runs."""

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins: it has `total` trials, of which `done` had ended before."""

    def began(self, trial: Trial, worker: str = "") -> None:
        """A trial was started by `worker`."""

    def moved(self, trial: Trial, updates: int, planned: int | None = None, value: float | None = None) -> None:
        """A running trial has taken `updates` of `planned`; `value` is the newest one of the sweep's metric."""

    def ended(self, result: TrialResult) -> None:
        """A trial has ended, in whatever way; one that goes back to waiting has not, and says so by its status."""


@dataclass(slots=True)
class _Running:
    trial: Trial
    worker: str
    since: float
    updates: int = 0
    planned: int | None = None
    value: float | None = None


@dataclass(slots=True)
class _Standing:
    """Where a sweep stands; the table and the lines are drawn from it."""

    name: str
    total: int
    clock: Callable[[], float]
    before: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[str, _Running] = field(default_factory=dict)
    phase_name: str = ""
    phase_total: int = 0
    phase_done: int = 0
    last: str = ""
    started: float = 0.0

    @property
    def done(self) -> int:
        """Trials that have ended, now or before."""
        return self.before + sum(self.counts.values())

    @property
    def remaining(self) -> float | None:
        """Seconds until the end at the pace so far; None before two trials have ended, or where there is no end."""
        ended = sum(self.counts.values())
        left = self.total - self.done
        if ended < 2 or left < 0:
            return None
        return (self.clock() - self.started) / ended * left

    def phase(self, name: str, total: int, done: int) -> None:
        self.phase_name, self.phase_total, self.phase_done = name, total, done

    def began(self, trial: Trial, worker: str = "") -> None:
        self.running[trial.key] = _Running(trial, worker, self.clock())

    def moved(self, trial: Trial, updates: int, planned: int | None = None, value: float | None = None) -> None:
        one = self.running.get(trial.key)
        if one is not None:
            one.updates, one.planned = updates, planned or one.planned
            one.value = one.value if value is None else value

    def ended(self, result: TrialResult) -> None:
        self.running.pop(result.trial.key, None)
        if result.status in ENDED:
            self.counts[result.status] += 1
            self.phase_done += result.trial.phase == self.phase_name
        self.last = sentence(result)

    def headline(self) -> str:
        """Return where it stands in one line, and how much longer it may take."""
        parts = [f"{self.done} of {self.total} trials" if self.total else f"{self.done} trials"]
        parts += [
            f"{self.counts[status]} {status}" for status in ("failed", "pruned", "stopped") if self.counts[status]
        ]
        if self.phase_name:
            parts.append(f"phase {self.phase_name}: {self.phase_done} of {self.phase_total}")
        parts.append(f"{duration(self.clock() - self.started)} so far")
        if self.remaining is not None:
            parts.append(f"about {duration(self.remaining)} left")
        return "; ".join(parts)


class Lines(_Standing):
    """Prints one line for each trial that ends, for pipes and log files."""

    __slots__ = ()

    def phase(self, name: str, total: int, done: int) -> None:
        """Say that a phase begins."""
        _Standing.phase(self, name, total, done)
        if name:
            self._say(f"phase {name}: {total} trials" + (f", {done} of them done before" if done else ""))

    def ended(self, result: TrialResult) -> None:
        """Say how a trial ended, and how many are left."""
        _Standing.ended(self, result)
        self._say(f"[{self.done}/{self.total}] {self.last}" if self.total else f"[{self.done}] {self.last}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Table(_Standing):
    """The running trials as a table under one line that counts; drawn anew by the terminal's own pace."""

    __slots__ = ()

    def __rich__(self) -> RenderableType:
        """Return what stands on the terminal now."""
        from rich.console import Group

        parts: list[RenderableType] = [_show.text(f"{self.name}  {self.headline()}", "bold")]
        running = sorted(self.running.values(), key=lambda one: one.since)
        if running:
            parts.append(
                _show.table(
                    ["running", "seed", "updates", "metric", "time", "worker"],
                    [self._row(one) for one in running[:MOST_RUNNING]],
                    right=["seed", "updates", "metric", "time"],
                    wrap="running",
                )
            )
        if len(running) > MOST_RUNNING:
            parts.append(_show.text(f"and {len(running) - MOST_RUNNING} more", "dim"))
        if self.last:
            parts.append(_show.text(f"last: {self.last}", "dim"))
        return Group(*parts)

    def _row(self, one: _Running) -> tuple[str, ...]:
        updates = f"{one.updates:,}" + (f" of {one.planned:,}" if one.planned else "") if one.updates else "-"
        value = "-" if one.value is None else show(one.value)
        return one.trial.arm, str(one.trial.seed), updates, value, duration(self.clock() - one.since), one.worker


@contextlib.contextmanager
def live(
    name: str,
    total: int,
    *,
    before: Sequence[TrialResult] = (),
    quiet: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Show a sweep while the block runs.

    Args:
        name: of the sweep.
        total: how many trials it has in all, those before included; 0 where a search has no fixed number.
        before: trials that had ended before this block; they count as done and say nothing of the pace.
        quiet: print nothing.
        clock: seconds that never go back.
    """
    counted = sum(result.status in ENDED for result in before)
    if quiet:
        yield _Standing(name, total, clock, counted, started=clock())
    elif not sys.stderr.isatty():
        yield Lines(name, total, clock, counted, started=clock())
    else:
        from rich.console import Console
        from rich.live import Live

        table = Table(name, total, clock, counted, started=clock())
        console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        with Live(table, console=console, refresh_per_second=REFRESHES, transient=True):
            yield table


def sentence(result: TrialResult) -> str:
    """Say how one trial ended, in a line: who it was, what came of it, how long it took."""
    trial = result.trial
    who = " ".join(part for part in (trial.phase and f"{trial.phase}:", trial.arm, f"seed {trial.seed}") if part)
    if result.status == "failed":
        again = f" after {result.attempts} attempts" if result.attempts > 1 else ""
        return f"{who} failed{again}: {result.error or 'no reason was given'}"
    if result.status not in ENDED:
        return f"{who} goes back to {result.status}" + (f": {result.error}" if result.error else "")
    words = f"{who} {result.status}"
    if result.points:
        words += f": {result.metric} best {show(result.best)}, final {show(result.final)}"
    if result.wall_seconds:
        words += f" ({duration(result.wall_seconds)})"
    return words


def duration(seconds: float) -> str:
    """Write seconds as a person says them: 4.2 s, 3:05 min, 1:02:30 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
