"""What the kernel catches and how often it cries wolf, on real trainings.

    python -m benchmarks.kernel_detection              # the report: seeds 0..4, both tables of faults, healthy kinds
    python -m benchmarks.kernel_detection --tune       # seeds 100..104 and the first injections only: for thresholds
    python -m benchmarks.kernel_detection --only zero  # cases whose name contains "zero"; nothing stored

Every run is watched as shipped: a Guard without model or optimizer, which finds them itself. A catch is the first
opened event of a right code, at warning or above, after the onset and within the delay budget of the case
(`cases/faults.py`, committed before any threshold was tuned). A wrong extra finding is an opened event at warning or
above whose code is neither right nor a named consequence. Any opened event at warning or above in a healthy run is a
false alarm. Finished runs are kept beside the results of this commit and skipped when the command is run again.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.faults import FAULTS, FaultCase
from benchmarks.cases.healthy import HEALTHY, MINIMUM_STEPS, REPORT_SEEDS, TUNE_SEEDS
from benchmarks.cases.second_injections import SECOND_INJECTIONS
from benchmarks.cases.training import Training, run
from benchmarks.stored import commit, store, wilson
from trimtab import Guard, Milestone, Run, Severity, diagnose
from trimtab.hypotheses import HYPOTHESES
from trimtab.records import Finding

AFTER = 60
"""A faulty run goes on for so many steps after its delay budget, so that extra findings can show."""
CACHE = Path(__file__).parent / ".cache" / "kernel_detection"
NONE = "none-of-these"
CASES: dict[str, FaultCase] = {case.name: case for case in (*FAULTS, *SECOND_INJECTIONS)}
SECOND = {case.name for case in SECOND_INJECTIONS}
KINDS = {case.name: case for case in HEALTHY}


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


def watched(training: Training, steps: int, folder: Path) -> tuple[Run, Any, float]:
    """Run a training under a Guard as shipped; return the run, what `run` returned, and the CPU seconds."""
    milestones = [
        Milestone(
            metric=f"{m.split}/{m.metric}",
            comparison=">=" if m.better == "higher" else "<=",
            value=m.value,
            by_step=m.step,
        )
        for m in training.milestones
    ]
    better: dict[str, Any] = {m.metric: m.better for m in (*training.milestones, training.target)}
    begin = time.process_time()
    with Guard(folder, milestones=milestones) as guard:

        def evaluated(step: int, metrics: Mapping[str, float], split: str) -> None:
            guard.record(split=split, better=better, **metrics)

        ran = run(training, steps, on_evaluation=evaluated)
    return Run(folder), ran, time.process_time() - begin


def perform(job: Job) -> dict[str, Any]:
    """Do one job and return everything that the figures are made from."""
    torch.set_num_threads(1)
    case = CASES.get(job.name) if job.family else None
    training = case.build(job.family, job.seed) if case is not None else KINDS[job.name].build(job.seed)
    steps = case.last_step + AFTER if case is not None else training.steps
    with tempfile.TemporaryDirectory() as folder:
        stored, ran, seconds = watched(training, steps, Path(folder) / "run")
        events = stored.events()
        opened = [
            {"code": e.code, "severity": str(e.severity), "step": e.step, "stream": e.stream, "summary": e.summary}
            for e in events
            if isinstance(e, Finding) and e.event in ("opened", "worsened") and e.severity >= Severity.WARNING
        ]
        facts = stored.facts
        result: dict[str, Any] = {
            **asdict(job),
            "steps": len(ran.losses),
            "cpu_seconds": round(seconds, 2),
            "opened": opened,
            "judged": len(facts.judged or ()),
            "not_judged": len(facts.not_judged or ()),
        }
        if case is None:
            result["reached_target"] = ran.reached_target
            result["alarm"] = bool(opened)
        else:
            result.update(_scored(case, job.family, opened, stored))
    del training
    gc.collect()
    return result


def _scored(case: FaultCase, family: str, opened: list[dict[str, Any]], stored: Run) -> dict[str, Any]:
    right = [e for e in opened if e["code"] in case.right_codes and case.onset <= e["step"] <= case.last_step]
    allowed = {*case.right_codes, *case.also_true}
    ranked = [d.cause for d in diagnose(stored).diagnoses] if right else []
    others = tuple(h for h in HYPOTHESES if h.cause not in case.right_causes)
    without = [d.cause for d in diagnose(stored, hypotheses=others).diagnoses] if right else []
    return {
        "caught": bool(right),
        "code": right[0]["code"] if right else "",
        "delay": right[0]["step"] - case.onset if right else None,
        "early": [e for e in opened if e["step"] < case.onset],
        "extra": sorted({e["code"] for e in opened} - allowed),
        "ranked": ranked[:3],
        "top1": bool(ranked) and ranked[0] in case.right_causes,
        "top3": any(cause in case.right_causes for cause in ranked[:3]),
        "none_of_these_first": bool(without) and without[0] == NONE,
    }


def jobs(tune: bool, only: str) -> list[Job]:
    """Return the runs of the report, or those for tuning."""
    seeds = TUNE_SEEDS if tune else REPORT_SEEDS
    tables = FAULTS if tune else (*FAULTS, *SECOND_INJECTIONS)
    faulty = [Job(name=c.name, family=f, seed=s) for c in tables for f in c.families for s in seeds]
    healthy = [Job(name=kind, seed=s) for kind in KINDS for s in seeds]
    return [job for job in (*faulty, *healthy) if only in job.key]


def perform_all(wanted: list[Job], cache: Path, processes: int) -> list[dict[str, Any]]:
    """Do the jobs that are not in the cache yet; return the results in the order of `wanted`."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    if cache.exists():
        for line in cache.read_text(encoding="utf-8").splitlines():
            result = json.loads(line)
            done[Job(name=result["name"], family=result["family"], seed=result["seed"]).key] = result
    waiting = [job for job in wanted if job.key not in done]
    print(f"{len(wanted)} runs, {len(waiting)} to do", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=25) as pool, cache.open("a", encoding="utf-8") as file:
        for count, result in enumerate(pool.imap_unordered(perform, waiting), start=1):
            job = Job(name=result["name"], family=result["family"], seed=result["seed"])
            done[job.key] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
            if count % 25 == 0:
                print(f"  {count} of {len(waiting)}", flush=True)
    return [done[job.key] for job in wanted]


def figures_of(results: Iterable[dict[str, Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the flat figures, and a table by case."""
    results = list(results)
    faulty = [r for r in results if r["family"]]
    healthy = [r for r in results if not r["family"]]
    alarms = [r for r in healthy if r["alarm"]]
    figures: dict[str, float] = {}
    if faulty:
        n = len(faulty)
        figures["faults"] = len({r["name"] for r in faulty})
        figures["fault_runs"] = n
        for name in ("caught", "top1", "top3"):
            hits = sum(r[name] for r in faulty)
            label = "detected" if name == "caught" else name
            figures[f"{label}_share"] = hits / n
            figures[f"{label}_wilson_lower"] = wilson(hits, n)[0]
        second = [r for r in faulty if r["name"] in SECOND]
        if second:
            figures["second_injection_runs"] = len(second)
            figures["second_injection_detected_share"] = sum(r["caught"] for r in second) / len(second)
            figures["second_injection_top1_share"] = sum(r["top1"] for r in second) / len(second)
        caught = [r for r in faulty if r["caught"]]
        figures["median_delay_steps"] = statistics.median(r["delay"] for r in caught) if caught else float("nan")
        figures["wrong_extra_findings_per_run"] = sum(len(r["extra"]) for r in faulty) / n
        figures["none_of_these_share"] = sum(r["none_of_these_first"] for r in caught) / len(caught) if caught else 0.0
    if healthy:
        figures["healthy_kinds"] = len({r["name"] for r in healthy})
        figures["healthy_runs"] = len(healthy)
        figures["healthy_runs_below_target"] = sum(not r["reached_target"] for r in healthy)
        figures["false_alarm_runs"] = len(alarms)
        figures["false_alarm_wilson_upper"] = wilson(len(alarms), len(healthy))[1]
        figures["min_steps"] = min(r["steps"] for r in healthy)
        figures["required_steps"] = MINIMUM_STEPS
    total = sum(r["judged"] + r["not_judged"] for r in results)
    figures["detectors_judged_share"] = sum(r["judged"] for r in results) / total
    figures["unknown_share"] = 1 - figures["detectors_judged_share"]
    figures["cpu_seconds"] = round(sum(r["cpu_seconds"] for r in results))
    table = {}
    for case, family in dict.fromkeys((r["name"], r["family"]) for r in faulty):
        rows = [r for r in faulty if (r["name"], r["family"]) == (case, family)]
        table[f"{case}/{family}"] = {
            "caught": sum(r["caught"] for r in rows),
            "top1": sum(r["top1"] for r in rows),
            "n": len(rows),
            "delays": [r["delay"] for r in rows],
            "first": sorted({r["ranked"][0] for r in rows if r["ranked"]}),
            "extra": sorted({code for r in rows for code in r["extra"]}),
        }
    return figures, {"by_case": table, "alarms": alarms}


def show(results: list[dict[str, Any]], figures: Mapping[str, float], table: Mapping[str, Any]) -> None:
    """Print what a person wants to see: every case that is not perfect, every alarm, the figures."""
    for name, row in table["by_case"].items():
        if row["caught"] < row["n"] or row["top1"] < row["n"] or row["extra"]:
            print(f"{name:42} caught {row['caught']}/{row['n']} top1 {row['top1']}/{row['n']} {row['delays']}", end=" ")
            print(f"first {row['first']} extra {row['extra']}")
    for alarm in table["alarms"]:
        first = alarm["opened"][0]
        print(f"ALARM {alarm['name']} seed {alarm['seed']}: {first['code']} at {first['step']}: {first['summary']}")
    for miss in (r for r in results if not r["family"] and not r["reached_target"]):
        print(f"below its target: {miss['name']} seed {miss['seed']}")
    for figure, value in figures.items():
        print(f"{figure:36} {value:g}")


def main() -> None:
    """Do the runs, print the figures, store them unless only a part was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="the seeds and injections that may be tuned on")
    parser.add_argument("--only", default="", help="cases whose name/family/seed contains this; nothing is stored")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    state = commit()
    tag = hashlib.sha256(state.encode()).hexdigest()[:12] + ("-tune" if options.tune else "")
    cache = CACHE / (f"{tag}.jsonl" if "+dirty" not in state and not options.only else "scratch.jsonl")
    if cache.name == "scratch.jsonl":
        cache.unlink(missing_ok=True)
    wanted = jobs(options.tune, options.only)
    results = perform_all(wanted, cache, options.processes)
    figures, table = figures_of(results)
    show(results, figures, table)
    if not options.tune and not options.only:
        detail = {**table, "runs": results}
        seeds = list(REPORT_SEEDS)
        print(store("kernel_detection", command=COMMAND, seeds=seeds, figures=figures, detail=detail))


COMMAND = "python -m benchmarks.kernel_detection"

if __name__ == "__main__":
    main()
