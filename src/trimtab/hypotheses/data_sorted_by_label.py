"""The data come in the order of their labels: each batch holds one or two classes, and the next ones hold others.

How it shows. Nearly all of the variance of the labels lies between the batches, and neighbours resemble each other
(`labels-sorted` at warning). Loss and metrics swing with the order; the finding is there within a dozen updates.

Why the weights. Shuffled data never look like this: +26. Batches of one class each in random order are info, a habit of
some samplers: +8. A loss that swings or turns worse follows from it and from many others: +2 each. Judged and silent,
the labels were mixed: -25.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="data-sorted-by-label",
    summary="The data come in the order of their labels: each batch holds a class or two, the next ones others.",
    gate=Gate.DATA,
    prior=-12.0,
    evidence=(
        Weight(
            "labels-sorted", 26.0, when=shared.GRAVE, family="order",
            why="the labels sweep through the classes from batch to batch",
        ),
        Weight(
            "labels-sorted", 8.0, when=(Condition("between", ">=", 0.9),), family="order",
            why="each batch holds one class or two",
        ),
        Weight("labels-sorted", -25.0, absent=True, why="the labels of each batch were mixed"),
        Weight("oscillating", 2.0, why="the loss swings, as it does when the classes come one after another"),
        Weight("metric-dropped", 2.0, why="what the last batches did not hold was forgotten"),
    ),
    probe="batches-mix-the-classes",
    remedies=(
        Remedy(kind="config", text="shuffle: `DataLoader(..., shuffle=True)`", change={"shuffle": "true"}),
        Remedy(kind="text", text="where data are streamed, shuffle the file once, or use a large shuffle buffer"),
    ),
    settings=("*shuffle*", "*sampler*"),
)  # fmt: skip
