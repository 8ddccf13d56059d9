"""The training is given the same batch again and again.

How it shows. The fingerprint of the batch stays the same over many updates, although it changed before or the loader
has more rows: `same-batch-repeated` at warning or above. A training on all of its data at once shows the same at info,
and means no harm.

Why the weights. At warning or above the finding excludes the designs that repeat a batch on purpose: +30. At info it is
the normal look of full-batch training: -5. Judged and silent, the batches differed: -30.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy, Severity

HYPOTHESIS = Hypothesis(
    cause="loader-repeats-one-batch",
    summary="The training is given the same batch again and again, and learns these few rows by heart.",
    gate=Gate.DATA,
    prior=-12.0,
    evidence=(
        Weight(
            "same-batch-repeated", 30.0, when=shared.GRAVE,
            why="the batch stopped changing, or never changed although there is more data",
        ),
        Weight(
            "same-batch-repeated", -5.0, when=(Condition("severity", "<", Severity.WARNING),),
            why="nothing says that there is more data than this batch",
        ),
        Weight("same-batch-repeated", -30.0, absent=True, why="the batches differed"),
    ),
    probe="batches-differ",
    remedies=(
        Remedy(
            kind="text",
            text="make the iterator once, outside the loop: `for batch in loader`, not `next(iter(loader))`",
        ),
        Remedy(kind="text", text="shuffle, and seed the sampler once for the run, not at the start of each epoch"),
    ),
)  # fmt: skip
