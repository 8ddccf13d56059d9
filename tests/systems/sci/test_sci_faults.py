"""The faults of the system, and the rules and causes that see what the catalogue cannot.

That each fault shows its findings and its cause is tested with all systems in `tests/contracts`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from trimtab import Detector
from trimtab.errors import ConfigError
from trimtab.hypotheses import HYPOTHESES as CATALOGUE
from trimtab.hypotheses import Hypothesis, rank
from trimtab.records import Finding, Signal, Unknown
from trimtab.trace import Trace
from trimtab_systems.sci import faults
from trimtab_systems.sci.recipe import SYSTEM, build
from trimtab_systems.sci.write_up import alarms, hypotheses
from trimtab_systems.sci.write_up.alarms import (
    ContrastAtChance,
    ContrastWithoutPairs,
    EndNotLearned,
    RateLeaps,
    SlotsCollapsed,
    TaskLossAtRest,
)
from trimtab_systems.sci.write_up.config import WriteUpConfig

Course = Sequence[Mapping[str, float]]
FALLING = [3.0, 2.5, 2.0, 1.5, 1.2, 1.0]


def judged(rule: Detector, course: Course) -> list[Finding | Unknown | None]:
    """Return what a rule says of each record, of which there is one in ten updates."""
    trace, answers = Trace(folds=rule.folds), []
    for number, values in enumerate(course, start=1):
        trace.append(Signal(step=10 * number, update=10 * number, time=0.0, values=dict(values)))
        answer = rule.detect(trace)
        assert answer is None or isinstance(answer, Finding | Unknown)
        answers.append(answer)
    return answers


def found_at(rule: Detector, course: Course) -> list[int]:
    """Return the steps at which a rule finds something."""
    return [answer.step for answer in judged(rule, course) if isinstance(answer, Finding)]


@pytest.mark.parametrize(
    ("cosines", "steps"),
    [
        ([1.0] * 6, [30, 40, 50, 60]),
        ([0.997] * 6, []),
        ([1.0, 1.0, 0.9, 0.9, 0.999, 0.9], [50]),
    ],
)
def test_slots_that_are_alike_are_told_once_the_task_is_half_learned(cosines: list[float], steps: list[int]):
    left = [1.0, 0.6, 0.5, 0.4, 0.3, 0.2]
    course = [{"slot_cosine": one, "task_loss_over_first": loss} for one, loss in zip(cosines, left, strict=True)]
    assert found_at(SlotsCollapsed(), course) == steps


@pytest.mark.parametrize(
    ("paired", "steps"),
    [
        ([False] * 6, [30, 40, 50, 60]),
        ([True] * 6, []),
        ([True, False, True, False, True, False], []),
        ([True, True, False, False, False, False], [50, 60]),
    ],
)
def test_batches_without_a_pair_are_counted(paired: list[bool], steps: list[int]):
    course = [{"scl_loss": 0.0} | ({"same_structure_similarity": 0.5} if pair else {}) for pair in paired]
    assert found_at(ContrastWithoutPairs(), course) == steps


@pytest.mark.parametrize(
    ("ends", "losses", "steps"),
    [
        ([2.0, 2.1, 2.2, 2.3, 2.4, 2.5], FALLING, [30, 40, 50, 60]),
        ([2.0, 1.9, 1.8, 1.0, 0.5, 0.1], FALLING, []),
        ([2.0, 2.1, 2.2, 2.3, 2.4, 2.5], FALLING[::-1], []),
    ],
)
def test_an_end_that_is_unlearned_while_the_rest_is_learned(ends: list[float], losses: list[float], steps: list[int]):
    course = [{"eos_loss": end, "total_loss": loss} for end, loss in zip(ends, losses, strict=True)]
    assert found_at(EndNotLearned(), course) == steps


@pytest.mark.parametrize(("same", "steps"), [(0.52, [50, 60]), (0.6, []), (0.4, [50, 60])])
def test_a_contrast_that_pulls_nothing_together_is_told_after_some_time(same: float, steps: list[int]):
    course = [{"same_structure_similarity": same, "different_structure_similarity": 0.5}] * 6
    assert found_at(ContrastAtChance(), course) == steps


@pytest.mark.parametrize(("shares", "steps"), [([1.0] * 4, [30, 40]), ([1.0, 1.0, 0.8, 0.95], [40]), ([0.5] * 4, [])])
def test_a_task_loss_at_rest_is_told_though_the_sum_moves(shares: list[float], steps: list[int]):
    course = [{"task_loss_over_first": share, "loss": 3.0 + share} for share in shares]
    assert found_at(TaskLossAtRest(), course) == steps


@pytest.mark.parametrize(
    ("rates", "steps"), [([1.0, 1.0, 100.0, 1.0], [30]), ([1.0, 2.0, 4.0, 8.0], []), ([0.0, 1.0], [])]
)
def test_a_rate_that_leaps_is_told_when_it_does(rates: list[float], steps: list[int]):
    assert found_at(RateLeaps(), [{"learning_rate": rate} for rate in rates]) == steps


@pytest.mark.parametrize("rule", alarms.DETECTORS, ids=lambda rule: rule.code)
def test_a_training_without_structure_is_not_judged(rule: Detector):
    assert all(isinstance(answer, Unknown) for answer in judged(rule, [{"loss": 1.0}] * 12))


@pytest.mark.parametrize("cause", alarms.HYPOTHESES, ids=lambda cause: cause.cause)
def test_each_cause_stands_first_where_its_finding_is_alone(cause: Hypothesis):
    code = next(weight.code for weight in cause.evidence if weight.decibans > 0)
    (rule,) = (one for one in alarms.DETECTORS if one.code == code)
    courses: Mapping[str, Mapping[str, float]] = {
        "slots-collapsed": {"slot_cosine": 1.0, "task_loss_over_first": 0.3},
        "contrast-without-pairs": {"scl_loss": 0.0},
        "contrast-at-chance": {"same_structure_similarity": 0.5, "different_structure_similarity": 0.5},
        "end-not-learned": {"eos_loss": 2.0, "total_loss": 2.0},
        "rate-leaps": {"learning_rate": 1.0},
    }
    course = [dict(courses[code]) for _ in range(12)]
    if code == "end-not-learned":
        course[-1] = {"eos_loss": 3.0, "total_loss": 1.0}
    if code == "rate-leaps":
        course[-1] = {"learning_rate": 100.0}
    finding = judged(rule, course)[-1]
    assert isinstance(finding, Finding)
    opened = replace(finding, event="opened")
    ranked = rank((*CATALOGUE, *hypotheses.HYPOTHESES, *alarms.HYPOTHESES), [opened], {code})
    assert ranked[0].cause == cause.cause


def test_validation_on_the_test_file_is_refused_with_the_reason():
    start = faults.write_up_small()
    with pytest.raises(ConfigError, match="no number of this training would be a test"):
        replace(start, **faults.VALIDATION_ON_TEST.change)


def test_the_same_training_without_turn_as_content_is_built():
    """So that it is `turn` that is refused, and not the preset."""
    start = SYSTEM.presets[faults.TURN_AS_CONTENT.preset]()
    assert isinstance(start, WriteUpConfig)
    assert start.swap_rate > 0, "without swapping nothing would be made of `turn`"
    with pytest.raises(ConfigError, match="test commands of the split 'length'"):
        build(replace(start, **faults.TURN_AS_CONTENT.change), 0)
    assert build(start, 0).steps > 0
