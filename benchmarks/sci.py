"""What the system `sci` reaches on SCAN and what it costs: the loop, other splits, the models beside it, ablations.

    python -m benchmarks.sci                        # all of it; stores results/sci.json
    python -m benchmarks.sci --only loop splits     # these parts alone: loop, splits, models, ablations
    python -m benchmarks.sci --workers 1            # one training at a time

Each training is `trimtab train`'s, under a Guard, in a process of its own on one thread; seconds are CPU seconds of
that process without its imports, with every evaluation and the final one. One that fits less than `FIT` of its training
commands is trained again with the seed + 1000, up to five times, for nothing else and with all seconds counted. Test
commands are looked at once, by the final evaluation, with the attempt that fits training best. A process that dies
counts as a failure. What is stored for the same commit is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch and numpy when they are imported, in children too

import torch

from benchmarks.stored import commit, load, store, wilson
from trimtab.system import Training
from trimtab.train import train
from trimtab_systems.sci.data import Example, proxy_of, train_of
from trimtab_systems.sci.evaluate import ENDED, Trained, final, measure, trained_of
from trimtab_systems.sci.model import SCILoop
from trimtab_systems.sci.program import scores_of_words
from trimtab_systems.sci.recipe import SYSTEM

COMMAND = "python -m benchmarks.sci"
ROOT = Path(__file__).parent.parent
SEEDS = (42, 123, 456, 0, 1, 2, 3, 4, 5, 6)
THREE = (42, 123, 456)
ATTEMPTS = 5
"""So often a seed is trained at most; sci_loop.md 8."""
FIT = 0.99
"""Share of the training commands that must be exactly right, else the seed is trained again; sci_loop.md 1."""
SAMPLE = 1000
"""About so many training commands are answered where no restart depends on it."""
PARTS = ("loop", "splits", "models", "ablations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is trained, with which seeds.

    Attributes:
        part: see `PARTS`.
        name: of the case inside its part.
        preset: of the system.
        overrides: settings that differ from the preset.
        seeds: one row each.
        attempts: trainings of a seed at most; more than one repeats where training is not fitted.
        split: whose test the final evaluation opens; empty for none, then the last validation is what counts.
    """

    part: str
    name: str
    preset: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = THREE
    attempts: int = 1
    split: str = ""


ABLATED: Mapping[str, tuple[str, ...]] = {
    "full": (),
    "scores in context": ("contextual=true",),
    "slot competition": ("competition=true",),
    "no reset": ("reset=false",),
    "no abstraction": ("abstraction=free",),
    "contrast": ("scl_weight=0.1",),
    "messages between slots": ("gnn=true",),
    "orthogonality": ("orthogonality=0.1",),
    "caps 6": ("slots=6", "longest=6"),
    "caps 12": ("slots=12", "longest=12"),
}
"""Name -> settings that differ from the default; on the proxy split, drawn anew twice at most, as some never fit."""

CASES = (
    Case(part="loop", name="length", preset="reference", seeds=SEEDS, attempts=ATTEMPTS, split="length"),
    *(
        Case(
            part="splits", name=split, preset="reference", overrides=(f"split={split}",), seeds=seeds,
            attempts=ATTEMPTS, split=split,
        )
        for split, seeds in {
            "addprim-jump": THREE, "addprim-turn-left": THREE, "template-around-right": THREE, "simple": THREE,
            "template-right": (42,), "template-opposite-right": (42,), "template-jump-around-right": (42,),
        }.items()
    ),
    Case(part="models", name="seed_model", preset="write-up", split="length"),
    Case(part="models", name="flat", preset="flat", split="length"),
    Case(part="models", name="lstm", preset="lstm", split="length"),
    *(
        Case(
            part="ablations", name=name, preset="proxy", overrides=("explorations=2", *change), seeds=(42,),
        )
        for name, change in ABLATED.items()
    ),
)  # fmt: skip


class Attempt(NamedTuple):
    """One training: its model, the finite ones of its last validation metrics, and all commands it may learn from."""

    trained: Trained
    metrics: Mapping[str, float]
    commands: tuple[Example, ...]


def attempt(case: Case, seed: int, root: str) -> Attempt:
    """Train once; the model is as the training left it, so with its best weights where patience stopped it."""
    built: list[Training] = []
    ends: list[tuple[int, Mapping[str, float]]] = []
    run = train(
        SYSTEM, preset=case.preset, overrides=case.overrides, seed=seed, root=root, checkpoint_every=0,
        built=built.append, evaluated=lambda done, metrics: ends.append((done, dict(metrics))),
    )  # fmt: skip
    if run.status not in ENDED:
        raise RuntimeError(f"the training ended as {run.status}")
    one = trained_of(run, built[0], ends[-1][0])
    commands = train_of(one.config.split, one.config.split_seed)
    metrics = {name: value for name, value in ends[-1][1].items() if math.isfinite(value)}  # JSON knows no others
    return Attempt(one, metrics, proxy_of(commands)[0] if one.config.validation == "proxy" else commands)


def row_of(case: Case, seed: int) -> dict[str, Any]:
    """Train one seed of a case, again where training is not fitted, and measure the attempt that fits best."""
    torch.set_num_threads(1)
    row: dict[str, Any] = {
        "part": case.part, "name": case.name, "seed": seed, "commit": commit(), "attempts": [], "error": "",
    }  # fmt: skip
    began = time.process_time()
    best, fitted = None, -1.0
    with tempfile.TemporaryDirectory() as root:
        for k in range(case.attempts):
            started, one = time.process_time(), attempt(case, seed + 1000 * k, root)
            judged = one.commands if case.attempts > 1 else one.commands[:: max(1, len(one.commands) // SAMPLE)]
            fit = measure(one.trained.predict, judged).all.exact_match
            row["attempts"].append({
                "seed": one.trained.seed, "train_exact_match": fit, "train_commands": len(judged),
                "updates": one.trained.step,
                "cpu_seconds": round(time.process_time() - started, 2), "last_validation": one.metrics,
            })  # fmt: skip
            if fit > fitted:
                best, fitted = one.trained, fit
            if fit >= FIT:
                break
        assert best is not None
        row["train_exact_match"] = fitted
        row["parameters"] = sum(parameter.numel() for parameter in best.model.parameters())
        if case.split:
            row["test"] = final(best, case.split).as_dict()
        if isinstance(best.model, SCILoop):
            row["word_roles"] = scores_of_words(best.model, [example.words for example in one.commands])
    row["cpu_seconds"] = round(time.process_time() - began, 2)
    return row


def failed(case: Case, seed: int, seconds: float, error: str) -> dict[str, Any]:
    """Return the row of a training whose process died: nothing is right, and its seconds count."""
    return {
        "part": case.part, "name": case.name, "seed": seed, "commit": commit(), "attempts": [],
        "train_exact_match": 0.0, "cpu_seconds": round(seconds, 2), "error": error,
    }  # fmt: skip


def in_own_process(case: Case, seed: int) -> dict[str, Any]:
    """Return `row_of` from a fresh process, or the row of one that died."""
    with tempfile.TemporaryDirectory() as folder:
        answer, said = Path(folder) / "row.json", Path(folder) / "said.txt"
        one = [sys.executable, "-m", "benchmarks.sci", "--one", case.part, case.name, str(seed), str(answer)]
        with said.open("wb") as stream:
            child = subprocess.Popen(one, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode == 0 and answer.exists():
            row: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            return row
        last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    error = f"exit code {child.returncode}: {' '.join(last)}"
    return failed(case, seed, used.ru_utime + used.ru_stime, error)


def exact_match(row: Mapping[str, Any]) -> float:
    """Return the share of test commands that are right; of a row without a test, of its last validation.

    A process that died got none right.
    """
    if row["error"]:
        return 0.0
    if "test" in row:
        return float(row["test"]["exact_match"])
    return float(row["attempts"][-1]["last_validation"]["exact_match"])


def without_restart(row: Mapping[str, Any]) -> bool:
    """Say whether the first attempt was enough for every test command."""
    return exact_match(row) == 1.0 and len(row["attempts"]) == 1


def without_redraw(row: Mapping[str, Any]) -> bool:
    """Say whether that attempt drew nothing anew either, not even a part of the model."""
    return without_restart(row) and not row["attempts"][0]["last_validation"].get("explorations")


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the figures of everything that has rows."""
    of: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        of.setdefault((row["part"], row["name"]), []).append(row)
    figures: dict[str, float] = {}
    if loop := of.get(("loop", "length")):
        restarts = sum(max(0, len(row["attempts"]) - 1) for row in loop)
        solved = sum(exact_match(row) == 1.0 for row in loop)
        at_once = sum(without_restart(row) for row in loop)
        figures |= {
            "loop_length_em_min": min(map(exact_match, loop)),
            "loop_length_em_mean": statistics.fmean(map(exact_match, loop)),
            "loop_length_seeds": solved,
            "loop_length_seeds_without_restart": at_once,
            "loop_length_seeds_without_restart_wilson_lower": wilson(at_once, len(loop))[0],
            "loop_length_seeds_without_redraw": sum(map(without_redraw, loop)),
            "loop_length_seeds_measured": len(loop),
            "loop_restarts": restarts,
            "loop_crashes": sum(bool(row["error"]) for row in loop),
            "loop_cpu_seconds_median": statistics.median(row["cpu_seconds"] for row in loop),
            "loop_cpu_seconds_max": max(row["cpu_seconds"] for row in loop),
        }
    for (part, name), mine in of.items():
        if part == "splits":
            key = name.removeprefix("template-").replace("-", "_")
            figures[f"{key}_em_mean"] = statistics.fmean(map(exact_match, mine))
            figures[f"{key}_em_min"] = min(map(exact_match, mine))
        if part == "models":
            figures[f"{name}_length_em_mean"] = statistics.fmean(map(exact_match, mine))
            figures[f"{name}_length_em_max"] = max(map(exact_match, mine))
    return figures | speed()


def speed() -> dict[str, float]:
    """Return the figure that `benchmarks.sci_generate` stored; nothing where it has not run."""
    stored = load("sci_generate")
    return {} if stored is None else {"generate_speedup": stored["figures"]["generate_speedup"]}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line for each training: what it got right where, its attempts, its seconds."""
    lines = [
        "| part | case | seed | training | exact match | clauses seen | unseen | attempts | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        groups = row["test"]["by_clauses"] if "test" in row else {}
        seen, unseen = (
            f"{groups[name]['exact']}/{groups[name]['n']}" if name in groups else "-"
            for name in ("seen clauses", "an unseen clause")
        )
        lines.append(
            f"| {row['part']} | {row['name']} | {row['seed']} | {row['train_exact_match']:.4f} "
            f"| {row['error'] or format(exact_match(row), '.4f')} | {seen} | {unseen} "
            f"| {len(row['attempts'])} | {row['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines)


def jobs(parts: Sequence[str], done: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Case, int]]:
    """Yield what is asked for and not done yet."""
    there = {(row["part"], row["name"], row["seed"]) for row in done}
    for case in CASES:
        for seed in case.seeds:
            if case.part in parts and (case.part, case.name, seed) not in there:
                yield case, seed


def stored_rows() -> list[dict[str, Any]]:
    """Return the rows that were measured at this commit."""
    stored, now = load("sci"), commit()
    return [row for row in stored["detail"]["rows"] if row["commit"] == now] if stored else []


def main() -> None:
    """Train what is not stored yet, and store the result after each training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts alone")
    names = sorted({case.name for case in CASES})
    parser.add_argument("--case", nargs="+", choices=names, default=names, metavar="CASE", help="of them these alone")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="trainings at a time; 2")
    parser.add_argument("--again", action="store_true", help="train everything anew")
    parser.add_argument("--one", nargs=4, metavar=("PART", "CASE", "SEED", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        part, name, seed, file = given.one
        (case,) = (case for case in CASES if (case.part, case.name) == (part, name))
        Path(file).write_text(json.dumps(row_of(case, int(seed))), encoding="utf-8")
        return
    rows = [] if given.again else stored_rows()
    pool = ThreadPoolExecutor(given.workers)
    try:
        asked = (job for job in jobs(given.only, rows) if job[0].name in given.case)
        for future in as_completed([pool.submit(in_own_process, *job) for job in asked]):
            row = future.result()
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
            order = {(case.part, case.name): place for place, case in enumerate(CASES)}
            rows.sort(key=lambda one: order[one["part"], one["name"]])
            store("sci", command=COMMAND, seeds=SEEDS, figures=figures_of(rows), detail={"rows": rows})
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more begins
    for figure, value in figures_of(rows).items():
        print(f"{figure:40} {value:.6g}")
    print(table(rows))


if __name__ == "__main__":
    main()
