"""Signatures of what goes wrong with data, modes of modules, loads of weights, time and memory."""

from __future__ import annotations

from tests.contracts.signature import JUDGED, Signature, found
from trimtab.records import Severity

INFO, WARNING, ERROR, FATAL = Severity
NO_CHANCE = frozenset(JUDGED - {"loss-far-from-chance"})

SIGNATURES = (
    Signature(
        cause="data-sorted-by-label", found=(found("labels-sorted", WARNING, measured=0.97, since=0, between=0.97),)
    ),
    Signature(
        cause="data-sorted-by-label",
        found=(
            found("labels-sorted", WARNING, measured=0.95, since=0, between=0.95),
            found("oscillating", WARNING),
            found("metric-dropped", WARNING),
        ),
    ),
    Signature(
        cause="data-pipeline-changed",
        found=(found("labels-unrelated", measured=1.2, loss_before=0.4, loss_after=2.6, update_ratio=0.01),),
    ),
    Signature(
        cause="data-pipeline-changed",
        found=(
            found("labels-unrelated", measured=1.9, loss_before=0.1, loss_after=3.8, update_ratio=0.01),
            found("loss-diverging", WARNING),
            found("metric-dropped", WARNING),
        ),
    ),
    Signature(
        cause="curriculum-step-too-hard",
        found=(
            found("labels-unrelated", measured=0.8, loss_before=0.4, loss_after=1.9, update_ratio=0.01),
            found("loss-diverging", WARNING),
            found("metric-dropped", WARNING),
        ),
    ),
    # a classifier whose start is far above chance; one whose gradient alone tells
    Signature(
        cause="inputs-not-scaled",
        found=(
            found("inputs-unscaled", WARNING, measured=1094.0, since=0, ratio=70.8),
            found("loss-far-from-chance", WARNING, measured=70.8, since=0, loss_terms=1.0),
        ),
    ),
    Signature(cause="inputs-not-scaled", found=(found("inputs-unscaled", WARNING, measured=95.0, since=0, ratio=1.5),)),
    Signature(
        cause="wrong-loss-for-targets",
        found=(found("loss-does-not-fit-targets", WARNING, since=0, kind="one hot under squared", graphs=2.0),),
    ),
    Signature(
        cause="wrong-loss-for-targets",
        found=(found("loss-does-not-fit-targets", ERROR, since=0, kind="targets broadcast", graphs=2.0),),
    ),
    Signature(
        cause="loss-sign-turned",
        found=(found("loss-does-not-fit-targets", WARNING, since=0, kind="loss negated", graphs=8.0),),
    ),
    Signature(
        cause="loss-sign-turned",
        found=(
            found(
                "gradient-not-finite",
                ERROR,
                since=114,
                loss=-2.7e20,
                update_ratio=0.0105,
                tensors=8.0,
                tensors_broken=4.0,
                input_nonfinite=0.0,
                nonfinite_weights=0.0,
            ),
            found("gradient-exploding", WARNING, since=57, loss=-137.0, loss_first=44.6, loss_early=40.7),
        ),
    ),
    Signature(
        cause="trained-in-evaluation-mode",
        found=(found("modules-in-wrong-mode", WARNING, subject="updates", since=0, during="updates"),),
    ),
    Signature(
        cause="evaluated-in-training-mode",
        found=(found("modules-in-wrong-mode", WARNING, subject="evaluation", during="evaluation", share=1.0),),
    ),
    Signature(
        cause="pretrained-weights-not-loaded",
        found=(
            found("weights-lost-after-load", since=0, tensors=6.0, missing=6.0, unexpected=6.0, changed=0.0),
            found("loss-at-chance", WARNING),
        ),
    ),
    Signature(
        cause="pretrained-weights-not-loaded",
        found=(found("weights-lost-after-load", since=90, tensors=6.0, missing=0.0, unexpected=0.0, changed=6.0),),
    ),
    Signature(
        cause="graph-kept-across-steps",
        found=(
            found("memory-growing", WARNING, since=0, straight=0.99),
            found("step-slowing", WARNING, since=0, straight=0.99),
        ),
    ),
    Signature(cause="graph-kept-across-steps", found=(found("memory-growing", WARNING, since=0, straight=0.99),)),
)
