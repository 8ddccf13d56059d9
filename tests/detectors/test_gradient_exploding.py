"""Explosions of several kinds, and what only looks like one."""

from __future__ import annotations

import math
import random

import pytest

from tests.detectors.kit import events, opened, reasons, row, the
from trimtab.detectors import GradientExploding
from trimtab.records import Finding, Note, Severity


def run(losses, norms, ratios=()):
    rows = []
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        values = {"loss": loss, "gradient_norm": norm}
        if step < len(ratios):
            values["update_ratio"] = ratios[step] if isinstance(ratios[step], (list, tuple)) else [ratios[step]]
        rows.append(row(step, values))
    return rows


CALM = [1.0] * 100


def test_large_updates_with_a_loss_that_grows_are_an_error_within_three_steps():
    finding = the(opened(GradientExploding(), run([2.3, 30, 90, 200], [0.2, 5, 20, 60], [0.5, 0.4, 0.3, 0.2])))
    assert (finding.step, finding.severity) == (2, Severity.ERROR)
    assert finding.evidence["gradient_norm_first"] == 0.2
    assert "the loss is 30, 13 x the first; gradient norm 5, 25 x the first (over 3 updates)" in finding.summary


def test_large_updates_that_teach_nothing_are_a_warning():
    finding = the(opened(GradientExploding(), run([4.0, 3.9, 4.4, 4.5], [8, 3, 4, 3], [0.5, 0.6, 0.5, 0.4])))
    assert (finding.step, finding.severity) == (2, Severity.WARNING)


def test_large_updates_that_teach_are_only_bold():
    losses = [2.0 * math.exp(-step / 5) for step in range(20)]
    assert opened(GradientExploding(), run(losses, [1.0] * 20, [0.5] * 20)) == []


def test_weights_that_begin_at_zero_are_given_time():
    losses = [1.0, 1.1, 1.0, 1.1, 1.0, 0.9]
    assert opened(GradientExploding(), run(losses, [1.0] * 6, [1e30, 1.0, 0.6, 0.4, 0.3, 0.2])) == []


def test_the_group_that_moves_least_counts():
    losses = [1.0, 1.2, 1.3, 1.2]
    assert opened(GradientExploding(), run(losses, [1.0] * 4, [(5.0, 0.01)] * 4)) == []
    assert the(opened(GradientExploding(), run(losses, [1.0] * 4, [(5.0, 0.5, 0.0)] * 4))).step == 2


def test_a_gradient_that_stays_a_hundredfold_is_a_warning_and_with_the_loss_an_error():
    alone = the(opened(GradientExploding(), run(CALM + [1.0] * 10, CALM + [200.0] * 10)))
    assert (alone.severity, alone.step) == (Severity.WARNING, 103)
    grown = the(opened(GradientExploding(), run(CALM + [5.0] * 10, CALM + [50.0] * 10)))
    assert (grown.severity, grown.step) == (Severity.ERROR, 103)
    assert "50 x its early level and 50 x its median before" in grown.summary


@pytest.mark.parametrize("spikes", [1, 3])
def test_a_few_spikes_are_not_an_explosion(spikes):
    assert opened(GradientExploding(), run(CALM + [30.0] * spikes + CALM, CALM + [1e6] * spikes + CALM)) == []


def test_what_is_small_beside_the_beginning_does_not_count():
    norms = [10.0] * 20 + [1e-6] * 200 + [1e-2] * 50
    assert opened(GradientExploding(), run([1.0] * len(norms), norms)) == []


def test_heavy_tails_are_measured_by_their_own_kind():
    for seed in range(20):
        chance = random.Random(seed)
        norms = [math.exp(4 * chance.gauss(0, 1)) for _ in range(600)]
        assert opened(GradientExploding(), run([norm**0.5 for norm in norms], norms)) == []


def test_a_blow_up_over_dozens_of_steps_is_seen():
    growth = [math.exp(max(step - 100, 0) / 6) for step in range(160)]
    finding = the(opened(GradientExploding(), run([g**0.5 for g in growth], growth)))
    assert 115 < finding.step < 135


def test_a_loss_that_can_be_negative_says_nothing():
    norms, ratios = [0.1, 5, 20, 40, 60], [0.5] * 5
    assert the(opened(GradientExploding(), run([-0.1, 50, 90, 80, 70], norms, ratios))).step == 3
    assert opened(GradientExploding(), run([-0.1, 50, 90, 80, 70], [0.1, 0.2, 0.3, 0.4, 0.5], ratios)) == []


def test_an_absurd_gradient_needs_no_comparison():
    finding = the(opened(GradientExploding(), run([1e14, 1e13, 1e12], [1e15, 1e14, 1e13])))
    assert (finding.step, finding.severity, finding.threshold) == (2, Severity.ERROR, 1e9)


def test_one_that_is_survived_resolves():
    losses = [2.3, 450, 385, 455, 190, *[2.4] * 40]
    happened = events(GradientExploding(), run(losses, [0.2, 280, 270, 240, 110, *[0.6] * 40], [7, 0.7, 0.4, 0.3, 0.2]))
    assert [event.event for event in happened if isinstance(event, Finding)] == ["opened", "resolved"]


def test_harder_data_that_was_announced_is_info():
    notes = [Note(kind="data-change", step=100, until=200)]
    finding = the(opened(GradientExploding(), run(CALM + [5.0] * 10, CALM + [50.0] * 10), notes))
    assert (finding.severity, finding.excused_by) == (Severity.INFO, "data-change")


def test_what_is_not_finite_is_the_business_of_another_rule():
    assert reasons(GradientExploding(), run([1.0, math.nan], [1.0, math.nan])) == ["the gradient is not finite"]
