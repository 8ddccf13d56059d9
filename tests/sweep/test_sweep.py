"""A sweep runs what its plan names, once, in order, on any engine, and goes on where it ended."""

import dataclasses
import threading

import pytest

from tests.sweep.pretended import Engine, converge, failed, finished, without_time
from trimtab.errors import UserError
from trimtab.sweep import Phase, Plan, Search, Store, Sweep, grid
from trimtab.sweep.job import Ended
from trimtab.sweep.space import Real

TOY = "tests.sweep.toy:SYSTEM"


def plan(**changes):
    values = {"target": TOY, "phases": (Phase(arms=grid({"lr": [0.1, 0.2]})),), "seeds": (0, 1, 2)}
    return Plan(**{**values, **changes})


class Told:
    """Keeps what a sweep tells."""

    def __init__(self):
        self.phases, self.begun, self.endings, self.moves = [], [], [], []

    def phase(self, name, total, done):
        self.phases.append((name, total, done))

    def began(self, trial, worker=""):
        self.begun.append(trial)

    def moved(self, trial, updates, planned=None, value=None):
        self.moves.append((trial.arm, updates, planned, value))

    def ended(self, result):
        self.endings.append((result.trial.arm, result.trial.seed, result.status))


def test_every_arm_runs_every_seed_once_and_the_results_are_in_the_order_of_the_plan(tmp_path):
    engine, told = Engine(slots=3), Told()
    results = Sweep(plan(), root=tmp_path, name="a", engine=engine, progress=told).run()
    assert [(one.trial.arm, one.trial.seed) for one in results] == [
        (arm, seed) for arm in ("lr=0.1", "lr=0.2") for seed in (0, 1, 2)
    ]
    assert all(one.status == "finished" and one.best == converge(one.trial)[-1][1] for one in results)
    assert len(engine.keys) == len(set(engine.keys)) == 6
    assert engine.most == 3
    assert told.phases == [("", 6, 0)]
    assert len(told.begun) == len(told.endings) == 6


def test_the_metric_and_its_direction_are_those_that_the_system_declares(tmp_path):
    engine = Engine()
    Sweep(plan(seeds=(0,)), root=tmp_path, engine=engine).run()
    assert {(job.metric, job.better) for job in engine.jobs} == {("validation/distance", "lower")}


def test_the_same_command_finds_its_folder_and_runs_nothing_again(tmp_path):
    first = Sweep(plan(), root=tmp_path, engine=Engine()).run()
    engine, told = Engine(), Told()
    again = Sweep(plan(), root=tmp_path, engine=engine, progress=told).run()
    assert engine.jobs == []
    assert told.phases == [("", 6, 6)]
    assert again == first
    assert len(list(tmp_path.iterdir())) == 1


def test_more_seeds_under_the_same_name_run_only_what_is_missing(tmp_path):
    Sweep(plan(), root=tmp_path, name="a", engine=Engine()).run()
    engine = Engine()
    with pytest.raises(UserError, match=r"another sweep: seeds was \[0, 1, 2\], is \[0, 1, 2, 3\].*--extend"):
        Sweep(plan(seeds=(0, 1, 2, 3)), root=tmp_path, name="a", engine=engine).run()
    results = Sweep(plan(seeds=(0, 1, 2, 3)), root=tmp_path, name="a", engine=engine, extend=True).run()
    assert [job.trial.seed for job in engine.jobs] == [3, 3]
    assert len(results) == 8


def test_results_do_not_depend_on_the_number_of_slots(tmp_path):
    one = Sweep(plan(), root=tmp_path / "1", engine=Engine(slots=1)).run()
    many = Sweep(plan(), root=tmp_path / "5", engine=Engine(slots=5, looks=3)).run()
    assert without_time(one) == without_time(many)


def test_a_crash_is_a_counted_failure_and_the_sweep_goes_on(tmp_path):
    engine = Engine(behave=lambda job: failed(job) if job.trial.seed == 1 else None)
    results = Sweep(plan(), root=tmp_path, name="a", engine=engine).run()
    assert [one.status for one in results] == ["finished", "failed", "finished"] * 2
    assert results[1].error == "RuntimeError: the disk is full"
    again = Engine()
    assert Sweep(plan(), root=tmp_path, name="a", engine=again).run() == results
    assert again.jobs == []
    results = Sweep(plan(), root=tmp_path, name="a", engine=again, retry_failed=True).run()
    assert [job.trial.seed for job in again.jobs] == [1, 1]
    assert [(one.status, one.attempts) for one in results][1] == ("finished", 2)


def test_a_process_that_left_without_a_word_is_a_failure_that_says_its_code(tmp_path):
    engine = Engine(behave=lambda job: Ended(returncode=-9))
    results = Sweep(plan(seeds=(0,)), root=tmp_path, engine=engine).run()
    assert [one.error for one in results] == ["its process left with code -9"] * 2


def test_a_lost_trial_is_run_again_and_fails_when_it_was_lost_too_often(tmp_path):
    times = {}

    def behave(job):
        times[job.trial.arm] = times.get(job.trial.arm, 0) + 1
        lost = job.trial.arm == "lr=0.2" or times[job.trial.arm] == 1
        return Ended(returncode=-9, error="the node died", lost=True) if lost else None

    results = Sweep(plan(seeds=(0,)), root=tmp_path, engine=Engine(behave=behave)).run()
    assert [(one.status, times[one.trial.arm]) for one in results] == [("finished", 2), ("failed", 3)]
    assert "lost 3 times" in results[1].error


def test_the_claim_of_a_worker_that_died_is_taken_over(tmp_path):
    sweep = Sweep(plan(seeds=(0,)), root=tmp_path, name="a", engine=Engine(), stale_seconds=0.3)
    with Store.open(tmp_path / "trials.sqlite") as store:
        store.add("a", sweep.plan.trials(sweep.plan.phases[0]))
        assert store.claim("a", "a worker that dies") is not None
        sweep = Sweep(
            plan(seeds=(0,)), root=tmp_path, name="a", engine=Engine(), stale_seconds=0.3,
            store=str(tmp_path / "trials.sqlite"),
        )  # fmt: skip
        results = sweep.run()
    assert [one.status for one in results] == ["finished", "finished"]


def test_whoever_lost_its_claim_ends_its_trial_and_writes_nothing(tmp_path):
    store_path = tmp_path / "trials.sqlite"
    engine = Engine(slots=1, looks=10**6)
    others = []

    class Taken(Told):
        def began(self, trial, worker=""):
            Told.began(self, trial, worker)
            if len(self.begun) == 1:
                with Store.open(store_path) as store:
                    store.free_stale("a", -1.0)
                    claim = store.claim("a", "another worker", [trial.key])
                    job = engine.jobs[0] if engine.jobs else None
                    result = finished(job, points=((0, 9.0), (4, 5.0)), worker="another worker")
                    others.append(store.finish(claim, result))
                engine.looks = 1

    one = plan(seeds=(0,))
    results = Sweep(
        one, root=tmp_path, name="a", engine=engine, progress=Taken(), store=str(store_path), stale_seconds=0.4
    ).run()
    assert others == [True]
    assert [one.final for one in results] == [5.0, converge(results[1].trial)[-1][1]]
    assert results[0].worker == "another worker"


def test_two_workers_share_one_sweep_and_no_trial_runs_twice(tmp_path):
    one, other = Engine(looks=5), Engine(looks=5)
    many = plan(seeds=tuple(range(10)))
    answers, told = {}, {"one": Told(), "other": Told()}

    def work(name, engine):
        answers[name] = Sweep(many, root=tmp_path, name="a", engine=engine, progress=told[name]).run()

    threads = [threading.Thread(target=work, args=pair) for pair in (("one", one), ("other", other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.keys + other.keys) == sorted(result.trial.key for result in answers["one"])
    assert min(len(one.keys), len(other.keys)) > 0
    assert answers["one"] == answers["other"]
    for progress in told.values():  # each counts what the other has done, once
        assert sorted(progress.endings) == sorted((one.trial.arm, one.trial.seed, one.status) for one in answers["one"])


# --- phases ---------------------------------------------------------------------------------------


def phased():
    return plan(
        seeds=(0, 1),
        phases=(
            Phase(name="base", arms=grid({"lr": [0.1, 0.3]}), take="best"),
            Phase(name="again", arms=grid({"steps": [4, 6]}), use={"checkpoint": "base"}, base={"kind": "x"}),
        ),
    )


def test_a_later_phase_starts_from_what_an_earlier_one_found(tmp_path):
    engine, told = Engine(slots=4), Told()
    results = Sweep(phased(), root=tmp_path, name="a", engine=engine, progress=told).run()
    best = results[2].trial  # lr=0.3, seed 0: the least distance
    named = f"checkpoint:{best.key}"
    assert [one.trial.settings for one in results[4:]] == [
        {"lr": 0.3, "kind": "x", "checkpoint": named, "steps": steps} for steps in (4, 4, 6, 6)
    ]
    paths = [job.options["paths"] for job in engine.jobs]
    assert paths[:4] == [{}] * 4
    assert paths[4:] == [{named: str(tmp_path / "a" / "runs" / f"run-{best.key}" / "best")}] * 4
    assert told.phases == [("base", 4, 0), ("again", 4, 0)]
    assert [trial.phase for trial in told.begun] == ["base"] * 4 + ["again"] * 4


@pytest.fixture(autouse=True)
def checkpoints_are_there(monkeypatch):
    """The pretended engine keeps no checkpoint; that their folders exist is tested with a real one."""
    monkeypatch.setattr("trimtab.sweep.sweep.Path.is_dir", lambda self: True)


def test_a_phase_without_a_result_ends_the_sweep_with_the_first_error(tmp_path):
    with pytest.raises(UserError, match=r"'base': none of its 4 trials has a result.*the disk is full.*--retry-failed"):
        Sweep(phased(), root=tmp_path, engine=Engine(behave=failed)).run()


def test_an_outline_says_what_would_run_and_makes_nothing(tmp_path):
    sweep = Sweep(phased(), root=tmp_path / "s", name="a", engine=Engine())
    assert [(line.trials, line.skipped, line.open) for line in sweep.outline()] == [(4, 0, False), (4, 0, True)]
    assert not (tmp_path / "s").exists()
    sweep.run()
    assert [(line.trials, line.skipped, line.open) for line in sweep.outline()] == [(4, 4, False), (4, 4, False)]


def test_only_evaluations_where_the_guard_holds_may_be_the_best(tmp_path):
    # x is 1 - distance, so that it is above 0.3 at the last of the three evaluations alone
    guarded = plan(seeds=(0,), guard="x < 0.3")
    results = Sweep(guarded, root=tmp_path, engine=Engine()).run()
    for one in results:
        assert one.barred == tuple(step for step, value in one.points if not 1 - value < 0.3)
        assert one.barred
        assert one.best_step not in one.barred


# --- searches -------------------------------------------------------------------------------------


def searched(pruner="none", arms=8, **more):
    search = Search(space={"lr": Real(0.01, 1.0, log=True)}, arms=arms, sampler="random", pruner=pruner, **more)
    return plan(phases=(Phase(search=search),), seeds=(0, 1))


def test_a_search_tries_as_many_arms_as_it_was_told_each_with_every_seed(tmp_path):
    results = Sweep(searched(), root=tmp_path / "1", name="a", engine=Engine(slots=1)).run()
    assert len(results) == 16
    assert [one.trial.arm.partition(":")[0] for one in results[::2]] == list("01234567")
    assert all(0.01 <= one.trial.settings["lr"] <= 1.0 for one in results)
    others = Sweep(searched(), root=tmp_path / "4", name="a", engine=Engine(slots=4)).run()
    assert without_time(others) == without_time(results)


def test_an_interrupted_search_goes_on_with_the_same_arms(tmp_path):
    whole = Sweep(searched(), root=tmp_path / "whole", name="a", engine=Engine()).run()

    class Enough(Exception):
        pass

    def behave(job):
        if job.trial.arm.startswith("5"):
            raise Enough
        return None

    with pytest.raises(Enough):
        Sweep(searched(), root=tmp_path / "parts", name="a", engine=Engine(behave=behave)).run()
    engine = Engine()
    parts = Sweep(searched(), root=tmp_path / "parts", name="a", engine=engine, stale_seconds=0.3).run()
    assert len(engine.jobs) <= 8
    assert without_time(parts) == without_time(
        [dataclasses.replace(one, attempts=other.attempts) for one, other in zip(whole, parts, strict=True)]
    )


def test_a_pruned_arm_is_stopped_and_its_other_seeds_never_begin(tmp_path, monkeypatch):
    monkeypatch.setattr("trimtab.sweep.sweep.WATCH_SECONDS", 0.0)
    engine = Engine(slots=2, looks=2)
    results = Sweep(searched("median", arms=9, at_once=1), root=tmp_path, engine=engine).run()
    pruned = [one for one in results if one.status == "pruned"]
    assert pruned
    assert all(
        one.trial.seed == 0 and one.points[-1][0] in (2, 4) and "pruned after" in one.stop_reason for one in pruned
    )
    for one in pruned:
        assert [other.trial.seed for other in results if other.trial.arm == one.trial.arm] == [0]
    rates = {one.trial.settings["lr"] for one in pruned}
    assert max(rates) < max(one.trial.settings["lr"] for one in results)
    fast = Sweep(searched("median", arms=9, at_once=1), root=tmp_path / "fast", engine=Engine(slots=2, looks=0)).run()
    assert [(one.trial.key, one.status, one.points) for one in fast] == [
        (one.trial.key, one.status, one.points) for one in results
    ]


def test_a_search_keeps_its_study_in_the_database_of_its_trials(tmp_path, postgres):
    results = Sweep(searched(arms=3), root=tmp_path, name="a", engine=Engine(), store=postgres.url).run()
    again = Engine()
    assert Sweep(searched(arms=3), root=tmp_path, name="a", engine=again, store=postgres.url).run() == results
    assert again.jobs == []
    assert len(results) == 6
    assert not list((tmp_path / "a").glob("*.sqlite")) + list((tmp_path / "a").glob("*search*"))
