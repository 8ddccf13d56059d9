"""Weights are updated in evaluation mode, or the model is evaluated in training mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace

_ROOT = "(model)"


@dataclass(frozen=True, kw_only=True)
class ModulesInWrongMode(Detector):
    """Weights are updated in evaluation mode, or the model is evaluated in training mode.

    What it sees.
    While the weights of a part are updated, the model and every dropout and batch normalisation in that part are in
    evaluation mode. Or: while gradients are switched off, now and then, the model runs with its dropout or batch
    normalisation in training mode.

    Why it matters.
    In evaluation mode dropout does nothing and batch normalisation uses statistics that it no longer learns: the
    training regularises less than it seems, or diverges. A model that is evaluated in training mode gives other numbers
    at each call, and its running statistics take in the validation data.

    Evidence it shows.
    Which it is, the modules, since when; of evaluations their number and the share in training mode.

    False alarms.
    Batch normalisations that are frozen by themselves, in a model in training mode, are meant, and parts that no
    optimizer trains are not looked at. A model that runs without gradients in nearly every step (a teacher, rollouts)
    is not being evaluated. Dropout kept on purpose: say `note("mc-dropout")`; training in evaluation mode on purpose:
    `note("evaluation-mode")`.

    What to try.
    `model.train()` before the updates of each epoch; `model.eval()` before each evaluation. A pretrained model often
    comes in evaluation mode.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("modules_training", "evaluated_in_training")
    release: int = 2
    """Clear judgements are rare: one for each look at the modules."""
    excused_by: tuple[str, ...] = ("mc-dropout", "evaluation-mode", "freeze")

    updates: int = 20
    """So many updates in evaluation mode: a few may follow an evaluation before the next epoch begins."""
    looks: int = 4
    """... in which the modules were looked at so often."""
    evaluations: int = 2
    """So many evaluations in a row: a single one may re-estimate the statistics of batch normalisations."""
    most: float = 0.5
    """With calls in more than half of the first rows they belong to the step: a teacher, a target network."""
    early: int = 32
    """So many first rows are measured at each step and tell how often calls without gradients come."""

    def detect(self, trace: Trace) -> Finding | Unknown | Sequence[Finding] | None:
        if not trace.has("modules_training") and not trace.has("evaluated_in_training"):
            return self.unknown(trace, "no dropout or batch normalisation was found, or the model is not known")
        return [*self._updates(trace), *self._evaluations(trace)] or None

    def _updates(self, trace: Trace) -> Iterator[Finding]:
        looks = trace.last("modules_training", 64)
        labels = trace.labels("modules_training")
        for root in [label for label in labels if label.endswith(_ROOT)]:
            within = [i for i, label in enumerate(labels) if label.startswith(root.removesuffix(_ROOT))]
            since, seen = -1, 0
            for step, modes in zip(reversed(looks[0]), reversed(looks[1]), strict=True):
                known = [
                    modes[i] for i in within if isinstance(modes, tuple) and i < len(modes) and modes[i] == modes[i]
                ]
                if any(known) or not known:
                    break
                since, seen = step, seen + 1
            if seen >= self.looks and trace.step - since + 1 >= self.updates:
                names = [labels[i] for i in within if labels[i] != root]
                yield self.finding(
                    trace,
                    severity=Severity.WARNING,
                    subject=f"updates of {root}" if root != _ROOT else "updates",
                    summary=(
                        f"{trace.step - since + 1} updates up to step {trace.step} were taken in evaluation mode: "
                        f"{listed(names)}"
                    ),
                    measured=float(trace.step - since + 1),
                    threshold=float(self.updates),
                    evidence={"during": "updates", "modules": tuple(names[:32])},
                    since_step=since,
                )

    def _evaluations(self, trace: Trace) -> Iterator[Finding]:
        steps, shares = trace.last("evaluated_in_training", self.evaluations)
        calls = trace.first("evaluation_calls", self.early)[1]
        if len(shares) < self.evaluations or len(calls) < self.early:
            return
        if sum(value != 0.0 for value in calls) > self.most * len(calls):
            return
        wrong = [share for share in shares if isinstance(share, float) and share >= 0.5]
        if len(wrong) == len(shares):
            yield self.finding(
                trace,
                severity=Severity.WARNING,
                subject="evaluation",
                summary=(
                    f"the last {len(shares)} evaluations up to step {trace.step} ran with dropout or batch "
                    f"normalisation in training mode ({wrong[-1]:.0%} of the calls)"
                ),
                measured=wrong[-1],
                threshold=0.5,
                evidence={"during": "evaluation", "share": wrong[-1], "evaluations": float(len(shares))},
                since_step=steps[0],
            )
