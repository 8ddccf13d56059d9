"""The training sees the same batch again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._folds import Repeats, Run
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Fold, Trace

_BATCH, _TARGET, _INPUT = (Repeats(f"{part}_fingerprint") for part in ("batch", "target", "input"))


@dataclass(frozen=True, kw_only=True)
class SameBatchRepeated(Detector):
    """The training sees the same batch again and again.

    What it sees.
    The fingerprint of the batch (of its targets and inputs where the batch is not handed over) is exactly the same
    for many updates in a row, although it changed earlier or although the loader has more rows than the batch.

    Why it matters.
    The model learns these few rows by heart: the training loss falls to nothing and nothing else gets better.
    `next(iter(loader))` inside the loop, a stuck worker or a cached batch do this.

    Evidence it shows.
    How many updates in a row, since when, rows of the batch and of the loader's data set, whether the batch changed
    earlier and what told so.

    False alarms.
    A training on the full data at every update sees one batch by design; without a sign that there is more data it is
    reported as info. Targets alone prove nothing where they are constant by design (a GAN's ones, the ramp of a
    contrastive loss, labels in sorted order), so inputs must agree with them, unless the targets had changed at every
    measurement before. A batch that is used several times on purpose (policy gradients) is measured by its own habit:
    the run must be twice the longest earlier one.

    What to try.
    Make the iterator once, outside the loop, and go through it; shuffle; look at the sampler and the cache.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("batch_fingerprint", "target_fingerprint", "input_fingerprint")
    folds: tuple[Fold[Any], ...] = (_BATCH, _TARGET, _INPUT)
    excused_by: tuple[str, ...] = ("same-batch",)

    updates: int = 8
    """So many updates in a row: shuffled batches of two rows and two classes agree that often once in 16,000 runs of
    eight, and never in their inputs."""
    many: int = 32
    """After so many updates the training is about one batch, whatever it meant to be; and after so many changes without
    a single repeat it is clear that repeats do not come by chance."""
    sampled: int = 3
    """So many measurements are enough where not every update is measured and none of `many` before was a repeat."""
    habit: float = 2.0
    """A batch may be used so many times as long as any batch before it."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        batch, target, inputs = trace.fold(_BATCH), trace.fold(_TARGET), trace.fold(_INPUT)
        if batch.length:
            run, told = batch, "the batch handed over"
        elif target.length:
            run, told = target, "targets and inputs"
        elif inputs.length:
            run, told = inputs, "inputs"
        else:
            return self.unknown(trace, "no batch was handed over, and the graph shows neither targets nor inputs")
        since = run.since
        never_twice = run.runs >= self.many and run.longest_before == 1
        enough = run.length >= self.updates or (run.length >= self.sampled and never_twice)
        if (
            not enough
            or trace.step - since + 1 < self.updates
            or (run.runs and run.length < self.habit * run.longest_before)
        ):
            return None
        if run is target:
            given = trace.window("input_fingerprint", trace.step - since + 1)[1]
            if len(given) < 2 and not never_twice:
                reason = "the targets repeat, and without inputs that proves nothing here"
                return None if inputs.length else self.unknown(trace, reason)
            if len(given) < 2:
                told = "targets"
            elif given.count(given[0]) < len(given):
                since = inputs.since
                if trace.last_step("input_fingerprint") == since or trace.step - since + 1 < self.updates:
                    return None
        return self._finding(trace, run, since, told)

    def _finding(self, trace: Trace, run: Run, since: int, told: str) -> Finding:
        rows, loader, updates = trace.scalar("batch_rows"), trace.scalar("loader_rows"), trace.step - since + 1
        more_data = rows is not None and loader is not None and loader > rows
        if run.runs or more_data:
            severity = Severity.ERROR if updates >= self.many else Severity.WARNING
        else:
            severity = Severity.INFO
        evidence: dict[str, float | str] = {
            "updates": float(updates),
            "changed_before": float(run.runs > 0),
            "by": told,
        }
        if rows is not None:
            evidence["batch_rows"] = rows
        if loader is not None:
            evidence["loader_rows"] = loader
        reason = "it changed before" if run.runs else "it never changed"
        if more_data:
            reason += f", and the loader has {number(loader or 0.0)} rows where the batch has {number(rows or 0.0)}"
        return self.finding(
            trace,
            severity=severity,
            summary=f"the same batch for {updates} updates up to step {trace.step} ({told}); {reason}",
            measured=float(updates),
            threshold=float(self.updates),
            evidence=evidence,
            since_step=since,
        )
