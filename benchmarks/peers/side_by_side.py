"""What every peer raises on the same trainings; stored as `results/peers.json`."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.training import Metrics, Training, run
from benchmarks.peers import PEERS, Course
from benchmarks.peers.peer import Alarm, Finish
from benchmarks.stored import load, store, wilson
from benchmarks.watching import CACHE, Job, fault_jobs, healthy_jobs, in_processes

COMMAND = "python -m benchmarks.peers"
SEEDS = (0, 1)
AT_MOST = 3
"""So many alarms of a run are stored."""
ALLOWANCE = 0.05
"""A peer may have so many more false alarms than we have to count as the best one."""
OUR_BAR = 0.02
"""Our own share of false alarms, where it is not measured yet."""


class Nobody:
    """Takes what a training's user would tell an observer, and does nothing with it."""

    def note(self, kind: str, *, steps: int | None = None, text: str = "", **facts: float | str) -> None:
        """Pass over what is announced: no peer can be told."""

    def record(self, *, split: str | None = None, **metrics: float) -> None:
        """Pass over numbers of this update."""

    def examine(self, *, kind: str, **tensors: Any) -> None:
        """Pass over tensors of this update."""


def perform(job: Job) -> dict[str, Any]:
    """Run one training with every peer that can be used, and return what each of them raised."""
    logging.disable(logging.WARNING)
    begin = time.process_time()
    training, steps = job.build()
    usable = [peer for peer in PEERS if not peer.missing]
    finishes: dict[str, Finish] = {}
    errors: dict[str, str] = {}
    for peer in usable:
        try:
            finishes[peer.key] = peer.begin(training, lambda: job.build()[0])
        except Exception as error:  # noqa: BLE001 - a tool that cannot run is said so
            errors[peer.key] = f"{type(error).__name__}: {error}"[:200]
    course = Course()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = record(training, steps, course)
        raised: dict[str, list[Alarm]] = {}
        for key, finish in reversed(finishes.items()):
            try:
                raised[key] = finish(course)
            except Exception as error:  # noqa: BLE001 - likewise
                errors[key] = f"{type(error).__name__}: {error}"[:200]
    case = job.case
    return {
        "name": job.name,
        "family": job.family,
        "seed": job.seed,
        "steps": len(course.losses),
        "onset": case.onset if case else None,
        "last_step": case.last_step if case else None,
        "ended": ended,
        "alarms": {key: _first(alarms, case.onset if case else 0) for key, alarms in raised.items()},
        "errors": errors,
        "cpu_seconds": round(time.process_time() - begin, 2),
    }


def _first(alarms: Iterable[Alarm], onset: int) -> list[Alarm]:
    """Return the first alarms from the onset on."""
    return sorted(alarm for alarm in alarms if alarm[0] >= onset)[:AT_MOST]


def record(training: Training, steps: int, course: Course) -> str:
    """Run a training and take down its numbers; return with which error it ended, empty when it ended by itself."""
    optimizer = next(iter(training.optimizers.values()))
    clipping = torch.nn.utils.clip_grad_norm_
    norm: float | None = None
    rate = math.nan

    def clip(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal norm
        total = clipping(parameters, *args, **kwargs)
        norm = float(total)
        return total

    def before_step(stepping: Any, args: Any, kwargs: Any) -> None:
        nonlocal norm, rate
        rate = float(stepping.param_groups[0]["lr"])
        if norm is None:
            gradients = [p.grad for group in stepping.param_groups for p in group["params"] if p.grad is not None]
            dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
            norm = math.sqrt(sum(float(g.float().square().sum()) for g in dense)) if dense else 0.0

    def on_step(step: int, loss: float) -> None:
        nonlocal norm
        course.losses.append(loss)
        course.norms.append(norm)
        course.rates.append(rate)
        norm = None

    def on_evaluation(step: int, metrics: Metrics, split: str) -> None:
        course.evaluations.append((step, dict(metrics)))

    handle = optimizer.register_step_pre_hook(before_step)
    torch.nn.utils.clip_grad_norm_ = clip
    try:
        run(training, steps, on_step=on_step, on_evaluation=on_evaluation, observer=Nobody())
    except Exception as error:  # noqa: BLE001 - a peer that breaks the training is counted with what it saw
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        torch.nn.utils.clip_grad_norm_ = clipping
        handle.remove()
    return ""


def compare(results: Sequence[Mapping[str, Any]], ours: float) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures and one row for each peer; `ours` is our own share of false alarms."""
    faulty = [r for r in results if r["family"]]
    healthy = [r for r in results if not r["family"]]
    rows: dict[str, Any] = {}
    for peer in PEERS:
        if peer.missing:
            rows[peer.key] = {"how": peer.how, "not_run": peer.missing}
            continue
        caught = [r for r in faulty if _caught(r, peer.key)]
        alarmed = [r for r in healthy if r["alarms"].get(peer.key)]
        low, high = wilson(len(alarmed), len(healthy))
        rows[peer.key] = {
            "how": peer.how,
            "detected_share": len(caught) / max(len(faulty), 1),
            "false_alarm_rate": len(alarmed) / max(len(healthy), 1),
            "false_alarm_wilson": [low, high],
            "caught": sorted({r["name"] for r in caught}),
            "false_alarms": sorted({r["name"] for r in alarmed}),
            "errors": sum(peer.key in r["errors"] for r in results),
            "error": next((r["errors"][peer.key] for r in results if peer.key in r["errors"]), ""),
        }
    ran = {key: row for key, row in rows.items() if "not_run" not in row}
    calm = {key: row for key, row in ran.items() if row["false_alarm_rate"] <= ours + ALLOWANCE}
    figures = {
        "faults": len({r["name"] for r in faulty}),
        "fault_runs": len(faulty),
        "healthy_runs": len(healthy),
        "peers": len({key.partition("/")[0] for key in ran}),
        "our_false_alarm_rate": ours,
        "best_peer_detected": max((row["detected_share"] for row in calm.values()), default=0.0),
        "best_peer_detected_at_any_false_alarm_rate": max((row["detected_share"] for row in ran.values()), default=0.0),
        "union_of_calm_peers_detected": _share(faulty, calm),
        "union_of_all_peers_detected": _share(faulty, ran),
        "cpu_seconds": round(sum(r["cpu_seconds"] for r in results)),
    }
    for label, among in (("best_peer", calm), ("best_peer_at_any_false_alarm_rate", ran)):
        name = max(among, key=lambda key: among[key]["detected_share"], default="")
        rows[label] = name
        figures[f"{label}_false_alarm_rate"] = among[name]["false_alarm_rate"] if name else 0.0
    rows["by_case"] = {
        f"{r['name']}/{r['family']}/{r['seed']}": sorted(key for key in ran if _caught(r, key)) for r in faulty
    }
    return figures, rows


def _caught(result: Mapping[str, Any], key: str) -> bool:
    alarms = result["alarms"].get(key) or ()
    return any(result["onset"] <= step <= result["last_step"] for step, _ in alarms)


def _share(faulty: Sequence[Mapping[str, Any]], peers: Iterable[str]) -> float:
    keys = list(peers)
    return sum(any(_caught(r, key) for key in keys) for r in faulty) / max(len(faulty), 1)


def jobs(seeds: Iterable[int]) -> list[Job]:
    """Return each fault in its first family and each healthy kind, with each seed."""
    seeds = list(seeds)
    first: dict[str, str] = {}
    wanted = fault_jobs(seeds, first_only=True)
    for job in wanted:
        first.setdefault(job.name, job.family)
    return [*(job for job in wanted if first[job.name] == job.family), *healthy_jobs(seeds)]


def done_before(wanted: Sequence[Job], processes: int) -> list[dict[str, Any]]:
    """Do the jobs whose trainings or peers have changed since they were done; return all results in order."""
    cache = CACHE / "peers" / f"{_state()}.jsonl"
    cache.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    if cache.exists():
        for line in cache.read_text(encoding="utf-8").splitlines():
            result = json.loads(line)
            done[_key(result)] = result
    waiting = [job for job in wanted if _name(job) not in done]
    print(f"{len(wanted)} runs, {len(waiting)} to do", flush=True)
    with cache.open("a", encoding="utf-8") as file:
        for result in in_processes(perform, waiting, processes):
            done[_key(result)] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
    return [done[_name(job)] for job in wanted]


def _name(job: Job) -> str:
    return f"{job.name}/{job.family}/{job.seed}"


def _key(result: Mapping[str, Any]) -> str:
    return f"{result['name']}/{result['family']}/{result['seed']}"


def _state() -> str:
    """Return what names the trainings, the peers and their versions; Trimtab itself takes no part in these runs."""
    here = Path(__file__).parent
    text = hashlib.sha256()
    for path in sorted([*here.glob("*.py"), *(here.parent / "cases").glob("*.py")]):
        if path.name != Path(__file__).name:
            text.update(path.read_bytes())
    text.update("".join(f"{peer.key}{peer.missing}" for peer in PEERS).encode())
    return text.hexdigest()[:12]


def main() -> None:
    """Do the runs, print a table, store the result unless only a part was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="runs whose name/family/seed contains this; nothing is stored")
    parser.add_argument("--processes", type=int, default=1, help="0: in this process")
    given = parser.parse_args()
    for peer in PEERS:
        if peer.missing:
            print(f"left out: {peer.key}: {peer.missing} (pip install -e .[peers])")
    wanted = [job for job in jobs(SEEDS) if given.only in _name(job)]
    results = done_before(wanted, given.processes)
    ours = (load("false_alarms") or {"figures": {}})["figures"].get("false_alarm_rate", OUR_BAR)
    figures, rows = compare(results, ours)
    for line in table(rows):
        print(line)
    for figure, value in figures.items():
        print(f"{figure:46} {value:g}")
    if not given.only:
        print(store("peers", command=COMMAND, seeds=SEEDS, figures=figures, detail={"peers": rows, "runs": results}))


def table(rows: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each peer."""
    for key, row in rows.items():
        if "/" not in key:
            continue
        if "not_run" in row:
            yield f"{key:40} not run: {row['not_run']}"
        else:
            yield (
                f"{key:40} caught {row['detected_share']:.2f}  false alarms {row['false_alarm_rate']:.2f}  "
                f"errors {row['errors']} {row['error'][:60]}"
            )
