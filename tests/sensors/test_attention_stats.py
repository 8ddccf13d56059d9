"""What an attention does, against a loop over examples, heads, rows and keys."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trimtab import graph
from trimtab.live import Live, Root
from trimtab.sensors import attention_stats
from trimtab.sensors.attention_stats import AttentionStats, of_scores, of_weights


def slow(query, key, visible, scale, bias=None):
    """The three quantities of an attention small enough to be looked at whole; `visible(b, h, i, j)` is the mask."""
    entropies, peaks, farthest = [], [], []
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for i in range(query.shape[2]):
                keys = [j for j in range(key.shape[2]) if visible(b, h, i, j)]
                if len(keys) < 2:
                    continue
                logits = [float(query[b, h, i] @ key[b, h, j]) * scale for j in keys]
                pulls = [logit + (bias(h, i, j) if bias else 0.0) for logit, j in zip(logits, keys, strict=True)]
                top = max(pulls)
                parts = [math.exp(pull - top) for pull in pulls]
                shares = [part / sum(parts) for part in parts]
                entropies.append(-sum(p * math.log(p) for p in shares if p > 0) / math.log(len(keys)))
                peaks.append(max(shares) * len(keys))
                mean = sum(logits) / len(logits)
                farthest.append(max(abs(logit - mean) for logit in logits))
    return sum(entropies) / len(entropies), sum(peaks) / len(peaks), max(farthest)


def operands(seed=0, size=(2, 3, 7, 5), keys=7, strength=1.0):
    generator = torch.Generator().manual_seed(seed)
    query = strength * torch.randn(size, generator=generator)
    return query, strength * torch.randn((*size[:2], keys, size[3]), generator=generator)


def same(looks, expected):
    assert [float(x) for x in looks] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def everything(b, h, i, j):
    return True


def causal(b, h, i, j):
    return j <= i


def padded(b, h, i, j):
    return j < (7 if b == 0 else 4)


@pytest.mark.parametrize("strength", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("is_causal", [False, True])
def test_dot_products_agree_with_the_slow_twin(strength, is_causal):
    query, key = operands(strength=strength)
    expected = slow(query, key, causal if is_causal else everything, 5**-0.5)
    same(of_scores(query, key, None, is_causal, None), expected)
    same(of_scores(query, key, None, is_causal, 0.3), slow(query, key, causal if is_causal else everything, 0.3))


@pytest.mark.parametrize("boolean", [True, False])
def test_a_padding_mask_hides_its_keys_exactly(boolean):
    query, key = operands()
    mask = torch.tensor([[[[padded(b, 0, 0, j) for j in range(7)]]] for b in range(2)])
    if not boolean:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    same(of_scores(query, key, mask, False, None), slow(query, key, padded, 5**-0.5))


def test_a_bias_counts_for_the_entropy_and_not_for_the_logits():
    query, key = operands()
    slopes = torch.tensor([0.5, 0.25, 0.125]).reshape(1, 3, 1, 1)
    distance = -(torch.arange(7).unsqueeze(1) - torch.arange(7)).abs().float()
    expected = slow(query, key, causal, 5**-0.5, bias=lambda h, i, j: -abs(i - j) * 0.5 / 2**h)
    same(of_scores(query, key, slopes * distance, True, None), expected)


def test_heads_that_share_a_key_are_paired_as_torch_pairs_them():
    query, key = operands(size=(2, 4, 7, 5))
    shared = key[:, :2]
    same(of_scores(query, shared, None, False, None), slow(query, shared.repeat_interleave(2, 1), everything, 5**-0.5))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("visible", [everything, causal, padded])
def test_probabilities_alone_tell_the_mask(visible, known):
    query, key = operands()
    hidden = torch.tensor([[[[not visible(b, 0, i, j) for j in range(7)] for i in range(7)]] for b in range(2)])
    weights = torch.softmax((0.4 * query @ key.transpose(-1, -2)).masked_fill(hidden, -torch.inf), -1)
    looks = of_weights(weights, query, key, 0.4) if known else of_weights(weights)
    expected = slow(query, key, visible, 0.4)
    assert [float(x) for x in looks[:2]] == pytest.approx(expected[:2], rel=1e-4)
    if known:
        assert float(looks.logit) == pytest.approx(expected[2], rel=1e-4)
    else:  # the largest above the mean is at most the largest distance
        assert 0.5 * expected[2] <= float(looks.logit) <= expected[2] * 1.0001


@pytest.mark.parametrize("is_causal", [False, True])
def test_probabilities_that_became_zero_are_not_taken_for_a_mask(is_causal):
    query, key = operands(size=(2, 3, 16, 5), keys=16, strength=20.0)
    hidden = ~torch.ones(16, 16, dtype=torch.bool).tril() if is_causal else torch.zeros(16, 16, dtype=torch.bool)
    weights = torch.softmax((query @ key.transpose(-1, -2)).masked_fill(hidden, -torch.inf), -1)
    assert float((weights == 0).float().mean()) > 0.5
    expected = slow(query, key, causal if is_causal else everything, 1.0)
    same(of_weights(weights, query, key, 1.0), expected)
    alone = of_weights(weights)
    assert float(alone.entropy) < 0.05
    assert float(alone.logit) > 50


def test_a_row_with_one_key_is_left_out_and_nothing_else_is_nothing():
    query, key = operands(size=(1, 1, 5, 5), keys=5)
    only_itself = torch.eye(5, dtype=torch.bool)
    assert all(math.isnan(float(x)) for x in of_scores(query, key, only_itself, False, None))
    nobody = torch.zeros(5, 5, dtype=torch.bool)
    assert all(math.isnan(float(x)) for x in of_scores(query, key, nobody, False, None))


def test_gates_and_tiny_attentions_are_passed_over():
    assert of_weights(torch.softmax(torch.randn(8, 10), -1)) is None
    assert of_weights(torch.softmax(torch.randn(8, 4, 3), -1)) is None
    query, key = operands(keys=3)
    assert of_scores(query, key, None, False, None) is None


def test_a_sample_of_a_large_attention_is_evenly_spread():
    query, key = operands(size=(9, 11, 200, 4), keys=200)
    assert [attention_stats.stride(size, most) for size, most in ((9, 2), (11, 4), (200, 32), (3, 4))] == [5, 3, 7, 1]
    small = query[::5, ::3, ::7], key[::5, ::3]
    expected = slow(*small, lambda b, h, i, j: j <= 7 * i, 0.5)
    same(of_scores(query, key, None, True, None), expected)


class Attend(nn.Module):
    """One attention, written out or not."""

    def __init__(self, how):
        super().__init__()
        self.project, self.how, self.out = nn.Linear(8, 24), how, nn.Linear(8, 3)
        self.whole = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        if self.how.startswith("whole"):
            x, _ = self.whole(x, x, x, attn_mask=~mask, need_weights=self.how == "whole with weights")
            return self.out(x)
        query, key, value = self.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.how == "sdpa":
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = (query @ key.transpose(-1, -2) / 2).masked_fill(~mask, -torch.inf)
            mixed = F.dropout(torch.softmax(scores, -1), 0.1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))


def read(model, x, y):
    loss = F.cross_entropy(model(x).flatten(0, 1), y)
    names = {id(p): (name, p) for name, p in model.named_parameters()}
    layers, _ = graph.layers(loss.grad_fn, names)
    live = Live(stream="", step=0, update=0, roots=(Root(value=0.0, node=loss.grad_fn),), layers=layers)
    return AttentionStats().read(live)


@pytest.mark.parametrize("how", ["sdpa", "written out", "whole", "whole with weights"])
def test_the_sensor_finds_the_attention_of_a_graph(how):
    torch.manual_seed(0)
    model, x, y = Attend(how), torch.randn(2, 6, 8), torch.randint(3, (12,))
    reading = read(model, x, y)
    assert set(reading) == {"attention_entropy", "attention_peak", "attention_logit"}
    (label,) = reading["attention_entropy"]
    layer = model.whole.in_proj_weight if how.startswith("whole") else model.project.weight
    bias = model.whole.in_proj_bias if how.startswith("whole") else model.project.bias
    query, key, _ = F.linear(x, layer, bias).detach().unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    expected = slow(query, key, causal, 0.5)
    assert [float(reading[name][label]) for name in reading] == pytest.approx(expected, rel=1e-4)


def test_a_model_without_attention_has_nothing_to_say():
    model = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Linear(8, 3))
    assert read(model, torch.randn(2, 6, 8), torch.randint(3, (12,))) == {}
