"""Parameters that never move, and why."""

from __future__ import annotations

import pytest

from tests.detectors.kit import events, opened, reasons, row, the
from trimtab.detectors import ParametersNeverChanged
from trimtab.records import Finding, Severity

NAMES = ("body.weight", "body.bias", "mix.weight", "head.weight", "head.bias")
VECTORS = ("update_norms", "gradient_norms", "gradient_missing", "parameter_trainable")


def story(
    moved, gradients=(1,) * 5, missing=(0,) * 5, trainable=(1,) * 5, names=NAMES, steps=40, rate=1e-3, ratio=1e-2
):
    labels = dict.fromkeys(VECTORS, names)
    return [
        row(
            step,
            {
                "update_norms": moved(step) if callable(moved) else moved,
                "gradient_norms": gradients,
                "gradient_missing": missing,
                "parameter_trainable": trainable(step) if callable(trainable) else trainable,
                "learning_rate": [rate],
                "update_ratio": [ratio],
            },
            labels,
        )
        for step in range(steps)
    ]


@pytest.mark.parametrize(
    ("gradients", "missing", "reason"),
    [
        ((0, 0, 1, 1, 1), (1, 1, 0, 0, 0), "no_gradient"),
        ((0, 0, 1, 1, 1), (0, 0, 0, 0, 0), "gradient_zero"),
        ((1, 1, 1, 1, 1), (0, 0, 0, 0, 0), "update_lost"),
    ],
)
def test_it_names_them_with_the_reason_that_was_measured(gradients, missing, reason):
    finding = the(opened(ParametersNeverChanged(), story((0, 0, 1, 1, 1), gradients, missing)))
    assert (finding.step, finding.since_step, finding.severity) == (31, 0, Severity.WARNING)
    assert finding.evidence[reason] == ("body.weight", "body.bias")
    assert finding.summary.startswith(
        "2 of 5 trainable tensors have not moved once in 32 measured updates up to step 31"
    )


def test_more_than_half_is_an_error():
    finding = the(opened(ParametersNeverChanged(), story((0, 0, 0, 1, 1), missing=(1, 1, 1, 0, 0))))
    assert finding.severity == Severity.ERROR


def test_one_move_is_enough_to_be_alive():
    assert opened(ParametersNeverChanged(), story(lambda step: (step == 30, 1, 1, 1, 1))) == []


def test_it_resolves_with_the_first_move():
    happened = events(ParametersNeverChanged(), story(lambda step: (step >= 36, 1, 1, 1, 1)))
    assert [(e.event, e.step) for e in happened if isinstance(e, Finding)] == [("opened", 31), ("resolved", 36)]


def test_what_is_frozen_is_not_counted_and_what_is_thawed_has_its_time():
    frozen = (0, 0, 1, 1, 1)
    assert opened(ParametersNeverChanged(), story((0, 0, 1, 1, 1), trainable=frozen)) == []
    thawed = story((0, 0, 1, 1, 1), trainable=lambda step: (1,) * 5 if step >= 20 else frozen, steps=80)
    assert the(opened(ParametersNeverChanged(), thawed)).step == 51


def test_while_no_rate_is_positive_another_rule_speaks():
    assert opened(ParametersNeverChanged(), story((0,) * 5, rate=0.0)) == []


@pytest.mark.parametrize(
    "names", [("experts.0.w", "experts.0.b", *NAMES[2:]), ("moe.Expert1", "moe.Expert2", *NAMES[2:])]
)
def test_experts_that_were_not_chosen_are_info(names):
    finding = the(opened(ParametersNeverChanged(), story((0, 0, 1, 1, 1), (0, 0, 1, 1, 1), names=names)))
    assert finding.severity == Severity.INFO
    assert finding.evidence["harmless"] == names[:2]


def test_an_expert_whose_update_is_lost_is_not_excused():
    names = ("experts.0.w", "experts.0.b", *NAMES[2:])
    assert the(opened(ParametersNeverChanged(), story((0, 0, 1, 1, 1), names=names))).severity == Severity.WARNING


@pytest.mark.parametrize("gradient", [4e-9, 0.0], ids=["rounding", "cancels exactly"])
def test_a_bias_whose_gradient_cancels_is_info(gradient):
    finding = the(opened(ParametersNeverChanged(), story((1, 0, 1, 1, 1), (1, gradient, 1, 1, 1))))
    assert finding.severity == Severity.INFO
    assert "gradients that cancel" in finding.summary


def test_updates_below_the_rounding_of_the_weights_are_info_unless_most_are_lost():
    assert the(opened(ParametersNeverChanged(), story((0, 1, 1, 1, 1), ratio=1e-6))).severity == Severity.INFO
    assert the(opened(ParametersNeverChanged(), story((0, 0, 0, 0, 1), ratio=1e-6))).severity == Severity.ERROR


def test_before_enough_measurements_it_cannot_judge_what_rests():
    assert reasons(ParametersNeverChanged(), story((0, 1, 1, 1, 1), steps=20)) == [
        "some tensors have not moved yet; 32 measured updates are needed to judge"
    ]
    assert reasons(ParametersNeverChanged(), story((1,) * 5, steps=20)) == []


def test_measurements_count_and_not_steps():
    thin = [row(8 * step, dict(each.values), each.labels) for step, each in enumerate(story((0, 1, 1, 1, 1)))]
    assert the(opened(ParametersNeverChanged(), thin)).step == 8 * 31
