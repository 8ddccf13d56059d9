"""Show that the faults harm and that the healthy runs arrive: `python -m benchmarks.cases.check [part of a name]...`.

One line per case and family: the final evaluation of the healthy and of the faulty run, over two seeds.
"""

import math
import sys
import time

import torch

from benchmarks.cases.faults import ALL_FAMILIES, FAULTS, FaultCase
from benchmarks.cases.second_injections import SECOND_INJECTIONS
from benchmarks.cases.training import Milestone, Ran, Training, run

SEEDS = (0, 1)


def timed(training: Training) -> tuple[Ran, float]:
    """The run, and its CPU seconds."""
    begin = time.process_time()
    return run(training), time.process_time() - begin


def harm(healthy: Ran, faulty: Ran, target: Milestone, missed: Milestone | None) -> str:
    """What the fault did, in one word."""
    before, after = healthy.final, faulty.final
    if not all(map(math.isfinite, after.values())):
        return "not-finite"
    if missed is not None and not any(missed.met(m) for step, m in faulty.evaluations if step <= missed.step):
        return "milestone"
    if not faulty.reached_target:
        return "target"
    return "worse" if after["loss"] > 1.25 * before["loss"] else "none"


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


def main(parts: list[str]) -> None:
    """Check the cases whose name contains one of `parts`, or all."""
    torch.set_num_threads(1)
    healthy = {}
    for name, family in ALL_FAMILIES.items():
        for seed in SEEDS:
            healthy[name, seed], seconds = timed(family.build(seed))
            reached, met = healthy[name, seed].reached_target, early(healthy[name, seed], family.milestone)
            print(f"{name:10} seed {seed} {seconds:.1f} s target {reached} milestone {met}", shown(healthy[name, seed]))
    for case in (*FAULTS, *SECOND_INJECTIONS):
        if not parts or any(part in case.name for part in parts):
            check_fault(case, healthy)


def early(ran: Ran, milestone: Milestone) -> bool:
    """Whether the milestone was met in time."""
    return any(milestone.met(metrics) for step, metrics in ran.evaluations if step <= milestone.step)


if __name__ == "__main__":
    main(sys.argv[1:])
