"""Each term is zero where nothing is wrong, and each says what it says it does."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_systems.ternary.data import LEVELS, operations
from trimtab_systems.ternary.losses import (
    NEEDED_NATS,
    divergence,
    divergence_loss,
    divergence_of_sample,
    even_bands,
    radius_losses,
    ramp,
    reconstructed,
    reconstruction_loss,
    wide_bands,
)
from trimtab_systems.ternary.model import Code

BANDS = even_bands(0.9, 0.1, 0.35)


def levels_of(levels):
    return torch.nn.functional.one_hot(torch.tensor(levels), LEVELS).float()


def radial(shares, levels, kind="band", bands=BANDS):
    return float(radius_losses(torch.tensor(shares), levels_of(levels), bands, kind, 0.6)[0])


def spread(share, level_BL, bands=BANDS):
    return radius_losses(share, level_BL, bands, "band", 0.6)[1]


def slow(share, level, bands, kind, part):
    """Both terms, level by level in float64, as the definition has them."""
    radial, missing = [], []
    for k in sorted(set(level)):
        rows = torch.tensor([s for s, of in zip(share, level, strict=True) if of == k]).double()
        off = rows - bands.middle[k].double()
        each = {
            "band": (off.abs() - bands.half[k].double()).clamp_min(0).square().mean(),
            "point": off.square().mean(),
            "mean": off.mean().square(),
        }[kind]
        radial.append(each / bands.gap**2)
        if len(rows) > 1:
            missing.append((1 - rows.std(correction=0) / (part * bands.half[k].double())).clamp_min(0).square())
    return float(sum(radial) / len(radial)), float(sum(missing) / len(missing)) if missing else 0.0


def code_of(mean, sigma):
    return Code(torch.tensor(mean), torch.tensor(sigma).log(), torch.zeros(len(mean)))


def test_bands_fall_without_touching():
    for bands in (BANDS, wide_bands(BANDS.gap)):
        lower, upper = bands.middle - bands.half, bands.middle + bands.half
        assert bool((lower[:-1] > upper[1:]).all())
        assert float(lower.min()) > 0
        assert float(upper.max()) < 0.95
    assert (float(BANDS.middle[0]), float(BANDS.middle[-1])) == pytest.approx((0.9, 0.1))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0.01, 0.95)), min_size=1, max_size=20),
    st.sampled_from(["band", "point", "mean"]),
    st.sampled_from([BANDS, wide_bands(BANDS.gap)]),
)
def test_sums_over_levels_give_what_the_definition_gives(rows, kind, bands):
    level, share = [level for level, _ in rows], [share for _, share in rows]
    both = radius_losses(torch.tensor(share), levels_of(level), bands, kind, 0.6)
    radial, missing = slow(share, level, bands, kind, 0.6)
    assert float(both[0]) == pytest.approx(radial, rel=1e-4, abs=1e-6)
    assert float(both[1]) == pytest.approx(missing, abs=0.03)  # float32 far outside a narrow band; a hundredth of it


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-0.99, 0.99)), min_size=1, max_size=20))
def test_the_band_term_is_flat_inside_the_bands_and_nowhere_else(rows):
    levels = [level for level, _ in rows]
    inside = [float(BANDS.middle[level] + place * BANDS.half[level]) for level, place in rows]
    assert radial(inside, levels) == pytest.approx(0.0, abs=1e-9)
    outside = [share + 2 * BANDS.gap for share in inside]
    assert radial(outside, levels) > 1.0
    assert radial(inside, levels, "point") <= 0.35**2


def test_each_level_counts_alike_however_many_rows_it_has():
    right, wrong = float(BANDS.middle[0]), float(BANDS.middle[3]) + BANDS.gap * 1.35
    assert radial([right] * 9 + [wrong], [0] * 9 + [3]) == pytest.approx(0.5, rel=1e-4)
    assert radial([right] + [wrong] * 9, [0] + [3] * 9) == pytest.approx(0.5, rel=1e-4)


def test_level_means_are_content_with_rows_in_the_wrong_order():
    """The fault of the write-up: the mean is right, no single radius is."""
    middle, gap = float(BANDS.middle[1]), BANDS.gap
    shares, levels = [middle - 3 * gap, middle + 3 * gap], [1, 1]
    assert radial(shares, levels, "mean") == pytest.approx(0.0, abs=1e-9)
    assert radial(shares, levels, "band") > 5
    assert radial([0.3, 0.3], levels, "none") == 0.0


def test_the_spread_is_a_floor():
    level_BL = levels_of([0] * 50 + [4])
    asked = 0.6 * float(BANDS.half[0])
    wide = torch.full((51,), 0.9) + torch.linspace(-2, 2, 51) * asked
    assert float(spread(wide, level_BL)) == 0.0
    assert float(spread(torch.full((51,), 0.9), level_BL)) == pytest.approx(1.0, abs=2e-3)
    share = torch.full((51,), 0.9, requires_grad=True)
    spread(share, level_BL).backward()
    assert bool(share.grad.isfinite().all())


def test_the_divergence_is_that_of_two_normal_distributions():
    code = code_of([[0.3, -1.0], [0.0, 0.5]], [[0.1, 0.4], [0.5, 2.0]])
    here = torch.distributions.Normal(code.mean, code.log_sigma.exp())
    exact = torch.distributions.kl_divergence(here, torch.distributions.Normal(0.0, 0.5))
    assert torch.allclose(divergence(code, 0.5), exact, atol=1e-5)
    assert float(divergence_loss(exact, 0.0)) == pytest.approx(float(exact.sum(1).mean()))
    assert float(divergence_loss(exact, 1e3)) == 0.0


def test_the_estimate_of_the_wrapped_divergence_is_right_on_average_at_the_origin():
    """There the wrapped posterior is the one at the origin, whose divergence is known."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 3, generator=generator)
    code = Code(torch.zeros(20_000, 3), torch.full((20_000, 3), math.log(0.2)), torch.zeros(20_000))
    estimate = divergence_of_sample(code, noise, 0.2 * noise, 0.5, 1.0)
    assert estimate.shape == (20_000, 1)
    assert float(estimate.mean()) == pytest.approx(float(divergence(code, 0.5).sum(1)[0]), abs=0.03)


def test_blind_guesses_cost_what_a_code_must_carry():
    digits = operations().digits[:50]
    assert float(reconstruction_loss(torch.zeros(50, 3, 9), digits)) == pytest.approx(NEEDED_NATS, rel=1e-5)
    assert pytest.approx(9.888, abs=1e-3) == NEEDED_NATS


def test_a_row_is_reconstructed_when_all_its_digits_are():
    digits = operations().digits[[0, 19_000]]
    logits = torch.nn.functional.one_hot(digits, 3).float().mT.clone()
    assert reconstructed(logits, digits).tolist() == [True, True]
    logits[1, :, 8] = torch.tensor([0.0, 0.0, 1.0]) if digits[1, 8] != 2 else torch.tensor([1.0, 0.0, 0.0])
    assert reconstructed(logits, digits).tolist() == [True, False]


@pytest.mark.parametrize(
    ("done", "begin", "length", "share"),
    [(0.0, 0.0, 0.3, 0.0), (0.15, 0.0, 0.3, 0.5), (0.4, 0.0, 0.3, 1.0), (0.3, 0.4, 0.0, 0.0), (0.4, 0.4, 0.0, 1.0)],
)
def test_a_ramp_goes_up_in_a_straight_line(done, begin, length, share):
    assert ramp(done, begin, length) == pytest.approx(share)
