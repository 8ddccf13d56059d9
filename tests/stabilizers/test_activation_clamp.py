"""The clamps hold a norm or a spread at a measured baseline, at its place, and say when they did nothing."""

import math

import pytest
import torch
from torch import nn

from trimtab.errors import UserError
from trimtab.stabilizers import ActivationClamp, Baseline, VarianceClamp
from trimtab.tap import tap

KINDS = [ActivationClamp, VarianceClamp]


class Network(nn.Module):
    """Tokens -> hidden -> normalised -> head; `unused` is never called."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(3, 8)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 2)
        self.unused = nn.Linear(8, 8)

    def forward(self, x_BTD):
        return self.head(self.drop(self.norm(self.hidden(x_BTD))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Network()


def batch(seed=0, examples=4):
    return torch.randn(examples, 5, 3, generator=torch.Generator().manual_seed(seed))


def baseline(model, where="hidden", scope="token", norm=2.0, spread=0.7, width=8):
    return Baseline(where=where, scope=scope, norm=norm, spread=spread, width=width, tokens=1)


def handed_on(model, clamp, x=None):
    """What the module hands on, before and after the clamp, as matrices (tokens, width)."""
    x = batch() if x is None else x
    with tap(model, clamp.where) as before:
        model(x)
    with clamp, tap(model, clamp.where) as after:
        model(x)
    return before.output.flatten(0, 1), after.output.flatten(0, 1)


# --- what they hold -------------------------------------------------------------------------------


def test_each_token_is_scaled_to_the_norm_and_keeps_its_direction(model):
    before, after = handed_on(model, ActivationClamp(model, baseline(model)))
    assert after.norm(dim=-1).tolist() == pytest.approx([2.0] * 20, rel=1e-5)
    assert torch.cosine_similarity(before, after, -1).min().item() == pytest.approx(1, abs=1e-6)


def test_in_a_batch_one_factor_does_for_all(model):
    before, after = handed_on(model, ActivationClamp(model, baseline(model, scope="batch")))
    factor = after / before
    assert factor.max().item() == pytest.approx(factor.min().item(), rel=1e-4)
    assert after.norm(dim=-1).mean().item() == pytest.approx(2.0, rel=1e-5)


def test_the_variance_clamp_holds_the_spread_and_lets_the_mean_pass(model):
    before, after = handed_on(model, VarianceClamp(model, baseline(model)))
    assert after.std(-1, correction=0).tolist() == pytest.approx([0.7] * 20, rel=1e-5)
    torch.testing.assert_close(after.mean(-1), before.mean(-1))
    before, after = handed_on(model, VarianceClamp(model, baseline(model, scope="batch")))
    assert (after - after.mean(0)).square().mean().sqrt().item() == pytest.approx(0.7, rel=1e-5)
    torch.testing.assert_close(after.mean(0), before.mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_it_only_scales_down_when_asked(model, kind):
    low, high = baseline(model, norm=1e-3, spread=1e-3), baseline(model, norm=1e3, spread=1e3)
    before, after = handed_on(model, kind(model, high, upward=False, least=0))
    torch.testing.assert_close(after, before)
    before, after = handed_on(model, kind(model, low, upward=False))
    assert bool((after.norm(dim=-1) < before.norm(dim=-1)).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["token", "batch"])
def test_the_gradient_is_exact_and_finite_where_there_is_nothing_to_scale(model, kind, scope):
    clamp = kind(model, baseline(model, scope=scope, width=3))
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(clamp.edit, x)
    flat = torch.zeros(4, 3, requires_grad=True)
    after = clamp.edit(flat)
    after.sum().backward()
    assert torch.equal(after, flat)
    assert bool(flat.grad.isfinite().all())


def test_the_scope_token_couples_nobody_and_the_scope_batch_does(model):
    changed = batch()
    changed[3, 4] *= 50
    for scope, coupled in (("token", False), ("batch", True)):
        clamp = ActivationClamp(model.eval(), baseline(model, where="hidden", scope=scope))
        _, one = handed_on(model, clamp)
        _, other = handed_on(model, clamp, changed)
        assert torch.equal(one[:-1], other[:-1]) != coupled


def test_half_types_come_back_as_they_were(model):
    after = ActivationClamp(model, baseline(model)).edit(torch.ones(4, 8, dtype=torch.bfloat16))
    assert after.dtype == torch.bfloat16
    assert after.norm(dim=-1)[0].item() == pytest.approx(2.0, rel=0.01)


# --- the baseline ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["token", "batch"])
def test_the_baseline_is_that_of_the_module_in_eval_mode(model, scope):
    model.train()
    model.norm.eval()
    batches = [batch(seed) for seed in range(4)]
    torch.manual_seed(3)
    found = Baseline.measure(model, "head", iter(batches), scope=scope, at_most=3)
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(3).get_state())
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)
    model.eval()
    with torch.no_grad():
        x = torch.stack([model(one).flatten(0, 1) for one in batches[:3]]).double()
    assert found.norm == pytest.approx(x.norm(dim=-1).mean().item(), rel=1e-6)
    spread = x.std(-1, correction=0) if scope == "token" else (x - x.mean(1, keepdim=True)).square().mean((1, 2)).sqrt()
    assert found.spread == pytest.approx(spread.mean().item(), rel=1e-6)
    assert (found.where, found.width, found.tokens, found.scope) == ("head", 2, 60, scope)


def test_a_clamp_at_the_measured_baseline_of_one_token_changes_nothing_and_says_so(model):
    x = batch(examples=1)[:, :1]
    clamp = ActivationClamp(model, Baseline.measure(model, "hidden", [x]))
    with pytest.raises(UserError, match="applied 1 times and changed nothing"), clamp:
        model(x)


def test_a_baseline_needs_something_to_measure(model):
    with pytest.raises(UserError, match="nothing was measured"):
        Baseline.measure(model, "unused", [batch()])
    with pytest.raises(UserError, match="nothing was measured"):
        Baseline.measure(model, "hidden", [])
    with pytest.raises(UserError, match="measure it healthy"):
        Baseline.measure(model, "hidden", [batch() * math.nan])
    with pytest.raises(UserError, match="'token' or 'batch'"):
        Baseline.measure(model, "hidden", [batch()], scope="row")
    assert Baseline.measure(model, "hidden", [{"x_BTD": batch()}, (batch(),)]).tokens == 40
    assert Baseline.measure(model, "hidden", [1], run=lambda seed: model(batch(seed))).tokens == 20


def test_a_baseline_is_valid_at_its_place_alone(model):
    one, other = ActivationClamp(model, baseline(model)), ActivationClamp(model, baseline(model, where="unused"))
    with pytest.raises(UserError, match="the stored baseline is that of 'unused'"):
        one.load_state_dict(other.state_dict())
    with pytest.raises(UserError, match="measured on 9 features, this output has 8"):
        handed_on(model, ActivationClamp(model, baseline(model, width=9)))


# --- counting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_counts_its_calls_and_its_effect(model, kind):
    clamp = kind(model, baseline(model))
    with clamp:
        model(batch())
        model(batch(1))
        assert clamp.calls == 2
        assert clamp.change > 0
    largest = clamp.largest_change
    with clamp:
        model(batch(2))
    assert clamp.calls == 3
    assert clamp.largest_change >= largest > 0
    assert not model.hidden._forward_hooks


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_was_never_applied_is_an_error_unless_the_block_raised(model, kind):
    clamp = kind(model, baseline(model, where="unused"))
    with pytest.raises(UserError, match="never applied: 'unused' was not called"), clamp:
        model(batch())
    with pytest.raises(RuntimeError, match="planted"), clamp:
        raise RuntimeError("planted")
    assert not model.unused._forward_hooks


def test_in_front_of_a_normalisation_it_works_and_changes_no_output(model):
    model.eval()
    plain = model(batch())
    with ActivationClamp(model, baseline(model)) as clamp:
        held = model(batch())
    assert clamp.largest_change > 0.1
    torch.testing.assert_close(held, plain, atol=1e-3, rtol=1e-3)  # what the docstring warns of


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_turned_on_inside_a_block(model, kind):
    clamp = kind(model, baseline(model), on=False)
    with clamp:
        model(batch())
    assert clamp.calls == 0
    with pytest.raises(UserError, match="never applied"), clamp:
        clamp.on = True
    with clamp:
        model(batch())
    assert clamp.calls == 1


def test_one_object_is_for_one_block_at_a_time(model):
    clamp = ActivationClamp(model, baseline(model))
    with clamp:
        model(batch())
        with pytest.raises(UserError, match="at work already"), clamp:
            pass
    with pytest.raises(UserError, match="no module 'hiden'"), ActivationClamp(model, baseline(model, where="hiden")):
        pass
