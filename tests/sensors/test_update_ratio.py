"""Norms of the weights and their updates and the part of weight decay, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trimtab.live import Live
from trimtab.sensors import UpdateRatio
from trimtab.sensors.update_ratio import is_decoupled


def norm(*tensors):
    return math.sqrt(sum(value * value for tensor in tensors for value in tensor.reshape(-1).tolist()))


def step(optimizer_of, *, scale=1.0, clipped=False, steps=2):
    """Train a little and return the reading of the last update with the tensors around it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    optimizer = optimizer_of(model)
    for _ in range(steps):
        optimizer.zero_grad()
        (scale * model(torch.randn(8, 3)).square().mean()).backward()
        before = [p.detach().clone() for p in model.parameters()]
        gradients = [p.grad / scale for p in model.parameters()]
        for p in model.parameters():
            p.grad /= scale
        optimizer.step()
        for p in model.parameters():
            p.grad *= scale
    parameters = tuple(model.parameters())
    group_of = [
        next(i for i, g in enumerate(optimizer.param_groups) if any(p is q for q in g["params"])) for p in parameters
    ]
    live = Live(
        stream="main", step=1, update=1, optimizer=optimizer, parameters=parameters, group_of=group_of, scale=scale,
        axes={"groups": tuple(map(str, range(len(optimizer.param_groups)))), "parameters": ("a", "b", "c", "d")},
        weights_before=[tensor.clone() for tensor in before], clipped=clipped,
        learning_rates=tuple(group["lr"] for group in optimizer.param_groups),
    )  # fmt: skip
    return UpdateRatio().read(live), before, [p.detach() for p in parameters], gradients


def test_norms_and_ratio_are_what_plain_loops_give():
    read, before, after, _ = step(lambda m: torch.optim.Adam(m.parameters(), lr=0.01))
    moved = [a - b for a, b in zip(after, before, strict=True)]
    assert read["weight_norms"].tolist() == pytest.approx([norm(t) for t in before], rel=1e-5)
    assert read["update_norms"].tolist() == pytest.approx([norm(t) for t in moved], rel=1e-5)
    assert read["update_ratio"].tolist() == pytest.approx([norm(*moved) / norm(*before)], rel=1e-5)
    assert read["decay_share"] == (0.0,)


def test_decay_of_the_weights_themselves_is_its_part_of_the_change():
    read, before, after, _ = step(lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.3))
    moved = norm(*[a - b for a, b in zip(after, before, strict=True)])
    assert read["decay_share"].tolist() == pytest.approx([0.01 * 0.3 * norm(*before) / moved], rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 64.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, weight_decay=0.3),
        lambda m: torch.optim.Adam(m.parameters(), lr=0.01, weight_decay=0.3),
    ],
)
def test_decay_that_is_added_to_the_gradient_is_compared_with_it(make, scale):
    read, before, _, gradients = step(make, scale=scale)
    assert read["decay_share"].tolist() == pytest.approx([0.3 * norm(*before) / norm(*gradients)], rel=1e-4)


def test_each_group_has_its_own_decay():
    def optimizer(model):
        return torch.optim.AdamW(
            [{"params": model[0].parameters(), "weight_decay": 0.0}, {"params": model[1].parameters(), "lr": 0.1}],
            lr=0.01, weight_decay=0.2,
        )  # fmt: skip

    read, before, after, _ = step(optimizer)
    moved = norm(after[2] - before[2], after[3] - before[3])
    shares = read["decay_share"].tolist()
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(0.1 * 0.2 * norm(before[2], before[3]) / moved, rel=1e-4)
    assert read["update_ratio"].shape == (2,)


def test_an_optimizer_that_does_not_tell_how_it_decays_has_no_share():
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1, "weight_decay": 0.5})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad.sign(), alpha=-group["lr"])

    read, *_ = step(lambda m: Own(m.parameters()))
    assert "decay_share" not in read
    assert is_decoupled(object(), {"decoupled_weight_decay": True}) is True
