"""rescale_norm caps and never turns, its penalty reaches the raw norm, and NormStats agrees with NumPy."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.stabilizers import NormStats, norm_excess_penalty, rescale_norm


def norms(x, dims=(1, 2)):
    return torch.linalg.vector_norm(x, dim=dims)


def deltas(*sizes, seed=0, dtype=torch.float32):
    """Return a (B, 4, 3) tensor whose samples have these norms."""
    x = torch.randn(len(sizes), 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x / norms(x).view(-1, 1, 1) * torch.tensor(sizes, dtype=torch.float64).view(-1, 1, 1)).to(dtype)


# --- the clamp ------------------------------------------------------------------------------------


def test_a_long_sample_is_cut_to_the_cap_and_keeps_its_direction():
    x = deltas(10.0)
    y = rescale_norm(x, 3.0, (1, 2))
    assert norms(y).item() == pytest.approx(3.0, rel=1e-6)
    assert torch.cosine_similarity(x.flatten(), y.flatten(), dim=0).item() == pytest.approx(1.0, abs=1e-6)


def test_each_sample_is_judged_by_itself_and_a_short_one_is_bit_identical():
    x = deltas(0.4, 500.0, 2.9)
    y = rescale_norm(x, 3.0, (1, 2))
    assert torch.equal(y[0], x[0])
    assert torch.equal(y[2], x[2])
    assert norms(y)[1].item() == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("just", [3.0, 3.0 + 1e-4])
def test_at_the_cap_and_just_above(just):
    assert norms(rescale_norm(deltas(just, dtype=torch.float64), 3.0, (1, 2))).item() == pytest.approx(3.0, abs=2e-8)


def test_zero_stays_zero_and_its_gradient_is_that_of_the_identity():
    x = torch.zeros(2, 4, 3, requires_grad=True)
    y = rescale_norm(x, 1.0, (1, 2))
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 4, 3))
    assert torch.equal(x.grad, torch.ones(2, 4, 3))


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e30])
def test_what_is_not_finite_is_not_hidden_and_harms_nobody_else(value):
    x = deltas(1.0, 9.0)
    x[1, 2, 1] = value
    y = rescale_norm(x, 3.0, (1, 2))
    assert torch.equal(y[0], x[0])
    assert y[1].isnan().any()


@pytest.mark.parametrize("off", [None, 0, -1.0])
def test_off_is_the_very_same_tensor(off):
    x = deltas(10.0)
    assert rescale_norm(x, off, (1, 2)) is x
    stats = NormStats()
    assert rescale_norm(x, off, (1, 2), stats=stats) is x
    assert (stats.compute().count, stats.compute().hit_rate) == (1, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_come_back_as_they_were(dtype):
    y = rescale_norm(deltas(200.0, 0.5, dtype=dtype), 1.0, (1, 2))
    assert y.dtype == dtype
    assert norms(y.double()).tolist() == pytest.approx([1.0, 0.5], rel=0.01)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=6),
    st.floats(2**-10, 1e6, width=32),
)
def test_no_sample_is_longer_than_the_cap_or_than_it_was(values, cap):
    x = torch.tensor(values).view(2, 3)
    before, after = norms(x.double(), 1), norms(rescale_norm(x, cap, 1).double(), 1)
    assert bool((after <= torch.minimum(before, torch.tensor(cap)) * (1 + 1e-5)).all())


def test_the_gradient_is_that_of_the_exact_projection():
    x = deltas(10.0, 0.5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rescale_norm(x, 3.0, (1, 2)), x)
    target = torch.ones_like(x)
    (gradient,) = torch.autograd.grad((rescale_norm(x, 3.0, (1, 2)) - target).square().sum(), x)
    along = (gradient * x).sum((1, 2))
    assert along[0].abs().item() < 1e-6  # clamped: at a right angle to the sample, which is why it drifts
    assert along[1].abs().item() > 0.1


def test_it_says_what_it_cannot_take():
    with pytest.raises(UserError, match="expected a tensor of floats, got int64"):
        rescale_norm(torch.ones(2, 2, dtype=torch.long), 1.0, 1)
    with pytest.raises(UserError, match="max_norm is NaN"):
        rescale_norm(torch.ones(2, 2), math.nan, 1)


# --- the penalty ----------------------------------------------------------------------------------


def test_the_penalty_is_of_the_excess_alone():
    raw = torch.tensor([0.2, 0.5, 2.5], requires_grad=True)
    penalty = norm_excess_penalty(raw, 0.5)
    penalty.backward()
    assert penalty.item() == pytest.approx(4 / 3)
    assert raw.grad.tolist() == pytest.approx([0.0, 0.0, 4 / 3])


def test_on_the_raw_samples_it_has_a_gradient_where_the_clamp_is_at_work_and_after_the_clamp_none():
    x = deltas(10.0, 20.0, dtype=torch.float64).requires_grad_()
    (raw,) = torch.autograd.grad(norm_excess_penalty(x, 0.8, dims=(1, 2)), x)
    (late,) = torch.autograd.grad(norm_excess_penalty(rescale_norm(x, 1.0, (1, 2)), 0.8, dims=(1, 2)), x)
    assert raw.norm().item() > 1
    assert late.norm().item() < 1e-7


def test_without_samples_it_is_zero():
    assert norm_excess_penalty(torch.empty(0, 4, 3), 0.5, dims=(1, 2)).item() == 0
    with pytest.raises(UserError, match="tau must be 0 or more"):
        norm_excess_penalty(torch.ones(2), -1)


def drift(weight, *, steps=500):
    """Return the raw norm after each step of Adam, the mean of 4 clamped samples that are pulled to noisy targets."""
    generator = torch.Generator().manual_seed(0)
    raw = deltas(3.0, 3.0, 3.0, 3.0).requires_grad_()
    center = torch.randn(raw.shape, generator=generator)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    history = []
    for _ in range(steps):
        target = center + torch.randn(raw.shape, generator=generator)
        loss = (rescale_norm(raw, 1.0, (1, 2)) - target).square().mean()
        loss = loss + weight * norm_excess_penalty(raw, 0.8, dims=(1, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(norms(raw.detach()).mean().item())
    return history


def test_a_clamp_alone_drifts_and_with_the_penalty_it_does_not():
    alone, held = drift(0.0), drift(0.2)
    assert all(later > before for before, later in pairwise(alone[::50]))
    assert alone[-1] > 1.5 * 3.0
    assert held[-1] < 1.1


def test_a_weight_of_zero_is_as_if_it_were_not_there():
    x = deltas(10.0, 0.5).requires_grad_()
    (plain,) = torch.autograd.grad(rescale_norm(x, 1.0, (1, 2)).square().sum(), x)
    loss = rescale_norm(x, 1.0, (1, 2)).square().sum() + 0.0 * norm_excess_penalty(x, 0.5, dims=(1, 2))
    assert torch.equal(torch.autograd.grad(loss, x)[0], plain)


# --- what it tells --------------------------------------------------------------------------------


def test_the_summary_is_that_of_numpy():
    stats, seen, owners = NormStats(top=5), [], []
    generator = np.random.default_rng(0)
    for batch in range(7):
        sizes = generator.gamma(2.0, size=(9, 3)).astype(np.float32)
        ids = generator.integers(0, 1000, size=9) + 1000 * batch
        x = torch.from_numpy(sizes).view(9, 3, 1) * torch.tensor([0.6, 0.8])
        rescale_norm(x, 2.5, -1, stats=stats, ids=torch.from_numpy(ids))
        seen.append(np.linalg.norm(x.numpy(), axis=-1).ravel())
        owners.append(np.repeat(ids, 3))
    norm, owner = np.concatenate(seen).astype(np.float64), np.concatenate(owners)
    found = stats.compute()
    assert (found.count, found.not_finite) == (189, 0)
    assert found.mean == pytest.approx(norm.mean(), rel=1e-6)
    assert found.p50 == pytest.approx(np.quantile(norm, 0.5), rel=1e-6)
    assert found.p95 == pytest.approx(np.quantile(norm, 0.95), rel=1e-6)
    assert found.max == pytest.approx(norm.max(), rel=1e-6)
    assert found.hit_rate == pytest.approx((norm > 2.5).mean())
    order = np.argsort(-norm)[:5]
    assert [one for one, _ in found.top] == owner[order].tolist()
    assert [size for _, size in found.top] == pytest.approx(norm[order].tolist(), rel=1e-6)


def test_one_outlier_moves_the_maximum_and_hardly_the_mean():
    sizes = [1.0] * 32
    calm, wild = NormStats(), NormStats(top=1)
    calm.add(torch.tensor(sizes))
    sizes[17] = 50.0
    wild.add(torch.tensor(sizes))
    assert wild.compute().mean < 3 * calm.compute().mean
    assert wild.compute().max > 40 * wild.compute().p50
    assert wild.compute().top == ((17, 50.0),)


def test_a_ring_keeps_the_latest_for_the_quantiles_and_everything_for_the_rest():
    stats = NormStats(top=2, keep=300)
    values = torch.arange(1000.0).flip(0)
    for part in values.split([7, 250, 300, 43, 400]):
        stats.add(part, max_norm=899.5)
    found = stats.compute()
    assert found.p50 == pytest.approx(149.5)
    assert (found.count, found.max) == (1000, 999.0)
    assert found.mean == pytest.approx(499.5)
    assert found.hit_rate == pytest.approx(0.1)
    assert found.top == ((0, 999.0), (1, 998.0))


def test_a_batch_larger_than_the_ring_leaves_its_latest():
    stats = NormStats(keep=4)
    stats.add(torch.arange(10.0))
    stats.add(torch.tensor([100.0, 100.0]))
    assert stats.compute().p50 == pytest.approx((9 + 100) / 2)  # of 8, 9, 100, 100


def test_what_is_not_finite_is_counted_apart_and_stands_first():
    stats = NormStats(top=3)
    stats.add(torch.tensor([1.0, math.nan, 3.0, math.inf]), max_norm=2.0, ids=[10, 11, 12, 13])
    found = stats.compute()
    assert (found.count, found.not_finite, found.mean, found.p50, found.max) == (4, 2, 2.0, 2.0, 3.0)
    assert found.hit_rate == 0.5
    assert {one for one, _ in found.top[:2]} == {11, 13}
    assert found.top[2] == (12, 3.0)


def test_nothing_seen_is_not_a_number():
    found = NormStats().compute()
    assert found.count == 0
    assert all(math.isnan(value) for value in (found.mean, found.p50, found.p95, found.max))


def test_reset_begins_anew():
    stats = NormStats()
    stats.add(torch.ones(3), max_norm=0.5)
    stats.reset()
    stats.add(torch.full((2,), 7.0))
    assert (stats.compute().count, stats.compute().mean, stats.compute().hit_rate) == (2, 7.0, 0.0)


def test_adding_waits_for_nothing():
    stats = NormStats()
    stats.add(torch.ones(300, device="meta"), max_norm=0.5, ids=torch.arange(300, device="meta"))  # a read would raise


def test_a_state_goes_on_where_it_was():
    one, other = NormStats(top=3, keep=10), NormStats(top=3, keep=10)
    one.add(torch.rand(8, generator=torch.Generator().manual_seed(0)), max_norm=0.5)
    other.load_state_dict(one.state_dict())
    for stats in (one, other):
        stats.add(torch.linspace(0, 2, 7), max_norm=0.5)
    assert one.compute() == other.compute()
    with pytest.raises(UserError, match="use the same keep"):
        NormStats(keep=5).load_state_dict(one.state_dict())


def test_ids_must_fit():
    with pytest.raises(UserError, match=r"2 ids for norms of shape \(3,\)"):
        NormStats().add(torch.ones(3), ids=[1, 2])
    with pytest.raises(UserError, match="expected top >= 0"):
        NormStats(top=-1)
