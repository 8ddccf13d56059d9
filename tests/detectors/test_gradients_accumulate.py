"""Gradients that nobody zeroes."""

from __future__ import annotations

from tests.detectors.kit import events, opened, rows, the
from trimtab.detectors import GradientsAccumulate
from trimtab.records import Severity


def carried(*flags):
    return rows([{"gradient_norm": 1.0}, *({"gradients_carried": flag, "gradient_norm": 3.0} for flag in flags)])


def test_four_updates_in_a_row_are_enough():
    finding = the(opened(GradientsAccumulate(), carried(1, 1, 1, 1, 1, 1)))
    assert (finding.step, finding.since_step, finding.severity) == (4, 1, Severity.ERROR)
    assert finding.summary == (
        "4 updates in a row up to step 4 added to the gradients of the update before: nobody zeroes them; "
        "gradient norm 3, 3 x the first"
    )


def test_three_in_a_row_are_not():
    assert opened(GradientsAccumulate(), carried(1, 1, 1, 0, 1, 1, 1, 0)) == []


def test_how_many_is_a_field():
    assert the(opened(GradientsAccumulate(updates=2), carried(0, 1, 1))).step == 3


def test_it_resolves_when_somebody_zeroes_them_again():
    happened = events(GradientsAccumulate(), carried(1, 1, 1, 1, 0))
    assert [getattr(event, "event", "") for event in happened] == ["opened", "resolved"]
