"""The peers' rules as they are described, and the sums that are made of what they raised."""

import math

import pytest

from benchmarks.cases.training import run
from benchmarks.peers import PEERS, Course, Peer
from benchmarks.peers.peer import replayed
from benchmarks.peers.rules import kill_loss_spike, skip_step
from benchmarks.peers.side_by_side import compare, jobs, record
from benchmarks.watching import KINDS, Job


def course(losses, norms=None):
    return Course(losses=list(losses), norms=list(norms or [1.0] * len(losses)), rates=[0.1] * len(losses))


def test_kill_loss_spike_wants_a_full_window_and_more_than_four_high_losses_in_a_row():
    calm = [1.0 + 0.01 * (step % 3) for step in range(120)]
    assert kill_loss_spike(course(calm)) == []
    assert kill_loss_spike(course([*calm[:90], *[5.0] * 9])) == []  # the window is not full
    assert kill_loss_spike(course([*calm, *[2.5] * 4, *calm])) == []
    assert [step for step, _ in kill_loss_spike(course([*calm, *[2.5] * 6]))] == [124, 125]
    assert kill_loss_spike(course([12.0] * 101))[0][0] == 100  # most of the window is above the cap


def test_skip_step_looks_at_losses_and_norms_and_never_at_nan():
    calm = [1.0 + 0.01 * (step % 5) for step in range(100)]
    assert skip_step(course(calm)) == []
    assert [step for step, _ in skip_step(course([*calm, 3.0, *calm[:9]]))] == [100]
    assert [step for step, _ in skip_step(course([1.0] * 101, [*calm, 9.0]))] == [100]
    assert skip_step(course([*calm[:63], 3.0])) == []  # half a window is not there
    assert skip_step(course([*calm, *[math.nan] * 20])) == []
    assert skip_step(course(calm, [None if step % 2 else 1.0 for step in range(100)])) == []


def test_the_numbers_are_those_of_the_same_training_without_anybody_looking():
    job = Job(name="missing-zero-grad", family="mlp", seed=0)
    bare = run(job.build()[0], 30)
    training, _ = job.build()
    seen = Course()
    assert record(training, 30, seen) == ""
    assert seen.losses == bare.losses
    assert [step for step, _ in seen.evaluations] == [step for step, _ in bare.evaluations]
    assert all(norm > 0 for norm in seen.norms)
    assert set(seen.rates) == {training.optimizer.param_groups[0]["lr"]}


def test_every_tool_has_a_default_and_a_tuned_setting():
    names = [peer.name for peer in PEERS]
    assert len(PEERS) == 2 * len(set(names))
    assert {peer.key for peer in PEERS} == {f"{name}/{setting}" for name in names for setting in ("default", "tuned")}
    absent = Peer(name="x", setting="default", how="", begin=replayed(lambda c: []), package="no-such", wanted="1")
    assert absent.missing == "no-such is not installed"


def test_each_fault_runs_in_one_family_and_each_healthy_kind_once():
    wanted = jobs([0])
    names = [job.name for job in wanted]
    assert len(names) == len(set(names))
    assert {job.name for job in wanted if not job.family} == set(KINDS)


def result(name, family="", alarms=(), onset=None):
    key = "olmo-core-skip-step/default"
    return {
        "name": name, "family": family, "seed": 0, "steps": 9, "onset": onset, "cpu_seconds": 1.0, "errors": {},
        "last_step": None if onset is None else onset + 5, "ended": "", "alarms": {key: list(alarms)},
    }  # fmt: skip


def test_a_catch_lies_between_onset_and_budget_and_too_many_false_alarms_do_not_count_as_best():
    results = [
        result("a", "mlp", [(12, "x")], onset=10),
        result("b", "mlp", [(16, "too late")], onset=10),
        result("c", "mlp", onset=0),
        result("d", "mlp", [(0, "x")], onset=0),
        result("calm"),
        result("noisy", alarms=[(3, "x")]),
    ]
    figures, rows = compare(results, ours=0.02)
    row = rows["olmo-core-skip-step/default"]
    assert (row["detected_share"], row["false_alarm_rate"]) == (0.5, 0.5)
    assert (row["caught"], row["false_alarms"]) == (["a", "d"], ["noisy"])
    assert figures["best_peer_detected"] == 0.0
    assert figures["best_peer_detected_at_any_false_alarm_rate"] == 0.5
    assert compare(results, ours=0.46)[0]["best_peer_detected"] == 0.5
    assert figures["fault_runs"] == 4


@pytest.mark.parametrize("peer", [p for p in PEERS if not p.missing], ids=lambda p: p.key)
def test_a_peer_that_is_here_looks_at_a_training_without_changing_it(peer):
    job = Job(name="missing-zero-grad", family="mlp", seed=0)
    bare = run(job.build()[0], 12)
    training, _ = job.build()
    finish = peer.begin(training, lambda: job.build()[0])
    seen = Course()
    record(training, 12, seen)
    assert all(isinstance(step, int) and what for step, what in finish(seen))
    assert seen.losses == bare.losses
