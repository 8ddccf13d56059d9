"""Whether a training that went wrong comes back: its final metric over the clean run's, with and without an answer.

    pip install -e .[peers] -c constraints.txt      # lightning, stabilityguard, zclip; what is not there is left out
    python -m benchmarks.recovery                   # the whole report, resumable
    python -m benchmarks.recovery --tune --only bad-batch

Arms of each fault, family and seed: clean (the fault never comes), unaided, safe (`Guard(respond="safe")`), and each of
the tools in `peers.acting`. The share of a run is (metric - chance) / (clean metric - chance), at least 0; a run that
was ended by an error or a stop has 0, unless the stop put weights back that were good. A fault counts when the median
unaided share is below 0.95 in each of its families; it is recovered when the median share is at least 0.95 in each.
These definitions were written before the report seeds were run; faults, strengths and the safe table were chosen on
seeds 100 to 104.

Healthy kinds: the first twelve of the list of healthy-but-tricky kinds, bare and under `respond="safe"`: the ratio of
the final target metrics (turned round where lower is better), and whether the weights are the same bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.recoverable import RECOVERABLE, RECOVERED, Recoverable, best, chance, share
from benchmarks.cases.training import Metrics, Ran, Training, run
from benchmarks.peers.acting import ACTING, SUPERVISED
from benchmarks.peers.side_by_side import Nobody
from benchmarks.stored import store, wilson
from benchmarks.watching import KINDS, Job, arguments, forget, perform_all, seeds_for
from trimtab import Guard
from trimtab.patience import Patience
from trimtab.records import Finding

COMMAND = "python -m benchmarks.recovery"
CASES: dict[str, Recoverable] = {case.name: case for case in RECOVERABLE}
TRICKY = (
    "warm-up-bump", "cosine-restarts", "gan", "reinforce", "batch-of-two", "curriculum-announced", "sparse-gradients",
    "idle-experts", "strong-dropout", "late-insight", "loss-scale-search", "loss-near-zero",
)  # fmt: skip
"""The healthy kinds H1 to H12."""
T_OF_5 = 2.776
"""Student's t for a 95 % interval of the mean of five."""
PEERS = {peer.name: peer for peer in (*ACTING, SUPERVISED)}
ARMS = ("unaided", "safe", *PEERS)
BESIDE = " beside"
"""Ends the name of a job in which the peers run a fault."""

Told = dict[str, Any]


def weights_of(training: Training) -> str:
    """Return a checksum of every tensor of the model."""
    digest = hashlib.sha256()
    for name, tensor in training.model.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def go(training: Training, **running: Any) -> tuple[Ran | None, Metrics, str]:
    """Run a training; return what it left, its metrics at the end, and which error ended it, if one did."""
    try:
        ran = run(training, **running)
    except Exception as error:  # noqa: BLE001 - a training that ends early is one of the results
        training.model.eval()
        with torch.no_grad():
            return None, training.evaluate(), f"{type(error).__name__}: {error}"[:160]
    return ran, ran.final, ""


def guarded(training: Training, patience: int | None, **guarding: Any) -> tuple[Metrics, str, Told]:
    """Run a training under a Guard; return its metrics at the end, what ended it, and what the Guard did."""
    target = training.target
    better: dict[str, Any] = {"loss": "lower", target.metric: target.better}
    metric = f"{target.split}/{target.metric}"
    if patience is not None and "respond" in guarding:
        guarding["early_stop"] = Patience(metric=metric, better=target.better, patience=patience)
    with tempfile.TemporaryDirectory() as folder:
        guard = Guard(
            Path(folder) / "run", training.model, training.optimizers, state=training.parts, pyproject=False, **guarding
        )

        def evaluated(step: int, metrics: Mapping[str, float], split: str) -> None:
            guard.record(split=split, better=better, **metrics)

        with guard:
            _, metrics, ended = go(training, on_evaluation=evaluated, observer=guard)
        outcomes = [
            {"step": o.step, "code": o.code, "action": o.action, "result": o.result, "to": o.to_step,
             "because": o.because[:120]}
            for o in guard.outcomes
        ]  # fmt: skip
        found = sorted(
            (e.step, e.code, str(e.severity))
            for e in guard.events
            if isinstance(e, Finding) and e.event in ("opened", "worsened")
        )
    return metrics, ended, {"outcomes": outcomes, "found": found}


def perform_case(job: Job) -> dict[str, Any]:
    """Run a fault in a family with a seed: clean, unaided and safe."""
    case = CASES[job.name]
    training = case.build(job.family, job.seed)
    target, none = training.target, chance(training)
    begin = time.process_time()
    ran, metrics, ended = go(training, observer=Nobody())
    unaided = _row(metrics[target.metric], ended, begin)
    if case.peaks:
        assert ran is not None
        clean = best(ran.evaluations, training)
    else:
        clean = go(case.build(job.family, job.seed, clean=True), observer=Nobody())[1][target.metric]
    forget()
    begin = time.process_time()
    metrics, ended, told = guarded(case.build(job.family, job.seed), case.patience, respond="safe")
    safe = {**_row(metrics[target.metric], ended, begin), **told}
    return {**_named(job), "metric": target.metric, "clean": clean, "chance": none,
            "arms": {"unaided": unaided, "safe": safe}}  # fmt: skip


def perform_peers(job: Job) -> dict[str, Any]:
    """Run the same with each of the other tools; `rated` joins both."""
    case = CASES[job.name.removesuffix(BESIDE)]
    arms: dict[str, Told] = {}
    for name, peer in PEERS.items():
        forget()
        if peer.missing:
            arms[name] = {"not_run": peer.missing}
            continue
        training = case.build(job.family, job.seed)
        begin = time.process_time()
        with _protected(peer.protect, training):
            _, metrics, ended = go(training, observer=Nobody())
        arms[name] = _row(metrics[training.target.metric], ended, begin)
    return {**_named(job), "arms": arms}


def _row(metric: float, ended: str, begin: float) -> Told:
    return {"metric": metric, "ended": ended, "cpu_seconds": round(time.process_time() - begin, 2)}


def _named(job: Job) -> Told:
    return {"name": job.name, "family": job.family, "seed": job.seed}


@contextlib.contextmanager
def _protected(protect: Callable[[Training], AbstractContextManager[None]], training: Training) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with protect(training):
            yield


def rated(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join the runs of a fault, family and seed, and say of each arm what share of the clean run's gain is there.

    Only a stop that put the best weights back is worth more than 0; `share_as_it_ended` is what the weights are worth.
    """
    beside = {(r["name"], r["family"], r["seed"]): r["arms"] for r in results if r["name"].endswith(BESIDE)}
    joined = []
    for result in results:
        if result["name"].endswith(BESIDE):
            continue
        arms = {**result["arms"], **beside.get((result["name"] + BESIDE, result["family"], result["seed"]), {})}
        rows = {arm: _rated(row, result["clean"], result["chance"]) for arm, row in arms.items()}
        joined.append({**result, "arms": rows})
    return joined


def _rated(row: Mapping[str, Any], clean: float, none: float) -> Told:
    if "metric" not in row:
        return dict(row)
    worth = share(float(row["metric"]), clean, none)
    restored = any(o["action"] == "early-stop" and o["result"] == "done" for o in row.get("outcomes", ()))
    return {**row, "share": round(worth if not row["ended"] or restored else 0.0, 4),
            "share_as_it_ended": round(worth, 4)}  # fmt: skip


def perform_healthy(job: Job) -> dict[str, Any]:
    """Run a healthy kind bare and under `respond="safe"`."""
    case = KINDS[job.name]
    bare = case.build(job.seed)
    _, clean, ended = go(bare, observer=Nobody())
    assert not ended, ended
    forget()
    training = case.build(job.seed)
    metrics, ended, told = guarded(training, None, respond="safe")
    target = training.target
    mine, theirs = metrics[target.metric], clean[target.metric]
    same = weights_of(training) == weights_of(bare)
    ratio = 1.0 if same else (mine / theirs if target.better == "higher" else theirs / mine)
    return {
        "name": job.name, "family": "", "seed": job.seed, "metric": target.metric, "clean": theirs, "safe": mine,
        "ratio": 0.0 if ended or not math.isfinite(ratio) else ratio, "same_weights": same, "ended": ended,
        "outcomes": told["outcomes"],
    }  # fmt: skip


def perform(job: Job) -> dict[str, Any]:
    """Run one job; what is not finite is written as text."""
    logging.disable(logging.CRITICAL)
    if not job.family:
        result = perform_healthy(job)
    else:
        result = perform_peers(job) if job.name.endswith(BESIDE) else perform_case(job)
    plain: dict[str, Any] = _finite({**result, "unannounced": False})
    return plain


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def jobs(seeds: Sequence[int], peer_seeds: Sequence[int]) -> list[Job]:
    """Return every fault in each of its families and every healthy kind with each seed, then the same for the peers."""
    places = [(case.name, family) for case in RECOVERABLE for family in case.families]
    faulty = [Job(name=name, family=family, seed=s) for name, family in places for s in seeds]
    healthy = [Job(name=kind, seed=s) for kind in TRICKY for s in seeds]
    beside = [Job(name=name + BESIDE, family=family, seed=s) for s in peer_seeds for name, family in places]
    return faulty + healthy + beside


# -- what is made of it ----------------------------------------------------------------------------------------------


def median_shares(runs: Sequence[Mapping[str, Any]], arm: str) -> dict[str, dict[str, float]]:
    """Return fault -> family -> median share of an arm; nothing where the arm did not run."""
    found: dict[str, dict[str, list[float]]] = {}
    for result in runs:
        row = result["arms"].get(arm, {})
        if "share" in row:
            found.setdefault(result["name"], {}).setdefault(result["family"], []).append(row["share"])
    return {name: {family: statistics.median(s) for family, s in families.items()} for name, families in found.items()}


def figures_of(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the figures of faulty and healthy runs."""
    faulty, healthy = ([r for r in results if bool(r["family"]) == kind] for kind in (True, False))
    medians = {arm: median_shares(faulty, arm) for arm in ARMS}
    alone = medians["unaided"]
    counted = [name for name, families in alone.items() if max(families.values()) < RECOVERED]

    def recovered(arm: str) -> int:
        return sum(min(medians[arm].get(name, {"": 0.0}).values()) >= RECOVERED for name in counted)

    figures: dict[str, float] = {
        "faults": len(counted),
        "recovered": recovered("safe"),
        "unaided_recovered": recovered("unaided"),
        "best_peer_recovered": max(recovered(peer.name) for peer in ACTING),
        "supervised_peer_recovered": recovered(SUPERVISED.name),
        "fault_runs": sum(r["name"] in counted for r in faulty),
    }
    for arm in ARMS:
        rows = [r["arms"][arm] for r in faulty if r["name"] in counted and "share" in r["arms"].get(arm, {})]
        good = sum(row["share"] >= RECOVERED for row in rows)
        word = arm.replace("-", "_")
        if rows:
            figures[f"{word}_recovered_runs_share"] = good / len(rows)
            figures[f"{word}_recovered_runs_wilson_lower"] = wilson(good, len(rows))[0]
    if healthy:
        fired = [r for r in healthy if any(o["result"] == "done" for o in r["outcomes"])]
        silent = [r for r in healthy if r not in fired]
        figures |= {
            "healthy_runs": len(healthy),
            "healthy_min_ratio": min(r["ratio"] for r in healthy),
            "healthy_runs_with_an_action": len(fired),
            "healthy_silent_bit_identical_share": sum(r["same_weights"] for r in silent) / max(len(silent), 1),
        }
    return figures


def table_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return for each fault and family what it does, and of each arm median, mean with its 95 % interval, and least."""
    table: dict[str, Any] = {}
    for case in RECOVERABLE:
        rows: dict[str, Any] = {"what": (case.inject.__doc__ or "").partition("\n")[0], "update": case.onset}
        for family in case.families:
            chosen = [r for r in runs if (r["name"], r["family"]) == (case.name, family)]
            arms = {}
            for arm in ARMS:
                there = [r["arms"][arm] for r in chosen if "share" in r["arms"].get(arm, {})]
                shares = [row["share"] for row in there]
                if not shares:
                    continue
                half = T_OF_5 * statistics.stdev(shares) / 5**0.5 if len(shares) == 5 else math.inf
                arms[arm] = {
                    "median": statistics.median(shares), "mean": round(statistics.fmean(shares), 4),
                    "interval_half_width": round(half, 4) if math.isfinite(half) else None, "least": min(shares),
                    "runs": len(shares), "ended": sum(bool(row["ended"]) for row in there),
                }  # fmt: skip
            if arms:
                rows[family] = arms
        table[case.name] = rows
    return table


def main() -> None:
    """Run what is missing, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer-seeds", type=int, default=5, help="so many of the seeds for the peers")
    options = arguments(parser)
    seeds = options.seeds or seeds_for(tune=options.tune)
    beside = seeds[: parser.parse_args().peer_seeds]
    wanted = [job for job in jobs(seeds, beside) if options.only in job.key]
    results = perform_all(perform, wanted, "recovery", options)
    faulty = rated([r for r in results if r["family"]])
    healthy = [r for r in results if not r["family"]]
    for name, rows in table_of(faulty).items():
        for family, arms in rows.items():
            if isinstance(arms, dict):
                print(name, family, {arm: round(row["median"], 3) for arm, row in arms.items()})
    for result in healthy:
        if result["outcomes"] or not result["same_weights"]:
            print(result["name"], result["seed"], result["ratio"], result["same_weights"], result["outcomes"])
    figures = figures_of([*faulty, *healthy])
    print(figures)
    if options.stores:
        detail = {
            "definition": "Arms" + (__doc__ or "").partition("Arms")[2],
            "arms": {peer.name: peer.how for peer in PEERS.values()},
            "not_run": {peer.name: peer.missing for peer in PEERS.values() if peer.missing},
            "peer_seeds": beside,
            "table": table_of(faulty),
            "runs": faulty,
            "healthy": healthy,
        }
        print(store("recovery", command=COMMAND, seeds=seeds, figures=figures, detail=detail))


if __name__ == "__main__":
    main()
