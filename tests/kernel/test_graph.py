"""What the autograd graph tells: each fact checked on a loss whose answer is known by construction."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from trimtab import graph


def logits(classes=7):
    torch.manual_seed(0)
    layer = nn.Linear(5, classes)
    return layer, layer(torch.randn(6, 5)), torch.arange(6) % classes


@pytest.mark.parametrize(
    ("loss_of", "kind", "factor"),
    [
        (lambda s, t: F.cross_entropy(s, t), "cross-entropy", 1.0),
        (lambda s, t: F.cross_entropy(s, t) / 4, "cross-entropy", 0.25),
        (lambda s, t: 3 * F.cross_entropy(s, t), "cross-entropy", 3.0),
        (lambda s, t: F.nll_loss(s.log_softmax(-1), t), "cross-entropy", 1.0),
        (lambda s, t: F.cross_entropy(s, t, reduction="none").mean(), "cross-entropy", 1.0),
        (lambda s, t: F.cross_entropy(s, t) + s.pow(2).mean(), "cross-entropy", None),
        (lambda s, t: F.mse_loss(s[:, 0], t.float()), "squared", 1.0),
        (lambda s, t: F.binary_cross_entropy_with_logits(s[:, 0], (t > 2).float()), "binary", 1.0),
        (lambda s, t: F.binary_cross_entropy(s[:, 0].sigmoid(), (t > 2).float()), "binary", 1.0),
    ],
)
def test_the_loss_function_and_what_it_is_multiplied_by_are_found(loss_of, kind, factor):
    _, scores, targets = logits()
    found = graph.find_loss(loss_of(scores, targets).grad_fn)
    assert found is not None
    assert (found.kind, found.factor) == (kind, factor)


def test_a_loss_that_is_no_known_function_is_not_guessed():
    _, scores, _ = logits()
    assert graph.find_loss(scores.pow(2).sum().grad_fn) is None


@pytest.mark.parametrize(
    ("loss_of", "squashed"),
    [
        (lambda s, t: F.cross_entropy(s, t), ""),
        (lambda s, t: F.cross_entropy(s.softmax(-1), t), "softmax"),
        (lambda s, t: F.cross_entropy(s.softmax(-1).view(6, 7), t), "softmax"),
        (lambda s, t: F.cross_entropy(s.sigmoid(), t), "sigmoid"),
        (lambda s, t: F.cross_entropy(s.log_softmax(-1), t), ""),
        (lambda s, t: F.binary_cross_entropy_with_logits(s.sigmoid()[:, 0], (t > 2).float()), "sigmoid"),
        (lambda s, t: F.binary_cross_entropy(s.sigmoid()[:, 0], (t > 2).float()), ""),
    ],
)
def test_a_softmax_before_a_loss_that_applies_one_is_seen(loss_of, squashed):
    _, scores, targets = logits()
    found = graph.find_loss(loss_of(scores, targets).grad_fn)
    assert found is not None
    assert graph.squashed_by(found) == squashed


def test_parameters_come_in_the_order_of_the_forward_pass_and_not_of_their_definition():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, x):
            return self.last(self.first(x).relu())

    model = Backwards()
    order = graph.forward_order(model(torch.ones(2, 3)).sum().grad_fn)
    names = sorted(dict(model.named_parameters()).items(), key=lambda pair: order[id(pair[1])])
    assert [name.split(".")[0] for name, _ in names] == ["first", "first", "last", "last"]


def test_a_detached_part_is_not_reached():
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    reached = graph.forward_order(second(first(torch.ones(2, 3)).detach()).sum().grad_fn)
    assert reached.keys() == {id(second.weight), id(second.bias)}


@pytest.mark.parametrize(
    "model",
    [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), nn.Linear(3, 2, bias=False)],
)
def test_the_input_of_the_first_layer_is_found(model):
    x = torch.randn(4, 3)
    inputs = graph.inputs_of(model(x).sum().grad_fn)
    assert len(inputs) == 1
    assert torch.equal(inputs[0], x)


def test_the_input_of_convolutions_and_embeddings_is_found():
    image, tokens = torch.randn(2, 1, 8, 8), torch.randint(0, 9, (2, 5))
    assert torch.equal(graph.inputs_of(nn.Conv2d(1, 2, 3)(image).sum().grad_fn)[0], image)
    assert torch.equal(graph.inputs_of(nn.Embedding(9, 4)(tokens).sum().grad_fn)[0], tokens)


def test_a_graph_that_was_freed_gives_nothing_instead_of_an_error():
    _, scores, targets = logits()
    loss = F.cross_entropy(scores, targets)
    node = loss.grad_fn
    loss.backward()
    assert graph.saved(node, "target") is None


def test_targets_are_the_ones_that_the_loss_was_given():
    _, scores, targets = logits()
    found = graph.find_loss(F.cross_entropy(scores, targets).grad_fn)
    assert torch.equal(graph.targets_of(found), targets)
    assert math.isclose(math.log(7), math.log(graph.saved(found.node, "self").shape[1]))


def test_what_a_checkpoint_or_an_offload_packed_away_is_left_there():
    ran = []

    class Noted(nn.Linear):
        def forward(self, x):
            ran.append(1)
            return super().forward(x)

    x = torch.randn(6, 5)
    block = nn.Sequential(Noted(5, 5), nn.ReLU())
    for reentrant in (True, False):
        ran.clear()
        out = checkpoint(block, x.clone().requires_grad_(), use_reentrant=reentrant)
        for node in graph.walk(out.sum().grad_fn):
            assert graph.saved(node, "result") is None
            assert graph.saved(node, "mat1") is None
        assert len(ran) == 1
    with torch.autograd.graph.save_on_cpu():
        node = torch.relu(x.clone().requires_grad_()).grad_fn
    assert graph.saved(node, "result") is None
    node = torch.relu(x.clone().requires_grad_()).grad_fn
    assert graph.saved(node, "result") is not None
