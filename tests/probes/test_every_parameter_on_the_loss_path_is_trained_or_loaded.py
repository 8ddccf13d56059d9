"""Random and frozen is told from loaded, constant, announced, following and later freed, in several small models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.probes.small import FAMILIES, Config, build, freeze, loss_of, model_of, parts, subject
from trimtab import checkpoint
from trimtab.probes import EveryParameterOnTheLossPathIsTrainedOrLoaded as Probe
from trimtab.records import Severity


def stored(family, seed=123):
    """Return the weights that a load gives: the same ones each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_of(Config(family=family)).state_dict()


def with_change(change, family="dense", probe=None, **more):
    """Probe a small training whose model was changed before its optimizer was made."""

    def make(config, seed):
        training = build(config, seed, change)
        for name, value in more.items():
            setattr(training, name, value(training) if callable(value) else value)
        return training

    return (probe or Probe()).run(subject(make, family))


def codes(result):
    return [(one.code, one.severity) for one in result.findings]


ERROR = [("random-and-frozen", Severity.ERROR)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_healthy_training_passes(family):
    result = Probe().run(subject(family=family))
    assert (result.verdict, result.findings) == ("holds", ())
    assert result.measured["share trained"] == 1.0


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_layer_that_was_frozen_as_it_was_drawn_is_found(family, place):
    result = with_change(lambda model: freeze(parts(model)[place]), family)
    assert result.verdict == "fails"
    assert codes(result) == ERROR
    (names,) = (one.evidence["modules"] for one in result.findings)
    model = model_of(Config(family=family))
    (name,) = (name for name, one in model.named_modules() if one is parts(model)[place])
    assert names == (name,)
    assert 0 < result.measured["share random and frozen"] < 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_layer_that_was_loaded_passes(family):
    def change(model):
        model.load_state_dict(stored(family))
        freeze(parts(model)[0])

    result = with_change(change, family)
    assert (result.verdict, codes(result)) == ("holds", [])
    assert result.measured["share loaded"] == 1.0


def test_what_a_load_left_out_and_was_frozen_is_found():
    def change(model):
        weights = {name: value for name, value in stored("autoencoder").items() if not name.startswith("1.2")}
        model.load_state_dict(weights, strict=False)
        freeze(model)
        model[0].requires_grad_(True)

    result = with_change(change, "autoencoder")
    assert codes(result) == ERROR
    assert result.findings[0].evidence["modules"] == ("1.2",)


def test_weights_that_are_copied_by_hand_are_the_same_for_every_seed_and_pass():
    def change(model):
        with torch.no_grad():
            for name, one in model.named_parameters():
                one.copy_(stored("dense")[name])
        freeze(model[1])

    assert with_change(change).verdict == "holds"


def test_a_checkpoint_of_ours_is_a_load(tmp_path):
    model = model_of(Config())
    model.load_state_dict(stored("dense"))
    checkpoint.save(tmp_path / "stored", model)

    def change(model):
        checkpoint.load(tmp_path / "stored", model)
        freeze(model[1])

    result = with_change(change)
    assert result.verdict == "holds"
    assert result.measured["loads"] == 1.0
    assert result.measured["share loaded"] == 1.0


def test_what_runs_without_gradients_is_on_the_path_too():
    class Cut(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            with torch.no_grad():
                return self.inner(x)

    def change(model):
        freeze(model[1])
        model[1] = Cut(model[1])

    result = with_change(change)
    assert codes(result) == ERROR
    assert result.findings[0].evidence["names"] == ("1.inner.weight", "1.inner.bias")


def test_a_frozen_module_that_nothing_calls_is_not_on_the_path():
    def change(model):
        model[1].spare = nn.Linear(2, 2).requires_grad_(False)

    assert with_change(change).verdict == "holds"


def test_a_buffer_is_no_parameter():
    class Projection(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("matrix", torch.randn(6, 6))

        def forward(self, x):
            return x @ self.matrix

    result = with_change(lambda model: model.insert(1, Projection()))
    assert (result.verdict, codes(result)) == ("holds", [])


def test_a_random_projection_that_was_announced_passes():
    def change(model):
        freeze(model[1])

    assert with_change(change).verdict == "fails"
    for result in (with_change(change, fixed=("1.*",)), with_change(change, probe=Probe(fixed=("1.*",)))):
        assert result.verdict == "holds"
        assert result.measured["share random and frozen on purpose"] > 0.5
    assert with_change(change, fixed=("3.*",)).verdict == "fails"


class Twin(nn.Module):
    """A trained network beside a frozen copy of it, which follows it or not."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.target = inner, copy.deepcopy(inner).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            calm = self.target(x)
        return self.inner(x) + 0.1 * calm


@pytest.mark.parametrize("follows", [True, False])
def test_a_target_network_passes(follows):
    """One that moves at each update, and one that begins as a copy of the trained network."""

    def change(model):
        twin = Twin(model[1])
        model[1] = twin
        if follows:
            with torch.no_grad():
                twin.target.weight.add_(torch.randn_like(twin.target.weight))
                twin.target.bias.add_(torch.randn_like(twin.target.bias))

    def schedule(training):
        twin, before = training.model[1], training.schedule

        def step(index):
            before(index)
            with torch.no_grad():
                for one, other in zip(twin.target.parameters(), twin.inner.parameters(), strict=True):
                    one.lerp_(other, 0.1)

        return step if follows else before

    assert with_change(change, schedule=schedule).verdict == "holds"
    if follows:  # the same target is random and frozen when nothing moves it
        assert codes(with_change(change)) == ERROR


def test_what_the_schedule_frees_later_passes():
    def schedule(training):
        def step(index):
            if index == 20:
                training.model[1].requires_grad_(True)

        return step

    assert with_change(lambda model: freeze(model[1]), schedule=schedule).verdict == "holds"


def test_where_the_seed_changes_nothing_a_load_tells_and_the_rest_is_a_warning():
    def make(config, seed):
        return build(config, 0, lambda model: freeze(model[1]))

    result = Probe().run(subject(make))
    assert codes(result) == [("random-and-frozen", Severity.WARNING)]

    def load_and_freeze(model):
        model.load_state_dict(stored("dense"))
        freeze(model[1])

    def loaded(config, seed):
        return build(config, 0, load_and_freeze)

    assert Probe().run(subject(loaded)).verdict == "holds"


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_layer_that_no_optimizer_holds_is_found(is_loaded):
    def make(config, seed):
        training = build(config, seed, (lambda m: m.load_state_dict(stored("dense"))) if is_loaded else lambda m: None)
        training.optimizers["main"].param_groups[0]["params"] = list(training.model[1].parameters())
        return training

    result = Probe().run(subject(make))
    assert result.verdict == "fails"
    severity = Severity.WARNING if is_loaded else Severity.ERROR
    assert codes(result) == [("parameters-outside-optimizer", severity)]
    assert result.findings[0].evidence["names"] == ("3.weight", "3.bias")


def test_a_term_that_depends_on_frozen_parts_alone_is_constant():
    def change(model):
        model.load_state_dict(stored("dense"))
        freeze(model[1], model[3])
        model.extra = nn.Linear(6, 1)

    def loss(model, batch):
        x, y = batch
        penalty = model.extra(x[:, 0]).square().mean()
        scores = model[3](model[2](model[1](model[0](x))))
        return nn.functional.cross_entropy(scores, y) + 0.1 * penalty

    result = with_change(change, loss=lambda training: loss)
    assert codes(result) == [("loss-term-constant", Severity.WARNING)]
    assert result.findings[0].subject == "cross-entropy"

    def trained(model):
        change(model)
        model[3].requires_grad_(True)

    assert with_change(trained, loss=lambda training: loss).verdict == "holds"


def test_an_adapter_that_begins_at_zero_has_a_gradient_soon():
    class Adapter(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.down, self.up = inner, nn.Linear(6, 2, bias=False), nn.Linear(2, 8, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x):
            return self.inner(x) + self.up(self.down(x))

    def change(model):
        model.load_state_dict(stored("dense"))
        freeze(model)
        model[1] = Adapter(model[1])

    result = with_change(change)
    assert (result.verdict, codes(result)) == ("holds", [])


def test_dead_weights_and_frozen_ones_in_an_optimizer_are_told():
    def make(config, seed):
        training = build(config, seed, lambda model: nn.init.constant_(model[1].bias, -100.0))
        training.model[3].load_state_dict({"weight": torch.ones(3, 8), "bias": torch.zeros(3)})
        freeze(training.model[3])
        return training

    result = Probe().run(subject(make))
    assert result.verdict == "holds"
    assert codes(result) == [("parameters-never-changed", Severity.INFO), ("frozen-in-optimizer", Severity.INFO)]


def test_without_a_graph_or_a_batch_nothing_is_said():
    def detached(model, batch):
        return loss_of(model, batch).detach().requires_grad_()

    result = with_change(lambda model: None, loss=lambda training: detached)
    assert result.verdict == "unknown"
    assert "graph" in result.reason
    assert with_change(lambda model: None, batches=lambda training: iter(())).verdict == "unknown"
