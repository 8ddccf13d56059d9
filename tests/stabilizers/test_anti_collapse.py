"""The anti-collapse terms: what each is worth on collapsed and on healthy inputs, and where its gradient is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.stabilizers import (
    entropy_floor,
    free_bits,
    normalised_entropy,
    orthogonality_penalty,
    orthogonality_projection,
    saturation_hinge,
    sparsity_target,
    spread_across_tasks,
    usage_weighted_cosine,
)


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(term, x):
    x = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(term(x), x)
    assert bool(found.isfinite().all())
    return found


# --- entropy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [2, 9, 36, 900])
def test_normalised_entropy_means_the_same_on_every_size(cells):
    uniform, sharp = torch.full((cells,), 1 / cells), torch.eye(cells)[0]
    assert normalised_entropy(uniform).item() == pytest.approx(1, abs=1e-5)
    assert normalised_entropy(sharp).item() == pytest.approx(0, abs=1e-5)


def test_normalised_entropy_is_over_the_valid_cells():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    weights = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert normalised_entropy(weights, mask).tolist() == pytest.approx([1, 0, 0])
    assert normalised_entropy(weights.T, mask.T, dim=0).tolist() == pytest.approx([1, 0, 0])


def test_entropy_floor_is_what_is_missing():
    weights = torch.softmax(rand(4, 6) * 2, -1)
    entropy = normalised_entropy(weights)
    assert entropy_floor(weights, 0.9).item() == pytest.approx((0.9 - entropy).clamp_min(0).mean().item())
    assert entropy_floor(torch.full((4, 6), 1 / 6), 1.0).item() == pytest.approx(0, abs=1e-6)
    assert entropy_floor(torch.eye(6), 0.7).item() == pytest.approx(0.7, abs=1e-6)


def test_entropy_floor_leaves_out_rows_without_a_choice():
    mask = torch.tensor([[True, True], [True, False]])
    sharp = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert entropy_floor(sharp, 0.5, mask).item() == pytest.approx(0.5)
    assert entropy_floor(sharp[:, :1], 0.5).item() == 0
    assert entropy_floor(sharp, 0.5, torch.zeros(2, 2, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_entropy_floor_pushes_a_sharp_softmax_apart_and_is_finite_where_it_is_exactly_one_hot(dtype):
    pushed = gradient(lambda x: entropy_floor(torch.softmax(x, -1), 0.9), torch.tensor([6.0, 0.0, 0.0], dtype=dtype))
    assert pushed[0] > 0
    assert pushed[1] < 0
    gradient(lambda x: entropy_floor(x, 0.9), torch.eye(3, dtype=dtype))


def test_entropy_floor_above_its_floor_has_no_gradient():
    assert not gradient(lambda x: entropy_floor(torch.softmax(x, -1), 0.5), 0.1 * rand(3, 5)).any()


# --- usage-weighted cosine ------------------------------------------------------------------------


def uniform_maps(examples, count, height, width):
    return torch.full((examples, count, height, width), 1 / (height * width))


def sharp_maps(*cells, size=900):
    return torch.eye(size)[list(cells)].unsqueeze(0)


def test_identical_maps_give_one_and_disjoint_ones_zero():
    assert usage_weighted_cosine(uniform_maps(2, 3, 30, 30)).item() == pytest.approx(1, abs=1e-5)
    assert usage_weighted_cosine(sharp_maps(7, 7, 7)).item() == pytest.approx(1)
    assert usage_weighted_cosine(sharp_maps(7, 8, 9)).item() == 0
    assert usage_weighted_cosine(uniform_maps(2, 1, 5, 5)).item() == 0


def test_uniform_maps_are_worse_than_sharp_ones_though_their_plain_overlap_is_tiny():
    uniform, sharp = uniform_maps(1, 3, 30, 30), sharp_maps(1, 2, 3)
    plain = (uniform[0, 0] * uniform[0, 1]).sum().item()
    assert plain == pytest.approx(1 / 900, rel=1e-4)
    assert usage_weighted_cosine(uniform).item() - usage_weighted_cosine(sharp).item() > 0.9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_a_map_that_is_not_used_changes_nothing(seed, count):
    maps, usage = rand(2, count, 9, seed=seed).exp(), rand(2, count, seed=seed + 1).sigmoid()
    more, less = rand(2, 1, 9, seed=seed + 2).exp(), torch.zeros(2, 1, dtype=torch.float64)
    before = usage_weighted_cosine(maps, usage).item()
    assert 0 <= before <= 1 + 1e-12
    after = usage_weighted_cosine(torch.cat([maps, more], 1), torch.cat([usage, less], 1)).item()
    assert after == pytest.approx(before, rel=1e-12)


def test_saturated_gates_leave_its_gradient_as_it_is():
    maps = rand(2, 4, 25).exp()

    def pull(logit):
        usage = 1 - torch.sigmoid(torch.full((2, 4), logit, dtype=torch.float64))
        return gradient(lambda x: usage_weighted_cosine(x, usage), maps).norm().item()

    assert pull(-3.1) > 0
    assert pull(3.1) == pytest.approx(pull(-3.1))
    assert pull(14.0) == pytest.approx(pull(-3.1))


def test_the_gradient_goes_through_the_usage_only_when_asked():
    maps, usage = rand(2, 4, 25).exp(), rand(2, 4).sigmoid().requires_grad_()
    assert not usage_weighted_cosine(maps, usage).requires_grad
    assert gradient(lambda u: usage_weighted_cosine(maps, u, through_usage=True), usage).any()


def test_nothing_used_is_zero_and_an_empty_map_gives_no_wild_gradient():
    maps = torch.zeros(1, 3, 4)
    maps[0, 0] = 1
    assert usage_weighted_cosine(maps, torch.zeros(1, 3)).item() == 0
    assert gradient(usage_weighted_cosine, maps).abs().max().item() < 1


# --- how many are used ----------------------------------------------------------------------------


def test_sparsity_target_is_zero_in_its_range():
    usage = torch.tensor([[0.2, 0.2, 0.1], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]])
    assert sparsity_target(usage, 1.0, 2.0).item() == pytest.approx((0.25 + 0 + 1) / 3)
    pull = gradient(lambda x: sparsity_target(x, 1.0, 2.0), usage)
    assert bool((pull[0] < 0).all())
    assert not pull[1].any()
    assert bool((pull[2] > 0).all())


# --- orthogonality --------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.permutations(range(5)))
def test_what_is_projected_is_orthogonal_to_every_slot_whatever_their_order(seed, count, order):
    slots, content = rand(2, 5, 12, seed=seed)[:, :count], rand(2, 7, 12, seed=seed + 1)
    left = orthogonality_projection(content, slots)
    assert (left @ slots.mT).abs().max().item() < 1e-10
    shuffled = slots[:, [place for place in order if place < count]]
    torch.testing.assert_close(orthogonality_projection(content, shuffled), left)
    torch.testing.assert_close(orthogonality_projection(left, slots), left)
    assert orthogonality_penalty(slots, left).item() < 1e-18


def test_dependent_and_empty_slots_take_nothing_more_away():
    slots, content = rand(1, 2, 12), rand(1, 7, 12, seed=1)
    more = torch.cat([slots, slots.sum(1, keepdim=True), torch.zeros(1, 1, 12, dtype=torch.float64)], 1)
    torch.testing.assert_close(orthogonality_projection(content, more), orthogonality_projection(content, slots))
    nothing = torch.zeros(1, 2, 12, dtype=torch.float64)
    assert torch.equal(orthogonality_projection(content, nothing), content)


def test_no_gradient_goes_through_the_basis():
    slots, content = rand(1, 2, 6).requires_grad_(), rand(1, 3, 6, seed=1).requires_grad_()
    left = orthogonality_projection(content, slots)
    left.square().sum().backward()
    assert slots.grad is None
    assert (content.grad @ slots.mT).abs().max().item() < 1e-12


def test_orthogonality_projection_in_bfloat16():
    left = orthogonality_projection(rand(7, 32).bfloat16(), rand(4, 32, seed=1).bfloat16())
    assert left.dtype == torch.bfloat16
    assert orthogonality_penalty(rand(4, 32, seed=1), left.double()).item() < 1e-4


def test_the_penalty_is_the_mean_squared_cosine_of_valid_pairs():
    slots = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    content = torch.tensor([[2.0, 0.0], [1.0, 1.0], [9.0, 9.0]])
    assert orthogonality_penalty(slots, content[:2]).item() == pytest.approx((1 + 0 + 0.5 + 0.5) / 4)
    mask = torch.tensor([True, True, False])
    assert orthogonality_penalty(slots, content, content_mask=mask).item() == pytest.approx(0.5)
    first = torch.tensor([True, False])
    assert orthogonality_penalty(slots, content, first, mask).item() == pytest.approx(0.75)
    assert orthogonality_penalty(slots, content, torch.tensor([False, False])).item() == 0
    assert gradient(lambda x: orthogonality_penalty(slots, x), content).any()


def test_it_sees_pairs_that_agree_while_the_means_do_not():
    slots = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert slots.mean(0).tolist() == [0, 0]
    assert orthogonality_penalty(slots, slots).item() == 1


def test_empty_vectors_give_no_wild_gradient():
    assert gradient(lambda x: orthogonality_penalty(torch.ones(2, 4), x), torch.zeros(3, 4)).abs().max().item() == 0


# --- saturation -----------------------------------------------------------------------------------


def test_saturation_hinge_is_the_mean_excess():
    logits = torch.tensor([-5.0, 2.9, 3.0, 4.0])
    assert saturation_hinge(logits).item() == pytest.approx(3 / 4)
    assert saturation_hinge(logits, mask=torch.tensor([True, True, True, False])).item() == pytest.approx(2 / 3)
    assert gradient(saturation_hinge, logits).tolist() == [-0.25, 0, 0, 0.25]


# --- spread ---------------------------------------------------------------------------------------


def test_spread_is_that_of_the_means_of_the_tasks():
    values = torch.tensor([1.0, 3.0, 2.0, 2.0, 5.0, 5.0])
    tasks = torch.tensor([7, 7, 3, 3, 11, 11])
    spread = torch.tensor([2.0, 2.0, 5.0]).std().item()
    assert spread_across_tasks(values, tasks, floor=3.0).item() == pytest.approx(3 - spread)
    assert spread_across_tasks(values, tasks, floor=1.0).item() == 0
    assert spread_across_tasks(values, floor=5.0).item() == pytest.approx(5 - values.std().item())


def test_spread_within_tasks_does_not_count():
    values = torch.tensor([0.0, 4.0, 0.0, 4.0])
    assert values.var().item() > 4
    assert spread_across_tasks(values, torch.tensor([0, 0, 1, 1])).item() == 0.5


def test_the_gradient_spreads_tasks_and_is_zero_where_all_are_the_same():
    tasks = torch.tensor([0, 0, 1, 1])
    pull = gradient(lambda x: spread_across_tasks(x, tasks, floor=2.0), torch.tensor([1.0, 1.1, 1.2, 1.3]))
    assert bool((pull[:2] > 0).all())
    assert bool((pull[2:] < 0).all())
    assert not gradient(lambda x: spread_across_tasks(x, tasks, floor=2.0), torch.ones(4)).any()


@pytest.mark.parametrize("tasks", [[4], [4, 4, 4]])
def test_one_task_alone_says_nothing(tasks):
    values = torch.arange(float(len(tasks)))
    assert spread_across_tasks(values, torch.tensor(tasks)).item() == 0
    assert not gradient(lambda x: spread_across_tasks(x, torch.tensor(tasks)), values).any()
    assert spread_across_tasks(torch.empty(0)).item() == 0


# --- free bits ------------------------------------------------------------------------------------


def test_free_bits_by_dimension_and_in_total():
    kl = torch.tensor([[0.0, 2.0, 0.3], [1.0, 4.0, 0.1]])
    assert free_bits(kl, 0.4).item() == pytest.approx(0.1 + 2.6)
    assert free_bits(kl, 3.0, per="total").item() == pytest.approx((0 + 2.1) / 2)
    for per in ("dimension", "total"):
        assert free_bits(kl, 0.0, per=per).item() == pytest.approx(kl.sum(1).mean().item())


def test_below_what_is_free_there_is_no_gradient_and_above_it_is_that_of_the_divergence():
    kl = torch.tensor([[0.0, 2.0], [1.0, 4.0]])
    assert gradient(lambda x: free_bits(x, 1.0), kl).tolist() == [[0, 0.5], [0, 0.5]]
    assert gradient(lambda x: free_bits(x, 3.0, per="total"), kl).tolist() == [[0, 0], [0.5, 0.5]]


# --- what they cannot take ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: entropy_floor(torch.ones(3) / 3, 1.5), r"in \[0, 1\], got 1.5"),
        (lambda: entropy_floor(torch.ones(3) / 3, 0.5, torch.ones(3)), "expected a boolean mask"),
        (lambda: usage_weighted_cosine(torch.ones(3, 4)), r"expected maps \(B, K, ...\)"),
        (lambda: usage_weighted_cosine(torch.ones(2, 3, 4), torch.ones(2, 4)), r"usage \(2, 4\)"),
        (lambda: sparsity_target(torch.ones(2, 3), 2, 1), "low=2, high=1"),
        (lambda: orthogonality_projection(torch.ones(2, 3), torch.ones(3, 3)), "nothing would be left"),
        (lambda: orthogonality_projection(torch.ones(2, 3), torch.ones(1, 4)), "slots .1, 4. and content .2, 3."),
        (lambda: orthogonality_penalty(torch.ones(1, 3), torch.ones(2, 3), torch.ones(1)), "expected a boolean mask"),
        (lambda: saturation_hinge(torch.ones(2), -1), "limit must be 0 or more"),
        (lambda: spread_across_tasks(torch.ones(2, 2)), r"values \(2, 2\)"),
        (lambda: spread_across_tasks(torch.ones(2), floor=math.nan), "floor must be 0 or more"),
        (lambda: free_bits(torch.ones(3), 1.0), r"\(B, D\), got \(3,\)"),
        (lambda: free_bits(torch.ones(3, 2), -1.0), "0 nats or more"),
        (lambda: free_bits(torch.ones(3, 2), 1.0, per="batch"), "'dimension' or 'total'"),
    ],
)
def test_it_says_what_it_cannot_take(call, says):
    with pytest.raises(UserError, match=says):
        call()
