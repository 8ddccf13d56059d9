"""soft_clamp bounds, never expands and always lets the gradient through; the curve as written does expand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.stabilizers import soft_clamp

CURVES = [(30.0, 50.0), (50.0, 100.0), (0.0, 5.0), (0.9, 1.0)]


def slope(at, knee, limit, **kwargs):
    x = torch.tensor(at, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_clamp(x, knee, limit, **kwargs).sum(), x)
    return gradient


@pytest.mark.parametrize(("knee", "limit"), CURVES)
def test_it_is_the_identity_up_to_the_knee_and_never_expands_or_reaches_the_limit(knee, limit):
    near = knee + limit * torch.logspace(-8, 0, 20_001)  # where rounding alone may expand
    x = torch.cat([torch.linspace(-4 * limit, 4 * limit, 20_001), near, torch.tensor([1e4, -1e4, 1e30])])
    y = soft_clamp(x, knee, limit)
    inside = x.abs() <= knee
    assert torch.equal(y[inside], x[inside])
    assert bool((y.abs() <= x.abs()).all())
    assert bool((y.abs() < limit).all())


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e5, 1e5, width=32), st.floats(-1e5, 1e5, width=32), st.sampled_from(CURVES))
def test_it_is_odd_and_monotone(a, b, curve):
    low, high = soft_clamp(torch.tensor([min(a, b), max(a, b)]), *curve)
    assert low <= high
    assert soft_clamp(-low, *curve) == -soft_clamp(low, *curve)


@pytest.mark.parametrize(("knee", "limit"), [(30.0, 50.0), (50.0, 100.0)])
def test_the_slope_at_the_knee_is_one_on_both_sides(knee, limit):
    h = 1e-3
    x = torch.tensor([knee - h, knee, knee + h], dtype=torch.float64)
    below, above = (soft_clamp(x, knee, limit).diff() / h).tolist()
    assert below == pytest.approx(1, abs=1e-2)
    assert above == pytest.approx(1, abs=1e-2)
    assert slope([knee + h], knee, limit).item() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(("knee", "limit"), [*CURVES, (0.95, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_reaches_what_has_run_away(knee, limit, dtype):
    x = torch.linspace(-3 * limit, 3 * limit, 1001).to(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(soft_clamp(x, knee, limit).sum(), x)
    assert bool((gradient > 0).all())
    assert bool((gradient <= 1).all())


def test_the_gradients_are_those_of_the_curve():
    x = torch.linspace(-160, 160, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: soft_clamp(x, 30, 50), x)
    assert torch.autograd.gradgradcheck(lambda x: soft_clamp(x, 30, 50), x)
    assert torch.autograd.gradcheck(lambda x: soft_clamp(x, 30, 50, profile="as_written"), x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func.jvp itself uses it
def test_functional_transforms_go_through():
    x = torch.tensor([1.0, 40.0, 140.0])
    each = torch.func.vmap(torch.func.grad(lambda x: soft_clamp(x, 30, 50)))(x)
    forward = torch.func.jvp(lambda x: soft_clamp(x, 30, 50), (x,), (torch.ones(3),))[1]
    assert torch.equal(each, slope([1.0, 40.0, 140.0], 30, 50))
    assert torch.equal(each, forward)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_stay_finite_and_below_the_limit(dtype):
    y = soft_clamp(torch.tensor([1e4, -1e4, 12.0], dtype=dtype), 30, 50)
    assert y.dtype == dtype
    assert bool(y.isfinite().all())
    assert bool((y.double().abs() < 50).all())
    assert y[2].item() == 12.0


def test_nan_stays_nan():
    assert soft_clamp(torch.tensor([math.nan]), 30, 50).isnan().all()


@pytest.mark.parametrize(("x", "y"), [(55, 59.9), (60, 69.0), (67, 79.6), (80, 91.7), (97.9, 97.9), (120, 99.6)])
def test_the_curve_as_written_expands_what_it_should_bound(x, y):
    value = torch.tensor([float(x)])
    assert soft_clamp(value, 50, 100, profile="as_written").item() == pytest.approx(y, abs=0.06)
    assert soft_clamp(value, 50, 100).item() <= x


def test_the_slope_as_written_jumps_to_two():
    assert slope([49.99, 50.01], 50.0, 100.0, profile="as_written").tolist() == pytest.approx([1, 2], abs=1e-3)
    assert slope([49.99, 50.01], 50.0, 100.0).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_logits_of_67_come_within_50():
    assert soft_clamp(torch.tensor([67.0]), 30, 50).item() < 50


@pytest.mark.parametrize("off", [None, 0, -3.0])
def test_off_is_the_very_same_tensor(off):
    x = torch.tensor([1e9])
    assert soft_clamp(x, 30, off) is x


def test_it_says_what_it_cannot_take():
    for knee in (50, -1, math.nan):
        with pytest.raises(UserError, match="below limit=50"):
            soft_clamp(torch.ones(1), knee, 50)
    with pytest.raises(UserError, match="'corrected' or 'as_written'"):
        soft_clamp(torch.ones(1), 30, 50, profile="seed")
    with pytest.raises(UserError, match="expected a tensor of floats"):
        soft_clamp(torch.ones(1, dtype=torch.int32), 30, 50)
