"""How this system is known to break: the failures of the write-up, one by one. Budgets count updates of the preset.

Each fault starts from a sound training and makes it as it was, in that one respect: of the write-up's network, but for
the level means, whose peak and fall show best where everything is learnt from scratch. The write-up met NaN in a narrow
network and gave no cause; the division that makes it here is ours.
"""

from __future__ import annotations

from trimtab.system import Fault

MISMATCHED_LOAD = Fault(
    name="mismatched-load",
    summary="the checkpoint was saved with a dropout in the heads; without one, their last layers stay random",
    change={"load": "mismatched"},
    expect=("weights-lost-after-load",),
    causes=("pretrained-weights-not-loaded",),
    budget=39,
    preset="write-up-matched",
)

RANDOM_FROZEN_DECODER = Fault(
    name="random-frozen-decoder",
    summary="trained from scratch, and the decoder never learns: the write-up's reason to say that it cannot be done",
    change={"freeze_decoder": True},
    expect=("random-and-frozen",),
    causes=("frozen-by-mistake",),
    budget=39,
    preset="write-up-base",
    probes=("every-parameter-on-the-loss-path-is-trained-or-loaded",),
)

LEVEL_MEAN_LOSS = Fault(
    name="level-mean-loss",
    summary="the loss judges the mean radius of a level, the metric each radius: one falls while the other gets worse",
    # without the divergence, beside which the fall was within the noise (seed 0); as long as it was measured
    change={"radial": "mean", "beta": 0.0, "epochs": 12},
    expect=("past-its-peak",),
    causes=("objective-does-not-match-metric",),
    budget=468,
    preset="reference",
)

SETTING_WITHOUT_EFFECT = Fault(
    name="setting-without-effect",
    summary="radii are lengths and no shares of the ball: the curvature is swept, and enters nothing",
    change={"ball_fraction": False},
    expect=(),
    causes=(),
    budget=0,
    preset="write-up-matched",
    probes=("settings-have-effect",),
)

OPTIMIZER_REBUILT = Fault(
    name="optimizer-rebuilt",
    summary="the optimizer is made anew after each epoch, and forgets its moments each time",
    change={"rebuild_optimizer_each_epoch": True},
    expect=("optimizer-state-reset",),
    causes=("optimizer-rebuilt-each-epoch",),
    budget=195,
    preset="write-up-matched",
)

BETA_ONE_COLLAPSE = Fault(
    name="beta-one-collapse",
    summary="the divergence counts in full; all operations are equally likely, so an empty code is optimal",
    change={"beta": 1.0},
    expect=("latent-unused",),
    causes=("kl-weight-too-strong",),
    budget=390,
    preset="write-up-base",
)

NO_RARE_LEVELS = Fault(
    name="no-rare-levels",
    summary="batches are drawn at random: the deepest levels are hardly ever met, and stay out of order",
    change={"rare_levels": False},
    expect=("milestone-missed",),
    causes=("training-too-short",),
    budget=390,
    preset="write-up-base",
)

EVALUATED_ON_SAMPLES = Fault(
    name="evaluated-on-samples",
    summary="radii are measured on codes that are drawn anew each time: no evaluation comes out twice",
    change={"evaluate_on_samples": True},
    expect=(),
    causes=(),
    budget=0,
    preset="write-up-matched",
    probes=("evaluation-repeats-exactly",),
)

UNSEEDED_START = Fault(
    name="unseeded-start",
    summary="weights and batches are drawn from nothing that could be repeated",
    change={"seeded": False},
    expect=(),
    causes=(),
    budget=0,
    preset="write-up-base",
    probes=("same-seed-repeats-exactly",),
)

NAN_AT_SMALL_WIDTH = Fault(
    name="nan-at-small-width",
    summary="hidden vectors are divided by their deviation, which is zero where a narrow encoder has one unit left",
    change={"width": 4, "hidden_norm": "bare"},
    expect=("loss-not-finite",),
    causes=("numerical-fault-in-loss",),
    budget=39,
    preset="write-up-base",
)

FAULTS = (
    MISMATCHED_LOAD,
    RANDOM_FROZEN_DECODER,
    LEVEL_MEAN_LOSS,
    SETTING_WITHOUT_EFFECT,
    OPTIMIZER_REBUILT,
    BETA_ONE_COLLAPSE,
    NO_RARE_LEVELS,
    EVALUATED_ON_SAMPLES,
    UNSEEDED_START,
    NAN_AT_SMALL_WIDTH,
)
