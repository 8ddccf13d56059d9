"""`check`: what can be checked, what is refused and how, and that nobody else hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from tests.probes import small
from trimtab import Guard
from trimtab.errors import ConfigError, UserError
from trimtab.experiment import check
from trimtab.probes import Result, SameSeedRepeatsExactly, SettingsHaveEffect
from trimtab.records import Severity


def four(width: int = 4, lr: float = 0.1, seed: int = 0, unused: float = 1.0):
    """The simple form: a model, an optimizer, a loss and batches."""
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(seed))
    loader = [(x[i : i + 8], x[i : i + 8].sum(1, keepdim=True)) for i in range(0, 32, 8)]
    return model, torch.optim.SGD(model.parameters(), lr=lr), loss_of, loader


def loss_of(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def frozen_front():
    model, _, loss, batches = four()
    model[0].requires_grad_(False)
    return model, torch.optim.SGD(model[2].parameters(), lr=0.1), loss, batches


USUAL = small.Config()


def configured(config: small.Config = USUAL):
    return small.build(config, 0)


SHARED = nn.Linear(3, 1)


@dataclass(frozen=True)
class Loud:
    """A probe that raises."""

    claim: str = "never-said"
    budget: float = 1.0

    def run(self, subject: Any) -> Result:
        raise ZeroDivisionError("by zero")


def verdicts(checkup):
    return {one.claim: one.verdict for one in checkup.results}


def test_a_function_that_returns_four_things_is_checked_with_its_parameters_as_settings():
    checkup = check(four, budget=20)
    assert checkup.name == "four"
    said = verdicts(checkup)
    assert said["same-seed-repeats-exactly"] == "holds"
    assert said["every-parameter-on-the-loss-path-is-trained-or-loaded"] == "holds"
    assert said["evaluation-repeats-exactly"] == "unknown"
    assert said["settings-have-effect"] == "fails"
    assert [one.subject for one in checkup.findings] == ["unused"]
    assert checkup.severity is Severity.WARNING
    assert checkup.seconds > sum(one.seconds for one in checkup.results) * 0.9


def test_overrides_reach_the_function_by_name_and_by_dataclass():
    only = [SettingsHaveEffect(only=("width",))]
    with pytest.raises(ConfigError, match=r"there is no setting 'widht'.*Did you mean"):
        check(four, overrides=["widht=8"], probes=only)
    assert check(four, overrides=["width=8"], probes=only).results[0].verdict == "holds"
    by_class = [SettingsHaveEffect(only=("hidden",))]
    assert check(configured, overrides=["hidden=4"], probes=by_class).results[0].verdict == "holds"


def test_a_random_and_frozen_part_is_found_by_name():
    checkup = check(
        "tests.test_experiment:frozen_front", only=["every-parameter-on-the-loss-path-is-trained-or-loaded"]
    )
    assert [(one.code, one.subject) for one in checkup.findings] == [("random-and-frozen", "0")]
    assert checkup.severity is Severity.ERROR


def test_a_probe_that_raises_is_unknown_and_visible():
    (result,) = check(four, probes=[Loud()]).results
    assert (result.verdict, result.reason) == ("unknown", "it failed: ZeroDivisionError: by zero")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: None, "returned a NoneType; expected a function that returns"),
        (lambda: (1, 2), "returned a tuple of 2; expected"),
        (lambda: (four, *four()[1:]), "the first is a function, not an nn.Module"),
        (lambda: (four()[0], None, *four()[2:]), "the second is a NoneType, not an optimizer"),
        (lambda: (*four()[:2], 3, []), "the third is a int, not a function"),
        (lambda: (*four()[:3], 7), "the fourth is a int, not to be iterated over"),
        (lambda width: four(), "the parameters width have no defaults"),
        (lambda: (SHARED, torch.optim.SGD(SHARED.parameters(), lr=0.1), loss_of, []), "two calls return"),
        (small.build(small.Config(), 0), "give the function that makes it"),
        (3, "got a int; expected a function"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_what_to_do(make, words):
    with pytest.raises(UserError, match=words):
        check(make)


def test_a_loss_that_is_none_is_refused_with_its_reason():
    def vector():
        model, optimizer, _, batches = four()
        return model, optimizer, lambda model, batch: model(batch[0]), batches

    def no_batch():
        model, optimizer, _, batches = four()
        return model, optimizer, lambda model: model, batches

    with pytest.raises(UserError, match="expected a tensor with one element"):
        check(vector, probes=[SameSeedRepeatsExactly()])
    with pytest.raises(UserError, match=r"could not be called as loss\(model, batch\)"):
        check(no_batch, probes=[SameSeedRepeatsExactly()])


def test_a_training_that_does_not_run_is_no_pass():
    def no_file():
        raise FileNotFoundError("train.csv")

    def misfit():
        model, optimizer, loss, _ = four()
        return model, optimizer, loss, [(torch.zeros(4, 7), torch.zeros(4, 1))]

    with pytest.raises(UserError, match=r"making it failed.*FileNotFoundError: train.csv \(test_experiment.py, line"):
        check(no_file)
    with pytest.raises(UserError, match=r"its first update failed.*RuntimeError: mat1 and mat2"):
        check(misfit)
    with pytest.raises(UserError, match="there is no batch to take an update with"):
        check(lambda: (*four()[:3], []))


def test_a_condition_on_a_metric_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"names a metric that is not evaluated. Did you mean 'loss'"):
        check(configured, accept=["validation/lss <= 3"], only=["start-is-good-enough"])


def test_an_optimizer_that_needs_a_closure_gets_one():
    def second_order(lr: float = 0.5):
        model, _, loss, batches = four()
        return model, torch.optim.LBFGS(model.parameters(), lr=lr, max_iter=2), loss, batches

    assert set(verdicts(check(second_order)).values()) == {"holds", "unknown"}
    assert verdicts(check(second_order))["settings-have-effect"] == "holds"


def test_what_is_to_change_no_number_is_not_accused():
    def usual(lr: float = 0.1, epochs: int = 10, log_every: int = 50, num_workers: int = 0, unused: float = 1.0):
        return four(lr=lr)

    (result,) = check(usual, only=["settings-have-effect"]).results
    assert [one.subject for one in result.findings] == ["unused"]
    assert result.measured["epochs"] == "not tested: by its name it is to change no number"


def test_names_are_refused_with_the_nearest_known_one():
    with pytest.raises(UserError, match="Did you mean 'settings-have-effect'"):
        check(four, only=["setting-have-effect"])
    with pytest.raises(UserError, match="Did you mean 'separability'"):
        check("separabilty")
    with pytest.raises(UserError, match="preset='tiny' is for Systems"):
        check(four, preset="tiny")
    with pytest.raises(UserError, match="budget=0: expected CPU seconds above 0"):
        check(four, budget=0)
    with pytest.raises(UserError, match="no parameters with defaults"):
        check(frozen_front, overrides=["lr=1"])


def test_a_guard_that_is_open_hears_nothing_of_it_and_goes_on(tmp_path):
    model, optimizer, loss, batches = four()
    with Guard(tmp_path / "run", model, optimizer) as guard:
        for place, batch in enumerate(batches):
            loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            if place == 1:
                check(four, probes=[SameSeedRepeatsExactly()])
        assert guard.measure.update == len(batches)
