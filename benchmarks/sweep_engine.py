"""The machinery of sweeps: what is lost when workers and nodes are killed, and what a trial costs beyond its training.

    python -m benchmarks.sweep_engine

- `postgres`: two workers share a sweep of short trials on a PostgreSQL server that is started here; three times one of
  them is killed by SIGKILL in the middle and another takes its place. Lost is a trial that has no result at the end,
  doubled one whose result two workers stored.
- `ray`: a sweep on a cluster of two nodes, of which one is killed after the first trial. Lost as above.
- `overhead`: a trial from its claim to its stored result, against a process that does the same imports and calls
  `trimtab.train` with the same settings; in turn, paired by seed. The CPU time of the sweep's own process counts with
  the trial. A fresh interpreter is compared with the whole bare process; a forked one, which has its imports done, with
  the bare process less its imports. The figure is the worse of the two medians.
- `listing`: CPU seconds to read 1,000 stored trials, of 9 metrics with 30 evaluations each.

A part that is stored already is kept; `--again PART` measures it anew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.stored import load, store
from trimtab.sweep.engine import LocalEngine
from trimtab.sweep.job import Job
from trimtab.sweep.plan import Phase, Plan, grid
from trimtab.sweep.store import Store
from trimtab.trial import Trial, TrialResult

COMMAND = "python -m benchmarks.sweep_engine"
TARGET = "benchmarks.sweep_engine_toy:SYSTEM"
METRIC = "validation/distance"
SEEDS = tuple(range(6))
KILLS = 3
STALE_SECONDS = 3.0
SETTINGS = {"lr": 0.1, "steps": 200}
BARE = """
import json, resource, sys, time
def cpu():
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime
import importlib
from trimtab.sweep.forks import _IMPORTS
for module in _IMPORTS:
    importlib.import_module(module)
from trimtab.sweep.settle import system_of
from trimtab.sweep.plan import overrides_of
from trimtab.train import train
target, settings, seed, root = sys.argv[1:]
system = system_of(target)
imports, begun = cpu(), time.perf_counter()
train(system, overrides=overrides_of(json.loads(settings)), seed=int(seed), root=root, checkpoint_every=0)
print(json.dumps({"cpu": cpu(), "work_cpu": cpu() - imports, "work_wall": time.perf_counter() - begun}))
"""
WORKER = """
import sys
from pathlib import Path
from benchmarks.sweep_engine import STALE_SECONDS, shared_plan
from trimtab.sweep.sweep import Sweep
class Say:
    def phase(self, *given): pass
    def moved(self, *given): pass
    def began(self, trial, worker=""): print("began", trial.key, flush=True)
    def ended(self, result):
        if result.worker == sweep.worker:  # those of the others are told too
            print(result.status, result.trial.key, flush=True)
root, url = sys.argv[1:]
sweep = Sweep(
    shared_plan(), root=Path(root), name="shared", store=url, workers=1, progress=Say(), stale_seconds=STALE_SECONDS
)
sweep.run()
"""


def shared_plan() -> Plan:
    """Return a sweep of 60 short trials."""
    rates = [round(0.05 * (1 + number), 2) for number in range(10)]
    return Plan(
        target=TARGET, phases=(Phase(arms=grid({"lr": rates})),), metric="distance", seeds=SEEDS,
        defaults={"steps": 200},
    )  # fmt: skip


def postgres() -> dict[str, Any]:
    """Kill workers that share a sweep; count what is lost and what is doubled."""
    from benchmarks.postgres_server import postgres_server

    keys = [trial.key for phase in shared_plan().phases for trial in shared_plan().trials(phase)]
    with tempfile.TemporaryDirectory() as folder, postgres_server() as server:

        def worker() -> subprocess.Popen[str]:
            words = [sys.executable, "-c", WORKER, folder, server.url]
            return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)

        workers = [worker(), worker()]
        said: list[str] = []
        for kill in range(KILLS):
            victim = workers[kill]
            assert victim.stdout is not None
            seen = 0
            while seen < 8:  # so many trials into its life, and in the middle of one
                line = victim.stdout.readline()
                if not line:
                    raise RuntimeError("a worker ended before it could be killed: there were too few trials")
                said.append(line)
                seen += line.startswith("began")
            time.sleep(0.05)
            victim.send_signal(signal.SIGKILL)
            said += victim.stdout.readlines()
            victim.wait()
            workers.append(worker())
        for one in workers[KILLS:]:
            said += one.communicate()[0].splitlines()
            if one.returncode:
                raise RuntimeError(f"a worker ended with code {one.returncode}")
        with Store.open(server.url) as opened:
            results = opened.results("shared")
    finished = {result.trial.key for result in results if result.status == "finished"}
    stored = Counter(key for what, key in map(str.split, said) if what == "finished")
    return {
        "trials": len(keys), "workers": len(workers), "kills": KILLS,
        "lost": len(set(keys) - finished), "doubled": sum(count > 1 for count in stored.values()),
        "attempts": sum(result.attempts for result in results),
        "run_again": sum(result.attempts > 1 for result in results),
    }  # fmt: skip


def ray() -> dict[str, Any]:
    """Kill a node under a sweep; count what is lost."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray as its
    from ray.cluster_utils import Cluster

    from trimtab.integrations.ray import RayEngine
    from trimtab.sweep.sweep import Sweep

    plan = Plan(
        target=TARGET, phases=(Phase(arms=grid({"lr": [0.1, 0.2]})),), metric="distance", seeds=SEEDS[:4],
        defaults={"steps": 200},
    )  # fmt: skip
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    node = cluster.add_node(**small)
    killed: list[str] = []

    class Kill:
        def phase(self, name: str, total: int, done: int) -> None: ...
        def began(self, trial: Trial, worker: str = "") -> None: ...
        def moved(self, trial: Trial, updates: int, planned: int | None = None, value: float | None = None) -> None: ...

        def ended(self, result: TrialResult) -> None:
            if not killed:
                killed.append(result.trial.key)
                cluster.remove_node(node, allow_graceful=False)

    try:
        with tempfile.TemporaryDirectory() as folder, RayEngine(cluster.address) as engine:
            there = Sweep(plan, root=Path(folder) / "there", engine=engine, progress=Kill()).run()
            here = Sweep(plan, root=Path(folder) / "here", workers=2).run()
    finally:
        its.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call] # Ray declares no types for it
    return {
        "trials": len(there), "nodes": 2, "nodes_killed": len(killed),
        "lost": sum(result.status != "finished" for result in there),
        "attempts": sum(result.attempts for result in there),
        "differ_from_local": sum(_told(one) != _told(other) for one, other in zip(there, here, strict=True)),
    }  # fmt: skip


def _told(result: TrialResult) -> tuple[Any, ...]:
    return result.losses_hash, result.points, result.checkpoint_hash


def overhead(rounds: int) -> dict[str, Any]:
    """Measure a trial against a bare process, in turn."""
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "trials.sqlite") as opened,
        LocalEngine(1, fresh=True) as fresh,
        LocalEngine(1, fresh=False) as forking,
    ):
        _trial(opened, forking, Path(folder), "warm", 0)  # the server imports once
        order = random.Random(0)
        for seed in range(rounds):
            row: dict[str, Any] = {"seed": seed}
            for arm in order.sample(["bare", "fresh", "forked"], 3):
                if arm == "bare":
                    row[arm] = _bare(Path(folder), seed)
                else:
                    row[arm] = _trial(opened, fresh if arm == "fresh" else forking, Path(folder), arm, seed)
            rows.append(row)
    found: dict[str, Any] = {"rounds": rounds, "rows": rows}
    for kind in ("cpu", "wall"):
        found[f"fresh_{kind}"] = _summary([row["fresh"][kind] - row["bare"][kind] for row in rows])
        beyond = [row["bare"][f"work_{kind}"] for row in rows]
        found[f"forked_{kind}"] = _summary([row["forked"][kind] - work for row, work in zip(rows, beyond, strict=True)])
        found[f"bare_beyond_imports_{kind}"] = _summary(beyond)
    return found


def _bare(folder: Path, seed: int) -> dict[str, float]:
    begun = time.perf_counter()
    words = [sys.executable, "-c", BARE, TARGET, json.dumps(SETTINGS), str(seed), str(folder / "bare")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**said, "wall": time.perf_counter() - begun}


def _trial(opened: Store, engine: LocalEngine, folder: Path, arm: str, seed: int) -> dict[str, float]:
    opened.add(arm, [Trial(target=TARGET, arm=arm, seed=seed, settings=SETTINGS)])
    begun, own = time.perf_counter(), time.process_time()
    claim = opened.claim(arm, "benchmark")
    assert claim is not None
    handle = engine.start(Job(trial=claim.trial, root=folder / arm, metric=METRIC, better="lower"))
    while (ended := handle.poll()) is None:
        time.sleep(0.02)  # as a sweep does
    assert ended.result is not None, ended
    assert ended.result.status == "finished", ended
    opened.finish(claim, ended.result)
    wall, spent = time.perf_counter() - begun, time.process_time() - own
    return {"cpu": ended.result.cpu_seconds + spent, "own_cpu": spent, "wall": wall}


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def listing() -> dict[str, Any]:
    """Measure how long 1,000 stored trials take to read."""
    points = tuple((step, 1 / (step + 1)) for step in range(30))
    others = {f"validation/m{number}": points for number in range(8)}
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "trials.sqlite") as opened:
        opened.add("s", [Trial(target=TARGET, arm=str(seed % 50), seed=seed // 50) for seed in range(1000)])
        while (claim := opened.claim("s", "w")) is not None:
            result = TrialResult(trial=claim.trial, status="finished", metric=METRIC, points=points, others=others)
            opened.finish(claim, result)
        seconds = []
        for _ in range(5):
            begun = time.process_time()
            assert len(opened.results("s")) == 1000
            seconds.append(time.process_time() - begun)
    return {"trials": 1000, "seconds": statistics.median(seconds), "all": seconds}


def figures_of(detail: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of the parts that are there."""
    figures: dict[str, float] = {}
    if "postgres" in detail:
        figures["postgres_trials_lost"] = detail["postgres"]["lost"]
        figures["postgres_trials_doubled"] = detail["postgres"]["doubled"]
    if "ray" in detail:
        figures["ray_trials_lost"] = detail["ray"]["lost"]
        figures["ray_trials_that_differ"] = detail["ray"]["differ_from_local"]
    if "overhead" in detail:
        for kind, name in (("cpu", "overhead_seconds_per_trial"), ("wall", "overhead_wall_seconds_per_trial")):
            figures[name] = max(detail["overhead"][f"{arm}_{kind}"]["median"] for arm in ("fresh", "forked"))
        figures["overhead_seconds_per_trial_forked"] = detail["overhead"]["forked_cpu"]["median"]
    if "listing" in detail:
        figures["seconds_to_list_1000"] = detail["listing"]["seconds"]
    return figures


def main() -> None:
    """Measure, print and store `sweep_engine.json`, part by part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="append", default=[], metavar="PART")
    parser.add_argument("--rounds", type=int, default=9, help="of the overhead")
    options = parser.parse_args()
    rounds: int = options.rounds
    parts = {"listing": listing, "overhead": lambda: overhead(rounds), "postgres": postgres, "ray": ray}
    stored = load("sweep_engine")
    detail: dict[str, Any] = {} if stored is None or "all" in options.again else dict(stored["detail"])
    for name, measure in parts.items():
        if name in detail and name not in options.again:
            continue
        detail[name] = measure()
        figures = figures_of(detail)
        print(name, {key: value for key, value in detail[name].items() if key != "rows"}, figures, sep="\n", flush=True)
        store("sweep_engine", command=COMMAND, seeds=SEEDS, figures=figures, detail=detail)


if __name__ == "__main__":
    main()
