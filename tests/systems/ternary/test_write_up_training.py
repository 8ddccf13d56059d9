"""The write-up's training: how its checkpoint is loaded, what enters its numbers, and the sweep as a plan."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import trimtab_systems.ternary.write_up as write_up
from trimtab.checkpoint import plan
from trimtab.errors import CheckpointError, ConfigError
from trimtab.sweep.settle import settle
from trimtab.sweep.written import read_phases
from trimtab_systems.ternary.faults import FAULTS
from trimtab_systems.ternary.recipe import SYSTEM
from trimtab_systems.ternary.write_up.base import load_matched
from trimtab_systems.ternary.write_up.model import WriteUpModel
from trimtab_systems.ternary.write_up.recipe import (
    WriteUpConfig,
    as_written,
    base_checkpoint,
    build,
    write_up_base,
)

LAST_LAYERS = {f"projection.{part}.{one}" for part in ("direction_net.3", "radius_net.2") for one in ("weight", "bias")}


@pytest.fixture(scope="module")
def base():
    """The checkpoint that everything starts from; it takes a few seconds, once."""
    return base_checkpoint(16, 256, 64, 0)


def steps_of(config, seed, updates):
    """Return the losses of the first updates and the evaluation after them."""
    training = build(config, seed)
    (optimizer,) = training.optimizers.values()
    assert training.schedule is not None
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(updates):
            loss = training.loss(training.model, next(training.batches))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            training.schedule(step)
            losses.append(loss.item())
        return losses, dict(training.evaluate())


def test_the_checkpoint_reconstructs_all_but_a_few_and_orders_the_levels(base):
    measured = build(WriteUpConfig(epochs=0), 0).evaluate()
    assert measured["coverage"] > 0.99
    assert measured["hierarchy"] < -0.75


def test_matched_loads_are_the_same_for_every_seed_and_mismatched_ones_leave_the_last_layers_random(base):
    def weights(load):
        return [build(WriteUpConfig(load=load), seed).model.state_dict() for seed in range(5)]

    first, *others = weights("matched")
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
    first, *others = weights("mismatched")
    differ = {name for other in others for name in first if not torch.equal(first[name], other[name])}
    # The other three tensors begin at zero: nothing in them is random, and nothing was learnt.
    assert differ == {"projection.radius_net.2.weight"}


def test_our_own_load_refuses_what_the_write_up_passed_over(base):
    model = WriteUpModel(dropout=0.0)
    found = plan(base, model)
    assert set(found.missing) == LAST_LAYERS
    assert {one.present for one in found.likely_renames} == LAST_LAYERS
    with pytest.raises(CheckpointError):
        load_matched(WriteUpModel(width=128), base)


def test_a_mismatched_load_of_another_size_is_refused_with_its_place(base):
    with pytest.raises(ConfigError, match="does not fit the model"):
        build(replace(as_written(), latent=8, checkpoint=str(base)), 0)


def test_the_curvature_enters_nothing_where_radii_are_lengths(base):
    config = WriteUpConfig(radius_loss="level-mean", ball_fraction=False)
    assert steps_of(replace(config, curvature=0.5), 0, 5) == steps_of(replace(config, curvature=2.0), 0, 5)
    shares = WriteUpConfig()
    small, large = (steps_of(replace(shares, curvature=c), 0, 2)[1] for c in (0.5, 2.0))
    assert small["hierarchy"] == large["hierarchy"]
    assert small["richness"] == pytest.approx(4 * large["richness"], rel=1e-4)


def test_an_evaluation_on_means_comes_out_twice_and_one_on_samples_does_not(base):
    for sampled in (False, True):
        training = build(WriteUpConfig(evaluate_on_samples=sampled), 0)
        same = training.evaluate() == training.evaluate()
        assert same is not sampled


def test_a_seed_is_honoured_unless_the_settings_say_otherwise(base):
    config = replace(write_up_base(), batch=64)
    assert steps_of(config, 1, 3)[0] == steps_of(config, 1, 3)[0]
    assert steps_of(config, 1, 3)[0] != steps_of(config, 2, 3)[0]
    unseeded = replace(config, seeded=False)
    assert steps_of(unseeded, 1, 1)[0] != steps_of(unseeded, 1, 1)[0]


def test_codes_that_were_computed_once_are_those_of_the_encoder(base):
    frozen, live = (build(WriteUpConfig(freeze_encoder=freeze, beta=0.0), 0) for freeze in (True, False))
    batch = next(frozen.batches)
    reconstruction = build(WriteUpConfig(freeze_encoder=False, beta=0.0, radius_loss="none"), 0)
    both = live.loss(live.model, batch) - reconstruction.loss(reconstruction.model, batch)
    assert frozen.loss(frozen.model, batch).item() == pytest.approx(both.item(), abs=1e-4)


def test_the_options_of_the_architecture_train(base):
    config = WriteUpConfig(second_encoder=True, controller=True, homeostasis=True, reads="point", schedule="plateau")
    losses, measured = steps_of(config, 0, 2)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert measured["coverage"] <= 1
    model = build(WriteUpConfig(second_encoder=True), 0).model
    assert torch.equal(model.encoder_b.mean.weight, model.encoder.mean.weight)


def test_an_optimizer_that_is_made_anew_has_no_moments_after_an_epoch(base):
    for rebuilt in (False, True):
        training = build(WriteUpConfig(rebuild_optimizer_each_epoch=rebuilt, batch=8192), 0)
        (optimizer,) = training.optimizers.values()
        assert training.schedule is not None
        for step in range(3):
            training.loss(training.model, next(training.batches)).backward()
            optimizer.step()
            training.schedule(step)
        assert (len(optimizer.state) == 0) is rebuilt


def test_the_sweep_has_55_runs_and_each_can_be_built():
    path = Path(write_up.__file__).parent / "sweep.yaml"
    settled = settle(read_phases(path)).plan
    counts = {phase.name: settled.count(phase) for phase in settled.phases}
    assert counts.pop("base") == 1
    assert sum(counts.values()) == 55
    assert list(counts.values()) == [3, 3, 5, 6, 8, 10, 15, 5]


def test_every_fault_changes_settings_that_its_preset_has():
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) == 10
    for fault in FAULTS:
        config = SYSTEM.presets[fault.preset]()
        assert set(fault.change) <= {field.name for field in fields(config)}
        assert replace(config, **fault.change) != config
        assert bool(fault.expect) == bool(fault.causes)
        assert fault.expect or fault.probes
