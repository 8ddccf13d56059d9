"""How often the catalogue cries wolf: healthy trainings of many kinds, most of them easily taken for ill.

    python -m benchmarks.false_alarms             # the report: seeds 0..4
    python -m benchmarks.false_alarms --tune      # seeds 100..104
    python -m benchmarks.false_alarms --only gan  # runs whose name/family/seed contains "gan"; nothing stored

Detectors, thresholds and cadence are those of `benchmarks.detection`, and as shipped. Each run is at least three
times as long as the largest delay budget of a fault and reaches its stated target. Any opened event at warning or
above is an alarm.

What was announced is no fault, and what was not is one: trainings whose data change half-way run a second time without
the announcement. Those runs are no healthy ones, and count for `unannounced_found_share` alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases.healthy import HEALTHY, MINIMUM_STEPS
from benchmarks.stored import store, wilson
from benchmarks.watching import (
    Job,
    arguments,
    forget,
    healthy_jobs,
    opened,
    perform_all,
    seeds_for,
    unannounced_jobs,
    watched,
)

COMMAND = "python -m benchmarks.false_alarms"


def perform(job: Job) -> dict[str, Any]:
    """Do one job and return everything that the figures are made from."""
    training, steps = job.build()
    with tempfile.TemporaryDirectory() as folder:
        done = watched(training, steps, Path(folder) / "run")
        facts = done.run.facts
        raised = opened(done.run)
        result = {
            **asdict(job),
            "steps": len(done.ran.losses),
            "cpu_seconds": round(done.seconds, 2),
            "reached_target": done.ran.reached_target,
            "final": done.ran.final,
            "alarm": bool(raised),
            "opened": raised,
            "judged": sorted(facts.judged),
            "not_judged": dict(facts.not_judged),
        }
    del training
    forget()
    return result


def figures_of(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the flat figures."""
    healthy = [r for r in results if not r["unannounced"]]
    changed = [r for r in results if r["unannounced"]]
    told = [r for r in healthy if r["name"] in {c["name"] for c in changed}]
    n, alarms = len(healthy), sum(r["alarm"] for r in healthy)
    judged = sum(len(r["judged"]) for r in healthy)
    total = judged + sum(len(r["not_judged"]) for r in healthy)
    figures = {
        "runs": n,
        "kinds": len({r["name"] for r in healthy}),
        "false_alarm_runs": alarms,
        "false_alarm_rate": alarms / n,
        "wilson_upper": wilson(alarms, n)[1],
        "min_steps": min(r["steps"] for r in healthy),
        "required_steps": MINIMUM_STEPS,
        "healthy_runs_below_target": sum(not r["reached_target"] for r in healthy),
        "detectors_judged_share": judged / total,
        "unknown_share": 1 - judged / total,
        "cpu_seconds": round(sum(r["cpu_seconds"] for r in results)),
    }
    if changed:
        figures["announced_silent_share"] = sum(not r["alarm"] for r in told) / len(told)
        figures["unannounced_found_share"] = sum(r["alarm"] for r in changed) / len(changed)
    return figures


def alarms_of(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every alarm in a healthy run."""
    return [
        {"name": r["name"], "seed": r["seed"], **event}
        for r in results
        if not r["unannounced"]
        for event in r["opened"]
    ]


def announced(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return for each training whose data change half-way: how often it was silent announced, and found otherwise."""
    table = {}
    for name in dict.fromkeys(r["name"] for r in results if r["unannounced"]):
        told = [r for r in results if r["name"] == name and not r["unannounced"]]
        untold = [r for r in results if r["name"] == name and r["unannounced"]]
        table[name] = {
            "announced_silent": sum(not r["alarm"] for r in told),
            "announced_runs": len(told),
            "unannounced_found": sum(r["alarm"] for r in untold),
            "unannounced_runs": len(untold),
            "found_by": sorted({event["code"] for r in untold for event in r["opened"]}),
        }
    return table


def by_anchor() -> dict[str, list[str]]:
    """Return for each of the 18 tricky kinds of the anchors' list the healthy kinds that show it."""
    table: dict[str, list[str]] = {f"H{number}": [] for number in range(1, 19)}
    for case in HEALTHY:
        if case.anchor:
            table[case.anchor].append(case.name)
    return table


def by_kind(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one entry for each healthy kind."""
    table: dict[str, Any] = {}
    for name in dict.fromkeys(r["name"] for r in results):
        rows = [r for r in results if r["name"] == name and not r["unannounced"]]
        table[name] = {
            "alarms": sum(r["alarm"] for r in rows),
            "n": len(rows),
            "steps": min(r["steps"] for r in rows),
            "reached_target": sum(r["reached_target"] for r in rows),
            "codes": sorted({event["code"] for r in rows for event in r["opened"]}),
        }
    return table


def not_judged(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return for each detector in what share of the healthy runs it judged, and its commonest reason where not."""
    healthy = [r for r in results if not r["unannounced"]]
    codes = sorted({code for r in healthy for code in (*r["judged"], *r["not_judged"])})
    table = {}
    for code in codes:
        reasons = [r["not_judged"][code] for r in healthy if code in r["not_judged"]]
        table[code] = {"judged_share": sum(code in r["judged"] for r in healthy) / len(healthy)}
        if reasons:
            table[code]["reason"] = max(set(reasons), key=reasons.count)
    return table


def show(results: Sequence[dict[str, Any]], figures: Mapping[str, float]) -> None:
    """Print every alarm, every healthy run below its target, and the figures."""
    for alarm in alarms_of(results):
        print(f"ALARM {alarm['name']} seed {alarm['seed']}: {alarm['code']} at {alarm['step']}: {alarm['summary']}")
    for miss in (r for r in results if not r["unannounced"] and not r["reached_target"]):
        print(f"below its target: {miss['name']} seed {miss['seed']}: {miss['final']}")
    for name, row in announced(results).items():
        print(f"{name}: {row}")
    for figure, value in figures.items():
        print(f"{figure:36} {value:g}")


def main() -> None:
    """Do the runs, print the figures, store them unless only a part was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = arguments(parser)
    seeds = options.seeds or seeds_for(tune=options.tune)
    jobs = [job for job in (*healthy_jobs(seeds), *unannounced_jobs(seeds)) if options.only in job.key]
    results = perform_all(perform, jobs, "false_alarms", options)
    figures = figures_of(results)
    show(results, figures)
    if options.stores:
        detail = {
            "by_anchor": by_anchor(),
            "alarms": alarms_of(results),
            "announced": announced(results),
            "by_kind": by_kind(results),
            "detectors": not_judged(results),
            "runs": [{k: v for k, v in r.items() if k not in ("judged", "not_judged")} for r in results],
        }
        print(store("false_alarms", command=COMMAND, seeds=seeds, figures=figures, detail=detail))


if __name__ == "__main__":
    main()
