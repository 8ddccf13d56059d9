"""What the graph says about the sign of a loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from trimtab.live import Live, Root
from trimtab.sensors import GraphCensus

X, CODES = torch.ones(12, 5, requires_grad=True), torch.arange(12) % 5


def census(loss):
    return GraphCensus().read(Live(stream="", step=0, update=0, roots=(Root(value=loss.detach(), node=loss.grad_fn),)))


@pytest.mark.parametrize(
    ("turn", "negated"),
    [
        (lambda loss: -loss, True),
        (lambda loss: -1 * loss, True),
        (lambda loss: loss / -4, True),
        (lambda loss: loss, False),
        (lambda loss: -1 * -loss, False),
        (lambda loss: 0.5 * loss, False),
    ],
)
@pytest.mark.parametrize("kind", ["cross-entropy", "squared"])
def test_a_minus_on_the_way_to_the_root_is_seen_and_leaves_no_chance_level(turn, negated, kind):
    loss = F.cross_entropy(X, CODES) if kind == "cross-entropy" else F.mse_loss(X[:, 0], CODES.float())
    seen = census(turn(loss))
    assert seen["loss_negated"] == float(negated)
    assert ("chance_level" in seen) is not negated


def test_with_other_terms_added_the_sign_is_not_known():
    assert "loss_negated" not in census(X.sum() - F.cross_entropy(X, CODES))
