"""Batches that come again and again."""

from __future__ import annotations

from tests.detectors.kit import events, opened, reasons, row, the
from trimtab.detectors import SameBatchRepeated
from trimtab.records import Finding, Severity, Unknown

ROWS = {"batch_rows": 64, "loader_rows": 1000}


def batches(*prints, **more):
    return [row(step, {"batch_fingerprint": value, **more}) for step, value in enumerate(prints)]


def graphs(targets, inputs, every=1, **more):
    """Targets at each step, inputs at every so many steps."""
    return [
        row(step, {"target_fingerprint": target, **({"input_fingerprint": given, **more} if step % every == 0 else {})})
        for step, (target, given) in enumerate(zip(targets, inputs, strict=True))
    ]


def test_eight_are_a_warning_and_thirty_two_an_error():
    first, second = opened(SameBatchRepeated(), batches(*range(10), *[99.0] * 40))
    assert (first.step, first.since_step, first.severity) == (17, 10, Severity.WARNING)
    assert (second.step, second.event, second.severity) == (41, "worsened", Severity.ERROR)
    assert first.summary == ("the same batch for 8 updates up to step 17 (the batch handed over); it changed before")


def test_a_batch_that_never_changed_is_info_unless_the_loader_has_more():
    assert the(opened(SameBatchRepeated(), batches(*[5.0] * 60, batch_rows=64))).severity == Severity.INFO
    assert (
        the(opened(SameBatchRepeated(), batches(*[5.0] * 60, batch_rows=64, loader_rows=64))).severity == Severity.INFO
    )
    first, *_ = opened(SameBatchRepeated(), batches(*[5.0] * 60, **ROWS))
    assert first.severity == Severity.WARNING
    assert first.summary.endswith("it never changed, and the loader has 1000 rows where the batch has 64")


def test_it_resolves_when_the_batch_changes():
    happened = events(SameBatchRepeated(), batches(*range(10), *[99.0] * 10, 100.0))
    assert [(e.event, e.step) for e in happened if isinstance(e, Finding)] == [("opened", 17), ("resolved", 20)]


def test_a_batch_that_is_always_used_ten_times_is_a_habit():
    rollouts = [float(number) for number in range(12) for _ in range(10)]
    assert [f.severity for f in opened(SameBatchRepeated(), batches(*rollouts))] == [Severity.INFO]
    stuck = the(
        [f for f in opened(SameBatchRepeated(), batches(*rollouts, *[99.0] * 30)) if f.severity > Severity.INFO]
    )
    assert stuck.step == 120 + 19


def test_constant_targets_prove_nothing_while_inputs_change():
    assert opened(SameBatchRepeated(), graphs([1.0] * 50, range(50), **ROWS)) == []


def test_constant_inputs_prove_nothing_while_targets_change():
    assert opened(SameBatchRepeated(), graphs(range(50), [1.0] * 50, **ROWS)) == []


def test_targets_and_inputs_together_do():
    first, *_ = opened(SameBatchRepeated(), graphs([1.0] * 20, [2.0] * 20, **ROWS))
    assert (first.step, first.evidence["by"]) == (7, "targets and inputs")


def test_inputs_that_are_measured_now_and_then_must_agree_twice():
    changing, stuck = [float(n) for n in range(21)], [99.0] * 40
    first, *_ = opened(SameBatchRepeated(), graphs(changing + stuck, changing + stuck, every=8, **ROWS))
    assert (first.step, first.since_step) == (32, 21)
    sorted_labels = graphs(changing + stuck, [float(n) for n in range(61)], every=8, **ROWS)
    assert opened(SameBatchRepeated(), sorted_labels) == []


def targets(*values):
    return [row(step, {"target_fingerprint": value}) for step, value in enumerate(values)]


def test_without_inputs_repeated_targets_count_only_when_no_two_were_ever_alike():
    assert opened(SameBatchRepeated(), targets(*range(40), *[99.5] * 10))[0].step == 47
    for constant in (targets(*[9.5] * 30), targets(*range(20), *[9.5] * 10), targets(0, 0, *range(60), *[9.5] * 10)):
        assert opened(SameBatchRepeated(), constant) == []
        assert "without inputs that proves nothing here" in reasons(SameBatchRepeated(), constant)[0]


def test_where_few_updates_are_measured_three_measurements_are_enough():
    thin = [row(8 * step, {"target_fingerprint": float(min(step, 40))}) for step in range(60)]
    first, *_ = opened(SameBatchRepeated(), thin)
    assert (first.step, first.since_step, first.evidence["updates"]) == (8 * 42, 8 * 40, 17.0)


def test_without_targets_inputs_are_judged_alone():
    inputs = [row(step, {"input_fingerprint": float(min(step, 10)), **ROWS}) for step in range(30)]
    first, *_ = opened(SameBatchRepeated(), inputs)
    assert (first.step, first.evidence["by"]) == (17, "inputs")


def test_a_batch_with_nan_in_it_equals_no_other():
    assert opened(SameBatchRepeated(), batches(*[float("nan")] * 50, **ROWS)) == []


def test_without_any_fingerprint_it_cannot_judge():
    (unknown,) = events(SameBatchRepeated(reads=()), [row(0, {"loss": 1.0})])
    assert isinstance(unknown, Unknown)
    assert unknown.reason.startswith("no batch was handed over")
