"""The model stays inside its ball, decodes what its point says, and can be made again from plain settings."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.checkpoint import Constructor
from trimtab_systems.ternary.data import operations
from trimtab_systems.ternary.hyperbolic import distance
from trimtab_systems.ternary.model import TernaryModel

ROWS = operations().one_hot[::197]


def model_of(**changes):
    torch.manual_seed(0)
    return TernaryModel(**{"hidden": 16, "latent": 5, **changes})


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([0.25, 1.0, 2.0]), st.floats(0.1, 0.99), st.floats(1, 300))
def test_points_never_leave_their_share_of_the_ball(curvature, max_radius, scale):
    model = model_of(curvature=curvature, max_radius=max_radius)
    with torch.no_grad():
        model.heads.weight *= scale
        code = model.encode(ROWS)
        reach = model.point(code).norm(dim=-1) * math.sqrt(curvature)
    assert float(reach.max()) <= max_radius + 1e-5
    assert torch.allclose(reach, code.share, atol=1e-4)
    assert bool(code.mean.isfinite().all())


def test_depth_is_the_distance_from_the_origin():
    model = model_of(curvature=2.0)
    code = model.encode(ROWS)
    assert torch.allclose(model.depth(code), distance(model.point(code), torch.zeros(5), 2.0), atol=1e-4)


@pytest.mark.parametrize("curvature", [0.5, 2.0])
def test_the_decoder_reads_the_point_and_the_tangent_vector_alike(curvature):
    model = model_of(curvature=curvature)
    code, logits_BVD = model(ROWS)
    assert logits_BVD.shape == (len(ROWS), 3, 9)
    assert torch.allclose(model.decode_point(model.point(code)), logits_BVD, atol=1e-4)


def test_no_noise_gives_the_mean_whatever_the_posterior():
    for posterior in ("origin", "wrapped"):
        model = model_of(posterior=posterior)
        code = model.encode(ROWS)
        assert torch.allclose(model.sample(code, torch.zeros_like(code.mean)), code.mean, atol=1e-5)


def test_draws_around_a_mean_differ_between_the_posteriors_away_from_the_origin():
    noise = torch.randn(len(ROWS), 5, generator=torch.Generator().manual_seed(0))
    origin, wrapped = model_of(posterior="origin"), model_of(posterior="wrapped")
    code = origin.encode(ROWS)
    assert not torch.allclose(origin.sample(code, noise), wrapped.sample(code, noise), atol=1e-3)


def test_the_code_begins_with_the_deviation_that_was_asked_for():
    code = model_of(sigma=0.2).encode(ROWS)
    assert torch.allclose(code.log_sigma.exp(), torch.tensor(0.2))


def test_values_can_be_read_instead_of_one_hot_digits():
    assert model_of(raw_input=True)(operations().values[:7])[1].shape == (7, 3, 9)


def test_the_reference_model_has_the_parameters_that_its_page_says():
    assert sum(parameter.numel() for parameter in TernaryModel().parameters()) == 28_764


def test_a_model_can_be_made_again_from_its_settings():
    constructor = Constructor.of(TernaryModel, hidden=12, latent=3, curvature=2.0, posterior="wrapped")
    again = constructor.build()
    assert isinstance(again, TernaryModel)
    assert (again.curvature, again.posterior, again.latent) == (2.0, "wrapped", 3)
