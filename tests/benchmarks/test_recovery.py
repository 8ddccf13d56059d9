"""The faults that a training can come back from, the arms that are compared, and the figures that are made of them."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from benchmarks import recovery, snapshot_overhead
from benchmarks.cases.case import ALL_FAMILIES
from benchmarks.cases.healthy import HEALTHY
from benchmarks.cases.recoverable import RECOVERABLE, best, chance, share
from benchmarks.cases.training import run
from benchmarks.peers.acting import ACTING, SUPERVISED, trainer_defaults
from benchmarks.watching import Job

PLACES = [(case, family) for case in RECOVERABLE for family in case.families]
IDS = [f"{case.name}-{family}" for case, family in PLACES]
SUDDEN = [(case, family) for case, family in PLACES if not case.peaks]


def weights(training):
    return [p.detach().clone() for p in training.model.parameters()]


# The table


def test_each_fault_has_a_name_of_its_own_a_description_and_at_least_two_families():
    assert len({case.name for case in RECOVERABLE}) == len(RECOVERABLE) >= 12
    for case in RECOVERABLE:
        assert len(set(case.families)) == len(case.families) >= 2
        assert case.inject.__doc__


@pytest.mark.parametrize(("case", "family"), SUDDEN, ids=[f"{case.name}-{family}" for case, family in SUDDEN])
def test_a_training_is_the_clean_one_until_the_fault_comes(case, family):
    soon = dataclasses.replace(case, onset=2)
    clean, faulty = soon.build(family, 3, clean=True), soon.build(family, 3)
    good, bad = run(clean, 5), run(faulty, 5)
    assert good.losses[:2] == bad.losses[:2]
    same = all(map(torch.equal, weights(clean), weights(faulty)))
    assert not same or any(math.isnan(loss) for loss in bad.losses)


@pytest.mark.parametrize(("case", "family"), PLACES, ids=IDS)
def test_a_training_is_long_enough_and_better_than_a_constant_answer(case, family):
    training = case.build(family, 0, clean=True)
    assert training.steps >= 300 > case.onset - 40
    target = ALL_FAMILIES[family].build(0).target
    if not case.peaks:
        assert share(target.value, target.value, chance(training)) == pytest.approx(1.0)
        assert (chance(training) < target.value) == (target.better == "higher")


def test_a_share_is_what_is_left_of_the_gain_and_never_below_zero():
    assert share(0.55, clean=1.0, chance=0.1) == pytest.approx(0.5)
    assert share(0.8, clean=0.4, chance=1.0) == pytest.approx(1 / 3)
    assert share(5.0, clean=0.4, chance=1.0) == share(math.nan, clean=0.4, chance=1.0) == 0.0


def test_the_best_evaluation_follows_the_direction_of_the_metric():
    training = ALL_FAMILIES["regression"].build(0)
    assert best([(1, {"loss": 2.0}), (2, {"loss": 1.0}), (3, {"loss": math.nan})], training) == 1.0


def test_the_healthy_kinds_are_the_first_twelve_of_the_list():
    kinds = {case.name: case.anchor for case in HEALTHY}
    assert [kinds[name] for name in recovery.TRICKY] == [f"H{number}" for number in range(1, 13)]


# The arms


def test_the_defaults_of_the_trainer_clip_to_one_and_let_a_nan_through():
    training = ALL_FAMILIES["regression"].build(0)
    norms = []
    with trainer_defaults(training):
        training.optimizer.register_step_pre_hook(
            lambda *_: norms.append(
                float(nn.utils.get_total_norm([p.grad for p in training.model.parameters() if p.grad is not None]))
            )
        )
        run(training, 5)
        assert max(norms) <= 1.0 + 1e-5
        next(training.model.parameters()).grad.fill_(math.nan)
        training.optimizer.step()
    assert all(bool(p.isnan().all()) for p in training.model.parameters())


def test_a_peer_that_is_not_installed_is_said_so():
    absent = dataclasses.replace(ACTING[0], package="no-such", wanted="1")
    assert absent.missing == "no-such is not installed"
    assert len({peer.name for peer in (*ACTING, SUPERVISED)}) == len(ACTING) + 1


@pytest.mark.parametrize("peer", [p for p in (*ACTING, SUPERVISED) if not p.missing], ids=lambda p: p.name)
def test_a_peer_takes_part_in_a_training_and_lets_go_of_it(peer):
    training = ALL_FAMILIES["regression"].build(0)
    bare, update = dict(training.optimizers), training.update
    with peer.protect(training):
        assert len(run(training, 4).losses) == 4
    assert (training.optimizers, training.update) == (bare, update)


def test_a_single_bad_batch_ends_an_unaided_training_and_not_one_that_answers():
    results = [recovery.perform(Job(name="bad-batch", family="regression", seed=100))]
    (result,) = recovery.rated(results)
    arms = result["arms"]
    assert arms["unaided"]["share"] == 0.0
    assert arms["safe"]["share"] > 0.9
    assert arms["safe"]["outcomes"][0]["code"] == "loss-spike"
    assert Job(name=result["name"], family="regression", seed=100).key == "bad-batch/regression/100"


def test_what_the_peers_did_is_joined_to_the_same_run():
    named, ended = {"family": "mlp", "seed": 0}, {"metric": "nan", "ended": ""}
    results = [
        {"name": "a", **named, "clean": 1.0, "chance": 0.0, "arms": {"unaided": {"metric": 0.2, "ended": ""}}},
        {
            "name": "a" + recovery.BESIDE,
            **named,
            "arms": {"zclip": ended, "x": {"not_run": "y"}},
        },
    ]
    (joined,) = recovery.rated(results)
    assert (joined["arms"]["unaided"]["share"], joined["arms"]["zclip"]["share"]) == (0.2, 0.0)
    assert joined["arms"]["x"] == {"not_run": "y"}


def test_a_stop_is_worth_nothing_unless_it_put_the_best_weights_back():
    row = {"metric": 0.9, "ended": "TrainingStopped: x", "cpu_seconds": 1.0}
    assert recovery._rated(row, 1.0, 0.0)["share"] == 0.0
    assert recovery._rated(row, 1.0, 0.0)["share_as_it_ended"] == 0.9
    stopped = {**row, "outcomes": [{"action": "early-stop", "result": "done"}]}
    assert recovery._rated(stopped, 1.0, 0.0)["share"] == 0.9


# The figures


def fault_run(name, family, unaided, safe, peer=0.0):
    shares = dict.fromkeys(recovery.ARMS, peer) | {"unaided": unaided, "safe": safe, SUPERVISED.name: 1.0}
    arms = {arm: {"share": value, "ended": ""} for arm, value in shares.items()}
    return {"name": name, "family": family, "seed": 0, "arms": arms}


def healthy_run(*, ratio=1.0, fired=False, same=True):
    outcomes = [{"result": "done"}] * fired
    return {"name": "gan", "family": "", "seed": 0, "ratio": ratio, "same_weights": same, "outcomes": outcomes}


def test_a_fault_counts_when_it_hurts_everywhere_and_is_recovered_when_it_is_everywhere():
    results = [
        fault_run("a", "mlp", 0.5, 0.99), fault_run("a", "cnn", 0.2, 0.97),
        fault_run("b", "mlp", 0.5, 0.99), fault_run("b", "cnn", 0.2, 0.90),
        fault_run("c", "mlp", 0.96, 1.0), fault_run("c", "cnn", 0.2, 1.0),
        healthy_run(), healthy_run(ratio=0.98, fired=True, same=False),
    ]  # fmt: skip
    figures = recovery.figures_of(results)
    assert (figures["faults"], figures["recovered"], figures["unaided_recovered"]) == (2, 1, 0)
    assert (figures["best_peer_recovered"], figures["supervised_peer_recovered"]) == (0, 2)
    assert figures["safe_recovered_runs_share"] == 0.75
    assert figures["healthy_min_ratio"] == 0.98
    assert figures["healthy_runs_with_an_action"] == 1
    assert figures["healthy_silent_bit_identical_share"] == 1.0


def test_an_arm_that_did_not_run_is_in_no_share():
    result = fault_run("bad-batch", "regression", 0.1, 1.0)
    result["arms"]["zclip"] = {"not_run": "zclip is not installed"}
    figures = recovery.figures_of([result])
    assert "zclip_recovered_runs_share" not in figures
    assert recovery.table_of([result])["bad-batch"]["regression"]["safe"]["median"] == 1.0


def test_a_snapshot_of_a_small_stack_costs_twelve_bytes_a_parameter():
    cost = snapshot_overhead.cost(width=32, layers=2, repeats=1)
    assert cost["parameters"] == 2048
    assert cost["bytes"] >= 12 * cost["parameters"]
    assert snapshot_overhead.rated([1.0, 1.1, 1.2])["ratio"] == 1.1
