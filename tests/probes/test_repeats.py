"""Evaluating twice and training twice: each way of not repeating is found, and named."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
import torch
from torch import nn

from tests.probes import small
from tests.probes.small import FAMILIES, build, subject
from trimtab.probes import EvaluationRepeatsExactly, SameSeedRepeatsExactly
from trimtab.records import Severity

PROBES = (EvaluationRepeatsExactly(), SameSeedRepeatsExactly())


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.claim)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_healthy_training_passes(family, probe):
    result = probe.run(subject(family=family))
    assert (result.verdict, result.findings) == ("holds", ())


def changed(**parts):
    """Return a training some of whose parts are made from the training."""

    def make(config, seed):
        training = build(config, seed)
        for name, part in parts.items():
            setattr(training, name, part(training))
        return training

    return make


# --- evaluation -------------------------------------------------------------------------------------------------


def evaluated(make, family="dense"):
    return EvaluationRepeatsExactly().run(subject(make, family))


@pytest.mark.parametrize("source", [lambda: torch.rand(1).item(), np.random.rand, random.random])
def test_a_metric_with_noise_is_found_with_its_spread(source):
    make = changed(evaluate=lambda training: lambda: {"loss": 1.0 + source(), "steady": 2.0})
    result = evaluated(make)
    assert result.verdict == "fails"
    (found,) = result.findings
    assert (found.code, found.subject, found.severity) == ("evaluation-not-repeatable", "loss", Severity.WARNING)
    assert 0.0 < found.measured < 1.0
    assert found.evidence["metrics"] == ("loss",)


def test_an_evaluation_that_leaves_the_model_in_its_own_mode_is_found():
    def evaluate(training):
        def leave():
            training.model.eval()
            return {"loss": 1.0}

        return leave

    result = evaluated(changed(evaluate=evaluate))
    assert result.verdict == "fails"
    assert "in another mode than before the first evaluation" in result.summary


def test_a_loss_that_sees_to_the_mode_itself_is_no_fault():
    def make(config, seed):
        training = build(config, seed)
        usual = training.loss
        training.evaluate = lambda: {"loss": float(training.model.eval() is None)}
        training.loss = lambda model, batch: usual(model.train(), batch)
        return training

    assert evaluated(make).verdict == "holds"


def test_noise_that_only_shows_after_some_updates_is_found():
    def evaluate(training):
        start = training.model[1].weight.detach().clone()

        def now():
            moved = not torch.equal(start, training.model[1].weight)
            return {"accuracy": torch.rand(1).item() if moved else 0.0}

        return now

    (found,) = evaluated(changed(evaluate=evaluate)).findings
    assert "after 10 updates" in found.summary


def test_an_evaluation_in_training_mode_changes_the_statistics_of_a_normalisation():
    def evaluate(training):
        x = small.data(7)[0]

        def now():
            with torch.no_grad():
                return {"mean": training.model(x).mean().item()}

        return now

    result = evaluated(changed(evaluate=evaluate), "convolution")
    (found,) = result.findings
    assert found.severity is Severity.WARNING
    assert "0 parameters and 3 buffers" in found.summary


def test_an_evaluation_that_trains_is_an_error():
    def evaluate(training):
        def now():
            with torch.no_grad():
                training.model[1].bias.add_(1e-6)
            return {"constant": 1.0}

        return now

    (found,) = evaluated(changed(evaluate=evaluate)).findings
    assert found.severity is Severity.ERROR
    assert found.evidence["names"] == ("1.bias",)


def test_numbers_that_are_none_are_equal_and_no_metric_is_unknown():
    assert evaluated(changed(evaluate=lambda training: lambda: {"loss": float("nan")})).verdict == "holds"
    assert evaluated(changed(evaluate=lambda training: dict)).verdict == "unknown"


# --- seed -------------------------------------------------------------------------------------------------------


def seeded(make, family="dense"):
    return SameSeedRepeatsExactly().run(subject(make, family))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_from_another_source_are_found(family):
    def make(config, seed):
        noise = torch.Generator()
        noise.seed()

        def change(model: nn.Module):
            with torch.no_grad():
                for one in model.parameters():
                    one.add_(torch.randn(one.shape, generator=noise))

        return build(config, seed, change)

    result = seeded(make, family)
    (found,) = result.findings
    assert (found.code, found.severity) == ("seed-not-honoured", Severity.ERROR)
    assert "start from other weights" in found.summary
    assert found.measured == sum(1 for _ in small.model_of(small.Config(family=family)).parameters())


def test_a_training_that_draws_from_the_global_generators_repeats_as_train_seeds_them():
    def noisy(training):
        return lambda model, batch: (
            small.loss_of(model, batch) * (1 + random.random() + np.random.rand() + torch.rand(()))
        )

    assert seeded(changed(loss=noisy)).verdict == "holds"


def test_batches_of_no_seed_and_a_state_that_all_copies_share_are_found():
    def batches(training):
        order = np.random.default_rng()
        x, y = small.data(0)
        drawn = (order.permutation(64)[:16] for _ in itertools.count())
        return ((x[rows], y[rows]) for rows in drawn)

    (found,) = seeded(changed(batches=batches)).findings
    assert found.severity is Severity.ERROR
    assert "part at update 0" in found.summary

    calls = small.counting()

    def shared(training):
        return lambda model, batch: small.loss_of(model, batch) * next(calls)

    assert seeded(changed(loss=shared)).verdict == "fails"


def test_rounding_is_a_warning():
    def rounded(training):
        return lambda model, batch: small.loss_of(model, batch) * (1 + 1e-6 * (time.perf_counter_ns() % 7 + 1))

    for _ in range(3):  # the clock may give the same remainder eight times
        result = seeded(changed(loss=rounded))
        if result.findings:
            break
    assert [one.severity for one in result.findings] == [Severity.WARNING]


def test_a_metric_on_other_data_each_time_is_found_and_the_seed_is_said_to_act():
    def evaluate(training):
        value = float(np.random.default_rng().random())
        return lambda: {"loss": value}

    (found,) = seeded(changed(evaluate=evaluate)).findings
    assert "evaluate differently" in found.summary
    assert seeded(build).measured["another seed changes the start"] == "yes"
    assert seeded(lambda config, seed: build(config, 0)).measured["another seed changes the start"] == "no"


def test_losses_of_which_one_is_no_number_differ():
    values = iter([1.0] + [float("nan")] * 100)

    def make(config, seed):
        training = build(config, seed)
        usual = training.loss
        training.loss = lambda model, batch: usual(model, batch) * next(values)
        return training

    result = SameSeedRepeatsExactly().run(subject(make))
    assert result.verdict == "fails"
    assert result.findings[0].severity is Severity.ERROR


def test_without_a_batch_nothing_is_said_of_repeating():
    result = SameSeedRepeatsExactly().run(subject(changed(batches=lambda training: iter(()))))
    assert (result.verdict, result.reason) == ("unknown", "there is no batch to compute a loss of")
