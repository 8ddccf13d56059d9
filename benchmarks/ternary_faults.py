"""The write-up's failures, reproduced and put in numbers, and what the Guard says of each fault of the system.

    python -m benchmarks.ternary_faults                  # both parts; stores results/ternary_faults.json
    python -m benchmarks.ternary_faults --only faults    # or "table": one part alone, nothing stored

The table is that of the specification, section 3.4: a load that leaves the last layer of the radius random, or one that
does not; a loss on level means, or on single radii. Of each cell: start, best and final hierarchy, and how far the
start decides the best. Then every fault is trained with five seeds; the finding that opened and the cause on top
are counted. It goes on where it was: what is done stays in a file of the cache until everything is.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported

import numpy as np
import torch

from benchmarks.stored import commit, store
from benchmarks.watching import CACHE
from trimtab.diagnose import diagnose
from trimtab.records import Severity
from trimtab.resume import own_random_numbers
from trimtab.system import Fault
from trimtab.train import train
from trimtab_systems.ternary.recipe import SYSTEM
from trimtab_systems.ternary.write_up.recipe import WriteUpConfig, as_written, build

COMMAND = "python -m benchmarks.ternary_faults"
SEEDS = tuple(range(10))
FAULT_SEEDS = tuple(range(5))
CELLS: Mapping[str, Mapping[str, Any]] = {
    "mismatched load, level means, patience 5": {"epochs": 50, "patience": 5},
    "mismatched load, level means": {"epochs": 40},
    "mismatched load, bands": {"epochs": 40, "radius_loss": "band", "rare_levels": True},
    "matched load, level means": {"epochs": 40, "load": "matched"},
    "matched load, bands": {"epochs": 40, "load": "matched", "radius_loss": "band", "rare_levels": True},
}
"""What differs from the preset "as-written", which has the learning rate 3e-4."""


def hierarchies(config: WriteUpConfig, seed: int) -> list[float]:
    """Train without a Guard and return the hierarchy at the start and after each epoch, until patience ends it."""
    with own_random_numbers(seed):
        training = build(config, seed)
        (optimizer,) = training.optimizers.values()
        found = [training.evaluate()["hierarchy"]]
        for step in range(training.steps):
            training.loss(training.model, next(training.batches)).backward()
            torch.nn.utils.clip_grad_norm_(training.model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
            assert training.schedule is not None
            training.schedule(step)
            if (step + 1) % training.evaluate_every == 0:
                found.append(training.evaluate()["hierarchy"])
                if config.patience and len(found) - 1 - int(np.argmin(found)) >= config.patience:
                    break
    return found


def cell(change: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train one seed of one cell."""
    course = hierarchies(replace(as_written(), **change), seed)
    best = int(np.argmin(course))
    return {
        "start": course[0], "best": course[best], "best_epoch": best, "final": course[-1], "epochs": len(course) - 1,
    }  # fmt: skip


def row(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return what stands in the table of one cell: means, standard deviations (n - 1), the correlation."""
    start, best, final = (np.array([run[name] for run in runs]) for name in ("start", "best", "final"))
    spread = min(start.std(), best.std()) > 0
    return {
        "n": float(len(runs)),
        "start_mean": float(start.mean()), "start_std": float(start.std(ddof=1)),
        "best_mean": float(best.mean()), "best_std": float(best.std(ddof=1)),
        "best_epoch_mean": float(np.mean([run["best_epoch"] for run in runs])),
        "final_mean": float(final.mean()), "lost_mean": float((final - best).mean()),
        "start_to_best_r": float(np.corrcoef(start, best)[0, 1]) if spread else math.nan,
    }  # fmt: skip


def broken(fault: Fault, seed: int) -> dict[str, Any]:
    """Train one fault under a Guard and say what opened, when, and which cause stands first."""
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = train(SYSTEM, fault=fault.name, seed=seed, root=folder, checkpoint_every=0)
        opened: dict[str, int] = {}
        for finding in run.findings():
            if finding.event == "opened" and finding.severity >= Severity.WARNING:
                opened.setdefault(finding.code, finding.step)
        diagnoses = diagnose(run).diagnoses
    caught = [opened[code] for code in fault.expect if opened.get(code, fault.budget + 1) <= fault.budget]
    top = diagnoses[0].cause if diagnoses else "none-of-these"
    return {
        "opened": opened,
        "caught": len(caught) == len(fault.expect),
        "at": min(caught) if caught else None,
        "top_cause": top,
        "right_cause": top in fault.causes,
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


class Kept:
    """Results by key in a file of the cache, for this commit alone."""

    def __init__(self) -> None:
        self._path = CACHE / f"ternary_faults-{commit()[:12]}.json"
        self._found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what is kept under a key; make it first where there is nothing."""
        if key not in self._found:
            self._found[key] = make()
            print(key, json.dumps(self._found[key]), flush=True)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._found))
        return dict(self._found[key])


def main() -> None:
    """Do what is not done yet, and store it once both parts are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("table", "faults"), help="one part alone; nothing is stored")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    kept = Kept()
    table: dict[str, Any] = {}
    if only != "faults":
        for name, change in CELLS.items():
            runs = [kept.get(f"{name}/{seed}", partial(cell, change, seed)) for seed in SEEDS]
            table[name] = {**row(runs), "runs": runs}
    faults: dict[str, Any] = {}
    if only != "table":
        for fault in SYSTEM.faults:
            if fault.expect:  # the others are shown by a probe, and by no training
                its = {s: kept.get(f"{fault.name}/{s}", partial(broken, fault, s)) for s in FAULT_SEEDS}
                faults[fault.name] = {
                    "caught": sum(one["caught"] for one in its.values()),
                    "right_cause_first": sum(one["right_cause"] for one in its.values()),
                    "top_causes": dict(Counter(one["top_cause"] for one in its.values())),
                    "runs": its,
                }
    for name, one in table.items():
        print(name, {key: round(value, 4) for key, value in one.items() if key != "runs"})
    for name, one in faults.items():
        print(f"{name}: caught {one['caught']} of {len(FAULT_SEEDS)}, cause {one['top_causes']}")
    if only is None:
        count = len(faults) * len(FAULT_SEEDS)
        as_run, repaired = table["mismatched load, level means, patience 5"], table["matched load, bands"]
        figures = {
            "caught_share": sum(one["caught"] for one in faults.values()) / count,
            "right_cause_first_share": sum(one["right_cause_first"] for one in faults.values()) / count,
            "as_written_start_std": as_run["start_std"],
            "as_written_start_to_best_r": as_run["start_to_best_r"],
            "matched_level_mean_lost": table["matched load, level means"]["lost_mean"],
            "matched_bands_lost": repaired["lost_mean"],
        }
        detail = {"table": table, "faults": faults}
        print(store("ternary_faults", command=COMMAND, seeds=SEEDS, figures=figures, detail=detail))


if __name__ == "__main__":
    main()
