"""The pieces of the write-up: network, losses, controllers, rates and batches; nothing is trained here."""

import math

import numpy as np
import pytest
import torch

from trimtab.errors import ConfigError
from trimtab_systems.ternary.data import COUNT, LEVELS, operations
from trimtab_systems.ternary.write_up.homeostasis import Homeostasis
from trimtab_systems.ternary.write_up.losses import (
    TARGETS,
    Weights,
    band_loss,
    divergence,
    level_mean_loss,
    variances,
)
from trimtab_systems.ternary.write_up.model import Controller, WriteUpModel
from trimtab_systems.ternary.write_up.recipe import PRESETS, WriteUpConfig
from trimtab_systems.ternary.write_up.schedule import Schedule
from trimtab_systems.ternary.write_up.task import batch_maker


def some_radii(rows=400, seed=0):
    """Radii and levels of rows drawn at random, deep levels among them."""
    generator = torch.Generator().manual_seed(seed)
    level_B = torch.randint(0, LEVELS, (rows,), generator=generator)
    return torch.rand(rows, generator=generator), level_B, torch.nn.functional.one_hot(level_B, LEVELS).float()


def slow_level_mean_loss(reach_B, level_B, variance_L, weights):
    """The same loss, one level after the other."""
    radii = [reach_B[level_B == level].double() for level in range(LEVELS)]
    there = [level for level in range(LEVELS) if len(radii[level])]
    total = weights.hierarchy * sum((radii[level].mean() - TARGETS[level]) ** 2 for level in there) / len(there)
    for level in there:
        if len(radii[level]) > 1 and variance_L[level] > 0:
            kept = radii[level].var() / variance_L[level]
            total = total + weights.richness * max(0.5 - kept, 0.0) ** 2 / len(there)
    for level in range(LEVELS - 1):
        if len(radii[level]) and len(radii[level + 1]):
            total = total + weights.separation * max(radii[level + 1].mean() - radii[level].mean() + 0.01, 0.0)
    return float(total)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [3, 20, 400])
def test_the_level_mean_loss_is_that_of_a_slow_obvious_twin(seed, rows):
    reach_B, level_B, level_BL = some_radii(rows, seed)
    variance_L = torch.rand(LEVELS, generator=torch.Generator().manual_seed(seed)) * 0.5
    variance_L[seed] = 0
    weights = Weights(hierarchy=5, richness=2, separation=3)
    fast = level_mean_loss(reach_B, level_BL, variance_L, weights).item()
    assert fast == pytest.approx(slow_level_mean_loss(reach_B, level_B, variance_L, weights), rel=1e-4)


def test_level_means_that_are_right_cost_nothing_though_the_levels_overlap_entirely():
    """What is wrong with the write-up's loss, in one example."""
    level_B = torch.arange(LEVELS).repeat_interleave(2)
    level_BL = torch.nn.functional.one_hot(level_B, LEVELS).float()
    reach_B = TARGETS[level_B] + torch.tensor([0.1, -0.1]).repeat(LEVELS)
    assert level_mean_loss(reach_B, level_BL, variances(reach_B, level_BL), Weights()).item() < 1e-10
    assert band_loss(reach_B, level_BL).item() > 0.5


def test_the_band_loss_counts_levels_alike_and_nothing_inside_the_bands():
    level_B = torch.tensor([0, 0, 0, 9])
    level_BL = torch.nn.functional.one_hot(level_B, LEVELS).float()
    inside = TARGETS[level_B] + 0.03
    assert band_loss(inside, level_BL).item() == 0
    one_gap_off = inside.clone()
    one_gap_off[3] = TARGETS[9] + 1.35 * 0.8 / 9
    assert band_loss(one_gap_off, level_BL).item() == pytest.approx(0.5, rel=1e-4)


def test_the_divergence_is_that_of_torch():
    mean, deviation = torch.randn(50, 16), torch.rand(50, 16) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).sum(-1).mean()
    assert divergence(mean, deviation).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_radius_stays_inside_its_share_of_the_ball_and_a_length_does_not():
    code_BZ = 100 * torch.randn(500, 16)
    inside = WriteUpModel(curvature=2.0, max_radius=0.95)
    literal = WriteUpModel(curvature=2.0, max_radius=0.95, ball_fraction=False)
    edge = 1 / math.sqrt(2)
    assert inside.projection.radius(code_BZ).max() <= 0.95 * edge
    assert literal.projection.radius(code_BZ).max() > edge  # outside the ball, as in the write-up
    assert inside.reach(code_BZ).max() <= 0.95 + 1e-6
    points = inside.projection(code_BZ)
    torch.testing.assert_close(points.norm(dim=-1), inside.projection.radius(code_BZ))


def test_the_decoder_reads_the_code_or_the_tangent_of_its_point():
    values = operations().values[:64]
    for reads in ("code", "point"):
        model = WriteUpModel(reads=reads)
        assert model(values).shape == (64, 9, 3)
        assert model(values).isfinite().all()


def test_one_hidden_unit_has_no_deviation_to_divide_by():
    values = operations().values
    assert WriteUpModel(width=4, hidden_norm="bare")(values).isnan().all()
    assert WriteUpModel(width=4, hidden_norm="guarded")(values).isfinite().all()
    assert WriteUpModel(width=256, hidden_norm="bare")(values).isfinite().all()


def test_the_controller_keeps_its_weights_in_their_ranges():
    weights = Controller()(100 * torch.randn(1000, Controller.STATISTICS))
    assert 0 <= weights["rho"].min() <= weights["rho"].max() <= 0.5
    assert 0 <= weights["tau"].min() <= weights["tau"].max() <= 1
    assert weights["geodesic"].min() >= 0.1
    assert weights["radial"].min() >= 0
    assert min(weights["beta_a"].min(), weights["beta_b"].min()) >= 0.5


def epochs(homeostasis, count, **metrics):
    given = {"coverage": 1.0, "hierarchy": -0.7, "quality": 1.5, "gradient": 1.0, **metrics}
    return [homeostasis.after(**given) for _ in range(count)]


def test_encoder_a_is_freed_at_full_coverage_once_the_hierarchy_stands_still_and_frozen_when_coverage_falls():
    homeostasis = Homeostasis()
    states = epochs(homeostasis, 12)
    assert states[8]["encoder_a"]
    assert not states[-1]["encoder_a"]
    assert epochs(homeostasis, 4, coverage=0.9)[-1]["encoder_a"]
    assert not any(state["encoder_a"] is False for state in epochs(Homeostasis(), 20, coverage=0.999))


def test_encoder_b_freezes_on_a_plateau_and_is_freed_when_the_hierarchy_falls():
    homeostasis = Homeostasis()
    assert not epochs(homeostasis, 5)[-1]["encoder_b"]
    assert epochs(homeostasis, 8)[-1]["encoder_b"]
    assert not epochs(homeostasis, 3, hierarchy=-0.65)[-1]["encoder_b"]


def test_the_controller_freezes_when_it_is_quiet_and_wakes_at_a_leap():
    homeostasis = Homeostasis()
    assert epochs(homeostasis, 7, gradient=0.001)[-1]["controller"]
    assert epochs(homeostasis, 3, gradient=0.001)[-1]["controller"]
    assert not epochs(homeostasis, 1, gradient=0.5)[-1]["controller"]


def test_a_cycle_that_cost_much_makes_a_part_careful_and_one_that_gained_bold():
    for quality, threshold in ((2.0, 0.990), (1.0, 1.0)):
        homeostasis = Homeostasis()
        epochs(homeostasis, 12, quality=1.5)
        epochs(homeostasis, 4, coverage=0.9, quality=quality)
        assert homeostasis.parts["encoder_a"].threshold == pytest.approx(threshold)


def test_the_homeostasis_goes_on_where_it_was():
    whole, part = Homeostasis(), Homeostasis()
    epochs(whole, 9)
    epochs(part, 9)
    again = Homeostasis()
    again.load_state_dict(part.state_dict())
    assert epochs(again, 6, hierarchy=-0.6) == epochs(whole, 6, hierarchy=-0.6)


def rates(kind, epochs=60, values=()):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [parameter], "lr": 1.0}])
    schedule = Schedule(optimizer, kind, epochs)
    seen = []
    for epoch in range(1, epochs + 1):
        schedule.after(epoch)
        seen.append(optimizer.param_groups[0]["lr"])
        if epoch <= len(values):
            schedule.evaluated(values[epoch - 1])
    return seen


def test_the_rates_follow_their_schedules():
    assert set(rates("none")) == {1.0}
    cosine = rates("cosine")
    assert cosine[-1] == pytest.approx(0.01)
    assert cosine == sorted(cosine, reverse=True)
    assert [rates("step")[epoch - 1] for epoch in (14, 15, 29, 30, 60)] == [1.0, 0.5, 0.5, 0.25, 0.0625]
    assert rates("plateau", 10, [-0.5] * 10)[5:9] == [1.0, 1.0, 0.5, 0.5]


def test_the_same_number_gives_the_same_batch_and_an_epoch_every_operation_once():
    rare = torch.nonzero(operations().level >= 5).squeeze(1)
    make = batch_maker(size=512, always=torch.arange(0), latent=4, seed=3)
    with_rare = batch_maker(size=512, always=rare, latent=4, seed=3)
    seen = torch.cat([make(number).rows for number in range(39, 78)])
    assert torch.equal(seen.sort().values, torch.arange(COUNT))
    first, again = make(17), batch_maker(size=512, always=torch.arange(0), latent=4, seed=3)(17)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.noise, make(18).noise)
    assert len(rare) == 81
    assert torch.equal(with_rare(17).rows[-81:], rare)
    assert np.array_equal(first.level.argmax(1).numpy(), operations().level[first.rows].numpy())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_configuration_of_the_write_up(name):
    config = PRESETS[name]()
    assert isinstance(config, WriteUpConfig)
    assert config.profile == "as_written"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"load": "partly"}, "load: expected one of matched, mismatched, none, got 'partly'"),
        ({"epochs": -1}, "epochs: expected at least 0"),
        ({"curvature": 0.0}, "curvature: expected more than 0"),
        ({"max_radius": 1.2}, "max_radius: expected a share of the ball"),
        ({"dropout": 1.0}, "dropout: expected a share"),
        ({"load": "none", "checkpoint": "somewhere"}, "with load='none' nothing is loaded"),
        ({"radius_loss": "none"}, "there is nothing to train"),
    ],
)
def test_a_setting_without_meaning_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        WriteUpConfig(**change)
