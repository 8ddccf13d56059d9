"""A training of the write-up's network: what it is made of, that it goes on exactly, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.checkpoint import Checkpoints
from trimtab.errors import ConfigError
from trimtab.resume import Place, state_of
from trimtab.system import System, Training
from trimtab.train import train
from trimtab_systems.sci.data import carve, open_test, train_of
from trimtab_systems.sci.write_up import recipe
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.objective import Learner, Objective

TINY = replace(
    recipe.tiny(),
    examples=512,
    evaluate_examples=8,
    epochs=2,
    batch=16,
    length_phases=((0, 12), (1, 22)),
    swap_rate=0.0,
)
"""Without swapping: the leak guard needs longer than the training."""


def stepped(training: Training, updates: int, first: int = 0) -> list[float]:
    """Take some updates and return their losses."""
    losses = []
    training.model.train()
    for step in range(first, first + updates):
        loss = training.loss(training.model, next(training.batches))
        loss.backward()
        for optimizer in training.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        assert training.schedule is not None
        training.schedule(step)
        losses.append(loss.item())
    return losses


def objective(training: Training) -> Objective:
    found = training.loss.__self__  # type: ignore[attr-defined]  # a bound method
    assert isinstance(found, Objective)
    return found


@pytest.fixture(scope="module")
def built() -> Training:
    return recipe.build(TINY, 0)


def test_each_parameter_learns_at_the_rate_of_its_part(built: Training):
    assert isinstance(built.model, Learner)
    groups = built.optimizers["main"].param_groups
    peaks = {group["part"]: group["peak"] for group in groups}
    multipliers = {"abstraction_layer": 2.0, "structural_encoder": 1.0, "content_encoder": 1.0, "cbm": 1.0}
    assert peaks == {
        "base": TINY.base_lr, "heads": TINY.sci_lr, "slot_queries": TINY.sci_lr * 0.5,
        **{part: TINY.sci_lr * multiplier for part, multiplier in multipliers.items()},
    }  # fmt: skip
    network = built.model.network
    part_of = {id(one): group["part"] for group in groups for one in group["params"]}
    assert part_of[id(network.structure.slots.query_KD)] == "slot_queries"
    assert {part_of[id(one)] for one in network.structure.abstraction.parameters()} == {"abstraction_layer"}
    assert {part_of[id(one)] for one in network.content.parameters()} == {"content_encoder"}
    assert {part_of[id(one)] for one in [*network.binding.parameters(), *network.readers.parameters()]} == {"cbm"}
    assert {part_of[id(one)] for one in network.base.parameters()} == {"base"}
    assert len(part_of) == len(list(built.model.parameters()))
    plain = {id(one) for group in groups if not group["weight_decay"] for one in group["params"]}
    assert all((one.dim() < 2 or one is network.structure.slots.query_KD) == (id(one) in plain)
               for one in built.model.parameters())  # fmt: skip


def test_the_loss_is_the_weighted_sum_of_its_terms_and_all_are_shown(built: Training):
    loss = built.loss(built.model, built.batches.make(3)).detach()  # type: ignore[attr-defined]  # numbered batches
    latest = objective(built).latest
    assert latest is not None
    names = {
        "task_loss", "eos_loss", "scl_loss", "orthogonality_loss", "length_loss", "eos_position_loss",
        "slot_diversity_loss", "edge_sparsity_loss", "binding_entropy_loss", "counterfactual_loss", "total_loss",
    }  # fmt: skip
    assert set(latest.terms) == names
    assert all(torch.isfinite(term) for term in latest.terms.values())
    assert float(latest.terms["total_loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert set(latest.weights) == names - {"eos_loss", "total_loss"}


def test_the_contrast_begins_at_nothing_and_grows(built: Training):
    weights = [objective(built).weights(step)["scl_loss"] for step in (0, 3, 10_000)]
    assert weights[0] == 0 < weights[1] < weights[2] == TINY.scl_weight
    always = Objective(config=replace(TINY, scl_warmup_epochs=0.0), ramp_steps=0.0)
    assert always.weights(0)["scl_loss"] == TINY.scl_weight


def test_orthogonality_is_minimised_only_where_content_is_not_projected():
    penalised = replace(TINY, orthogonality="penalty")
    assert Objective(config=TINY, ramp_steps=10).weights(0)["orthogonality_loss"] == 0
    assert Objective(config=penalised, ramp_steps=10).weights(0)["orthogonality_loss"] == 0.1
    grown = replace(penalised, orthogonality_schedule="warmup")
    assert Objective(config=grown, ramp_steps=10).weights(5)["orthogonality_loss"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"sci": False},
        {"eos_mode": "additive"},
        {"eos_mode": "bce", "stop_head": True},
        {"teacher_forcing_eos": False},
        {"partner_views": False, "counterfactual_weight": 0.0},
        {"pairs": "wrong", "scl_warmup_epochs": 0.0},
        {"orthogonality": "penalty", "orthogonality_schedule": "warmup"},
        {"accumulate": 2, "gradient_checkpointing": True},
        {"slot_init": "equal", "learned_temperature": False, "freeze_embeddings": True},
        {"eos_weight": 0.0, "scl_weight": 0.0, "boundary_rate": 20.0},
        {"inject_at": "both", "binding_entropy_form": "as_written"},
    ],
    ids=str,
)
def test_every_switch_trains(changes: Mapping[str, Any]):
    training = recipe.build(replace(TINY, **changes), 1)
    losses = stepped(training, 2)
    assert all(0 < loss < 50 for loss in losses)
    unmoved = [name for name, one in training.model.named_parameters() if one.requires_grad and one.grad is not None]
    assert not unmoved  # zero_grad leaves nothing behind


def test_accumulated_gradients_are_those_of_one_large_batch():
    plain = {"scl_weight": 0.0, "counterfactual_weight": 0.0, "slot_diversity_weight": 0.0, "dropout": 0.0}
    fewer = {"binding_entropy_weight": 0.0, "edge_sparsity_weight": 0.0, "position_noise": 0.0, "task_weight": 0.0}
    config = replace(TINY, **plain, **fewer, eos_position_weight=0.0, length_weight=1.0)
    one = recipe.build(config, 0)
    two = recipe.build(replace(config, batch=8, accumulate=2), 0)
    first, second = next(one.batches), next(two.batches)
    assert [len(micro.words_BS) for micro in second.micros] == [8, 8]
    loss, other = one.loss(one.model, first), two.loss(two.model, second)
    assert other.item() == pytest.approx(loss.item(), rel=1e-5)


def test_same_seed_same_training_and_another_seed_another():
    calm = replace(TINY, position_noise=0.0)
    one, other = (stepped(recipe.build(calm, 3), 2) for _ in range(2))
    assert one == other
    assert stepped(recipe.build(calm, 4), 2) != one


def test_a_training_that_stops_goes_on_exactly(tmp_path: Path):
    config = replace(TINY, examples=64, position_noise=0.01, dropout=0.1)
    torch.manual_seed(0)
    whole = recipe.build(config, 0)
    stepped(whole, 3)
    assert Checkpoints(tmp_path).save(state_of(whole, Place(done=3)), 3) is not None
    rest = stepped(whole, 4, first=3)
    torch.manual_seed(99)
    again, place = recipe.build(config, 0), Place()
    assert Checkpoints(tmp_path).resume(state_of(again, place)) is not None
    assert stepped(again, 4, first=place.done) == rest
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_validation_is_carved_out_of_training_and_no_test_command_is_seen():
    train, validation = recipe.examples(WriteUpConfig())
    closed = {one.words for one in open_test("length")}
    assert not closed & {one.words for one in (*train, *validation)}
    assert not {one.words for one in train} & {one.words for one in validation}
    assert train == carve(train_of("length"))[0]
    proxy = recipe.examples(WriteUpConfig(validation="proxy"))
    assert max(len(one.actions) for one in proxy.train) == 15
    assert min(len(one.actions) for one in proxy.validation) == 16
    few = recipe.examples(WriteUpConfig(examples=50, evaluate_examples=20))
    assert (len(few.train), len(few.validation)) == (50, 20)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"validation": "test"}, "no number of this training would be a test"),
        ({"split": "lenght"}, "Did you mean 'length'"),
        ({"structure_synonyms": True}, "no command has"),
        ({"length_phases": ((1, 6),)}, "from 0 on"),
        ({"length_phases": ((0, 6), (50, 12))}, "would never come"),
        ({"eos_mode": "bce"}, "stop_head"),
        ({"warmup_ratio": 1.5}, "share from 0 to 1"),
        ({"spike_threshold": 1.0}, "above 1"),
        ({"batch": 0}, "at least 1"),
        ({"spike_action": "pray"}, "rollback, skip"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: Mapping[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        replace(TINY, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"turn_is_content": True}, "test commands of the split 'length'"),
        ({"split": "addprim-jump"}, "test commands of the split 'addprim-jump'"),
    ],
)
def test_content_that_makes_test_commands_is_refused_when_it_is_built(changes: Mapping[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        recipe.build(replace(TINY, swap_rate=0.3, examples=0, **changes), 0)


def test_patience_waits_for_the_last_phase(built: Training):
    assert recipe.STOPPING not in built.evaluate()
    later = recipe.build(replace(TINY, length_phases=(), patience=2), 0)
    assert recipe.STOPPING in later.evaluate()
    assert later.early_stop is not None
    assert later.early_stop.metric == f"validation/{recipe.STOPPING}"


def test_words_that_are_moved_keep_content_and_binding(built: Training):
    batch = recipe.build(TINY, 0).batches.__next__()
    built.model.eval()
    still, moved = (recipe.represent(built.model, batch, shift) for shift in (0, 3))
    built.model.train()
    assert still.shape == (int((batch.micros[0].words_BS != 0).sum()), TINY.width + TINY.slots)
    assert torch.allclose(still, moved, atol=1e-4)


def test_a_loss_that_leaps_is_answered_as_the_settings_say(tmp_path: Path):
    config = replace(TINY, examples=160, evaluate_examples=4, epochs=4, length_phases=(), spike_grace=8, spike_window=4,
                     spike_grace_after_change=0, scl_warmup_epochs=0.0, spike_action="skip")  # fmt: skip

    def build(config: WriteUpConfig, seed: int) -> Training:
        training = recipe.build(config, seed)
        loss, batches = training.loss, training.batches
        training.loss = lambda model, batch: loss(model, batch) * (50.0 if batches.position == 15 else 1.0)  # type: ignore[attr-defined]  # numbered batches
        training.steps, training.clip = 20, 1.0
        return training

    system = System(name="leaping", summary="", presets={"tiny": lambda: config}, build=build)
    run = train(system, root=tmp_path, checkpoint_every=0)
    done = [(one.code, one.action, one.step) for one in run.outcomes() if one.result == "done"]
    assert done == [("loss-above-average", "skip-step", 14)]
    assert recipe.build(replace(config, spike_action="none"), 0).respond == {}


def test_milestones_stand_at_the_ends_of_epochs(built: Training):
    found = recipe.milestones(replace(TINY, epochs=5))
    ends = recipe.build(replace(TINY, epochs=5), 0).steps
    assert max(one.by_step for one in found) == ends


@pytest.mark.parametrize("name", sorted(recipe.PRESETS))
def test_presets_can_be_made(name: str):
    assert isinstance(recipe.PRESETS[name](), WriteUpConfig)
