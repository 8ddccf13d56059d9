"""What the system `ternary` reaches from scratch, and what it costs: `python -m benchmarks.ternary`.

Every training of a case runs as `trimtab.train` runs it, but without a Guard, on one thread; seconds are those of the
process and include all evaluations, but no imports. Trainings of the case `reference` run a second time under a Guard,
which must end with exactly the same metrics; its seconds stand beside. What is stored for the same commit is not run
again. Settings were chosen on seeds 100 to 109.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch and numpy when they are imported

import torch

from benchmarks.stored import commit, load, store
from trimtab.system import Training
from trimtab.train import train
from trimtab_systems.ternary import metrics
from trimtab_systems.ternary.data import operations
from trimtab_systems.ternary.losses import NEEDED_NATS
from trimtab_systems.ternary.recipe import PRESETS, SYSTEM

COMMAND = "python -m benchmarks.ternary"
CASES: Mapping[str, int] = {
    "reference": 10,
    "wide-bands": 10,
    "held-out": 5,
    "two-phase": 3,
    "cross-entropy-only": 3,
    "small-beta": 3,
    "full-kl": 3,
}
"""Preset -> how many seeds, from 0 on."""


def row_of(case: str, seed: int) -> dict[str, Any]:
    """Train once and return what was reached and what it took."""
    began = time.process_time()
    training = SYSTEM.build(PRESETS[case](), seed)
    evaluations, evaluating = plain(training)
    seconds = time.process_time() - began
    last = evaluations[-1][1]
    hierarchies = [values["hierarchy"] for _, values in evaluations]
    row = {
        "case": case,
        "seed": seed,
        "updates": training.steps,
        "parameters": sum(parameter.numel() for parameter in training.model.parameters()),
        "cpu_seconds": round(seconds, 3),
        "cpu_seconds_evaluating": round(evaluating, 3),
        "full_coverage_at": next((step for step, values in evaluations if values["coverage"] == 1.0), None),
        "best_hierarchy": min(hierarchies),
        "final_minus_best": last["hierarchy"] - min(hierarchies),
        "final": last,
    }
    if case == "reference":
        row |= guarded(case, seed, last)
    return row


def plain(training: Training) -> tuple[list[tuple[int, Mapping[str, float]]], float]:
    """Take every update; return the evaluations with the updates before each, and the seconds that these took."""
    (optimizer,) = training.optimizers.values()
    assert training.clip is not None
    assert training.schedule is not None
    evaluations, evaluating = [], 0.0
    for step in range(training.steps + 1):
        if step % training.evaluate_every == 0 or step == training.steps:
            began = time.process_time()
            evaluations.append((step, training.evaluate()))
            evaluating += time.process_time() - began
        if step == training.steps:
            break
        training.loss(training.model, next(training.batches)).backward()
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad()
        training.schedule(step)
    return evaluations, evaluating


def guarded(case: str, seed: int, expected: Mapping[str, float]) -> dict[str, Any]:
    """Train under a Guard into a folder that is thrown away; return its seconds, findings, and whether it is equal."""
    ends: list[Mapping[str, float]] = []
    with tempfile.TemporaryDirectory() as root:
        began = time.process_time()
        run = train(
            SYSTEM,
            preset=case,
            seed=seed,
            root=root,
            checkpoint_every=0,
            evaluated=lambda _, values: ends.append(values),
        )
        seconds = time.process_time() - began
        grave = sorted({one.code for one in run.findings() if one.severity.name != "INFO"})
    return {
        "cpu_seconds_guarded": round(seconds, 3),
        "guarded_ends_equal": float(ends[-1] == expected),
        "guarded_findings": grave,
    }


def figures_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of all cases that have their rows."""
    of = {case: [row for row in rows if row["case"] == case] for case in CASES}

    def final(case: str, name: str) -> list[float]:
        return [row["final"][name] for row in of[case]]

    figures: dict[str, float] = {}
    if main := of["reference"]:
        figures |= {
            "seeds": len(main),
            "coverage_min": min(final("reference", "coverage")),
            "hierarchy_max": max(final("reference", "hierarchy")),
            "hierarchy_min": min(final("reference", "hierarchy")),
            "balanced_d_max": max(final("reference", "balanced_d")),
            "distinct_radii_min": min(final("reference", "distinct_radii")),
            "richness_min": min(final("reference", "richness_ball")),
            "final_minus_best_max": max(row["final_minus_best"] for row in main),
            "train_cpu_seconds_median": statistics.median(row["cpu_seconds"] for row in main),
            "evaluation_cpu_seconds_median": statistics.median(row["cpu_seconds_evaluating"] for row in main),
            "guarded_cpu_seconds_median": statistics.median(row["cpu_seconds_guarded"] for row in main),
            "guarded_ends_equal": min(row["guarded_ends_equal"] for row in main),
            "guarded_findings": sum(len(row["guarded_findings"]) for row in main),
        }
    if of["wide-bands"]:
        figures |= {
            "wide_coverage_min": min(final("wide-bands", "coverage")),
            "wide_hierarchy_max": max(final("wide-bands", "hierarchy")),
            "wide_richness_min": min(final("wide-bands", "richness_ball")),
        }
    if of["held-out"]:
        figures["heldout_coverage_min"] = min(final("held-out", "coverage_held"))
        figures["heldout_hierarchy_max"] = max(final("held-out", "hierarchy_held"))
    for case in ("two-phase", "cross-entropy-only", "small-beta", "full-kl"):
        if of[case]:
            name = case.replace("-", "_")
            figures[f"{name}_coverage_min"] = min(final(case, "coverage"))
            figures[f"{name}_coverage_max"] = max(final(case, "coverage"))
            figures[f"{name}_hierarchy_max"] = max(final(case, "hierarchy"))
            figures[f"{name}_kl_max"] = max(final(case, "kl"))
    return figures


def table(rows: list[dict[str, Any]]) -> str:
    """Return what `docs/systems/ternary.md` shows: the worst seed of each case, and the median of the seconds."""
    lines = [
        "| preset | seeds | coverage | sampled | hierarchy | balanced_d | richness | radii | nats | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        mine = [row for row in rows if row["case"] == case]
        if not mine:
            continue
        ends = [row["final"] for row in mine]
        seconds = statistics.median(row["cpu_seconds"] for row in mine)
        lines.append(
            f"| {case} | {len(mine)} | {min(end['coverage'] for end in ends):.4f} "
            f"| {min(end['coverage_sampled'] for end in ends):.3f} | {max(end['hierarchy'] for end in ends):.4f} "
            f"| {max(end['balanced_d'] for end in ends):.4f} | {min(end['richness_ball'] for end in ends):.1e} "
            f"| {min(end['distinct_radii'] for end in ends):,.0f} | {min(end['kl'] for end in ends):.1f} "
            f"| {seconds:.1f} |"
        )
    return "\n".join(lines)


def limits() -> dict[str, Any]:
    """Return what is possible, and what a rule that reads one digit reaches."""
    level_N, values_ND = operations().level.numpy(), operations().values.numpy()
    counts = [int((level_N == level).sum()) for level in range(int(level_N.max()) + 1)]
    return {
        "operations_per_level": counts,
        "hierarchy_ceiling": -metrics.spearman_ceiling(counts),
        "kendall_tau_b_ceiling": -metrics.kendall_ceiling(counts),
        "one_digit_rule": str(metrics.best_one_digit_rule(level_N, values_ND)),
        "nats_needed": NEEDED_NATS,
    }


def main() -> None:
    """Train what is not stored yet, and store the result after each training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--again", action="store_true", help="train everything anew")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="these alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    SYSTEM.build(PRESETS["tiny"](), 0)  # the first optimizer of a process imports much; that is no training
    stored = None if given.again else load("ternary")
    rows: list[dict[str, Any]] = stored["detail"]["rows"] if stored and stored["commit"] == commit() else []
    done = {(row["case"], row["seed"]) for row in rows}
    for case in given.cases:
        for seed in range(CASES[case]):
            if (case, seed) in done:
                continue
            row = row_of(case, seed)
            rows.append(row)
            last = row["final"]
            print(
                f"{case} {seed}: {row['cpu_seconds']:.2f} CPU s, coverage {last['coverage']:.5f}, hierarchy "
                f"{last['hierarchy']:.5f}, balanced_d {last['balanced_d']:.5f}, richness {last['richness_ball']:.2e}",
                flush=True,
            )
            seeds = range(max(CASES.values()))
            detail = {"limits": limits(), "rows": rows}
            store("ternary", command=COMMAND, seeds=seeds, figures=figures_of(rows), detail=detail)
    for name, value in figures_of(rows).items():
        print(f"{name:32} {value:.6g}")
    print(table(rows))


if __name__ == "__main__":
    main()
