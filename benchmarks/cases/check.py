"""Show that the faults harm and that the healthy runs arrive: `python -m benchmarks.cases.check [part of a name]...`.

One line per case and family: the final evaluation of the healthy and of the faulty run, over two seeds.
"""

import itertools
import math
import sys
import time

import torch

from benchmarks.cases.faults import ALL_FAMILIES, FAULTS, FaultCase
from benchmarks.cases.healthy import HEALTHY, HealthyCase
from benchmarks.cases.second_injections import SECOND_INJECTIONS
from benchmarks.cases.training import Milestone, Ran, Training, run

SEEDS = (0, 1)


def timed(training: Training) -> tuple[Ran, float]:
    """The run, and its CPU seconds."""
    begin = time.process_time()
    return run(training), time.process_time() - begin


def in_time(milestone: Milestone, ran: Ran) -> bool:
    """Whether an evaluation up to the milestone's step meets it."""
    return any(milestone.met(metrics) for step, metrics in ran.evaluations if step <= milestone.step)


def harm(healthy: Ran, faulty: Ran, target: Milestone, missed: Milestone | None) -> str:
    """What the fault did, in one word."""
    before, after = healthy.final, faulty.final
    if not all(map(math.isfinite, after.values())):
        return "not-finite"
    if missed is not None and not in_time(missed, faulty):
        return "milestone"
    if after.get("spread", 1.0) < 0.25 * before.get("spread", 0.0):
        return "collapsed"
    if not faulty.reached_target:
        return "target"
    return "worse" if "loss" in after and after["loss"] > 1.25 * before["loss"] else "none"


def shown(ran: Ran) -> str:
    """The final metrics."""
    return " ".join(f"{name} {value:.3g}" for name, value in ran.final.items())


def check_fault(case: FaultCase, healthy: dict[tuple[str, int], Ran]) -> None:
    """Print one line for each family of the case."""
    for family in case.families:
        cells = []
        for seed in SEEDS:
            training = case.build(family, seed)
            milestone = training.milestones[0] if training.milestones else None
            ran, seconds = timed(training)
            before = healthy[family, seed]
            word = harm(before, ran, training.target, milestone)
            cells.append(f"{word:10} {shown(before)} -> {shown(ran)} ({seconds:.1f} s)")
        print(f"{case.name:30} {family:10} {'wiring' if case.wiring else '':6} | {' | '.join(cells)}", flush=True)


def check_healthy(case: HealthyCase) -> None:
    """Print one line: whether the target and the declared milestones were reached."""
    cells = []
    for seed in SEEDS:
        training = case.build(seed)
        ran, seconds = timed(training)
        reached = ran.reached_target and all(in_time(milestone, ran) for milestone in training.milestones)
        cells.append(f"{'reached' if reached else 'MISSED'} {shown(ran)} ({len(ran.losses)} steps, {seconds:.1f} s)")
    print(f"{case.name:30} {' | '.join(cells)}", flush=True)


def main(parts: list[str]) -> None:
    """Check the cases whose name contains one of `parts`, or all."""
    torch.set_num_threads(1)

    def chosen(name: str) -> bool:
        return not parts or any(part in name for part in parts)

    for kind in HEALTHY:
        if chosen(kind.name):
            check_healthy(kind)
    healthy: dict[tuple[str, int], Ran] = {}
    for case in (*FAULTS, *SECOND_INJECTIONS):
        if chosen(case.name):
            for key in itertools.product(case.families, SEEDS):
                if key not in healthy:
                    healthy[key] = run(ALL_FAMILIES[key[0]].build(key[1]))
            check_fault(case, healthy)


if __name__ == "__main__":
    main(sys.argv[1:])
