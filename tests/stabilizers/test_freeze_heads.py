"""Frozen heads go on running and their weights stay, bit for bit, whatever the optimizer does."""

from functools import partial

import pytest
import torch
from torch import nn

from trimtab.errors import UserError
from trimtab.stabilizers import FreezeHeads, Layout
from trimtab_systems.separability.model import Attention

OPTIMIZERS = {
    "adam": partial(torch.optim.Adam, lr=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
}


class Block(nn.Module):
    """A layer before and an attention with four heads of size two."""

    def __init__(self, attention):
        super().__init__()
        self.before = nn.Linear(8, 8)
        self.attention = attention

    def forward(self, x):
        x = self.before(x)
        out = self.attention(x, x, x)
        return out[0] if isinstance(out, tuple) else out


class Separate(nn.Module):
    """Attention with layers of their own for queries, keys and values; heads may share keys and values."""

    def __init__(self, kept=4):
        super().__init__()
        self.num_heads = 4
        self.q_proj, self.o_proj = nn.Linear(8, 8), nn.Linear(8, 8)
        self.k_proj, self.v_proj = nn.Linear(8, 2 * kept), nn.Linear(8, 2 * kept)

    def forward(self, query, key, value):
        def split(x):
            return x.unflatten(-1, (-1, 2)).transpose(1, 2)

        q, k, v = split(self.q_proj(query)), split(self.k_proj(key)), split(self.v_proj(value))
        read = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=k.shape[1] < 4)
        return self.o_proj(read.transpose(1, 2).flatten(2))


class Packed(nn.Module):
    """Attention whose queries, keys and values come from one layer."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x, *_):
        q, k, v = (part.unflatten(-1, (4, 2)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        read = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(read.transpose(1, 2).flatten(2))


PACKED = Layout(query="qkv", key="qkv", value="qkv", output="proj", heads=4)
KINDS = {
    "torch": (lambda: nn.MultiheadAttention(8, 4, batch_first=True, add_bias_kv=True), None),
    "torch-apart": (lambda: nn.MultiheadAttention(8, 4, batch_first=True, kdim=8, vdim=8), None),
    "separate": (Separate, None),
    "packed": (Packed, PACKED),
}


def block(kind="torch"):
    torch.manual_seed(0)
    return Block(KINDS[kind][0]())


def x(seed=0):
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(seed))


def train(model, optimizer, steps=6):
    for seed in range(steps):
        optimizer.zero_grad()
        (model(x(seed)) - 1).square().mean().backward()
        optimizer.step()


def rows(head, of=0):
    return slice(8 * of + 2 * head, 8 * of + 2 * head + 2)


def parts(attention, head):
    """The weights of one head of `nn.MultiheadAttention`: q, k, v and o."""
    packed = [attention.in_proj_weight[rows(head, of)] for of in range(3)]
    return [part.detach().clone() for part in (*packed, attention.out_proj.weight[:, rows(head)])]


def same(before, after):
    return [torch.equal(a, b) for a, b in zip(before, after, strict=True)]


# --- what is held ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_frozen_heads_stay_bit_for_bit_and_the_free_one_moves(kind):
    model = block()
    optimizer = OPTIMIZERS[kind](model.parameters())
    train(model, optimizer, 2)  # so that there is momentum already
    before = [parts(model.attention, head) for head in range(4)]
    with FreezeHeads(model, {"attention": [1, 2, 3]}, optimizer=optimizer) as frozen:
        train(model, optimizer)
        frozen.verify()
    after = [parts(model.attention, head) for head in range(4)]
    assert same(before[0], after[0]) == [False] * 4
    for head in (1, 2, 3):
        assert same(before[head], after[head]) == [True] * 4
    train(model, optimizer, 1)
    assert same(after[1], parts(model.attention, 1)) == [False] * 4


def test_a_gradient_of_zero_alone_does_not_hold_a_weight():
    model = block()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    before = parts(model.attention, 1)
    model.attention.in_proj_weight.register_hook(lambda g: g.index_fill(0, torch.tensor([2, 3, 10, 11, 18, 19]), 0.0))
    train(model, optimizer)
    assert same(before, parts(model.attention, 1))[:3] == [False] * 3


def test_with_the_routing_held_it_looks_where_it_looked_and_may_read_something_else():
    model = block()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    probe = x(77)

    def looks():
        return model.attention(probe, probe, probe, average_attn_weights=False)[1].detach()

    looked, before = looks(), parts(model.attention, 2)
    with FreezeHeads(model, {"attention": [1, 2, 3]}, optimizer=optimizer, what="qk"):
        train(model, optimizer)
    assert torch.equal(looks()[:, 1:], looked[:, 1:])
    assert not torch.equal(looks()[:, 0], looked[:, 0])
    assert same(before, parts(model.attention, 2)) == [True, True, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_for_the_same_input_frozen_heads_give_what_they_gave(kind):
    model = block(kind)
    attention, probe = model.attention, x(77)
    optimizer = OPTIMIZERS["adamw"](model.parameters())

    def gives(head):
        """What the layer gives when the output layer lets one head through."""
        layer = next(m for name, m in attention.named_children() if name in ("out_proj", "o_proj", "proj"))
        kept, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[:, rows(head)] = kept[:, rows(head)]
            layer.bias.zero_()
            out = attention(probe, probe, probe)
            layer.weight.copy_(kept)
            layer.bias.copy_(bias)
        return out[0] if isinstance(out, tuple) else out

    gave = [gives(head) for head in range(4)]
    with FreezeHeads(model, {"attention": [1, 3]}, optimizer=optimizer, layout=KINDS[kind][1]):
        train(model, optimizer)
    assert [torch.equal(gives(head), gave[head]) for head in range(4)] == [False, True, False, True]


def test_gradients_flow_through_frozen_heads_to_what_comes_before():
    model = block()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    before = model.before.weight.detach().clone()
    with FreezeHeads(model, {"attention": [0, 1, 2, 3]}, optimizer=optimizer):
        train(model, optimizer, 1)
        assert not model.attention.in_proj_weight.grad.any()
        assert model.attention.out_proj.bias.grad.any()
    assert not torch.equal(model.before.weight, before)


def test_zeroed_heads_are_out_of_the_sum_and_come_back():
    model = block()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    before = parts(model.attention, 1)
    with FreezeHeads(model, {"attention": [1]}, optimizer=optimizer, how="zero") as frozen:
        assert not model.attention.out_proj.weight[:, rows(1)].any()
        train(model, optimizer)
        assert not model.attention.out_proj.weight[:, rows(1)].any()
        assert frozen.calls == 6
    assert same(before, parts(model.attention, 1)) == [True] * 4


def test_heads_that_share_keys_and_values_are_frozen_together():
    torch.manual_seed(0)
    model = Block(Separate(kept=2))
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    with pytest.raises(UserError, match=r"heads \[3\] of 'attention' share keys and values"):
        FreezeHeads(model, {"attention": [2]}, optimizer=optimizer)
    before = [layer.weight.detach().clone() for layer in (model.attention.k_proj, model.attention.v_proj)]
    with FreezeHeads(model, {"attention": [2, 3]}, optimizer=optimizer):
        train(model, optimizer)
    for layer, weight in zip((model.attention.k_proj, model.attention.v_proj), before, strict=True):
        assert torch.equal(layer.weight[2:], weight[2:])
        assert not torch.equal(layer.weight[:2], weight[:2])
    FreezeHeads(model, {"attention": [2]}, optimizer=optimizer, what="qo")


def test_heads_that_are_modules_of_their_own():
    torch.manual_seed(0)
    model = Attention(8, 4, 5)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with FreezeHeads(model, {"": [1, 2, 3]}, optimizer=optimizer, what="qk"):
        train(model, optimizer)
    held = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert held == {f"heads.{head}.{part}.weight" for head in (1, 2, 3) for part in ("query", "key")}


# --- counting, undoing, going on ------------------------------------------------------------------


def test_it_counts_the_gradients_that_it_held_back_and_leaves_nothing_behind():
    model = block()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with FreezeHeads(model, {"attention": [1]}, optimizer=optimizer) as frozen:
        train(model, optimizer, 2)
    assert frozen.calls == 2 * 5  # in_proj weight and bias, bias_k, bias_v, out_proj weight
    assert 0 < frozen.largest_change < 1
    assert not optimizer._optimizer_step_post_hooks
    assert all(not parameter._backward_hooks for parameter in model.parameters())


@pytest.mark.parametrize(
    ("how", "says"), [("keep", "no gradient reached"), ("zero", "none of the attentions was called")]
)
def test_one_that_was_never_applied_is_an_error_unless_the_block_raised(how, says):
    model = block()
    before = parts(model.attention, 1)
    frozen = FreezeHeads(model, {"attention": [1]}, optimizer=OPTIMIZERS["sgd"](model.parameters()), how=how)
    with pytest.raises(UserError, match=f"FreezeHeads at attention: it was never applied: {says}"), frozen:
        model.before(x())
    with pytest.raises(RuntimeError, match="planted"), frozen:
        raise RuntimeError("planted")
    assert same(before, parts(model.attention, 1)) == [True] * 4


def test_held_weights_that_somebody_else_changed_are_an_error():
    model = block()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    frozen = FreezeHeads(model, {"attention": [1]}, optimizer=optimizer)
    with frozen:
        train(model, optimizer, 1)
        frozen.verify()
        with torch.no_grad():
            model.attention.in_proj_weight[2:4] += 1
        with pytest.raises(UserError, match=r"attention.in_proj_weight\[2:4, :\] no longer holds"):
            frozen.verify()
        train(model, optimizer, 1)
    with pytest.raises(UserError, match="something other than the optimizers given"), frozen:
        model.attention.in_proj_weight.data += 1


def test_a_resumed_training_holds_the_stored_weights():
    model = block()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with FreezeHeads(model, {"attention": [1]}, optimizer=optimizer) as frozen:
        train(model, optimizer, 1)
        state = frozen.state_dict()
    wanted = parts(model.attention, 1)
    train(model, optimizer, 1)
    resumed = FreezeHeads(model, {"attention": [1]}, optimizer=optimizer)
    resumed.load_state_dict(state)
    assert (resumed.calls, resumed.largest_change) == (frozen.calls, frozen.largest_change)
    with resumed:
        assert same(wanted, parts(model.attention, 1)) == [True] * 4
        again = resumed.state_dict()
        train(model, optimizer, 1)
    assert again["weights"].keys() == state["weights"].keys()
    assert all(torch.equal(again["weights"][key], weights) for key, weights in state["weights"].items())
    with pytest.raises(UserError, match="use the same heads, what and how"):
        FreezeHeads(model, {"attention": [2]}, optimizer=optimizer).load_state_dict(state)


def test_off_is_bit_identical():
    one, other = block(), block()
    first, second = (OPTIMIZERS["adamw"](model.parameters()) for model in (one, other))
    train(one, first)
    with FreezeHeads(other, {"attention": [1]}, optimizer=second, on=False):
        train(other, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# --- what it cannot take --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "changes", "says"),
    [
        ({"atention": [0]}, {}, "no module 'atention'. Did you mean 'attention'"),
        ({"attention": [4]}, {}, r"has heads 0 to 3; got \[4\]"),
        ({"attention": [1, 1]}, {}, "each at most once"),
        ({"attention": []}, {}, "at least one"),
        ({"before": [0]}, {}, r"'before' \(Linear\) keeps its heads in a way that is not known; pass layout="),
        ({"attention": [0]}, {"what": "qx"}, "expected letters of 'qkvo'"),
        ({"attention": [0]}, {"how": "drop"}, "expected 'keep' or 'zero'"),
        ({"attention": [0]}, {"layout": PACKED}, "has no linear layer 'proj'"),
    ],
)
def test_it_says_what_it_cannot_take(heads, changes, says):
    model = block()
    with pytest.raises(UserError, match=says):
        FreezeHeads(model, heads, optimizer=OPTIMIZERS["sgd"](model.parameters()), **changes)


def test_a_parameter_that_no_optimizer_holds_could_not_be_put_back():
    model = block()
    some, rest = [model.attention.in_proj_weight], list(model.attention.parameters())[1:]
    with pytest.raises(UserError, match=r"'attention.in_proj_bias' is in none of the optimizers"):
        FreezeHeads(model, {"attention": [0]}, optimizer=OPTIMIZERS["sgd"](some))
    FreezeHeads(model, {"attention": [0]}, optimizer=[OPTIMIZERS["sgd"](some), OPTIMIZERS["sgd"](rest)])
