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
    contrastive loss, labels in sorted order), so inputs must agree with them. A batch that is used several times on
    purpose (policy gradients) is measured by its own habit: the run must be twice the longest earlier one.

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
    """After so many the training is about one batch, whatever it meant to be."""
    habit: float = 2.0
    """A batch may be used so many times as long as any batch before it."""
    enough_rows: float = 16.0
    """Rows from which on repeated targets prove a repeated batch by themselves, if they had changed before ..."""
    enough_entropy: float = 0.5
    """... and are mixed, in nats: 16 rows of two classes at 80:20 come in the same order once in 3,000 batches."""

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
        if run.length < self.updates:
            return None
        since, length = run.since, run.length
        if run is target:
            if inputs.length == 0:
                told = "targets"
                if not self._targets_prove_it(trace, target):
                    return self.unknown(trace, "the targets repeat, and without inputs that proves nothing here")
            else:
                since = max(target.since, inputs.since)
                length = min(trace.step - since + 1, target.length)
                if inputs.length < 2 or trace.last_step("input_fingerprint") <= since or length < self.updates:
                    return None
        rows, loader = trace.scalar("batch_rows"), trace.scalar("loader_rows")
        if run.runs and length < self.habit * run.longest_before:
            return None
        more_data = rows is not None and loader is not None and loader > rows
        if run.runs or more_data:
            severity = Severity.ERROR if length >= self.many else Severity.WARNING
        else:
            severity = Severity.INFO
        evidence: dict[str, float | str] = {"updates": float(length), "changed_before": float(run.runs > 0), "by": told}
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
            summary=f"the same batch in {length} measured updates up to step {trace.step} ({told}); {reason}",
            measured=float(length),
            threshold=float(self.updates),
            evidence=evidence,
            since_step=since,
        )

    def _targets_prove_it(self, trace: Trace, target: Run) -> bool:
        rows, entropy = trace.scalar("batch_rows"), trace.scalar("label_entropy")
        mixed = entropy is not None and entropy > self.enough_entropy
        return mixed and rows is not None and rows >= self.enough_rows and target.runs >= self.updates
