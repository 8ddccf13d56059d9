"""A start is accepted or refused with all its tries; a load is a function of the checkpoint or is found not to be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.probes.small import FAMILIES, Config, build, freeze, model_of, subject
from trimtab import checkpoint
from trimtab.errors import UserError
from trimtab.milestone import Milestone
from trimtab.probes import CheckpointLoadsIdentically, StartIsGoodEnough, Subject, first_good_start
from trimtab.records import Severity
from trimtab.system import System

# --- starts -----------------------------------------------------------------------------------------------------


def coin(config, seed):
    """A training whose metric at the start is the seed modulo three."""
    training = build(config, seed)
    training.evaluate = lambda: {"order": float(seed % 3), "loss": 1.0}
    return training


@pytest.mark.parametrize(("seed", "severity"), [(1, Severity.WARNING), (2, Severity.ERROR)])
def test_bad_starts_are_counted_with_their_interval(seed, severity):
    result = StartIsGoodEnough(accept=("validation/order <= 1",), seeds=9).run(subject(coin, seed=seed))
    assert result.verdict == "fails"
    (found,) = result.findings
    assert (found.code, found.severity, found.subject) == ("start-too-bad", severity, "order")
    assert found.measured == pytest.approx(3 / 9)
    assert result.n == 9
    assert result.interval is not None
    low, high = result.interval
    assert low < 6 / 9 < high
    assert low == pytest.approx(0.354, abs=1e-3)  # Wilson, 6 of 9
    assert [value for name, value in result.measured.items() if value.endswith("bad")] == ["order 2, bad"] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_good_starts_pass(family):
    result = StartIsGoodEnough(accept=("loss <= 100", "loss > 0")).run(subject(family=family))
    assert (result.verdict, result.findings) == ("holds", ())
    assert result.interval[1] == pytest.approx(1.0)


def test_the_condition_may_be_a_milestone_of_the_system_that_is_due_at_once():
    system = System(
        name="coin", summary="", presets={"tiny": Config}, build=coin,
        milestones=lambda config: (
            Milestone(metric="validation/order", comparison="<=", value=0.0, by_step=0),
            Milestone(metric="validation/loss", comparison="<=", value=0.0, by_step=10),
        ),
    )  # fmt: skip
    result = StartIsGoodEnough(seeds=3).run(Subject(name="coin", make=coin, config=Config(), system=system))
    assert result.findings[0].evidence["seeds"] == ("1", "2")


def test_without_a_condition_nothing_is_said_and_a_wrong_one_is_refused():
    assert StartIsGoodEnough().run(subject()).verdict == "unknown"
    with pytest.raises(UserError, match=r"names a metric that is not evaluated\. Did you mean 'loss'\?"):
        StartIsGoodEnough(accept=("losss <= 1",)).run(subject())
    with pytest.raises(UserError, match="expected 'METRIC <= VALUE'"):
        StartIsGoodEnough(accept=("loss is small",)).run(subject())


def test_a_start_that_is_no_number_is_bad():
    def make(config, seed):
        training = build(config, seed)
        training.evaluate = lambda: {"loss": float("nan")}
        return training

    assert StartIsGoodEnough(accept=("loss <= 1",), seeds=2).run(subject(make)).findings[0].measured == 1.0


def test_the_first_good_start_is_returned_with_its_log_and_none_is_refused_with_all_tries():
    good = first_good_start(subject(coin, seed=1), "order <= 0", tries=5)
    assert good.seed == 3
    assert [(one.seed, one.good) for one in good.tries] == [(1, False), (2, False), (3, True)]
    assert torch.equal(good.training.model[1].weight, build(Config(), 3).model[1].weight)
    with pytest.raises(
        UserError, match=r"none of 3 starts meets order < 0 \(seed 1: order 1, .*seed 3: order 0, .*refused"
    ):
        first_good_start(subject(coin, seed=1), "order < 0", tries=3)
    with pytest.raises(UserError, match="tries=0"):
        first_good_start(subject(coin), "order < 0", tries=0)


# --- loads ------------------------------------------------------------------------------------------------------


def weights(family, seed=99):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_of(Config(family=family)).state_dict()


def loading(family, strict=True, drop="", rename="", frozen=False):
    """Return what builds a training and loads weights, some of which are left out or stored under another name."""

    def change(model: nn.Module):
        stored = {name: value for name, value in weights(family).items() if not (drop and name.startswith(drop))}
        if rename:
            stored = {name.replace(rename, f"{rename}9"): value for name, value in stored.items()}
        model.load_state_dict(stored, strict=strict)
        if frozen:
            freeze(model[-1])
            next(model.parameters()).requires_grad_(True)

    return lambda config, seed: build(config, seed, change)


def loads(make, family="dense", **more):
    return CheckpointLoadsIdentically(**more).run(subject(make, family))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_load_of_everything_repeats(family):
    result = loads(loading(family), family)
    assert (result.verdict, result.findings) == ("holds", ())
    assert result.n == 5
    assert result.measured["tensors that differ"] == 0.0


@pytest.mark.parametrize("family", ["dense", "convolution", "autoencoder"])
def test_what_a_forgiving_load_leaves_random_is_found_with_its_share_and_the_spread_of_the_metric(family):
    last = "1.2" if family == "autoencoder" else "4" if family == "convolution" else "3"
    result = loads(loading(family, strict=False, rename=f"{last}."), family)
    assert result.verdict == "fails"
    (found,) = result.findings
    assert (found.code, found.severity) == ("load-not-repeatable", Severity.ERROR)
    assert found.evidence["names"] == (f"{last}.weight", f"{last}.bias")
    assert len(found.evidence["unexpected"]) == 5 * 2 / 5  # those of one load
    model = model_of(Config(family=family))
    share = sum(p.numel() for n, p in model.named_parameters() if n.startswith(last)) / sum(
        p.numel() for p in model.parameters()
    )
    assert result.measured["share of the parameters"] == pytest.approx(share)
    assert result.measured["spread of loss"] > 0.0


def test_a_head_that_begins_anew_is_a_warning_and_can_be_announced():
    make = loading("dense", strict=False, drop="3")
    assert [one.severity for one in loads(make).findings] == [Severity.WARNING]
    assert loads(make, fresh=("3.*",)).verdict == "holds"
    assert [one.severity for one in loads(loading("dense", strict=False, drop="3", frozen=True)).findings] == [
        Severity.ERROR
    ]


def test_a_module_beside_the_loaded_one_may_be_random():
    def change(model):
        model[0].load_state_dict({k.removeprefix("0."): v for k, v in weights("autoencoder").items() if k[0] == "0"})

    result = loads(lambda config, seed: build(config, seed, change), "autoencoder")
    assert result.verdict == "holds"
    assert result.measured["tensors"] == 4.0
    assert result.measured["tensors that differ"] == 0.0


def test_without_a_load_nothing_is_said():
    assert loads(build).verdict == "unknown"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_checkpoint_is_loaded_into_copies_of_other_seeds(family, tmp_path):
    model = model_of(Config(family=family))
    model.load_state_dict(weights(family))
    path = tmp_path / "stored"
    checkpoint.save(path, model)
    probed = Subject(name="stored", make=build, config=Config(family=family), checkpoint=path)
    result = CheckpointLoadsIdentically(loads=3).run(probed)
    assert (result.verdict, result.findings) == ("holds", ())
    assert result.n == 3
    other = Subject(name="stored", make=build, config=Config(family=family, hidden=9), checkpoint=path)
    (found,) = CheckpointLoadsIdentically(loads=3).run(other).findings
    assert found.severity is Severity.ERROR
    assert "cannot be loaded" in found.summary


def test_a_checkpoint_that_is_read_forgivingly_while_building_is_found(tmp_path):
    model = model_of(Config())
    checkpoint.save(tmp_path / "stored", nn.ModuleDict({"1": model[1]}))
    kinds = {"class": "Sequential", "class.0": "Flatten", "class.2": "ReLU", "class.3": "Linear"}

    def change(model):
        checkpoint.load(tmp_path / "stored", model, allow_missing=["3.*"], override=kinds)

    (found,) = loads(lambda config, seed: build(config, seed, change)).findings
    assert found.evidence["names"] == ("3.weight", "3.bias")
