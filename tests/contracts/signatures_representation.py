"""Signatures of what goes wrong with attentions, representations and latents."""

from __future__ import annotations

from tests.contracts.signature import JUDGED, Signature, found
from trimtab.records import Severity

INFO, WARNING, ERROR, FATAL = Severity
NO_CHANCE = frozenset(JUDGED - {"loss-far-from-chance"})
NO_ATTENTION = frozenset(JUDGED - {"attention-saturated", "attention-uniform", "attention-logits-growing"})


def collapsed(severity=ERROR, **evidence):
    usual = {"spread": 0.3, "spread_first": 0.8, "rank": 2.3, "rank_first": 9.3, "supervised": 0.0, "similarity": 1.0}
    return found("representation-collapsed", severity, measured=2.3, since=32, **usual | evidence)


SIGNATURES = (
    Signature(
        cause="attention-logits-too-large",
        found=(found("attention-saturated", measured=0.01, since=0, at_start=1.0, logit=560.0),),
    ),
    Signature(
        cause="attention-logits-too-large",
        found=(
            found("attention-logits-growing", WARNING, measured=140.0, since=400),
            found("attention-saturated", WARNING, measured=0.03, since=600, at_start=0.0, logit=160.0),
        ),
    ),
    Signature(cause="missing-stop-gradient", found=(collapsed(),), judged=frozenset(NO_CHANCE & NO_ATTENTION)),
    Signature(
        cause="missing-stop-gradient",
        found=(collapsed(similarity=0.0, spread=0.01),),
        judged=frozenset(NO_CHANCE & NO_ATTENTION),
    ),
    Signature(
        cause="kl-weight-too-strong",
        found=(found("latent-unused", measured=0.0, since=16, active_units=0.0, active_units_ever=0.0),),
    ),
    Signature(
        cause="kl-weight-too-strong",
        found=(found("latent-unused", measured=0.0, since=160, active_units=0.0, active_units_ever=5.0),),
    ),
    Signature(
        cause="kl-weight-too-strong",
        found=(found("latent-unused", measured=0.001, since=16, divergence=0.001, share_of_loss=5e-5),),
    ),
)
