"""The write-up's sweep of 55 runs, run again as it was, and what its report says of it by itself.

    python -m benchmarks.sweep55                    # all of it; stores results/sweep55.json
    python -m benchmarks.sweep55 --keep runs/sweep  # the sweep's folder stays there, and is gone on with
    python -m benchmarks.sweep55 --workers 2        # faster; two at once slow each other and cost more CPU seconds

The plan is `src/trimtab_systems/ternary/write_up/sweep.yaml`: six phases, an investigation, and one phase before them
that trains the checkpoint. Eight things were wrong with the original; a remark of the summary stands for each of them.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported, in the processes of the trials too

from benchmarks.stored import store
from trimtab.compare import SweepSummary, summarize
from trimtab.sweep import Sweep
from trimtab.sweep.folder import read_sweep
from trimtab.sweep.written import read_phases
from trimtab.trial import TrialResult

COMMAND = "python -m benchmarks.sweep55"
PHASES = Path(__file__).parent.parent / "src" / "trimtab_systems" / "ternary" / "write_up" / "sweep.yaml"
BASE = "base"
"""The phase that trains the checkpoint; it is none of the 55 runs, and its time counts."""
DEFECTS = (
    "setting-without-effect",
    "identical-until-the-peak",
    "too-few-seeds",
    "best-of-noisy-evaluations",
    "scores-mixed",
    "start-not-controlled",
    "stopping-harms-late-starters",
    "conclusion-from-a-frozen-part",
)
"""What was wrong with the original, in the order of the specification; each is the code of a remark."""
NAME = "write-up"


class Told:
    """Prints a line for each run that has ended."""

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins."""
        print(f"{name}: {total} runs, {done} done before")

    def began(self, trial: object, worker: str = "") -> None:
        """A trial was started."""

    def moved(self, trial: object, updates: int, planned: int | None = None, value: float | None = None) -> None:
        """A trial has moved on."""

    def ended(self, result: TrialResult) -> None:
        """A trial has ended."""
        print(
            f"  {result.trial.arm}, seed {result.trial.seed}: {result.status}, start {result.start:+.3f}, best "
            f"{result.best:.4f} after update {result.best_step}, final {result.final:.4f} {result.error}",
            flush=True,
        )


def run(root: Path, workers: int = 1) -> tuple[list[TrialResult], SweepSummary, float]:
    """Run what is not done yet; return all results, their summary, and the CPU seconds of this call and its children.

    Where a part was done before, its own CPU seconds are added, as they were measured in its process.
    """
    begun = _cpu()
    sweep = Sweep(read_phases(PHASES), root=root, name=NAME, workers=workers, progress=Told())
    before = {}
    if (sweep.path / "sweep.json").exists():
        before = {result.trial.key: result for result in read_sweep(sweep.path).results if result.complete}
    results = sweep.run()
    stored = read_sweep(sweep.path)
    summary = summarize(results, phases=stored.facts, losses_of=stored.losses)
    return results, summary, _cpu() - begun + sum(result.cpu_seconds for result in before.values())


def measured(results: Sequence[TrialResult], summary: SweepSummary, seconds: float) -> dict[str, Any]:
    """Return figures and detail of the stored result."""
    runs = [result for result in results if result.trial.phase != BASE]
    codes = Counter(remark.code for remark in summary.remarks)
    detail = {
        "defects": {code: codes.get(code, 0) for code in DEFECTS},
        "remarks": [
            {"code": one.code, "phase": one.phase, "severity": str(one.severity), "summary": one.summary}
            for one in summary.remarks
        ],
        "verdicts": {phase.name: list(phase.verdicts) for phase in summary.phases},
        "runs": [_row(result) for result in results],
    }
    figures = {
        "runs": float(sum(result.complete for result in runs)),
        "cpu_seconds": round(seconds, 1),
        "defects_reported": float(sum(codes.get(code, 0) > 0 for code in DEFECTS)),
    }
    return {"figures": figures, "detail": detail}


def _row(result: TrialResult) -> dict[str, Any]:
    return {
        "phase": result.trial.phase, "arm": result.trial.arm, "seed": result.trial.seed, "status": result.status,
        "start": _rounded(result.start), "best": _rounded(result.best), "best_step": result.best_step,
        "final": _rounded(result.final), "steps": result.steps, "cpu_seconds": round(result.cpu_seconds, 2),
        "findings": [code for code, _ in result.findings],
    }  # fmt: skip


def _rounded(value: float) -> float | None:
    return round(value, 4) if value == value else None  # JSON has no NaN


def _cpu() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def main() -> None:
    """Run the sweep and store what it gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keep", type=Path, help="where the sweep's folder goes and stays; by default it is thrown away"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trials at once; 1")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        results, summary, seconds = run(given.keep or Path(folder), given.workers)
    found = measured(results, summary, seconds)
    seeds = sorted({result.trial.seed for result in results})
    print(store("sweep55", command=COMMAND, seeds=seeds, figures=found["figures"], detail=found["detail"]))
    for name, value in found["figures"].items():
        print(f"{name}: {value:g}")
    for code, count in found["detail"]["defects"].items():
        print(f"  {code}: {count}")


if __name__ == "__main__":
    main()
