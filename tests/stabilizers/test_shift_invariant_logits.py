"""shift_invariant_logits: an offset common to all scores of a row changes nothing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.stabilizers import shift_invariant_logits


def scores_and_mask(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    scores = (4 * torch.randn(3, 5, 25, generator=generator, dtype=torch.float64)).mul(1024).round() / 1024
    mask = torch.rand(3, 1, 25, generator=generator) < 0.7
    return scores.to(dtype), mask


def attention(scores, mask, limit=50.0):
    return torch.softmax(shift_invariant_logits(scores, mask, limit), -1)


def clamped(scores, mask, limit=50.0, temperature=0.5):
    """The attention as the write-up has it: the raw scores are clamped before and after the temperature."""
    scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax((scores.clamp(-limit, limit) / temperature).clamp(-limit, limit), -1)


def gradient_norm(attend, scores, mask):
    scores = scores.detach().clone().requires_grad_()
    values = torch.linspace(-1, 1, scores.shape[-1], dtype=scores.dtype)
    (gradient,) = torch.autograd.grad((attend(scores, mask) @ values).square().sum(), scores)
    return gradient.norm().item()


@settings(max_examples=40, deadline=None)
@given(st.integers(-200, 200), st.sampled_from([torch.float32, torch.float64]))
def test_a_common_offset_changes_neither_attention_nor_gradient(offset, dtype):
    scores, mask = scores_and_mask(dtype)
    moved = scores + offset  # exact: the scores lie on a grid
    assert (attention(moved, mask) - attention(scores, mask)).abs().max().item() < 1e-6
    expected = gradient_norm(attention, scores, mask)
    assert gradient_norm(attention, moved, mask) == pytest.approx(expected, rel=1e-6)


def test_a_clamp_of_the_raw_scores_does_change_them():
    scores, mask = scores_and_mask()
    sharp = clamped(scores, mask)
    dead = clamped(scores + 70, mask)
    assert (sharp - dead).abs().max().item() > 0.3
    assert gradient_norm(clamped, scores + 70, mask) == 0
    assert gradient_norm(attention, scores + 70, mask) > 0


def trained():
    """The scores of a sharp attention over a 10 x 10 grid, and a mask that hides nothing."""
    scores = 1.5 * torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores[7] = scores.max() + 3
    return scores, torch.ones(100, dtype=torch.bool)


@pytest.mark.parametrize(
    ("offset", "peak"), [(0, 0.993), (10, 0.993), (20, 0.623), (25, 0.017), (30, 0.01), (60, 0.01)]
)
def test_a_sharp_attention_becomes_uniform_and_dies_at_an_offset_that_changes_nothing_here(offset, peak):
    scores, mask = trained()

    def ours(scores, mask):
        return attention(scores / 0.5, mask)

    assert clamped(scores + offset, mask).max().item() == pytest.approx(peak, abs=1e-3)
    assert ours(scores + offset, mask).max().item() == pytest.approx(0.993, abs=1e-3)
    assert (gradient_norm(clamped, scores + offset, mask) == 0) == (peak == 0.01)
    assert gradient_norm(ours, scores + offset, mask) > 0


def test_valid_logits_lie_between_minus_the_limit_and_zero_and_the_best_is_zero():
    scores, mask = scores_and_mask()
    logits = shift_invariant_logits(100 * scores, mask, 50)
    valid = logits[mask.expand_as(logits)]
    assert (valid.min().item(), valid.max().item()) == (-50, 0)
    assert bool(logits[~mask.expand_as(logits)].isneginf().all())
    assert bool((logits.amax(-1) == 0).all())


def test_the_softmax_and_its_gradient_are_those_of_the_scores_themselves():
    scores, mask = scores_and_mask()

    def plain(scores, mask):
        return torch.softmax(scores.masked_fill(~mask, -math.inf), -1)

    torch.testing.assert_close(attention(scores, mask, None), plain(scores, mask))
    assert gradient_norm(lambda s, m: attention(s, m, None), scores, mask) == pytest.approx(
        gradient_norm(plain, scores, mask)
    )


def test_the_subtracted_maximum_is_a_constant():
    scores = torch.tensor([3.0, 1.0, -80.0], requires_grad=True)
    shift_invariant_logits(scores, limit=50).sum().backward()
    assert scores.grad.tolist() == [1, 1, 0]


def test_a_row_without_a_valid_cell_is_uniform_and_without_gradient():
    scores = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.tensor([[True, True, False, True], [False] * 4])
    weights = attention(scores, mask)
    weights.square().sum().backward()
    assert weights[1].tolist() == [0.25] * 4
    assert scores.grad[1].tolist() == [0.0] * 4
    assert bool(scores.grad.isfinite().all())


def test_a_score_of_minus_infinity_is_masked_too():
    scores = torch.tensor([[2.0, -math.inf, 1.0], [-math.inf] * 3], requires_grad=True)
    logits = shift_invariant_logits(scores, limit=50)
    assert logits[0].tolist() == [0, -math.inf, -1]
    assert logits[1].tolist() == [0, 0, 0]
    torch.softmax(logits, -1).square().sum().backward()
    assert bool(scores.grad.isfinite().all())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_score_is_not_hidden_unless_it_is_masked(bad):
    scores = torch.tensor([[bad, 1.0, 2.0]])
    assert attention(scores, None).isnan().all()
    hidden = attention(scores, torch.tensor([[False, True, True]]))
    assert hidden[0, 0] == 0
    assert hidden.sum().item() == pytest.approx(1)


def test_another_dimension():
    scores, _ = scores_and_mask()
    assert torch.equal(shift_invariant_logits(scores, dim=1).amax(1), torch.zeros(3, 25, dtype=torch.float64))


def test_it_says_what_it_cannot_take():
    with pytest.raises(UserError, match="expected a boolean mask"):
        shift_invariant_logits(torch.ones(3), torch.zeros(3))
    with pytest.raises(UserError, match="limit is NaN"):
        shift_invariant_logits(torch.ones(3), limit=math.nan)
