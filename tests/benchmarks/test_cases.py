"""The benchmark's trainings: well-formed tables, exact onsets, the same seed gives the same losses."""

import math
import pickle
from itertools import pairwise

import pytest
import torch

from benchmarks.cases.faults import ALL_FAMILIES, ANCHORS, AT_ONCE, FAULTS, PUBLISHED, WAITING, FaultCase
from benchmarks.cases.healthy import HEALTHY, MINIMUM_STEPS, REPORT_SEEDS, TUNE_SEEDS, HealthyCase
from benchmarks.cases.second_injections import SECOND_INJECTIONS
from benchmarks.cases.special_families import UNSEEN_SPECIAL_FAMILIES
from benchmarks.cases.training import Training, run, zero_grad
from benchmarks.cases.unseen_families import UNSEEN_FAMILIES

CASES = (*FAULTS, *SECOND_INJECTIONS)
UNSEEN = UNSEEN_FAMILIES | UNSEEN_SPECIAL_FAMILIES


def places(cases, *, first_at_once=False):
    """Each case in each of its families; with `first_at_once` all but the first are for `make test-slow`."""
    return [
        pytest.param(
            case, family, id=f"{case.name}-{family}", marks=[pytest.mark.slow] if first_at_once and place else []
        )
        for case in cases
        for place, family in enumerate(case.families)
    ]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def case_named(name: str) -> FaultCase:
    (case,) = [case for case in CASES if case.name == name]
    return case


def gradient_is_finite(training: Training) -> bool:
    gradients = [p.grad for p in training.model.parameters() if p.grad is not None]
    return all(bool(gradient.isfinite().all()) for gradient in gradients)


# The tables


def test_no_two_cases_share_a_name():
    names = [case.name for case in CASES] + [case.name for case in HEALTHY]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_each_fault_stands_in_at_least_two_families_that_may_be_tuned_on(case):
    assert len(set(case.families)) == len(case.families) >= 2
    assert not set(case.families) & set(UNSEEN)


@pytest.mark.parametrize("case", SECOND_INJECTIONS, ids=lambda case: case.name)
def test_a_second_injection_stands_in_unseen_families_alone(case):
    assert case.families
    assert set(case.families) <= set(UNSEEN)


def test_each_fault_of_the_list_has_a_case_or_says_what_it_waits_for():
    assert not set(ANCHORS) & set(WAITING)
    assert set(ANCHORS) | set(WAITING) == set(range(1, 45))
    names = {case.name for case in FAULTS}
    assert all(set(cases) <= names for cases in (*ANCHORS.values(), *PUBLISHED.values()))


def test_every_kind_of_the_healthy_list_is_there():
    assert {case.anchor for case in HEALTHY} - {""} == {f"H{number}" for number in range(1, 19)}


def test_each_cause_has_a_fault_and_a_second_injection():
    first, second = ({cause for case in cases for cause in case.right_causes} for cases in (FAULTS, SECOND_INJECTIONS))
    assert first == second
    assert len(first) == 42


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_catch_and_a_consequence_are_told_apart(case):
    assert case.right_codes
    assert case.right_causes
    assert not set(case.right_codes) & set(case.also_true)
    assert case.declares_milestone == ("milestone-missed" in case.right_codes)
    assert case.last_step < min(ALL_FAMILIES[family].build(0).steps for family in case.families)


def test_tuning_and_reporting_share_no_seed():
    assert not set(TUNE_SEEDS) & set(REPORT_SEEDS)


@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: case.name)
def test_a_healthy_run_is_three_times_as_long_as_the_longest_delay_and_says_what_is_tricky(case):
    training = case.build(0)
    assert training.steps >= MINIMUM_STEPS == 3 * max(fault.delay_budget for fault in CASES)
    assert training.target.step == training.steps - 1
    assert case.tricky.endswith(".")


@pytest.mark.parametrize("case", [*CASES, *HEALTHY], ids=lambda case: case.name)
def test_a_case_travels_to_another_process(case):
    assert pickle.loads(pickle.dumps(case)).name == case.name


# The runs


@pytest.mark.parametrize(("case", "family"), places(CASES, first_at_once=True))
def test_a_faulty_training_runs_and_the_same_seed_gives_the_same_losses(case: FaultCase, family: str):
    once, again = (run(case.build(family, 3), 3) for _ in range(2))
    assert len(once.losses) == 3
    assert list(map(repr, once.losses)) == list(map(repr, again.losses))


PRETRAINED = ("fine-tuning", "fixed-statistics", "frozen-backbone", "frozen-backbone-handed-over")
"""They train another network first, three times in this test; "low-rank-adapters" does too, and stays."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(one, marks=[pytest.mark.slow] if one.name in PRETRAINED else []) for one in HEALTHY],
    ids=lambda case: case.name,
)
def test_a_healthy_training_does_not_depend_on_what_ran_before(case: HealthyCase):
    first, other = case.build(3), case.build(4)
    losses = run(first, 3).losses
    assert losses != run(other, 3).losses
    torch.rand(7)
    assert losses == run(case.build(3), 3).losses
    assert all(map(math.isfinite, losses))


def test_a_training_runs_once():
    training = ALL_FAMILIES["regression"].build(0)
    run(training, 2)
    with pytest.raises(ValueError, match="already ran"):
        run(training, 2)


def test_evaluations_come_every_twenty_steps_and_at_the_end():
    seen = []
    run(ALL_FAMILIES["mlp"].build(0), 45, on_evaluation=lambda step, metrics, split: seen.append((step, split)))
    assert seen == [(19, "validation"), (39, "validation"), (44, "validation")]


class Listener:
    """An observer that remembers what it is told."""

    def __init__(self):
        self.notes: list[tuple[str, int | None, str, dict[str, object]]] = []
        self.recorded: list[dict[str, float]] = []
        self.examined: list[tuple[str, tuple[str, ...]]] = []

    def note(self, kind, *, steps=None, text="", **facts):
        self.notes.append((kind, steps, text, facts))

    def record(self, *, split=None, **metrics):
        self.recorded.append(metrics)

    def examine(self, *, kind, **tensors):
        self.examined.append((kind, tuple(tensors)))


def test_an_observer_is_told_what_the_user_would_say():
    listener = Listener()
    run(case_named("target-in-the-input").build("regression", 0), 2, observer=listener)
    assert listener.notes == [("ceiling", None, "validation/loss", {"value": 0.3, "better": "lower"})]

    listener = Listener()
    case = case_named("announced-step-too-hard")
    training = case.build("wine", 0)
    run(training, case.onset + 2, observer=listener)
    assert listener.notes == [("curriculum", 30, "next stage", {})]

    listener = Listener()
    run(ALL_FAMILIES["vae"].build(0), 3, observer=listener)
    assert [sorted(metrics) for metrics in listener.recorded] == [["kl"]] * 3
    assert listener.examined == [("latent", ("code",))] * 3


def test_being_observed_changes_nothing():
    for family in ("vae", "twins"):
        alone, observed = (run(ALL_FAMILIES[family].build(1), 5, observer=o).losses for o in (None, Listener()))
        assert alone == observed


# What each fault does, and from which step


@pytest.mark.parametrize(
    ("case", "family"), places([c for c in CASES if c.delay_budget == AT_ONCE], first_at_once=True)
)
def test_a_number_stops_being_finite_at_the_onset_and_not_before(case: FaultCase, family: str):
    training = case.build(family, 1)
    finite = []
    run(
        training,
        case.onset + 1,
        on_step=lambda _, loss: finite.append((math.isfinite(loss), gradient_is_finite(training))),
    )
    assert all(loss and gradient for loss, gradient in finite[:-1])
    loss, gradient = finite[-1]
    expected = {
        "nan-in-backward": (True, False),
        "half-precision-overflow": (True, False),
        "root-of-zero-distance": (True, False),
        "logged-loss-nan": (False, True),
        "switched-off-term-nan": (False, True),
    }
    assert (loss, gradient) == expected.get(case.name, (False, False))


@pytest.mark.parametrize("name", ["schedule-ends-early", "decay-factor-zero"])
def test_the_learning_rate_is_zero_from_the_onset_on(name):
    case = case_named(name)
    for family in case.families:
        training = case.build(family, 0)
        rates: list[float] = []

        def noting(training: Training, rates: list[float] = rates) -> None:
            rates.append(training.optimizer.param_groups[0]["lr"])
            zero_grad(training)

        training.clear_gradients = noting
        run(training, case.onset + 3)
        assert all(rate > 0 for rate in rates[: case.onset])
        assert rates[case.onset :] == [0.0] * 3


@pytest.mark.parametrize("name", ["loader-restarted", "loader-stuck", "sampler-reseeded"])
def test_the_batch_repeats_from_the_onset_on(name):
    case = case_named(name)
    for family in case.families:
        training = case.build(family, 0)
        batches: list[torch.Tensor] = []

        def noting(step: int, loss: float, training: Training = training, seen: list[torch.Tensor] = batches) -> None:
            assert training.batch is not None
            seen.append(training.batch[0])

        run(training, case.onset + 4, on_step=noting)
        repeats = [torch.equal(one, other) for one, other in pairwise(batches)]
        assert repeats == [False] * case.onset + [True] * 3


@pytest.mark.parametrize("name", ["head-replaced", "head-built-at-first-forward", "parameters-made-anew"])
def test_the_optimizer_misses_parameters_of_the_model(name):
    case = case_named(name)
    for family in case.families:
        training = case.build(family, 0)
        run(training, 2)
        held = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
        assert {id(p) for p in training.model.parameters() if p.requires_grad} - held


UNCHANGING = (
    "graph-detached", "no-grad-block", "group-rate-zero", "optimizer-on-frozen-part", "update-dropped",
    "gradients-masked", "head-replaced", "parameters-made-anew",
)  # fmt: skip


@pytest.mark.parametrize("name", UNCHANGING)
def test_some_parameters_never_change(name):
    case = case_named(name)
    for family in case.families:
        training = case.build(family, 0)
        before = {name: value.clone() for name, value in training.model.named_parameters()}
        run(training, 5)
        unchanged = [n for n, value in training.model.named_parameters() if torch.equal(value, before[n])]
        assert unchanged, family


@pytest.mark.parametrize("name", ["missing-zero-grad", "clearing-waits-for-a-count"])
def test_gradients_of_earlier_updates_remain(name):
    case = case_named(name)
    for family in case.families:
        training = case.build(family, 0)
        weight = next(training.model.parameters())
        gradients: list[object] = []
        run(training, 4, on_step=lambda *_, weight=weight, seen=gradients: seen.append(weight.grad))
        assert all(gradient is gradients[0] for gradient in gradients)


# Long runs


@pytest.mark.slow
@pytest.mark.parametrize("seed", [TUNE_SEEDS[0], REPORT_SEEDS[0]])
@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: case.name)
def test_a_healthy_training_reaches_its_target_and_its_milestones(case: HealthyCase, seed: int):
    training = case.build(seed)
    ran = run(training)
    assert ran.reached_target
    for milestone in training.milestones:
        assert any(milestone.met(metrics) for step, metrics in ran.evaluations if step <= milestone.step)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "family"), places(c for c in CASES if c.declares_milestone))
@pytest.mark.parametrize("seed", [*TUNE_SEEDS, *REPORT_SEEDS])
def test_a_declared_milestone_is_missed(case: FaultCase, family: str, seed: int):
    training = case.build(family, seed)
    (milestone,) = training.milestones
    assert not any(milestone.met(metrics) for _, metrics in run(training, milestone.step).evaluations)
