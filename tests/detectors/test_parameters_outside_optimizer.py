"""Parameters that nobody updates."""

from __future__ import annotations

import pytest

from tests.detectors.kit import opened, reasons, row, the
from trimtab.detectors import ParametersOutsideOptimizer
from trimtab.records import Note, Severity

NAMES = ("a.weight", "b.weight", "c.weight", "head.weight", "head.bias")
LABELS = dict.fromkeys(("parameter_held", "parameter_trainable", "parameter_reached"), NAMES)


def story(held, trainable=(1,) * 5, reached=(1,) * 5, steps=20):
    wiring = {"parameter_held": held, "parameter_trainable": trainable}
    return [row(0, {**wiring, "parameter_reached": reached}, LABELS)] + [
        row(step, wiring, LABELS) for step in range(1, steps)
    ]


@pytest.mark.parametrize(
    ("held", "severity"),
    [
        ((1, 0, 1, 1, 1), Severity.WARNING),
        ((1, 1, 1, 0, 0), Severity.ERROR),
        ((1, 1, 1, 1, 0), Severity.ERROR),
        ((0, 0, 0, 0, 0), Severity.ERROR),
        ((0, 0, 1, 0, 1), Severity.ERROR),
        ((0, 0, 0, 1, 1), Severity.WARNING),
    ],
    ids=["one", "head", "last bias", "all", "most, here and there", "all below the head"],
)
def test_it_is_as_grave_as_what_is_left_out(held, severity):
    finding = the(opened(ParametersOutsideOptimizer(), story(held)))
    assert finding.severity == severity
    assert finding.evidence["tensors"] == float(5 - sum(held))


def test_it_names_them():
    finding = the(opened(ParametersOutsideOptimizer(), story((1, 1, 1, 0, 0))))
    assert finding.summary == (
        "2 of 5 trainable tensors that the loss reaches are in no optimizer at step 10: head.weight, head.bias; "
        "the last layer is among them"
    )


@pytest.mark.parametrize(
    ("trainable", "reached"), [((1, 0, 1, 1, 1), (1,) * 5), ((1,) * 5, (1, 0, 1, 1, 1))], ids=["frozen", "unreached"]
)
def test_what_is_frozen_or_unreached_is_not_counted(trainable, reached):
    assert opened(ParametersOutsideOptimizer(), story((1, 0, 1, 1, 1), trainable, reached)) == []


def test_an_optimizer_that_is_found_a_few_steps_later_is_waited_for():
    early, late = story((1, 1, 1, 0, 0), steps=8), story((1,) * 5, steps=20)[8:]
    assert opened(ParametersOutsideOptimizer(), early + late) == []


def test_any_graph_of_the_stream_may_have_reached_them():
    rows = story((1, 0, 1, 1, 1), reached=(1, 0, 1, 1, 1))
    rows[3] = row(3, {**rows[3].values, "parameter_reached": (1,) * 5}, LABELS)
    assert the(opened(ParametersOutsideOptimizer(), rows)).severity == Severity.WARNING


def test_declared_freezing_is_info():
    notes = [Note(kind="freeze", step=0)]
    assert the(opened(ParametersOutsideOptimizer(), story((0, 1, 1, 1, 1)), notes)).severity == Severity.INFO


def test_without_a_graph_it_cannot_judge():
    rows = [row(step, {"parameter_held": (0,) * 5, "parameter_trainable": (1,) * 5}, LABELS) for step in range(20)]
    assert reasons(ParametersOutsideOptimizer(), rows) == [
        "not every optimizer may be known before step 8",
        "which parameters the loss reaches could not be read from its graph",
    ]
