"""Signatures of what the loss and metrics say over many steps."""

from __future__ import annotations

from tests.contracts.signature import JUDGED, Signature, found
from trimtab.records import Severity

INFO, WARNING, ERROR, FATAL = Severity
NO_CHANCE = frozenset(JUDGED - {"loss-far-from-chance"})


def spike(**evidence):
    return found("loss-spike", WARNING, **{"peak": 400.0, "level": 0.6, "spikes": 1.0} | evidence)


def resting(**evidence):
    return found("loss-not-moving", WARNING, since=0, **{"loss": 2.42, "travelled": 1e-6} | evidence)


def peaked(**evidence):
    return found("past-its-peak", WARNING, **{"best_step": 120.0, "loss_then": 0.4, "loss": 0.05} | evidence)


SIGNATURES = (
    Signature(cause="bad-batch", found=(spike(gradient_ratio=300.0),)),
    # where the gradient was not measured; where the optimizer remembers it
    Signature(cause="bad-batch", found=(spike(),), judged=NO_CHANCE),
    Signature(cause="learning-rate-too-low", found=(found("update-too-small", WARNING, since=0), resting())),
    Signature(cause="learning-rate-too-low", found=(resting(),)),
    Signature(cause="learning-rate-too-noisy", found=(found("oscillating", WARNING, gradient_cosine=-0.4),)),
    Signature(
        cause="learning-rate-too-noisy",
        found=(found("oscillating", WARNING), found("update-too-large", WARNING, since=0)),
    ),
    Signature(cause="trained-past-the-peak", found=(peaked(),)),
    Signature(cause="trained-past-the-peak", found=(peaked(loss=0.3),)),
    Signature(cause="target-leaks-into-input", found=(found("better-than-possible", declared=1.0),)),
    Signature(cause="target-leaks-into-input", found=(found("better-than-possible", WARNING, declared=0.0),)),
    Signature(cause="data-has-no-signal", found=(found("loss-at-chance", WARNING, since=0, travelled=2.1),)),
    Signature(
        cause="data-has-no-signal",
        found=(
            found("metric-stuck-below-target", WARNING, since=160, progress=0.02),
            found("milestone-missed", since=400, improving=0.0, best_step=20.0, progress=0.05, travelled=1.8),
        ),
    ),
    Signature(
        cause="data-has-no-signal", found=(found("metric-stuck-below-target", WARNING, since=160, progress=0.02),)
    ),
)
