"""The labels come in order instead of shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class LabelsSorted(Detector):
    """The labels come in order instead of shuffled.

    What it sees.
    Within a batch the labels are alike, from batch to batch they differ: most of their variance lies between the
    batches, where shuffled batches of n have one part in n. And neighbouring batches resemble each other, so the labels
    sweep through the classes.

    Why it matters.
    Each update then pulls the network towards the class of the moment, and the next hundred undo it. The loss goes up
    and down like a saw, batch normalisation learns the statistics of single classes, and what is left at the end is
    whatever came last.

    Evidence it shows.
    The share of the variance that lies between batches, how rough the order is (1 for a random one), how many different
    levels the batches have, the targets of a batch and the entropy of its labels.

    False alarms.
    Batches of fewer than eight targets say nothing. Labels that are all alike have no order. The ones and zeros of an
    adversarial game alternate, and two levels count only when they return. Batches that hold one class each in random
    order (sampled on purpose) are info. Tasks learned one after another are in order: say `note("curriculum")`.

    What to try.
    `shuffle=True` in the loader, or a sampler that mixes; for data that are streamed from disk, a shuffled file or a
    large shuffle buffer.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("label_mean",)
    release: int = 64
    """So many clear judgements in a row: sparse later rows fall on places in the sweep that look random."""
    excused_by: tuple[str, ...] = ("data-change", "curriculum")

    batches: int = 12
    """So many measured batches: four of three classes each may look ordered by chance."""
    targets: int = 8
    """A batch must have so many targets: of two shuffled ones half of the variance lies between batches."""
    between: float = 0.6
    """Share of the variance between batches: shuffled batches of eight reach 0.3, sorted ones 0.8 and more."""
    rough: float = 0.5
    """Mean squared difference of neighbours over twice the variance: 1 for a random order (0.5 is below the
    hundred-thousandth of sixteen random ones), about 0.1 for a sweep."""
    window: int = 64
    """Measured batches that are looked at: all of the first 32 steps, which are neighbours, are among the first 64."""

    every: int = 4
    """Judged on every so many-th measured batch: the sums over the window take 20 microseconds."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if trace.count("label_mean") % self.every and trace.has("label_mean"):
            return None
        steps, means = trace.last("label_mean", self.window)
        spread_steps, spreads = trace.last("target_spread", self.window)
        count = trace.scalar("target_count")
        if not steps or steps != spread_steps or count is None:
            return self.unknown(trace, "no labels of a classification were seen")
        if count < self.targets:
            return self.unknown(trace, f"a batch of fewer than {self.targets} targets does not tell how they are mixed")
        if len(steps) < self.batches:
            return self.unknown(trace, f"{self.batches} measured batches are needed to judge")
        levels = [value for value in means if isinstance(value, float)]
        within = sum(value * value for value in spreads if isinstance(value, float)) / len(spreads)
        middle = sum(levels) / len(levels)
        variance = sum((level - middle) ** 2 for level in levels) / len(levels)
        if not variance > 0.0 or not variance / (variance + within) >= self.between:
            return None
        share = variance / (variance + within)
        turns = [(b - a) ** 2 for a, b in pairwise(levels)]
        rough = sum(turns) / len(turns) / (2.0 * variance)
        distinct = {round(level) for level in levels}
        returns = sum(round(a) != round(b) for a, b in pairwise(levels))
        if len(distinct) < 3 and (returns < 2 or rough > self.rough):
            return None
        ordered = rough <= self.rough
        order = "in order" if ordered else "each of few classes, in random order"
        evidence = {
            "between": share, "rough": rough, "levels": float(len(distinct)), "targets": count,
            "label_entropy": trace.scalar("label_entropy") or 0.0,
        }  # fmt: skip
        return self.finding(
            trace,
            severity=Severity.WARNING if ordered else Severity.INFO,
            summary=(
                f"the labels of {len(levels)} measured batches up to step {trace.step} come {order}: "
                f"{share:.0%} of their variance lies between batches, where shuffled batches of {number(count)} have "
                f"about {1.0 / count:.1%}"
            ),
            measured=share,
            threshold=self.between,
            evidence=evidence,
            since_step=steps[0],
        )
