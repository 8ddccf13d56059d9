"""Signatures of what is frozen at random, loaded in part, begun again, or asked for by no loss."""

from __future__ import annotations

from tests.contracts.signature import Signature, found, missed
from trimtab.records import Severity

WARNING = Severity.WARNING


def frozen(**evidence):
    return found("random-and-frozen", since=0, **{"tensors": 3.0, "of": 3.0, "loads": 0.0, "missing": 0.0} | evidence)


def turned(**evidence):
    usual = {"best_step": 150.0, "loss_then": 6.2, "loss": 0.45, "held_out_then": 6.0, "held_out": 0.44}
    return found("past-its-peak", WARNING, **usual | evidence)


def unreached():
    return missed(improving=0.0, best_step=155.0, progress=0.91, travelled=4.0)


SIGNATURES = (
    Signature(cause="frozen-by-mistake", found=(frozen(),)),
    # the milestone of a decoder that cannot learn; its code carries nothing either
    Signature(
        cause="frozen-by-mistake",
        found=(
            frozen(),
            found("latent-unused", divergence=4.1, nats_needed=9.9),
            missed(improving=0.0, best_step=116.0, progress=0.001, travelled=4.0),
        ),
    ),
    Signature(cause="frozen-by-mistake", found=(frozen(loads=1.0, missing=2.0),)),
    Signature(
        cause="pretrained-weights-not-loaded",
        found=(found("weights-lost-after-load", WARNING, since=0, tensors=30.0, missing=4.0, moved=4.0),),
    ),
    Signature(cause="optimizer-rebuilt-each-epoch", found=(found("optimizer-state-reset", WARNING, since=40),)),
    Signature(cause="objective-does-not-match-metric", found=(turned(),)),
    Signature(cause="objective-does-not-match-metric", found=(turned(), unreached())),
    Signature(
        cause="kl-weight-too-strong", found=(found("latent-unused", divergence=3.4, nats_needed=9.9), unreached())
    ),
)
