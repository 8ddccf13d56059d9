"""A score depends on distance alone, for each kind of position, however the tokens come; only training is noisy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import ConfigError
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.positions import EVALUATED, PositionEncoding, alibi_slopes, relative_bucket, rotate


def positions(kind="rotary", both_sides=True, **settings):
    settings = {"width": 32, "heads": 4, "binding_heads": 4, "positions": kind, **settings}
    return PositionEncoding(WriteUpConfig(**settings), both_sides=both_sides)


def scores(encoding, query_ND, key_ND, shift):
    where = encoding.where(torch.arange(len(query_ND)) + float(shift))
    return rotate(query_ND, where) @ rotate(key_ND, where).T


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(0, 300), seed=st.integers(0, 9), width=st.sampled_from([32, 96]))
def test_a_rotated_score_depends_on_the_distance_alone(shift, seed, width):
    encoding = positions(width=width, heads=1, binding_heads=1)
    query_ND, key_ND = torch.randn(2, 7, width, generator=torch.Generator().manual_seed(seed))
    here, there = scores(encoding, query_ND, key_ND, 0), scores(encoding, query_ND, key_ND, shift)
    assert torch.allclose(here, there, atol=2e-3)
    assert not torch.allclose(here, query_ND @ key_ND.T, atol=0.1)


def test_rotation_turns_pairs_and_leaves_what_is_wider_than_it():
    where = positions(width=96, heads=1, binding_heads=1, rotary_width=64).where(torch.tensor([0.0, 1.0]))
    x_ND = torch.zeros(2, 96)
    x_ND[:, [0, 95]] = 1.0
    turned_ND = rotate(x_ND, where)
    assert torch.equal(turned_ND[0], x_ND[0])
    assert turned_ND[1, :2].tolist() == pytest.approx([0.5403, 0.8415], abs=1e-4)  # cos 1, sin 1
    assert torch.equal(turned_ND[:, 64:], x_ND[:, 64:])


@pytest.mark.parametrize(
    ("heads", "powers"),
    [(8, range(-1, -9, -1)), (4, [-2, -4, -6, -8]), (1, [-8]), (6, [-2, -4, -6, -8, -1, -3])],
)
def test_alibi_slopes_fall_by_a_constant_factor_and_interleave_for_odd_counts(heads, powers):
    assert alibi_slopes(heads).tolist() == [2.0**power for power in powers]


def test_alibi_takes_slope_times_distance_off_the_score():
    bias_HQK = positions("alibi").where(torch.arange(5.0)).bias_HQK
    assert bias_HQK[0, 4].tolist() == [-1.0, -0.75, -0.5, -0.25, 0.0]
    assert bias_HQK[1, 0].tolist() == [0.0, -0.0625, -0.125, -0.1875, -0.25]


def test_buckets_are_exact_near_by_logarithmic_further_and_one_at_the_end():
    distance = torch.tensor([-600, -512, -7, -1, 0, 1, 7, 8, 512, 600])
    assert relative_bucket(distance, 32, 512, both_sides=True).tolist() == [15, 15, 7, 1, 0, 17, 23, 24, 31, 31]
    assert relative_bucket(distance, 32, 512, both_sides=False).tolist() == [31, 31, 7, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.slow  # the import alone takes seconds
@pytest.mark.parametrize("both_sides", [True, False])
def test_buckets_are_those_of_a_t5(both_sides):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = torch.arange(-600, 601)
    theirs = t5.T5Attention._relative_position_bucket(distance, both_sides, 32, 512)
    assert torch.equal(relative_bucket(distance, 32, 512, both_sides=both_sides), theirs)


@pytest.mark.parametrize("kind", ["rotary", "alibi", "relative_bias"])
def test_tokens_that_come_later_stand_where_they_would_all_at_once(kind):
    encoding = positions(kind, both_sides=False)
    places = encoding.places(9, exact=True)
    whole, late = encoding.where(places), encoding.where(places, new=2)
    if kind == "rotary":
        assert torch.equal(late.turn_NR, whole.turn_NR[-2:])
    else:
        assert torch.equal(late.bias_HQK, whole.bias_HQK[:, -2:])


def test_noise_is_drawn_in_training_from_the_given_generator():
    encoding = positions(position_noise=0.01)
    drawn = [encoding.places(200, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert 0.008 < (drawn[0] - torch.arange(200)).std() < 0.012


@pytest.mark.parametrize("settings", [{}, {"randomised_positions": True}])
def test_an_evaluation_draws_nothing(settings):
    encoding = positions(position_noise=0.5, **settings).eval()
    before = torch.get_rng_state()
    assert torch.equal(encoding.places(9), encoding.places(12)[:9])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(encoding.places(9), encoding.train().places(9, exact=True))


def test_random_positions_ascend_and_evaluation_spreads_evenly():
    encoding = positions(randomised_positions=True, max_length=512)
    places = encoding.places(40, generator=torch.Generator().manual_seed(0))
    assert (places.diff() > 0).all()
    assert 400 < places[-1] < 512
    assert set(encoding.eval().places(9).diff().tolist()) == {512 / EVALUATED}


def test_learned_positions_are_added_and_end_somewhere():
    encoding = positions("learned", max_length=6)
    x_BND = torch.randn(2, 6, 32)
    assert torch.equal(encoding.embed(x_BND, encoding.places(6)) - x_BND, (x_BND + encoding.place.weight) - x_BND)
    with pytest.raises(ConfigError, match="max_length: 7 tokens, but positions='learned' has 6 places"):
        encoding.embed(torch.randn(2, 7, 32), encoding.places(7))
    with pytest.raises(ConfigError, match="max_length"):
        positions(randomised_positions=True, max_length=6).places(7)
