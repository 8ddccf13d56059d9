"""Signatures of what goes wrong with gradients, the optimizer and number formats."""

from __future__ import annotations

import math

from tests.contracts.signature import JUDGED, Signature, found
from trimtab.records import Finding, Severity

INFO, WARNING, ERROR, FATAL = Severity
NO_SCALE = math.nan


def underflow(**evidence: float) -> Finding:
    made: Finding = found("precision-underflow", since=0, **{"half_share": 0.0, "loss_scale": 0.0} | evidence)
    return made


SIGNATURES = (
    # from the first step on; and later, when units have saturated
    Signature(
        cause="gradients-vanish-with-depth", found=(found("gradient-vanishing", since=0, ratio=1e-7, weights=15.0),)
    ),
    Signature(
        cause="gradients-vanish-with-depth",
        found=(found("gradient-vanishing", WARNING, since=184, ratio=2e-4, weights=15.0),),
    ),
    Signature(
        cause="clipping-threshold-too-low",
        found=(
            found("clipping-starves", since=0, clip_factor=2.6e-6, update_ratio=1.8e-5),
            found("clipping-always-active", WARNING, since=0, clip_factor=2.6e-6),
        ),
    ),
    Signature(
        cause="clipping-threshold-too-low",
        found=(found("clipping-always-active", WARNING, since=0, clip_factor=1.8e-5),),
    ),
    Signature(
        cause="optimizer-state-poisoned",
        found=(found("moments-poisoned", WARNING, since=60, jump=126.0, still=125.0, updates_ago=5.0),),
    ),
    Signature(
        cause="weight-decay-too-strong",
        found=(found("weight-decay-dominates", since=0, decay_share=31.0, weight_norm=1.1, weight_norm_first=12.0),),
    ),
    Signature(cause="gradients-underflow-in-half-precision", found=(underflow(),)),
    Signature(cause="gradients-underflow-in-half-precision", found=(underflow(half_share=1.0),)),
    Signature(
        cause="gradients-underflow-in-half-precision",
        found=(underflow(loss_scale=128.0), found("gradient-vanishing", WARNING, since=40)),
    ),
    Signature(
        cause="loss-scale-schedule-wrong",
        found=(found("scaler-skips-too-often", since=60, share=0.6, in_a_row=40.0, loss_scale=2.0**40),),
    ),
    Signature(
        cause="loss-scale-schedule-wrong",
        found=(found("scaler-skips-too-often", WARNING, since=60, share=0.2, in_a_row=1.0, loss_scale=NO_SCALE),),
    ),
    Signature(
        cause="accumulation-not-averaged",
        found=(found("loss-scale-changed", WARNING, since=100, factor=4.0, gradient_factor=4.1),),
    ),
    Signature(
        cause="adapter-norm-runs-away",
        found=(found("norm-growing", WARNING, since=31, subject="adapter.up.weight", norm=40.0, reference=1.2),),
    ),
    Signature(
        cause="adapter-norm-runs-away",
        found=(found("update-too-large", WARNING, since=16, update_ratio=0.12, groups=2.0, other_groups=0.05),),
    ),
    # neighbours that these rules tell as well
    Signature(
        cause="learning-rate-too-high",
        found=(found("update-too-large", WARNING, since=16, update_ratio=0.12, groups=1.0, other_groups=0.0),),
    ),
    Signature(
        cause="learning-rate-too-high",
        found=(found("update-too-large", WARNING, since=16, update_ratio=0.12, groups=2.0, other_groups=0.8),),
    ),
    Signature(
        cause="graph-cut-by-detach",
        found=(found("graph-detached", since=0, tensors=4.0, of=6.0, last_unreached="body.2.bias"),),
        judged=frozenset(JUDGED - {"parameters-never-changed"}),
    ),
    Signature(
        cause="frozen-by-mistake",
        found=(found("update-too-small", measured=0.0, since=48, update_ratio=0.0, learning_rate=0.002),),
    ),
)
