"""The training went on after its best: since then it learns the examples and no longer the task.

How it shows. `past-its-peak`: a validation metric turned for the worse by many times its scatter, while the training
loss went on falling. Small data, noisy labels and large networks get there soon.

Why the weights. The metric that turns while the loss falls is the definition: +20; the loss has since fallen to less
than half: +3. A fall that another fault explains is none of learning by heart, the strongest once: -15 for a loader
that repeats one batch, -12 for data that changed, for evaluations in training mode, for a loss that diverges and for
labels in order. Where the loss of the metric's own data got better as well, nothing is learned by heart: -24.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="trained-past-the-peak",
    summary="The training went on after its best, and learns the examples instead of the task.",
    gate=Gate.BUDGET,
    prior=-8.0,
    evidence=(
        Weight("past-its-peak", 20.0, when=shared.GRAVE, why="the metric turned while the training loss fell"),
        Weight(
            "past-its-peak", 3.0, when=(Condition("loss", "<", 0.5, of="loss_then"),),
            why="the training loss has fallen to less than half since",
        ),
        Weight(
            "past-its-peak", -24.0, when=(Condition("held_out", "<", 0.98, of="held_out_then"),),
            why="the loss of the metric's own data has got better since, so nothing is learned by heart",
        ),
        Weight(
            "same-batch-repeated", -15.0, when=shared.GRAVE, family="another fault",
            why="the network sees one batch only",
        ),
        Weight(
            "labels-unrelated", -12.0, when=shared.GRAVE, family="another fault", why="the labels changed at one step"
        ),
        Weight(
            "modules-in-wrong-mode", -12.0, when=shared.GRAVE, family="another fault",
            why="training or evaluation ran in the wrong mode",
        ),
        Weight("loss-diverging", -12.0, when=shared.GRAVE, family="another fault", why="the loss itself rises"),
        Weight("labels-sorted", -12.0, when=shared.GRAVE, family="another fault", why="the labels come in order"),
    ),
    probe="earlier-weights-are-better",
    remedies=(
        Remedy(kind="text", text="keep the weights of the best step, and stop there the next time"),
        Remedy(kind="config", text="raise weight decay or dropout", change={"weight_decay": "x 10"}),
        Remedy(kind="text", text="more data, augmented data or a smaller network move the peak"),
    ),
    settings=("*dropout*", "*augment*", "*subset*"),
)  # fmt: skip
