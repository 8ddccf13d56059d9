"""The inputs are far from the order of one, and the loss feels it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class InputsUnscaled(Detector):
    """The inputs are far from the order of one, and the loss feels it.

    What it sees.
    The floating-point numbers that the first layer is given have a mean or a deviation of 30 or more; and with the
    first weights the loss is several times that of a guess, or the gradient dozens of times the loss.

    Why it matters.
    Initial weights are made for inputs of about one. Inputs of hundreds give outputs of hundreds, steps that overshoot
    along the direction of the mean, and units that are on or off for every example. Adam makes up for some of it and
    learns slowly all the same.

    Evidence it shows.
    Mean, deviation and largest absolute value of the inputs; the first loss and its chance level; the first gradient
    norm.

    False alarms.
    Whole-number inputs into an embedding are not looked at. Pixels from 0 to 255 into a convolution with batch
    normalisation are divided by their scale at once: loss and gradient are in order then, and nothing is said.

    What to try.
    Standardise: subtract the mean of each feature over the training data and divide by its deviation, the same numbers
    for validation. Or begin the network with a normalisation.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("input_std",)
    excused_by: tuple[str, ...] = ("inputs-unscaled",)

    large: float = 30.0
    """Deviation or absolute mean: standardised inputs have 1, pixels 0 to 16 have 6, pixels 0 to 255 about 70."""
    above_chance: float = 3.0
    """So many times the loss of a guess: ordinary starts are at 0.9 to 1.2, those on inputs of 30 and more at 5 to 500.
    """
    steep: float = 50.0
    """So many times the loss (its chance level where known): ordinary first gradients are 0.1 to 5 times it."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        means, spreads = trace.first("input_mean", 1)[1], trace.first("input_std", 1)[1]
        losses, norms = trace.first("loss", 1)[1], trace.first("gradient_norm", 1)[1]
        if not spreads or not means or isinstance(means[0], tuple) or isinstance(spreads[0], tuple):
            return self.unknown(trace, "no floating-point input of a first layer was found in the graph")
        if not losses or isinstance(losses[0], tuple):
            return self.unknown(trace, "the first loss was not measured")
        mean, spread, loss = means[0], spreads[0], abs(losses[0])
        if not max(abs(mean), spread) >= self.large:
            return None
        known = trace.first("chance_level", 1)[1]
        chance = known[0] if known and isinstance(known[0], float) and known[0] > 0.0 else None
        terms = trace.scalar("loss_terms") or 1.0
        ratio = loss / (chance * terms) if chance is not None else 0.0
        norm = norms[0] if norms and isinstance(norms[0], float) else 0.0
        steep = norm / max(min(chance * terms, loss) if chance is not None else loss, 1e-30)
        if ratio < self.above_chance and steep < self.steep and math.isfinite(loss):
            return None
        largest = trace.first("input_largest", 1)[1]
        evidence = {"input_mean": mean, "input_std": spread, "loss": loss, "gradient_norm": norm, "steep": steep}
        if chance is not None:
            evidence |= {"chance_level": chance, "ratio": ratio}
        if largest and isinstance(largest[0], float):
            evidence["input_largest"] = largest[0]
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=(
                f"the inputs have mean {number(mean)} and deviation {number(spread)}, and at the first step the loss "
                f"is {number(loss)} with a gradient norm of {number(norm)}"
            ),
            measured=max(abs(mean), spread),
            threshold=self.large,
            evidence=evidence,
            since_step=trace.first("input_std", 1)[0][0],
        )
