"""What the catalogue catches, how soon, and whether it names the cause, on real trainings that were broken on purpose.

    python -m benchmarks.detection              # the report: seeds 0..4, both tables of faults
    python -m benchmarks.detection --tune       # seeds 100..104 and the first injections only: for thresholds
    python -m benchmarks.detection --only zero  # runs whose name/family/seed contains "zero"; nothing stored

Every run is watched as shipped: a Guard without model or optimizer, which finds them itself. A catch is the first
opened event of a right code, at warning or above, after the onset and within the delay budget of the case
(`cases/`, committed before any threshold was tuned). A wrong extra finding is an opened event at warning or above
whose code is neither right nor a named consequence. Every run is in the denominator of every share: one that was not
detected has no top-1. Finished runs are kept beside the results of this commit and skipped when the command is run
again. False alarms are counted by `benchmarks.false_alarms`, with the same runner.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases.case import FaultCase
from benchmarks.cases.faults import ANCHORS, PUBLISHED, PUBLISHED_WAITING, WAITING
from benchmarks.stored import load, store, wilson
from benchmarks.watching import SECOND, Job, arguments, fault_jobs, forget, opened, perform_all, seeds_for, watched
from trimtab import Run, diagnose
from trimtab.hypotheses import HYPOTHESES

COMMAND = "python -m benchmarks.detection"
NONE = "none-of-these"
NUMBERS = range(1, 45)
"""The faults of the anchors' list."""


def perform(job: Job) -> dict[str, Any]:
    """Do one job and return everything that the figures are made from."""
    case = job.case
    assert case is not None
    training, steps = job.build()
    with tempfile.TemporaryDirectory() as folder:
        done = watched(training, steps, Path(folder) / "run")
        facts = done.run.facts
        result = {
            **asdict(job),
            "steps": len(done.ran.losses),
            "cpu_seconds": round(done.seconds, 2),
            "opened": opened(done.run),
            "judged": len(facts.judged),
            "not_judged": len(facts.not_judged),
        }
        result.update(scored(case, result["opened"], done.run))
    del training
    forget()
    return result


def scored(case: FaultCase, raised: Sequence[Mapping[str, Any]], run: Run) -> dict[str, Any]:
    """Return whether and when the case was caught, what was said beside it, and which causes were named first."""
    right = [e for e in raised if e["code"] in case.right_codes and case.onset <= e["step"] <= case.last_step]
    allowed = {*case.right_codes, *case.also_true}
    ranked = [d.cause for d in diagnose(run).diagnoses] if right else []
    others = tuple(h for h in HYPOTHESES if h.cause not in case.right_causes)
    without = [d.cause for d in diagnose(run, hypotheses=others).diagnoses] if right else []
    return {
        "caught": bool(right),
        "code": right[0]["code"] if right else "",
        "delay": right[0]["step"] - case.onset if right else None,
        "early": [e for e in raised if e["step"] < case.onset],
        "extra": sorted({e["code"] for e in raised} - allowed),
        "ranked": ranked[:3],
        "top1": bool(ranked) and ranked[0] in case.right_causes,
        "top3": any(cause in case.right_causes for cause in ranked[:3]),
        "none_of_these_first": bool(without) and without[0] == NONE,
    }


def figures_of(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the flat figures."""
    n = len(results)
    caught = [r for r in results if r["caught"]]
    names = {r["name"] for r in results}
    figures: dict[str, float] = {"faults": len(names), "fault_runs": n}
    figures["anchors_covered"] = sum(names.issuperset(cases) for cases in ANCHORS.values())
    for name, label in (("caught", "detected"), ("top1", "top1"), ("top3", "top3")):
        hits = sum(r[name] for r in results)
        figures[f"{label}_share"] = hits / n
        figures[f"{label}_wilson_lower"] = wilson(hits, n)[0]
    second = [r for r in results if r["name"] in SECOND]
    if second:
        figures["second_injection_runs"] = len(second)
        for name, label in (("caught", "detected"), ("top1", "top1"), ("top3", "top3")):
            figures[f"second_injection_{label}_share"] = sum(r[name] for r in second) / len(second)
    figures["median_delay_steps"] = statistics.median(r["delay"] for r in caught) if caught else float("nan")
    figures["wrong_extra_findings_per_run"] = sum(len(r["extra"]) for r in results) / n
    figures["early_findings_per_run"] = sum(len(r["early"]) for r in results) / n
    figures["none_of_these_share"] = sum(r["none_of_these_first"] for r in caught) / len(caught) if caught else 0.0
    judged, total = sum(r["judged"] for r in results), sum(r["judged"] + r["not_judged"] for r in results)
    figures["detectors_judged_share"] = judged / total
    figures["unknown_share"] = 1 - judged / total
    figures["cpu_seconds"] = round(sum(r["cpu_seconds"] for r in results))
    return figures


def by_case(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return one entry for each fault in each family."""
    table: dict[str, list[dict[str, Any]]] = {}
    for r in results:
        table.setdefault(f"{r['name']}/{r['family']}", []).append(r)
    return {
        place: {
            "caught": sum(r["caught"] for r in rows),
            "top1": sum(r["top1"] for r in rows),
            "n": len(rows),
            "delays": [r["delay"] for r in rows],
            "codes": sorted({r["code"] for r in rows if r["code"]}),
            "first": sorted({r["ranked"][0] for r in rows if r["ranked"]}),
            "extra": sorted({code for r in rows for code in r["extra"]}),
        }
        for place, rows in table.items()
    }


def by_anchor(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return for each of the 44 faults of the anchors' list how often its cases were caught, or what it waits for."""
    return {str(n): _covered(results, ANCHORS[n]) if n in ANCHORS else {"waits_for": WAITING[n]} for n in NUMBERS}


def by_published(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the same for each published bug."""
    covered = {bug: _covered(results, cases) for bug, cases in PUBLISHED.items()}
    return covered | {bug: {"waits_for": why} for bug, why in PUBLISHED_WAITING.items()}


def _covered(results: Sequence[dict[str, Any]], cases: Sequence[str]) -> dict[str, Any]:
    rows = [r for r in results if r["name"] in cases]
    caught, top1 = sum(r["caught"] for r in rows), sum(r["top1"] for r in rows)
    return {"cases": list(cases), "caught": caught, "top1": top1, "n": len(rows)}


def show(table: Mapping[str, Any], figures: Mapping[str, float]) -> None:
    """Print every case that is not perfect, and the figures."""
    for name, row in table.items():
        if row["caught"] < row["n"] or row["top1"] < row["n"] or row["extra"]:
            print(f"{name:44} caught {row['caught']}/{row['n']} top1 {row['top1']}/{row['n']} {row['delays']}", end=" ")
            print(f"by {row['codes']} first {row['first']} extra {row['extra']}")
    for figure, value in figures.items():
        print(f"{figure:36} {value:g}")


def main() -> None:
    """Do the runs, print the figures, store them unless only a part was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = arguments(parser)
    seeds = options.seeds or seeds_for(tune=options.tune)
    jobs = [job for job in fault_jobs(seeds, first_only=options.tune) if options.only in job.key]
    results = perform_all(perform, jobs, "detection", options)
    figures, table = figures_of(results), by_case(results)
    peers = load("peers")
    if peers is not None:
        figures["best_peer_detected"] = peers["figures"]["best_peer_detected"]
    show(table, figures)
    if options.stores:
        detail = {
            "by_anchor": by_anchor(results),
            "by_published": by_published(results),
            "by_case": table,
            "runs": results,
        }
        print(store("detection", command=COMMAND, seeds=seeds, figures=figures, detail=detail))


if __name__ == "__main__":
    main()
