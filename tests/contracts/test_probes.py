"""What every probe promises: it touches nothing, keeps its budget, passes on healthy systems, fails on its faults."""

from __future__ import annotations

import random
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trimtab.probes
from tests.probes import small
from trimtab.experiment import check
from trimtab.probes import PROBES, SettingsHaveEffect, StartIsGoodEnough, Subject
from trimtab.report.catalogue import entries, explain
from trimtab.system import find_system

SYSTEMS = sorted(entry.name for entry in entry_points(group="trimtab.systems"))
CLAIMS = [probe.claim for probe in PROBES]
FAULTS = [
    pytest.param(name, fault.name, claim, marks=[pytest.mark.slow] if claim == "settings-have-effect" else [])
    for name in SYSTEMS
    for fault in find_system(name).faults
    for claim in fault.probes
]
"""Testing all settings of a system takes half a minute; some of them are tested below."""
NEED_SOMETHING_TO_JUDGE = ("checkpoint-loads-identically", "start-is-good-enough", "representation-ignores-position")
"""Claims about what a system may not have: a checkpoint, a condition on the start, a representation."""
HEADINGS = ["What it claims", "How it tests", "What it costs", "False alarms", "What to try", "Since"]


def probe_of(claim) -> Any:
    (probe,) = (one for one in PROBES if one.claim == claim)
    return probe


def test_the_tuple_is_the_folder_and_each_claim_is_the_name_of_its_file():
    files = {path.stem for path in Path(trimtab.probes.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert files == {claim.replace("-", "_") for claim in CLAIMS}
    assert len(set(CLAIMS)) == len(CLAIMS)


@pytest.mark.parametrize("entry", entries("probe"), ids=lambda entry: entry.code)
def test_it_says_what_it_claims_and_how_in_fixed_headings(entry):
    assert list(entry.headings) == HEADINGS
    assert all(entry.headings.values())
    assert all(setting.text for setting in entry.thresholds)
    for code in probe_of(entry.code).codes:
        assert explain(code).code in (entry.code, code)


def test_the_catalogue_read_from_the_sources_is_the_one_that_runs():
    assert [entry.code for entry in entries("probe")] == CLAIMS
    for entry in entries("probe"):
        probe = probe_of(entry.code)
        assert {one.name: one.value for one in entry.thresholds}["budget"] == probe.budget
        assert entry.facts["findings"] == ", ".join(probe.codes)


def with_accept(probe):
    return StartIsGoodEnough(accept=("loss <= 100",)) if isinstance(probe, StartIsGoodEnough) else probe


@pytest.mark.parametrize("family", small.FAMILIES)
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.claim)
def test_it_leaves_random_numbers_threads_gradients_and_the_users_model_as_they_were(probe, family):
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    mine = small.build(small.Config(family=family), 0)
    loss = mine.loss(mine.model, next(mine.batches))
    loss.backward()
    weights = {name: value.clone() for name, value in mine.model.state_dict().items()}
    gradients = [one.grad.clone() for one in mine.model.parameters()]
    load = torch.nn.Module.load_state_dict
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    with torch.no_grad():
        result = with_accept(probe).run(small.subject(family=family))
        assert not torch.is_grad_enabled()
    assert result.claim == probe.claim
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert torch.get_num_threads() == 1
    assert torch.nn.Module.load_state_dict is load
    assert all(torch.equal(value, weights[name]) for name, value in mine.model.state_dict().items())
    assert all(torch.equal(one.grad, g) for one, g in zip(mine.model.parameters(), gradients, strict=True))


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.claim)
def test_it_puts_everything_back_when_the_training_raises(probe):
    def broken(config, seed):
        torch.manual_seed(99)
        torch.set_num_threads(2)
        raise RuntimeError("no data")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no data"):
        with_accept(probe).run(Subject(name="broken", make=broken, config=small.Config()))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == 1


@pytest.fixture(scope="module")
def checked():
    """System -> what all probes say of its tiny training; run once."""
    return {name: check(name) for name in SYSTEMS}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("name", SYSTEMS)
def test_it_passes_on_a_healthy_system_within_its_budget(name, claim, checked):
    (result,) = (one for one in checked[name].results if one.claim == claim)
    assert result.verdict != "fails", result.summary
    assert not result.reason.startswith("it failed")
    assert result.seconds <= 1.5 * probe_of(claim).budget
    if claim not in NEED_SOMETHING_TO_JUDGE:
        assert result.verdict == "holds", result.reason


@pytest.mark.parametrize(("name", "fault", "claim"), FAULTS)
def test_it_fails_on_the_faults_that_name_it(name, fault, claim):
    (result,) = check(name, fault=fault, only=[claim]).results
    assert result.verdict == "fails", result.reason
    assert result.findings
    assert {one.code for one in result.findings} <= set(probe_of(claim).codes)
    assert all(one.summary and one.measured > one.threshold for one in result.findings)


def test_a_setting_without_effect_is_found_among_those_that_have_one():
    """The quick form of the slow test of `setting-without-effect`."""
    some = SettingsHaveEffect(only=("curvature", "max_radius", "lr"))
    (broken,) = check("ternary", fault="setting-without-effect", probes=[some]).results
    assert [one.subject for one in broken.findings] == ["curvature"]
    one = SettingsHaveEffect(only=("curvature",))
    (sound,) = check("ternary", preset="write-up-matched", probes=[one]).results
    assert (sound.verdict, sound.findings) == ("holds", ())


def test_some_fault_names_each_claim_that_a_training_can_break():
    named = {claim for name in SYSTEMS for fault in find_system(name).faults for claim in fault.probes}
    assert named <= set(CLAIMS)
    assert named >= {
        "settings-have-effect", "evaluation-repeats-exactly", "same-seed-repeats-exactly",
        "every-parameter-on-the-loss-path-is-trained-or-loaded",
    }  # fmt: skip
