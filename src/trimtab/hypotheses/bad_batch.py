"""A single batch, or a few in a row, held something that the others do not: a value not scaled, a broken example.

How it shows. `loss-spike`: out of a calm training the loss leaps far above what it was, with the gradient, and comes
back at once when the next batch is ordinary again. The optimizer may remember it for longer (`moments-poisoned`).

Why the weights. A large leap that comes back is what a bad batch looks like: +20; a gradient that leapt with it: +3.
Many leaps are rather those of a training on the edge: -10. An update just before that was long is reason enough: -15. A
loss that stays up, a gradient that stays steep, updates that are long at any rate or a loss that swings have other
reasons, the strongest once: -12.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="bad-batch",
    summary="A single batch, or a few in a row, held something that the others do not.",
    gate=Gate.DATA,
    prior=-9.0,
    evidence=(
        Weight("loss-spike", 20.0, when=shared.GRAVE, why="the loss leapt out of a calm training and came back"),
        Weight(
            "loss-spike", 3.0, when=(Condition("gradient_ratio", ">=", 10.0),), why="the gradient leapt with the loss"
        ),
        Weight(
            "loss-spike", -10.0, when=(Condition("spikes", ">", 4.0),), why="the loss leaps again and again"
        ),
        Weight(
            "loss-spike", -15.0, when=(Condition("update_ratio", ">=", 0.05),),
            why="the update before was long enough to be the reason",
        ),
        Weight("loss-diverging", -12.0, when=shared.GRAVE, family="lasting", why="the loss stays up"),
        Weight("gradients-accumulate", -12.0, family="lasting", why="gradients that are never cleared make leaps"),
        Weight("oscillating", -12.0, family="lasting", why="the loss swings at every step"),
    ),
    probe="loss-without-the-batch-has-no-leap",
    remedies=(
        Remedy(kind="text", text="look at the examples of the batch at the step named, their scale and their targets"),
        Remedy(kind="config", text="clip the gradient norm near its usual value", change={"clip": "usual norm"}),
        Remedy(kind="text", text="skip updates whose loss is far above the usual one"),
    ),
    settings=("*shard*", "*batch_sampler*"),
)  # fmt: skip
