"""The recipe trains what it says: reproducibly, from scratch, and on the operations that it was given alone."""

import dataclasses
import itertools
import math

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.resume import config_of
from trimtab.run import Run
from trimtab.train import train
from trimtab_systems.ternary.data import operations, split
from trimtab_systems.ternary.losses import NEEDED_NATS
from trimtab_systems.ternary.recipe import (
    PRESETS,
    SYSTEM,
    Config,
    build,
    held_out,
    milestones,
    reference,
    tiny,
    two_phase,
)
from trimtab_systems.ternary.write_up.recipe import WriteUpConfig

OWN = [name for name, make in PRESETS.items() if isinstance(make(), Config)]


def trained(config, seed, steps):
    """The training after `steps` updates of a plain loop, and the loss of each."""
    training = build(config, seed)
    (optimizer,) = training.optimizers.values()
    assert training.schedule is not None
    losses = []
    for step, batch in enumerate(itertools.islice(training.batches, steps)):
        loss = training.loss(training.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad()
        training.schedule(step)
        losses.append(loss.item())
    return training, losses


def test_the_same_seed_gives_the_same_losses_bit_for_bit():
    first, again, other = (trained(tiny(), seed, steps=4)[1] for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_building_and_training_leave_the_global_generator_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    training, _ = trained(tiny(), 0, steps=2)
    training.evaluate()
    assert torch.equal(state, torch.get_rng_state())


def test_two_arms_meet_the_same_batches_and_noise_in_the_same_order():
    one, other = build(tiny(), 3).batches, build(dataclasses.replace(tiny(), beta=0.1, lr=1e-3), 3).batches
    for a, b in zip(itertools.islice(one, 3), itertools.islice(other, 3), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.noise, b.noise)


def test_rare_levels_are_in_every_batch():
    level = next(build(tiny(), 0).batches).level
    assert level.shape[0] == 512 + 81
    assert level.sum(0)[5:].tolist() >= [54, 18, 6, 2, 1]
    assert next(build(dataclasses.replace(tiny(), rare_from=10), 0).batches).level.shape[0] == 512


def test_what_is_held_out_is_never_met():
    config = held_out()
    kept, _ = split(config.train_share, 7)
    batches = build(config, 7).batches
    met = torch.cat([batch.digits for batch in itertools.islice(batches, 2 * config.epoch)]).unique(dim=0)
    assert torch.equal(met, operations().digits[kept].unique(dim=0))


def test_evaluating_changes_nothing_and_repeats():
    training = build(tiny(), seed=0)
    first = training.evaluate()
    assert first == training.evaluate()
    assert set(training.better) <= set(first)
    assert training.model.training
    assert all(parameter.grad is None for parameter in training.model.parameters())
    assert {"coverage_held", "hierarchy_held"} <= set(build(held_out(), 0).evaluate())


def test_a_model_that_is_lost_is_measured_as_nan_and_no_error():
    training = build(tiny(), seed=0)
    with torch.no_grad():
        training.model.heads.weight.fill_(math.nan)
    measured = training.evaluate()
    assert set(measured) == set(build(tiny(), seed=0).evaluate())
    for name in ("hierarchy", "balanced_d", "hierarchy_sampled", "distinct_radii", "kl", "loss"):
        assert math.isnan(measured[name])
    assert measured["coverage"] < 0.001


def test_evaluated_on_samples_no_evaluation_comes_out_twice():
    training = build(dataclasses.replace(tiny(), evaluated_on="sample"), seed=0)
    first, second = training.evaluate(), training.evaluate()
    assert first["hierarchy"] != second["hierarchy"]
    assert first["hierarchy_sampled"] == second["hierarchy_sampled"]


def test_the_learning_rate_rises_then_falls_and_keeps_what_others_changed():
    config = dataclasses.replace(tiny(), lr=0.01, warmup=0.1)
    training = build(config, 0)
    (group,) = training.optimizers["main"].param_groups
    assert training.schedule is not None
    rates = []
    for step in range(config.steps):
        rates.append(group["lr"])
        training.schedule(step)
    top = max(rates)
    assert top == pytest.approx(0.01, rel=0.02)
    assert rates.index(top) == pytest.approx(0.1 * config.steps, abs=2)
    assert rates[0] < 0.03 * top
    assert rates[-1] < 0.01 * top
    training = build(config, 0)
    (group,) = training.optimizers["main"].param_groups
    assert training.schedule is not None
    group["lr"] /= 2
    for step in range(50):
        training.schedule(step)
    assert group["lr"] == pytest.approx(rates[50] / 2)


def test_two_phases_leave_the_radius_alone_at_first():
    config = two_phase()
    training = build(config, 0)
    batch = next(training.batches)
    losses = {
        done: training.loss(training.model, batch._replace(done=done)).item()
        for done in (config.radial_from - 0.01, config.radial_from + config.radial_ramp)
    }
    first, second = losses.values()
    assert second > first + 10


def test_a_frozen_decoder_is_declared_and_gets_no_update():
    training, _ = trained(dataclasses.replace(tiny(), freeze_decoder=True), 0, steps=2)
    fresh = build(tiny(), 0).model.decoder.state_dict()
    assert all(torch.equal(fresh[name], tensor) for name, tensor in training.model.decoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in training.model.decoder.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"posterior": "wrapped", "curvature": 0.25},
        {"raw_input": True},
        {"bands": "wide", "radial": "point"},
        {"radial": "none", "spread_weight": 0.0, "free_bits": 5.0, "beta_ramp": 0.0},
        {"warmup": 0.0, "clip": 1.0, "radial": "mean"},
    ],
)
def test_every_variant_trains(change):
    _, losses = trained(dataclasses.replace(tiny(), **change), 0, steps=12)
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", OWN)
def test_milestones_fall_on_evaluations_and_ask_for_the_nats_that_a_code_needs(name):
    config = PRESETS[name]()
    asked = milestones(config)
    assert all(milestone.by_step == config.steps for milestone in asked)
    assert asked[0].met_by(NEEDED_NATS + 0.01)
    assert not asked[0].met_by(3.8)  # what remains of the divergence at beta = 1
    assert all(milestone.counts == "last" for milestone in asked)  # an untrained code has nats enough, and loses them


def test_the_system_builds_both_forms_and_judges_each_by_its_own_milestones():
    kinds = {type(make()) for make in SYSTEM.presets.values()}
    assert kinds == {Config, WriteUpConfig}
    for name in ("tiny", "write-up-base"):
        config = SYSTEM.presets[name]()
        training = SYSTEM.build(config, 0)
        assert training.evaluate_first
        assert {milestone.metric.removeprefix("validation/") for milestone in SYSTEM.milestones(config)} <= set(
            training.evaluate()
        )


class Ended(BaseException):
    """What ends a training early."""


def test_a_run_is_gone_on_with_in_the_form_that_it_had(tmp_path):
    def end(done, steps, loss):
        raise Ended

    with pytest.raises(Ended):
        train("ternary", preset="write-up-base", root=tmp_path, progress=end)
    (folder,) = tmp_path.iterdir()
    assert config_of(Run(folder), SYSTEM) == SYSTEM.presets["write-up-base"]()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"profile": "as_written"}, "profile: expected \"corrected\", got 'as_written'.*start from the preset"),
        ({"radial": "bands"}, "radial: expected one of band, point, mean, none, got 'bands'"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"train_share": 1.5}, "train_share: expected 1e-12 to 1, got 1.5"),
        ({"lr": math.nan}, "lr: expected at least 0, got nan"),
        ({"outer": 0.97}, "outer: expected inner < outer < max_radius, got 0.1, 0.97, 0.95"),
    ],
)
def test_impossible_settings_are_refused_with_what_was_expected(change, said):
    with pytest.raises(ConfigError, match=said):
        Config(**change)


@pytest.mark.slow
def test_every_operation_is_reconstructed_in_the_right_order_from_scratch():
    metrics = trained(reference(), 100, reference().steps)[0].evaluate()
    assert metrics["coverage"] == 1.0
    assert -0.83206 <= metrics["hierarchy"] <= -0.8315
    assert metrics["balanced_d"] <= -0.999
    assert metrics["richness_ball"] >= 3e-4
    assert metrics["distinct_radii"] > 19_000
