"""The weights that the training should start from were not loaded, or not the right ones.

How it shows. A load found hardly any of its names, and hardly a tensor changed; or after a load in the middle of the
run the loss is back where the training began (`weights-lost-after-load`). The rest looks like a training from nothing.
Or a few names have moved to another number, and what they name stayed random; where that is frozen too, nothing mends
it (`random-and-frozen`).

Why the weights. A load whose names do not fit, where nothing changed: +28. A load after which all was forgotten, with
names that fit, speaks of a wrong file: +18 (the same fact, one family). Names that are in the file under another number
are a model that was changed after saving: +26. Frozen weights that are still random after such a load say it again: +4.
A loss at chance goes with it: +2. Weights were loaded, judged and found in place: -25.
"""

from __future__ import annotations

from trimtab.hypotheses import _shared as shared
from trimtab.hypotheses._hypothesis import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy

HYPOTHESIS = Hypothesis(
    cause="pretrained-weights-not-loaded",
    summary="The weights that the training should start from were not loaded, or not the right ones.",
    gate=Gate.INTEGRITY,
    prior=-12.0,
    evidence=(
        Weight(
            "weights-lost-after-load", 28.0, when=(Condition("missing", ">=", 0.5, of="tensors"),), family="load",
            why="hardly a name of what was loaded fitted the model",
        ),
        Weight(
            "weights-lost-after-load", 18.0, when=(Condition("missing", "<", 0.5, of="tensors"),), family="load",
            why="after a load the loss is back where the training began",
        ),
        Weight(
            "weights-lost-after-load", 26.0, when=(Condition("moved", ">", 0.0),), family="load",
            why="tensors have other numbers or prefixes in what was loaded, and stayed random",
        ),
        Weight(
            "random-and-frozen", 4.0, when=(Condition("missing", ">", 0.0), *shared.GRAVE),
            why="what a load missed is frozen at its random start",
        ),
        Weight("loss-at-chance", 2.0, why="the loss is that of a network that knows nothing"),
        Weight("weights-lost-after-load", -25.0, absent=True, why="what was loaded is there"),
    ),
    probe="loaded-weights-beat-random-ones",
    remedies=(
        Remedy(
            kind="text",
            text="load with `strict=True`, and take a prefix such as `module.` or `model.` off the names first",
        ),
        Remedy(kind="text", text="print `missing_keys` and `unexpected_keys` of what `load_state_dict` returns"),
        Remedy(kind="text", text="compare the loss before saving with the loss after loading, on one batch"),
    ),
    settings=("*pretrained*", "*checkpoint*", "*resume*", "*strict*"),
)  # fmt: skip
