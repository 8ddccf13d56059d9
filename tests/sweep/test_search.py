"""A search suggests arms by Optuna, judges each by all its seeds, and can be gone on with by anybody."""

import math

import pytest

from trimtab.errors import UserError
from trimtab.sweep import Phase, Plan, Search
from trimtab.sweep.search import PRUNERS, SAMPLERS, Searching, check_names, storage_beside
from trimtab.sweep.space import Choice, Real, Space, Whole
from trimtab.trial import TrialResult

SPACE: dict[str, Space] = {"lr": Real(1e-3, 1.0, log=True), "width": Whole(4, 64), "act": Choice.of("relu", ["a", 1])}


def searching(path, *, seeds=(0, 1, 2), **changes):
    search = Search(**{"space": SPACE, "arms": 6, "sampler": "random", "at_once": 2, **changes})
    plan = Plan(target="x.py", phases=(Phase(search=search),), seeds=seeds, metric="m", better="lower")
    with storage_beside(str(path / "trials.sqlite")) as storage:  # a file, which needs no closing
        return Searching(plan, plan.phases[0], {}, storage, "s")


def loss(trial, step):
    """Least at lr=0.03; the same order of arms at every step and for every seed."""
    return abs(math.log10(trial.settings["lr"] / 0.03)) + 0.01 * trial.seed + 1 / (1 + step)


def result(trial, status="finished"):
    points = tuple((step, loss(trial, step)) for step in (0, 10, 20)) if status == "finished" else ()
    return TrialResult(trial=trial, status=status, metric="m", better="lower", points=points)


def go(search, results=None, end=result):
    """Run a search to its end; return every trial in the order in which it was wanted first."""
    results = {} if results is None else results
    order = []
    for _ in range(1000):
        wanted = [trial for trial in search.advance(results) if trial.key not in results]
        if not wanted:
            assert search.done
            return order
        for trial in wanted:
            order.append(trial)
            at = search.watch(trial, end(trial).points)
            results[trial.key] = end(trial) if at is None else TrialResult(trial=trial, status="pruned")
    raise AssertionError("it never ends")


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "cmaes"])
def test_every_sampler_suggests_values_of_the_space_and_the_same_ones_again(tmp_path, sampler):
    trials = go(searching(tmp_path, sampler=sampler))
    assert len(trials) == 18
    for trial in trials:
        assert trial.settings.keys() == SPACE.keys()
        assert all(SPACE[key].holds(value) for key, value in trial.settings.items())
    (tmp_path / "again").mkdir()
    assert [one.key for one in go(searching(tmp_path / "again", sampler=sampler))] == [one.key for one in trials]


def test_a_search_goes_on_in_another_process_as_if_it_had_never_paused(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = go(searching(tmp_path / "whole", sampler="tpe", arms=14))
    results = {}
    first = searching(tmp_path, sampler="tpe", arms=14).advance(results)
    assert len(first) == 6
    for trial in first[:4]:
        results[trial.key] = result(trial)
    again = go(searching(tmp_path, sampler="tpe", arms=14), results)
    assert [one.key for one in first[:4] + again] == [one.key for one in whole]


def test_an_arm_with_a_failed_seed_is_no_result_and_no_number_is_made_up(tmp_path):
    search = searching(tmp_path)

    def end(trial):
        return result(trial, "failed" if trial.arm.startswith("3") and trial.seed == 1 else "finished")

    go(search, end=end)
    told = search._study.get_trials()
    assert [one.state.name for one in told] == ["COMPLETE"] * 3 + ["PRUNED"] + ["COMPLETE"] * 2
    assert told[3].value is None
    assert all(one.value is not None and one.value > 0 for one in told if one.number != 3)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_gives_up_arms_that_lose_and_never_the_best(tmp_path, pruner):
    results = {}
    search = searching(tmp_path, pruner=pruner, arms=14, at_once=1)
    trials = go(search, results)
    pruned = {one.trial.arm for one in results.values() if one.status == "pruned"}
    seeds = {arm: [one.seed for one in trials if one.arm == arm] for arm in {one.arm for one in trials}}
    assert len(seeds) == 14
    best = min((loss(one, 20), one.arm) for one in trials)[1]
    assert best not in pruned
    assert seeds[best] == [0, 1, 2]
    if pruner == "none":
        assert not pruned
        assert set(map(len, seeds.values())) == {3}
    elif pruner == "wilcoxon":  # no test of three pairs can be sure enough
        assert set(map(len, seeds.values())) == {3}
    else:
        assert pruned
        assert all(seeds[arm] == [0] for arm in pruned)


def test_the_wilcoxon_pruner_gives_an_arm_up_after_some_of_its_seeds(tmp_path):
    search = searching(tmp_path, pruner="wilcoxon", seeds=tuple(range(8)), arms=5)
    trials = go(search)
    counts = {arm: sum(one.arm == arm for one in trials) for arm in {one.arm for one in trials}}
    assert max(counts.values()) == 8
    assert 3 < min(counts.values()) < 8
    best = min((loss(one, 20), one.arm) for one in trials)[1]
    assert counts[best] == 8


def test_names_that_are_mistyped_or_not_installed_are_refused():
    with pytest.raises(UserError, match=r"no sampler 'cma'. Did you mean 'cmaes'"):
        check_names("cma", "none")
    with pytest.raises(UserError, match=r"no pruner 'hyper'. Did you mean 'hyperband'"):
        check_names("tpe", "hyper")
    with pytest.raises(UserError, match="pip install cmaes"):
        check_names("cmaes", "none")
