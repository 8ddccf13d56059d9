"""One benchmark training under a Guard as shipped: what is run, what its user tells the Guard, many runs at a time."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.cases.faults import FAULTS, FaultCase
from benchmarks.cases.healthy import HEALTHY, REPORT_SEEDS, TUNE_SEEDS
from benchmarks.cases.second_injections import SECOND_INJECTIONS
from benchmarks.cases.training import Ran, Training, run
from trimtab import Guard, Milestone, Run

AFTER = 60
"""A faulty run goes on for so many steps after its delay budget, so that extra findings can show."""
CACHE = Path(__file__).parent / ".cache"
CASES: dict[str, FaultCase] = {case.name: case for case in (*FAULTS, *SECOND_INJECTIONS)}
SECOND = frozenset(case.name for case in SECOND_INJECTIONS)
KINDS = {case.name: case for case in HEALTHY}

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: a fault in a family, or a healthy kind (no family)."""

    name: str
    seed: int
    family: str = ""

    @property
    def key(self) -> str:
        """Name the run."""
        return f"{self.name}/{self.family or 'healthy'}/{self.seed}"

    @property
    def known(self) -> bool:
        """Whether the tables hold this case."""
        if not self.family:
            return self.name in KINDS
        return self.name in CASES and self.family in CASES[self.name].families

    @property
    def case(self) -> FaultCase | None:
        """The fault, None for a healthy kind."""
        return CASES[self.name] if self.family else None

    def build(self) -> tuple[Training, int]:
        """Return the training and over how many steps it runs."""
        if self.family:
            case = CASES[self.name]
            training = case.build(self.family, self.seed)
            return training, min(training.steps, case.last_step + AFTER)
        training = KINDS[self.name].build(self.seed)
        return training, training.steps


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A finished run: its folder, what the loop saw, the CPU seconds that it took."""

    run: Run
    ran: Ran
    seconds: float


def fault_jobs(seeds: Iterable[int], *, first_only: bool) -> list[Job]:
    """Return each fault in each of its families with each seed; the first injections only, or both tables."""
    tables = FAULTS if first_only else (*FAULTS, *SECOND_INJECTIONS)
    return [Job(name=c.name, family=f, seed=s) for c in tables for f in c.families for s in seeds]


def healthy_jobs(seeds: Iterable[int]) -> list[Job]:
    """Return each healthy kind with each seed."""
    return [Job(name=kind, seed=s) for kind in KINDS for s in seeds]


def seeds_for(*, tune: bool) -> list[int]:
    """Return the seeds on which thresholds may be chosen, or those on which figures are reported."""
    return list(TUNE_SEEDS if tune else REPORT_SEEDS)


def milestones_of(training: Training) -> list[Milestone]:
    """Return the milestones that a training's user has declared, as Trimtab's."""
    return [
        Milestone(
            metric=f"{m.split}/{m.metric}",
            comparison=">=" if m.better == "higher" else "<=",
            value=m.value,
            by_step=m.step,
        )
        for m in training.milestones
    ]


def watched(training: Training, steps: int, folder: Path) -> Watched:
    """Run a training under a Guard that finds model and optimizer itself, and is told what the training's user says."""
    better: dict[str, Any] = {m.metric: m.better for m in (*training.milestones, training.target)}
    begin = time.process_time()
    with Guard(folder, milestones=milestones_of(training)) as guard:

        def evaluated(step: int, metrics: Mapping[str, float], split: str) -> None:
            guard.record(split=split, better=better, **metrics)

        stepped = tell(training, guard)
        ran = run(training, steps, on_step=stepped, on_evaluation=evaluated)
    return Watched(run=Run(folder), ran=ran, seconds=time.process_time() - begin)


def tell(training: Training, guard: Any) -> Callable[[int, float], None] | None:
    """Tell a Guard what the training's user says; return what announces the rest as the steps go by.

    An announcement for step s is made before the update s: the first ones now, the others after the update s - 1.
    """
    waiting = sorted(getattr(training, "announcements", ()), key=lambda one: one[0])
    for ceiling in getattr(training, "ceilings", ()):
        key, value = ceiling
        guard.note("ceiling", text=key, value=value)
    told = getattr(training, "told", None)
    if told is not None:
        told(guard)

    def announce(done: int) -> None:
        while waiting and waiting[0][0] <= done + 1:
            _, kind, steps = waiting.pop(0)
            guard.note(kind, steps=steps)

    announce(-1)
    return (lambda step, _: announce(step)) if waiting else None


def in_processes(
    work: Callable[[J], R], jobs: Sequence[J], processes: int, say: Callable[[str], None] = print
) -> Iterator[R]:
    """Do the jobs in so many fresh processes and yield each result as it comes; with 0, in this one."""
    begin = time.monotonic()

    def counted(results: Iterable[R]) -> Iterator[R]:
        for count, result in enumerate(results, start=1):
            yield result
            if count % 25 == 0:
                say(f"  {count} of {len(jobs)} after {time.monotonic() - begin:.0f} s")

    if processes == 0:
        yield from counted(map(work, jobs))
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=torch.set_num_threads, initargs=(1,), maxtasksperchild=25) as pool:
        yield from counted(pool.imap_unordered(work, jobs))


def forget() -> None:
    """Let go of what a training held, so that the next Guard cannot take it for its own."""
    gc.collect()
