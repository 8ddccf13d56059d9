"""The terms of a loss beside the numbers that were added up."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trimtab.guard import Guard
from trimtab.live import Live, Root
from trimtab.overhear import Overheard
from trimtab.run import Run
from trimtab.sensors import LossComponents


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def parts(loss):
    live = Live(stream="", step=0, update=0, roots=(Root(value=loss.item(), node=loss.grad_fn),))
    return {name: float(value) for name, value in LossComponents().read(live).get("loss_parts", {}).items()}


torch.manual_seed(0)
SCORES, OTHER = nn.Linear(6, 5), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
X, Y, T = torch.randn(9, 6), torch.tensor([0, 1, 2, 3, 4, -100, 1, 2, 3]), torch.rand(9, 5)


@pytest.mark.parametrize("model", [SCORES, OTHER])
def test_each_known_term_and_the_rest(model):
    scores = model(X)
    named = {
        "cross-entropy": F.cross_entropy(scores, Y, weight=torch.rand(5)),
        "squared": 0.3 * F.mse_loss(scores, T, reduction="sum") / 4,
        "squared#2": F.mse_loss(scores * 2, T),
        "binary": -2.0 * F.binary_cross_entropy_with_logits(scores, T, pos_weight=torch.rand(5)),
        "smooth": F.smooth_l1_loss(scores, T, beta=0.2),
        "huber": F.huber_loss(scores, T, delta=0.4),
        "rest": 1e-2 * scores.square().sum(),
    }
    seen = parts(sum(named.values()) / 2)
    # The rest is a difference of single-precision sums, so it is as exact as these are, not as itself.
    exact = 1e-6 * sum(abs(value.item()) for value in named.values())
    assert seen == pytest.approx({name: value.item() / 2 for name, value in named.items()}, rel=1e-5, abs=exact)


def test_differences_and_stacks_are_sums_too():
    scores = SCORES(X)
    one, two = F.cross_entropy(scores, Y), F.binary_cross_entropy(scores.sigmoid(), T)
    assert parts(one - 0.5 * two) == pytest.approx({"cross-entropy": one.item(), "binary": -0.5 * two.item()})
    assert parts(torch.stack([one, two]).sum()) == pytest.approx({"cross-entropy": one.item(), "binary": two.item()})


def test_a_factor_that_is_a_tensor_counts():
    one, two = F.cross_entropy(SCORES(X), Y), F.mse_loss(SCORES(X), T)
    assert parts((one + two) * torch.tensor(0.25)) == pytest.approx(
        {"cross-entropy": one.item() / 4, "squared": two.item() / 4}
    )


def test_computing_a_term_again_is_no_evaluation():
    overheard = Overheard()
    overheard.start()
    try:
        output = SCORES(X)
        loss = F.mse_loss(output[:, 0], T[:, 0]) + F.mse_loss(output[:, 1], T[:, 1])
        assert len(parts(loss)) == 2
        assert overheard.take(1) == {}
    finally:
        overheard.stop()


def test_a_single_term_and_unknown_terms_have_no_parts():
    assert parts(F.cross_entropy(SCORES(X), Y) / 3) == {}
    assert parts(SCORES(X).sum() + SCORES(X).mean()) == {}


def test_the_parts_stand_in_the_rows_and_add_up_to_the_loss(tmp_path):
    optimizer = torch.optim.SGD(OTHER.parameters(), lr=0.01)
    with Guard(tmp_path / "run", OTHER, optimizer, overhead=None):
        for step in range(40):
            optimizer.zero_grad()
            scores = OTHER(torch.randn(9, 6))
            loss = F.cross_entropy(scores, Y) + 0.1 * scores.square().mean()
            if step > 8:
                loss = loss + F.mse_loss(scores, T)
            loss.backward()
            optimizer.step()
    rows = [row for row in Run(tmp_path / "run").rows() if "loss_parts" in row.values]
    assert rows[0].labels["loss_parts"] == ("cross-entropy", "rest")
    assert rows[-1].labels["loss_parts"] == ("cross-entropy", "rest", "squared")
    for row in rows:
        assert sum(row.values["loss_parts"]) == pytest.approx(row.values["loss"], rel=1e-4)
