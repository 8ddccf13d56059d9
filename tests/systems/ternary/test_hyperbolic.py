"""The maps of the ball agree with those of geoopt, undo each other, and keep finite gradients everywhere."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_systems.ternary.hyperbolic import (
    distance,
    distance_of_radius,
    exp_0,
    log_0,
    log_sinh_ratio,
    mobius_add,
    project,
    wrapped_normal_log_density,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # geoopt uses torch.jit.script, which torch deprecates
    import geoopt

curvatures = st.sampled_from([0.25, 1.0, 2.0])
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


def ball(c):
    return geoopt.PoincareBall(c=c)


def points(c, count=40, size=5, furthest=0.95, seed=0):
    """Points with radii spread over the ball, in float64."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(
        torch.randn(count, size, generator=generator, dtype=torch.float64), dim=-1
    )
    return direction * torch.linspace(0, furthest, count, dtype=torch.float64)[:, None] / math.sqrt(c)


@pytest.mark.parametrize("c", [0.25, 1.0, 2.0])
def test_all_maps_agree_with_geoopt(c):
    x, y = points(c), points(c, seed=1).flip(0)
    u = log_0(x, c)
    assert torch.allclose(u, ball(c).logmap0(x), atol=1e-9)
    assert torch.allclose(exp_0(u, c), ball(c).expmap0(u), atol=1e-9)
    assert torch.allclose(mobius_add(x, y, c), ball(c).mobius_add(x, y), atol=1e-9)
    assert torch.allclose(distance(x, y, c), ball(c).dist(x, y), atol=1e-7)
    assert torch.allclose(distance_of_radius(x.norm(dim=-1), c), ball(c).dist0(x), atol=1e-7)
    outside = 1.3 * points(c, furthest=1.0)
    assert torch.allclose(project(outside, c, margin=1e-5), ball(c).projx(outside), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(curvatures, st.integers(0, 1000), st.floats(0.0, 0.99))
def test_log_undoes_exp_and_exp_undoes_log(c, seed, furthest):
    x = points(c, count=5, furthest=furthest, seed=seed)
    assert torch.allclose(exp_0(log_0(x, c), c), x, atol=1e-9)
    u = log_0(x, c)
    assert torch.allclose(log_0(exp_0(u, c), c), u, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(curvatures, st.integers(0, 1000))
def test_adding_the_opposite_undoes_an_addition_and_keeps_distances(c, seed):
    x, y, z = (points(c, count=6, furthest=0.8, seed=seed + k) for k in range(3))
    assert torch.allclose(mobius_add(-x, mobius_add(x, y, c), c), y, atol=1e-8)
    moved = distance(mobius_add(x, y, c), mobius_add(x, z, c), c)
    assert torch.allclose(moved, distance(y, z, c), atol=1e-6)


def test_a_point_at_the_tangent_vector_u_lies_at_twice_its_length():
    u = torch.tensor([[0.3, 0.4]])
    assert float(distance(exp_0(u, 2.0), torch.zeros(1, 2), 2.0)) == pytest.approx(1.0, abs=1e-5)


def test_near_the_origin_a_map_of_any_curvature_is_the_identity():
    tiny = torch.full((1, 3), 1e-6)
    assert torch.allclose(exp_0(tiny, 2.0), tiny)
    assert torch.allclose(mobius_add(tiny, tiny, 2.0), 2 * tiny)


@pytest.mark.parametrize("length", [0.0, 1e-12, 1e-3, 0.5, 0.9999999, 1.0])
def test_values_and_gradients_are_finite_from_the_origin_to_the_edge(length):
    x = torch.tensor([[length, 0.0, 0.0]], requires_grad=True)
    y = torch.tensor([[0.0, 0.2, 0.0]])
    for mapped in (
        exp_0(x, 1.0), log_0(x, 1.0), mobius_add(x, y, 1.0), project(x, 1.0), distance(x, y, 1.0),
        distance_of_radius(x.norm(dim=-1), 1.0), wrapped_normal_log_density(x, y, torch.zeros(3), 1.0),
    ):  # fmt: skip
        (gradient,) = torch.autograd.grad(mapped.sum(), x)
        assert bool(mapped.isfinite().all())
        assert bool(gradient.isfinite().all())


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-8, 600))
def test_the_volume_ratio_is_right_from_the_smallest_argument_to_the_largest(a):
    exact = a**2 / 6 if a < 1e-3 else math.log(math.sinh(a) / a)
    assert float(log_sinh_ratio(torch.tensor(a, dtype=torch.float64))) == pytest.approx(exact, rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("c", [0.5, 2.0])
def test_the_density_adds_up_to_one_over_the_volume_of_the_ball(c):
    """Sum over a fine polar grid around the origin; its cells have the volume that the metric says."""
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64) / math.sqrt(c)
    log_sigma = torch.tensor([math.log(0.25), math.log(0.4)], dtype=torch.float64)
    radii, angles = (
        torch.linspace(0, 1, 1201, dtype=torch.float64)[:-1] + 1 / 2400,
        torch.arange(240) * 2 * math.pi / 240,
    )
    share, angle = torch.meshgrid(radii, angles.double(), indexing="ij")
    z = torch.stack([share * angle.cos(), share * angle.sin()], -1) / math.sqrt(c)
    metric = (2 / (1 - share.square())).square()
    cells = metric * share / c * (1 / 1200) * (2 * math.pi / 240)
    density = wrapped_normal_log_density(z, mean, log_sigma, c).exp()
    assert float((density * cells).sum()) == pytest.approx(1.0, abs=2e-3)


def test_the_density_is_highest_where_draws_are():
    c, generator = 1.0, np.random.default_rng(0)
    mean = torch.tensor([0.5, 0.1], dtype=torch.float64)
    near = mobius_add(mean, exp_0(torch.from_numpy(generator.normal(0, 0.1, (200, 2))), c), c)
    log_sigma = torch.full((2,), math.log(0.1), dtype=torch.float64)
    here = wrapped_normal_log_density(near, mean, log_sigma, c)
    mirrored = wrapped_normal_log_density(-near, mean, log_sigma, c)
    assert bool((here > mirrored).all())
