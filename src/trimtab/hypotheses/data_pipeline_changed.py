"""In the middle of the run the data changed: the targets no longer belong to the inputs as they did.

How it shows. The loss had fallen; between two updates it is back at a guess or above, with the same weights, and stays
there (`labels-unrelated`). Long updates, loaded weights and a raised rate have been ruled out by the rule itself.

Why the weights. A network that is right in one step and as wrong as a guess in the next has been asked something else:
+24. Where a good part of what was learned still helps, harder data explain it as well: +9. A loss or metric that
turned worse says it again: +2, once. A step that the weights took, and not the data, shows as an explosion with long
updates: -15.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="data-pipeline-changed",
    summary="In the middle of the run the data changed: the targets no longer belong to the inputs as they did.",
    gate=Gate.DATA,
    prior=-12.0,
    evidence=(
        Weight(
            "labels-unrelated", 24.0, when=(Condition("measured", ">=", 0.95),), family="jump",
            why="from one update to the next nothing that was learned helps any more",
        ),
        Weight(
            "labels-unrelated", 9.0, when=(Condition("measured", "<", 0.95),), family="jump",
            why="from one update to the next most of what was learned no longer helps",
        ),
        Weight("loss-diverging", 2.0, family="worse", why="the loss turned for the worse"),
        Weight("metric-dropped", 2.0, family="worse", why="the metric turned for the worse"),
        Weight(
            "gradient-exploding", -15.0, when=shared.LONG_STEP, why="single updates replaced a good part of the weights"
        ),
    ),
    probe="targets-belong-to-their-inputs",
    remedies=(
        Remedy(
            kind="text",
            text="print twenty inputs with their targets from before and after the step of the jump, and compare",
        ),
        Remedy(kind="text", text="look at what the loader began to read there: a new file, epoch, worker or shard"),
        Remedy(kind="text", text="when the change is meant, say so: `guard.note('data-change', steps=200)`"),
    ),
    settings=("*dataset*", "*data_path*", "*data_dir*"),
)  # fmt: skip
