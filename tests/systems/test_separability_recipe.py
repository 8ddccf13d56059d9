"""The recipe trains what it says: reproducibly, up to the ceiling and never above it."""

import dataclasses
import itertools
import math
import re
from pathlib import Path

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab_systems.separability.data import bayes, draw
from trimtab_systems.separability.losses import accuracy_by_place, next_token_loss
from trimtab_systems.separability.recipe import Config, build, milestones, reference, tiny


def trained(config, seed, steps):
    """The model after `steps` updates of a plain loop, and the loss of each."""
    training = build(config, seed)
    (optimizer,) = training.optimizers.values()
    assert training.clip is not None
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


@pytest.fixture(scope="module")
def trained_tiny():
    return trained(tiny(), seed=100, steps=tiny().steps)[0]


def test_the_same_seed_gives_the_same_losses_bit_for_bit():
    first, again, other = (trained(tiny(), seed, steps=12)[1] for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_building_leaves_the_global_generator_alone_and_does_not_read_it():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(tiny(), seed=0).model.state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    again = build(tiny(), seed=0).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_training_goes_on_where_the_batches_were_left():
    config = tiny()
    batches = build(config, seed=4).batches
    drawn = [next(batches) for _ in range(3)]
    third = draw(
        rows=config.batch, length=config.length, vocabulary=config.vocabulary, structure="repeating",
        seed=4, split="train", index=2,
    )  # fmt: skip
    assert torch.equal(drawn[2].inputs, third.inputs)


def test_the_learning_rate_rises_over_the_warm_up_and_is_then_left_alone():
    config = dataclasses.replace(tiny(), lr=0.01, warmup=4)
    training = build(config, seed=0)
    (optimizer,) = training.optimizers.values()
    assert training.schedule is not None
    rates = []
    for step in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        training.schedule(step)
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    optimizer.param_groups[0]["lr"] = 1e-5
    training.schedule(6)
    assert optimizer.param_groups[0]["lr"] == 1e-5


def test_no_warm_up_means_the_full_rate_from_the_first_update():
    (optimizer,) = build(dataclasses.replace(tiny(), warmup=0), seed=0).optimizers.values()
    assert optimizer.param_groups[0]["lr"] == tiny().lr


def test_evaluating_changes_nothing_and_repeats():
    training = build(tiny(), seed=0)
    state = torch.get_rng_state()
    first = training.evaluate()
    assert first == training.evaluate()
    assert set(first) == set(training.better) == {"accuracy", "loss"}
    assert torch.equal(state, torch.get_rng_state())
    assert training.model.training
    assert all(parameter.grad is None for parameter in training.model.parameters())


def test_a_trained_model_comes_near_the_ceiling_and_not_above_it_at_any_place(trained_tiny):
    """A leak, such as a missing causal mask, shows as accuracy that no honest predictor can have."""
    config, rows = tiny(), 4000
    limit = bayes(config.length, config.vocabulary)
    batch = draw(
        rows=rows, length=config.length, vocabulary=config.vocabulary, structure="repeating",
        seed=100, split="validation", index=1,
    )  # fmt: skip
    with torch.no_grad():
        logits_BTV = trained_tiny.model(batch.inputs)
    by_place_T = accuracy_by_place(logits_BTV, batch.targets)
    by_row_B = (logits_BTV.argmax(-1) == batch.targets).double().mean(dim=1)
    assert config.reaches * limit.accuracy < by_row_B.mean() < limit.accuracy + 5 * by_row_B.std() / math.sqrt(rows)
    for reached, best in zip(by_place_T.tolist(), limit.accuracy_by_place, strict=True):
        assert reached < best + 5 * math.sqrt(max(best * (1 - best), 1 / rows) / rows)
    assert next_token_loss(logits_BTV, batch.targets) > limit.loss


class CentredTaps(torch.nn.Conv1d):
    """The usual mistake: a convolution padded on both sides, which shows each place its target."""

    def forward(self, x_BTD):
        return x_BTD + super().forward(x_BTD.transpose(1, 2)).transpose(1, 2)


def test_a_model_that_looks_ahead_rises_above_the_ceiling():
    config = tiny()
    training = build(config, seed=100)
    torch.manual_seed(0)
    training.model.taps = CentredTaps(config.width, config.width, 3, padding=1, groups=config.width)
    optimizer = torch.optim.Adam(training.model.parameters(), lr=config.lr)
    for batch in itertools.islice(training.batches, 100):
        training.loss(training.model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert training.evaluate()["accuracy"] > bayes(config.length, config.vocabulary).accuracy + 0.05


def test_random_tokens_stay_at_chance():
    config = dataclasses.replace(tiny(), structure="random")
    training, _ = trained(config, seed=100, steps=100)
    metrics = training.evaluate()
    assert metrics["accuracy"] == pytest.approx(1 / config.vocabulary, abs=0.01)
    assert metrics["loss"] > 0.99 * math.log(config.vocabulary)


def test_the_milestones_ask_the_same_of_random_tokens():
    assert milestones(dataclasses.replace(tiny(), structure="random")) == milestones(tiny())


@pytest.mark.parametrize("preset", [tiny, reference])
def test_milestones_fall_on_evaluations_within_the_run(preset):
    config = preset()
    for milestone in milestones(config):
        assert milestone.by_step <= config.steps
        assert milestone.by_step % config.evaluate_every == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"structure": "shuffled"}, "structure: expected one of repeating, random, got 'shuffled'"),
        ({"width": 30}, "width: expected a multiple of heads=4, got 30"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"vocabulary": 1}, "vocabulary: expected at least 2, got 1"),
        ({"lr": math.nan}, "lr: expected at least 0, got nan"),
    ],
)
def test_impossible_settings_are_refused_with_what_was_expected(change, said):
    with pytest.raises(ConfigError, match=said):
        Config(**change)


@pytest.mark.slow
@pytest.mark.parametrize("preset", [tiny, reference])
def test_the_table_of_the_docs_is_what_the_recipe_reaches(preset):
    page = (Path(__file__).parents[2] / "docs/systems/separability.md").read_text()
    (row,) = re.findall(rf"^\| {preset.__name__} \| (\d+ \| \d+ \|.*)\|$", page, re.MULTILINE)
    length, vocabulary, steps, best, reached, share, least, loss = (cell.split()[0] for cell in row.split("|"))
    config, limit = preset(), bayes(preset().length, preset().vocabulary)
    runs = [trained(config, seed, config.steps)[0].evaluate() for seed in range(5)]
    assert all(config.reaches * limit.accuracy < run["accuracy"] < limit.accuracy for run in runs)
    accuracy = sum(run["accuracy"] for run in runs) / len(runs)
    assert (int(length), int(vocabulary), int(steps)) == (config.length, config.vocabulary, config.steps)
    assert (float(best), float(least)) == (round(limit.accuracy, 3), round(limit.loss, 3))
    assert float(reached) == pytest.approx(accuracy, abs=0.005)
    assert float(share) == pytest.approx(accuracy / limit.accuracy, abs=0.01)
    assert float(loss) == pytest.approx(sum(run["loss"] for run in runs) / len(runs), abs=0.02)
