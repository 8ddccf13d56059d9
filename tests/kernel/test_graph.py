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


class Attention(nn.Module):
    """Attention as most scripts write it."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        query, key, value = (layer(x).view(4, 5, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scores = query @ key.transpose(2, 3) / 2 + torch.full((5, 5), -1e9).triu(1)
        weights = F.dropout(scores.softmax(-1), 0.1)
        return self.out((weights @ value).transpose(1, 2).reshape(4, 5, 8))


def layers_of(model, *inputs):
    names = {id(p): (name, p) for name, p in model.named_parameters()}
    found, compiled = graph.layers(model(*inputs).sum().grad_fn, names)
    assert not compiled
    return {layer.label: layer for layer in found}


def test_layers_are_read_in_forward_order_and_named_by_the_module_before_them():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8, bias=False), nn.SiLU(),
        nn.Linear(8, 6), nn.Tanh(), nn.Tanh(), nn.Linear(6, 3), nn.Sigmoid(),
    )  # fmt: skip
    x = torch.randn(3, 1, 8, 8)
    found = layers_of(model, x)
    assert list(found) == [
        "0>linear", "1>relu", "4>linear", "4>silu", "6>linear", "6>tanh", "6>tanh#2", "9>linear", "9>sigmoid",
    ]  # fmt: skip
    assert torch.equal(found["0>linear"].given, x)
    assert torch.equal(found["9>sigmoid"].result, model(x))
    assert list(layers_of(model, x)) == list(found)


def test_attention_is_told_from_other_softmaxes():
    model, x = Attention(), torch.randn(4, 5, 8)
    names = {id(p): (name, p) for name, p in model.named_parameters()}
    found = [layer for layer in graph.layers(model(x).softmax(-1).sum().grad_fn, names)[0] if layer.kind == "softmax"]
    assert [layer.attention for layer in found] == [True, False]
    one = found[0]
    query, key = (layer(x).view(4, 5, 2, 4).transpose(1, 2).reshape(8, 5, 4) for layer in (model.q, model.k))
    assert torch.allclose(one.query, query)
    assert torch.allclose(one.key, key)
    assert one.scale == 0.5


@pytest.mark.parametrize("causal", [True, False])
def test_fused_attention_hands_over_query_and_key(causal):
    q, k, v = (torch.randn(2, 2, 5, 4, requires_grad=True) for _ in range(3))
    (one,) = graph.layers(F.scaled_dot_product_attention(q, k, v, is_causal=causal).sum().grad_fn, {})[0]
    assert (one.label, one.attention, one.causal, one.scale) == ("sdpa", True, causal, 0.5)
    assert torch.equal(one.query, q)
    assert torch.equal(one.key, k)


@pytest.mark.parametrize("needed", [True, False])
def test_multihead_attention_is_found(needed):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=needed)[0]

    found = [one for one in layers_of(Wrapped(), torch.randn(4, 5, 8)).values() if one.attention]
    assert len(found) == 1
    assert found[0].label.startswith("attention>")
    assert found[0].query is not None


def test_a_recurrence_does_not_fill_the_list():
    found = layers_of(Recurrent(), torch.randn(4, 40, 8))
    assert len(found) <= 4 * graph.MOST_ALIKE


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0]
