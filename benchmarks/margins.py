"""How far each threshold is from what healthy trainings do, and from what broken ones do.

    python -m benchmarks.margins                     # records what is missing, judges it, stores the table
    python -m benchmarks.margins --only loss-spike   # one rule; nothing stored

Each rule judges the recorded trainings (`benchmarks.recorded`: tuning seeds, first injections) as it is shipped, and
again with its main thresholds made so many times as easy or as strict to meet. The table says how many healthy
runs would then alarm and how many faults would be caught: a threshold is well placed where neither changes much.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases.healthy import TUNE_SEEDS
from benchmarks.recorded import FOLDER, Judged, Record, caught, judge, record_missing, records
from benchmarks.stored import store
from benchmarks.watching import in_processes
from trimtab.detectors import DETECTORS, Detector

COMMAND = "python -m benchmarks.margins"
FACTORS = (0.125, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
"""So many times as strict as shipped: 0.5 meets a threshold half-way, 2 needs twice of it."""


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """Which fields of a rule are its main thresholds: those that make it stricter when raised, and when lowered."""

    raised: tuple[str, ...] = ()
    lowered: tuple[str, ...] = ()

    def __call__(self, detector: Detector, strictness: float) -> Detector:
        """Return the rule with a name of its own, so many times as strict."""
        changes: dict[str, Any] = {}
        for name in (*self.raised, *self.lowered):
            value = getattr(detector, name)
            scaled = value * strictness if name in self.raised else value / strictness
            changes[name] = max(1, round(scaled)) if isinstance(value, int) else scaled
        return replace(detector, code=variant(detector.code, strictness), **changes)

    def fields(self, detector: Detector) -> dict[str, float]:
        """Return the thresholds as shipped."""
        return {name: getattr(detector, name) for name in (*self.raised, *self.lowered)}


THRESHOLDS: dict[str, Scaled] = {
    "gradient-exploding": Scaled(
        raised=("replaced", "replaced_much", "loss_growth", "gradient_growth", "sustained", "sustained_alone")
    ),
    "loss-far-from-chance": Scaled(raised=("ratio", "notable", "squared_ratio")),
    "same-batch-repeated": Scaled(raised=("updates", "many")),
    # the course of the loss and of metrics
    "loss-spike": Scaled(raised=("large", "beginning")),
    "loss-diverging": Scaled(raised=("above_start", "lost")),
    "loss-not-moving": Scaled(raised=("blocks",), lowered=("gained",)),
    "never-better-than-start": Scaled(raised=("above", "noise")),
    "metric-dropped": Scaled(raised=("lost", "scatters")),
    "metric-stuck-below-target": Scaled(raised=("values", "rest"), lowered=("gained",)),
    "past-its-peak": Scaled(raised=("lost", "scatters")),
    "oscillating": Scaled(raised=("spread", "swing", "against")),
    "loss-at-chance": Scaled(lowered=("near",)),
    "better-than-possible": Scaled(raised=("margin",), lowered=("share",)),
    "loss-scale-changed": Scaled(raised=("factor",)),
    # gradients and updates
    "gradient-vanishing": Scaled(lowered=("ratio",)),
    "update-too-large": Scaled(raised=("replaced",)),
    "update-too-small": Scaled(lowered=("replaced",)),
    "clipping-always-active": Scaled(lowered=("strong",)),
    "clipping-starves": Scaled(lowered=("left", "replaced", "lost")),
    "moments-poisoned": Scaled(raised=("jump",)),
    "weight-decay-dominates": Scaled(raised=("share",)),
    "graph-detached": Scaled(raised=("front", "share")),
    "precision-underflow": Scaled(raised=("middle_share", "least")),
    "scaler-skips-too-often": Scaled(raised=("share", "least")),
    "norm-growing": Scaled(raised=("growth", "lately")),
    # data, modes, resources
    "labels-sorted": Scaled(raised=("between",), lowered=("rough",)),
    "labels-unrelated": Scaled(raised=("back",), lowered=("few",)),
    "inputs-unscaled": Scaled(raised=("large", "above_chance", "steep")),
    "modules-in-wrong-mode": Scaled(raised=("updates", "looks", "evaluations")),
    "weights-lost-after-load": Scaled(raised=("missing", "chance"), lowered=("changed",)),
    "step-slowing": Scaled(raised=("times",)),
    "memory-growing": Scaled(raised=("times", "bytes")),
    # attention, representations, units
    "attention-uniform": Scaled(lowered=("moves", "sharper")),
    "attention-saturated": Scaled(raised=("logit", "logit_later"), lowered=("entropy",)),
    "attention-logits-growing": Scaled(raised=("logit", "growth")),
    "representation-collapsed": Scaled(lowered=("spread", "spread_fallen", "rank_fallen", "alike")),
    "latent-unused": Scaled(lowered=("nats", "share")),
    "dead-units": Scaled(raised=("share", "whole")),
    "saturated-units": Scaled(raised=("from_start", "later")),
}
"""Code -> its main thresholds, which are scaled together."""

EXACT: dict[str, str] = {
    "loss-not-finite": "a number is finite or not",
    "gradient-not-finite": "a number is finite or not",
    "logged-loss-not-finite": "a number is finite or not",
    "gradients-accumulate": "gradients were cleared or not",
    "parameters-outside-optimizer": "an optimizer holds a tensor or not",
    "parameters-never-changed": "a tensor moved or not",
    "learning-rate-zero": "the rate is zero or not",
    "double-softmax": "the graph holds a softmax before the loss or not",
    "loss-does-not-fit-targets": "the graph shows loss and targets, which fit or not",
    "random-and-frozen": "the values are those of torch's first draw or not",
    "optimizer-state-reset": "the count of updates fell back or not; three times is more than unfreezing does",
    "milestone-missed": "the user says the number",
    "patience-spent": "the user says the number",
    "trimtab-failed": "a part of Trimtab failed or not",
    "response-budget-spent": "the user says the number",
}
"""Code -> why there is nothing to scale."""


def variant(code: str, strictness: float) -> str:
    """Name a rule at one strictness."""
    return f"{code}@{strictness:g}"


def variants(only: str = "") -> list[Detector]:
    """Return each rule with thresholds, at each strictness."""
    return [
        THRESHOLDS[detector.code](detector, factor)
        for detector in DETECTORS
        if detector.code in THRESHOLDS and only in detector.code
        for factor in FACTORS
    ]


def row(detector: Detector, all_judged: Sequence[Judged]) -> dict[str, Any]:
    """Return what the table says about one rule."""
    healthy = [j for j in all_judged if not j.job.family]
    meant = [j for j in all_judged if j.job.case is not None and detector.code in j.job.case.right_codes]
    at: dict[str, Any] = {}
    for factor in FACTORS:
        code = variant(detector.code, factor)
        alarmed = sorted({j.job.name for j in healthy if any(e.code == code for e in j.raised)})
        at[f"{factor:g}"] = {
            "alarms": sum(any(e.code == code for e in j.raised) for j in healthy),
            "kinds": alarmed,
            "caught": sum(caught(j, code, detector.code) is not None for j in meant),
        }
    safe = [factor for factor in FACTORS if not at[f"{factor:g}"]["alarms"]]
    return {
        "thresholds": THRESHOLDS[detector.code].fields(detector),
        "healthy_runs": len(healthy),
        "meant_runs": len(meant),
        "judged_share": sum(variant(detector.code, 1.0) in j.judged for j in healthy) / max(len(healthy), 1),
        "silent_down_to": min(safe) if safe else None,
        "by_strictness": at,
    }


def figures_of(table: Mapping[str, Any]) -> dict[str, float]:
    """Return the flat figures."""

    def total(factor: str, what: str) -> int:
        return sum(entry["by_strictness"][factor][what] for entry in table.values())

    meant = max(sum(entry["meant_runs"] for entry in table.values()), 1)
    return {
        "detectors": len(table),
        "detectors_without_thresholds": len(EXACT),
        "healthy_runs": max(entry["healthy_runs"] for entry in table.values()),
        "alarms_as_shipped": total("1", "alarms"),
        "alarms_at_half": total("0.5", "alarms"),
        "silent_at_half_share": sum(not e["by_strictness"]["0.5"]["alarms"] for e in table.values()) / len(table),
        "caught_as_shipped_share": total("1", "caught") / meant,
        "caught_at_half_share": total("0.5", "caught") / meant,
        "caught_at_double_share": total("2", "caught") / meant,
    }


def show(table: Mapping[str, Any]) -> None:
    """Print alarms and catches of each rule by strictness."""
    heads = "".join(f"{f'x{factor:g}':>11}" for factor in FACTORS)
    print(f"{'alarms/caught, strictness':34}{heads}  of healthy/meant")
    for code, entry in table.items():
        cells = "".join(f"{at['alarms']:>6}/{at['caught']:<4}" for at in entry["by_strictness"].values())
        print(f"{code:34}{cells}  {entry['healthy_runs']}/{entry['meant_runs']}")


def main() -> None:
    """Record what is missing, judge everything, print the table, store it unless one rule was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rules whose code contains this; nothing is stored")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--as-recorded", action="store_true", help="judge what is there, record nothing")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if not (options.only or options.as_recorded):
        record_missing(list(TUNE_SEEDS), options.folder, options.processes)
    everything: list[Record] = list(records(options.folder))
    if not everything:
        raise SystemExit(f"nothing is recorded in {options.folder}; run: python -m benchmarks.recorded record")
    work = partial(judge, detectors=variants(options.only))
    all_judged = list(in_processes(work, everything, options.processes))
    table = {d.code: row(d, all_judged) for d in DETECTORS if d.code in THRESHOLDS and options.only in d.code}
    show(table)
    figures = figures_of(table)
    for figure, value in figures.items():
        print(f"{figure:36} {value:g}")
    if not options.only:
        detail = {
            "detectors": table,
            "without_thresholds": EXACT,
            "recorded_at": sorted({one.commit for one in everything}),
        }
        print(store("margins", command=COMMAND, seeds=list(TUNE_SEEDS), figures=figures, detail=detail))


if __name__ == "__main__":
    main()
