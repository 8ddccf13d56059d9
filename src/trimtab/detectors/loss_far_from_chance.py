"""The very first loss is far above that of a guess that knows nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class LossFarFromChance(Detector):
    """The very first loss is far above that of a guess that knows nothing.

    What it sees.
    The loss before any update, divided by the number of terms when it is a sum, is many times the chance level: ln C
    for a cross-entropy over C classes, ln 2 for a binary one. For a squared error that is the mean square of the first
    targets, the loss of a network that says 0; there the outputs must be large by themselves as well.

    Why it matters.
    A fresh network that knows nothing should say so. One that starts far above is confidently wrong: its weights or
    inputs are too large. It spends its first epochs unlearning that, if it does not diverge, and often ends worse.

    Evidence it shows.
    The first loss, the chance level, their ratio, and over how many terms the loss is summed.

    False alarms.
    A start below chance is a pretrained model and fine. Margin losses with a scale of 64 start near 50: info with
    thousands of classes, with a few to be ignored by name. A loss that is a sum and not a mean is info: it multiplies
    the gradients, which matters to SGD and not to Adam. A head that is tied to embeddings from N(0, 1) starts at 10
    to 90 times chance; it recovers, but that is a warning on purpose. Regressions on tiny targets begin far above them
    with the best of weights, whose outputs are about 0.3: `outputs` lets them pass.

    What to try.
    Look at the scale of the inputs (standardise them) and of the last layer's initial weights. Where the loss is a
    sum, take the mean or divide the learning rate by the number of terms.

    Since.
    0.1.0
    """

    reads: tuple[str, ...] = ("chance_level", "parameter_reached", "squashed_before_loss")

    ratio: float = 10.0
    """So many times the chance level: ordinary initialisations start at 0.9 to 1.2 times, margin losses below 10,
    weights that are 12 times too large at 11 and far more."""
    notable: float = 3.0
    """From here on a fact worth knowing."""
    squared_ratio: float = 30.0
    """For a squared error (its chance level comes from one batch): outputs 5.5 times as large as the targets.
    Healthy regressions and auto-encoders begin at 0.7 to 3, weights 12 times too large at 140 and more."""
    outputs: float = 3.0
    """... and with a root mean square that no ordinary initialisation gives: theirs is between 0.05 and 1.5."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        steps, values = trace.first("loss", 1)
        if not steps or isinstance(values[0], tuple):
            return self.unknown(trace, "the loss was not measured")
        known, chances = trace.first("chance_level", 1)
        if not known or isinstance(chances[0], tuple):
            return self.unknown(
                trace, "the chance level is not known: the loss is not recognised, or other terms are added to it"
            )
        loss, chance, terms = values[0], chances[0], trace.scalar("loss_terms") or 1.0
        outputs = _first(trace, "prediction_rms")
        chance *= _of_zero(trace) if outputs is not None else 1.0
        if known[0] != steps[0] or not math.isfinite(loss) or chance <= 0:
            return self.unknown(trace, "the chance level of the first loss is not known, or that loss is not finite")
        per_term = loss / chance / terms
        of_terms = _is_of_classes(chance) if outputs is None else per_term < self.ratio
        summed = terms > 1 and of_terms
        notable, ratio = (self.notable, self.ratio) if outputs is None else (self.squared_ratio, self.squared_ratio)
        far = per_term >= notable and (outputs is None or outputs >= self.outputs)
        if not far and not summed:
            return None
        expected = f"where a guess that knows nothing has {number(chance)}"
        if far:
            text = f"loss {number(loss)} at step {steps[0]}, {number(per_term)} x what is expected, {expected}"
        else:
            text = f"loss {number(loss)} at step {steps[0]}, {expected}"
        if terms > 1:
            text += f" for each of the {terms:.0f} terms of which the loss is the sum"
        evidence = {"loss": loss, "chance_level": chance, "loss_terms": terms, "ratio": loss / chance}
        given = _first(trace, "input_std")
        if given is not None:
            evidence["input_std"] = given
        return self.finding(
            trace,
            severity=Severity.WARNING if far and per_term >= ratio else Severity.INFO,
            summary=text,
            measured=per_term,
            threshold=ratio,
            evidence=evidence if outputs is None else {**evidence, "prediction_rms": outputs},
            since_step=steps[0],
        )


def _first(trace: Trace, name: str) -> float | None:
    """Return the first value of a scalar, None when it was never measured."""
    values = trace.first(name, 1)[1]
    return values[0] if values and not isinstance(values[0], tuple) else None


def _of_zero(trace: Trace) -> float:
    """Return the error of saying 0 to the first targets, divided by that of saying their mean."""
    mean, spread = _first(trace, "target_mean"), _first(trace, "target_spread")
    return 1.0 + (mean / spread) ** 2 if mean is not None and spread else 1.0


def _is_of_classes(chance: float) -> bool:
    """Say whether this chance level is ln C of a whole number C, so that nothing multiplies or divides the loss."""
    classes = math.exp(min(chance, 20.0))
    return classes > 1.5 and abs(classes - round(classes)) < 1e-3 * classes
