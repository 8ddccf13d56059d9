"""Signatures of causes inside the layers."""

from __future__ import annotations

from tests.contracts.signature import Signature, found
from trimtab.records import Severity

WARNING = Severity.WARNING
LAYERS = ("body.0>relu", "body.2>relu")

SIGNATURES = (
    # biases of -10: all dead, nothing before the head gets a gradient
    Signature(
        cause="units-died",
        found=(
            found("dead-units", since=0, layers=LAYERS, layers_judged=2.0, dead_share=1.0, from_start=1.0),
            found("parameters-never-changed", WARNING, since=0, gradient_zero=("body.0.weight", "body.0.bias")),
            found("gradient-vanishing", WARNING, since=12),
        ),
    ),
    # a burst of the rate, over before anything else was seen of it
    Signature(
        cause="units-died",
        found=(
            found(
                "dead-units", WARNING, since=64, layers=LAYERS[:1], layers_judged=2.0, dead_share=0.95, from_start=0.0,
                update_ratio=0.4,
            ),
        ),
    ),
    Signature(
        cause="activations-saturate",
        found=(
            found("saturated-units", WARNING, since=0, saturated_share=0.93, from_start=1.0, layers_judged=2.0),
            found("gradient-vanishing", WARNING, since=12),
        ),
    ),
    Signature(
        cause="activations-saturate",
        found=(found("saturated-units", WARNING, since=60, saturated_share=0.94, from_start=0.0, layers_judged=2.0),),
    ),
)  # fmt: skip
