"""One benchmark training under a Guard as shipped: what is run, what its user tells the Guard, many runs at a time."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.cases.case import FaultCase
from benchmarks.cases.faults import FAULTS
from benchmarks.cases.faults_long import LONG_FAULTS
from benchmarks.cases.healthy import HEALTHY, REPORT_SEEDS, TUNE_SEEDS
from benchmarks.cases.second_injections import SECOND_INJECTIONS
from benchmarks.cases.training import Ran, Training, run
from benchmarks.stored import commit
from trimtab import Guard, Milestone, Run, Severity

AFTER = 60
"""A faulty run goes on for so many steps after its delay budget, so that extra findings can show."""
CACHE = Path(__file__).parent / ".cache"
CASES: dict[str, FaultCase] = {case.name: case for case in (*FAULTS, *SECOND_INJECTIONS, *LONG_FAULTS)}
LONG = frozenset(case.name for case in LONG_FAULTS)
SECOND = frozenset(case.name for case in SECOND_INJECTIONS)
KINDS = {case.name: case for case in HEALTHY}

J = TypeVar("J")
R = TypeVar("R")
CHANGES = ("data-change", "curriculum")
"""Kinds of announcements without which a change of the data is a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: a fault in a family, or a healthy kind (no family); `unannounced` keeps quiet about changes."""

    name: str
    seed: int
    family: str = ""
    unannounced: bool = False

    @property
    def key(self) -> str:
        """Name the run."""
        family = self.family or ("unannounced" if self.unannounced else "healthy")
        return f"{self.name}/{family}/{self.seed}"

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
        if self.unannounced:
            training.announcements = ()
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


def long_jobs(seeds: Iterable[int]) -> list[Job]:
    """Return the faults that only a long run shows, which count in no figure."""
    return [Job(name=c.name, family=f, seed=s) for c in LONG_FAULTS for f in c.families for s in seeds]


def healthy_jobs(seeds: Iterable[int]) -> list[Job]:
    """Return each healthy kind with each seed."""
    return [Job(name=kind, seed=s) for kind in KINDS for s in seeds]


def unannounced_jobs(seeds: Iterable[int]) -> list[Job]:
    """Return each healthy kind that announces a change of its data, without the announcement."""
    seeds = list(seeds)
    kinds = [kind for kind in KINDS if any(a.kind in CHANGES for a in KINDS[kind].build(0).announcements)]
    return [Job(name=kind, seed=s, unannounced=True) for kind in kinds for s in seeds]


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


def watched(training: Training, steps: int, folder: Path, **guarding: Any) -> Watched:
    """Run a training under a Guard that finds model and optimizer itself, and is told what the training's user says.

    `guarding` are settings of the Guard; without any it is as shipped.
    """
    better: dict[str, Any] = {m.metric: m.better for m in (*training.milestones, training.target)}
    begin = time.process_time()
    with Guard(folder, milestones=milestones_of(training), **guarding) as guard:

        def evaluated(step: int, metrics: Mapping[str, float], split: str) -> None:
            guard.record(split=split, better=better, **metrics)

        ran = run(training, steps, on_evaluation=evaluated, observer=guard)
    return Watched(run=Run(folder), ran=ran, seconds=time.process_time() - begin)


def opened(run: Run) -> list[dict[str, Any]]:
    """Return what was found in a run: the events that opened or worsened a finding, at warning or above."""
    return [
        {"code": e.code, "severity": str(e.severity), "step": e.step, "stream": e.stream, "summary": e.summary}
        for e in run.findings()
        if e.event in ("opened", "worsened") and e.severity >= Severity.WARNING
    ]


def in_processes(work: Callable[[J], R], jobs: Sequence[J], processes: int) -> Iterator[R]:
    """Do the jobs in so many fresh processes and yield each result as it comes; with 0, in this one."""
    begin = time.monotonic()

    def counted(results: Iterable[R]) -> Iterator[R]:
        for count, result in enumerate(results, start=1):
            yield result
            if count % 25 == 0:
                print(f"  {count} of {len(jobs)} after {time.monotonic() - begin:.0f} s", flush=True)

    if processes == 0:
        _alone()
        yield from counted(map(work, jobs))
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_alone, maxtasksperchild=25) as pool:
        yield from counted(pool.imap_unordered(work, jobs))


def _alone() -> None:
    torch.set_num_threads(1)
    logging.getLogger("trimtab").setLevel(logging.CRITICAL)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a benchmark was asked for: `stores` says whether the whole report was."""

    tune: bool
    only: str
    seeds: list[int]
    processes: int

    @property
    def stores(self) -> bool:
        """Whether this is the whole report, whose result is kept."""
        return not (self.tune or self.only or self.seeds)


def arguments(parser: argparse.ArgumentParser) -> Options:
    """Read the command line that these benchmarks share."""
    parser.add_argument("--tune", action="store_true", help="the seeds and injections that may be tuned on")
    parser.add_argument("--only", default="", help="runs whose name/family/seed contains this; nothing is stored")
    parser.add_argument("--seeds", default="", help="other seeds, such as 0,1; nothing is stored")
    parser.add_argument("--processes", type=int, default=2, help="0: in this process")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",") if seed]
    return Options(tune=given.tune, only=given.only, seeds=seeds, processes=given.processes)


def perform_all(
    perform: Callable[[Job], dict[str, Any]], wanted: Sequence[Job], name: str, options: Options
) -> list[dict[str, Any]]:
    """Do the jobs that are not in this commit's cache yet; return the results in the order of `wanted`.

    A tree that differs from its commit has no cache: nobody could say what was measured.
    """
    state = commit()
    clean = "+dirty" not in state
    cache = CACHE / name / (f"{hashlib.sha256(state.encode()).hexdigest()[:12]}.jsonl" if clean else "scratch.jsonl")
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not clean:
        cache.unlink(missing_ok=True)
    done: dict[str, dict[str, Any]] = {}
    if cache.exists():
        for line in cache.read_text(encoding="utf-8").splitlines():
            result = json.loads(line)
            done[_key(result)] = result
    waiting = [job for job in wanted if job.key not in done]
    print(f"{len(wanted)} runs, {len(waiting)} to do", flush=True)
    with cache.open("a", encoding="utf-8") as file:
        for result in in_processes(perform, waiting, options.processes):
            done[_key(result)] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
    return [done[job.key] for job in wanted]


def _key(result: Mapping[str, Any]) -> str:
    return Job(**{field.name: result[field.name] for field in fields(Job)}).key


def forget() -> None:
    """Let go of what a training held, so that the next Guard cannot take it for its own."""
    gc.collect()
