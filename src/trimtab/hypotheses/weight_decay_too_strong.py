"""Weight decay is too strong: the weights shrink faster than the data can build them up.

How it shows. Decay is a large part of each update, the norm of the weights falls, and the loss stays or rises again
(`weight-decay-dominates`). With Adam and a penalty in the gradient the network ends at zero.

Why the weights. The share of the decay, the shrinking and the loss are measured together: +26. Where the rule judged
and stayed silent: -22. A threshold of clipping that leaves nothing of the gradient makes any decay look strong: -20.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="weight-decay-too-strong",
    summary="Weight decay is too strong: the weights shrink faster than the data can build them up.",
    gate=Gate.SETTINGS,
    prior=-10.0,
    evidence=(
        Weight(
            "weight-decay-dominates", 26.0, when=shared.GRAVE,
            why="decay is much of each update, the weights shrink and the loss does not fall",
        ),
        Weight("weight-decay-dominates", -22.0, absent=True, why="decay is a small part of the updates"),
        Weight(
            "clipping-starves", -20.0, when=shared.GRAVE, why="clipping leaves so little that any decay looks strong"
        ),
    ),
    probe="less-weight-decay-keeps-the-weights",
    remedies=(
        Remedy(kind="config", text="divide the decay by ten: `weight_decay`", change={"weight_decay": "/ 10"}),
        Remedy(kind="text", text="use AdamW in place of Adam, and leave biases, gains and embeddings out of the decay"),
    ),
    settings=("*weight_decay*", "*.wd", "*l2*"),
)  # fmt: skip
