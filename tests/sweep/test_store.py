"""The store: whatever dies when, no trial is lost and none is done twice; the same in SQLite and PostgreSQL."""

import math
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trimtab.errors import UserError
from trimtab.sweep import store as module
from trimtab.sweep.store import Store
from trimtab.trial import Trial, TrialResult


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    return str(tmp_path / "trials.sqlite") if request.param == "sqlite" else request.getfixturevalue("postgres").url


@pytest.fixture
def store(url):
    with Store.open(url) as opened:
        yield opened


@pytest.fixture
def sweep():
    return uuid.uuid4().hex  # the server is shared


def trials(count, **settings):
    return [Trial(target="toy", arm=f"a{number}", seed=number, settings=settings) for number in range(count)]


def finished(trial, **more):
    return TrialResult(trial=trial, status="finished", metric="validation/x", points=((0, 1.0), (2, 0.5)), **more)


def test_adding_again_adds_nothing(store, sweep):
    assert store.add(sweep, trials(3)) == 3
    assert store.add(sweep, trials(5)) == 2
    assert store.add(sweep, []) == 0
    assert [result.trial for result in store.results(sweep)] == trials(5)
    assert {result.status for result in store.results(sweep)} == {"waiting"}
    assert sweep in store.sweeps()
    assert store.results("nobody's") == []


def test_trials_are_claimed_in_the_order_of_the_plan_and_by_one_worker_each(url, store, sweep):
    store.add(sweep, trials(3))
    with Store.open(url) as other:
        claims = [store.claim(sweep, "one"), other.claim(sweep, "two"), store.claim(sweep, "one")]
        assert other.claim(sweep, "two") is None
    assert [claim.trial for claim in claims] == trials(3)
    assert [(result.status, result.worker, result.attempts) for result in store.results(sweep)] == [
        ("running", "one", 1), ("running", "two", 1), ("running", "one", 1),
    ]  # fmt: skip


def test_a_claim_may_be_limited_to_some_trials(store, sweep, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    planned = trials(6)
    store.add(sweep, planned)
    wanted = {trial.key for trial in planned[3:]}
    assert store.claim(sweep, "one", set()) is None
    assert [store.claim(sweep, "one", wanted).trial for _ in range(3)] == planned[3:]
    assert store.claim(sweep, "one", wanted) is None


def test_a_result_comes_back_exactly(store, sweep):
    [trial] = trials(1, lr=1e-3, text="NaN", nested={"list": [1, 2.0, None, True]}, far=math.inf)
    points = ((0, math.nan), (10, -math.inf), (20, 0.1 + 0.2), (30, 3.0))
    result = TrialResult(
        trial=trial, status="stopped", metric="validation/x", better="lower", points=points,
        others={"validation/y": points, "validation/z": ((0, 1.0), (30, math.inf)), "train/none": ()}, barred=(10, 20),
        evaluations_again=(0.3, math.nan), run="a", checkpoint="best", checkpoint_hash="f" * 16,
        findings=(("loss-spike", "error"), ("past-its-peak", "warning")), losses_hash="0" * 16, stop_reason="Infinity",
        steps=30, cpu_seconds=1.5, wall_seconds=2.5, train_cpu_seconds=1.0, config_hash="c", code="d+", worker="me",
    )  # fmt: skip
    store.add(sweep, [trial])
    assert store.finish(store.claim(sweep, "me"), result)
    [back] = store.results(sweep)
    assert repr(back) == repr(result)  # NaN differs from itself
    assert back.trial.key == trial.key


def test_settings_that_json_changes_are_refused(store, sweep):
    with pytest.raises(UserError, match=r"arm 'a0': the settings .* do not survive being written as JSON"):
        store.add(sweep, trials(1, folder=Path("here")))


def test_who_lost_a_claim_writes_nothing(store, sweep):
    store.add(sweep, trials(1))
    slow = store.claim(sweep, "slow")
    assert store.beat(slow)
    assert store.free_stale(sweep, 60.0) == []
    time.sleep(0.02)
    assert store.free_stale(sweep, 0.01) == trials(1)
    assert not store.beat(slow)
    quick = store.claim(sweep, "quick")
    assert (quick.attempt, quick.trial) == (2, slow.trial)
    assert not store.beat(slow)
    assert not store.finish(slow, finished(slow.trial, run="wrong"))
    assert not store.release(slow)
    assert not store.lose(slow, "gone")
    assert store.finish(quick, finished(quick.trial, run="right"))
    [result] = store.results(sweep)
    assert (result.run, result.worker, result.attempts) == ("right", "quick", 2)
    assert store.claim(sweep, "quick") is None


def test_a_result_that_is_stored_again_for_no_answer_came_is_one_result(store, sweep):
    store.add(sweep, trials(1))
    claim = store.claim(sweep, "one")
    assert store.finish(claim, finished(claim.trial))
    assert store.finish(claim, finished(claim.trial))
    assert not store.beat(claim)
    assert len(store.results(sweep)) == 1


def test_a_released_trial_waits_at_once_and_was_not_lost(store, sweep):
    store.add(sweep, trials(1))
    for attempt in range(1, 6):
        claim = store.claim(sweep, "one")
        assert claim.attempt == attempt
        assert store.release(claim)
    assert [result.status for result in store.results(sweep)] == ["waiting"]


def test_a_trial_that_is_lost_three_times_has_failed(store, sweep):
    store.add(sweep, trials(1))
    assert store.lose(store.claim(sweep, "one"), "its node died")
    store.claim(sweep, "two")
    time.sleep(0.02)
    assert store.free_stale(sweep, 0.01) == trials(1)
    assert store.lose(store.claim(sweep, "three"), "its node died")
    [result] = store.results(sweep)
    assert (result.status, result.attempts) == ("failed", 3)
    assert result.error == "lost 3 times, the last time: its node died"
    assert store.claim(sweep, "four") is None
    assert store.reset(sweep) == 1
    assert store.lose(store.claim(sweep, "four"), "its node died")
    assert [result.status for result in store.results(sweep)] == ["waiting"]


def test_only_failed_trials_are_run_again_and_only_if_asked(store, sweep):
    store.add(sweep, trials(3))
    for status in ("finished", "failed", "failed"):
        claim = store.claim(sweep, "one")
        store.finish(claim, TrialResult(trial=claim.trial, status=status, error="it raised"))
    keys = [trial.key for trial in trials(3)]
    assert store.claim(sweep, "one") is None
    assert store.reset(sweep, keys[:2]) == 1
    assert [result.status for result in store.results(sweep)] == ["finished", "waiting", "failed"]
    assert store.results(sweep)[1].error == ""
    assert store.reset(sweep) == 1
    assert store.claim(sweep, "one").attempt == 2


def test_only_a_result_of_that_trial_that_has_ended_can_be_stored(store, sweep):
    store.add(sweep, trials(2))
    claim = store.claim(sweep, "one")
    with pytest.raises(UserError, match="expected a result that has ended"):
        store.finish(claim, TrialResult(trial=claim.trial, status="running"))
    with pytest.raises(UserError, match="the claim is on trial"):
        store.finish(claim, finished(trials(2)[1]))


def test_many_workers_that_claim_lose_and_die_finish_every_trial_once(url, sweep):
    count, workers = 40, 6
    done, errors = [], []

    def work(number):
        try:
            with Store.open(url) as store:
                store.add(sweep, trials(count))
                turn = number
                while True:
                    claim = store.claim(sweep, str(number))
                    if claim is None:
                        store.free_stale(sweep, 0.3, at_most_attempts=99)
                        if all(result.status == "finished" for result in store.results(sweep)):
                            return
                        time.sleep(0.02)
                        continue
                    turn += 1
                    if turn % 7 == 0:
                        continue  # it dies: no beat ever comes
                    if turn % 5 == 0:
                        store.release(claim)
                    elif store.beat(claim) and store.finish(claim, finished(claim.trial, run=str(number))):
                        done.append(claim.trial.key)
        except Exception as error:  # noqa: BLE001 - a thread's error is told by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(done) == sorted(trial.key for trial in trials(count))
    with Store.open(url) as store:
        assert len(store.results(sweep)) == count


def test_two_sweeps_in_one_store_do_not_meet(store, sweep):
    store.add(sweep, trials(2))
    store.add(sweep + "-2", trials(2))
    assert store.claim(sweep, "one") is not None
    assert store.claim(sweep, "one") is not None
    assert store.claim(sweep, "one") is None
    assert {result.status for result in store.results(sweep + "-2")} == {"waiting"}


def test_a_thousand_trials_are_listed_in_a_moment(tmp_path):
    points = tuple((step, 1 / (step + 1)) for step in range(30))
    with Store.open(tmp_path / "many.sqlite") as store:
        planned = trials(1000)
        store.add("s", planned)
        others = {f"validation/m{number}": points for number in range(8)}
        text = module._result_text(TrialResult(trial=planned[0], status="finished", points=points, others=others))
        with sqlite3.connect(tmp_path / "many.sqlite") as connection:
            connection.execute("UPDATE trimtab_trials SET status = 'finished', result = ?", (text,))
        connection.close()
        begin = time.process_time()
        results = store.results("s")
        assert time.process_time() - begin < 1.0
    assert len(results) == 1000
    assert results[999].others["validation/m7"] == points


# -- what cannot be opened ---------------------------------------------------------------------------------------------


def test_a_store_is_the_same_by_path_and_by_url(tmp_path):
    path = tmp_path / "made" / "on the way" / "trials.sqlite"
    with Store.open(path) as store:
        store.add("s", trials(1))
        assert store.describe() == str(path)
    with Store.open(f"sqlite:///{path}", create=False) as store:
        assert len(store.results("s")) == 1


def test_a_reader_makes_no_store(tmp_path):
    with pytest.raises(UserError, match=r"there is no store .*none\.sqlite"):
        Store.open(tmp_path / "none.sqlite", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_said(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(UserError, match=r"notes\.txt: file is not a database; expected a SQLite file"):
        Store.open(path)
    assert path.read_text().startswith("not a database")


def test_a_store_of_another_format_is_refused(tmp_path):
    path = tmp_path / "trials.sqlite"
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trimtab_store SET format = 7")
    connection.close()
    with pytest.raises(UserError, match="has format 7, this Trimtab reads format 1"):
        Store.open(path)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="its folder cannot be made"):
        Store.open(tmp_path / "file" / "below" / "trials.sqlite")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me@there/db", "'mysql' is not supported; expected a path, sqlite:///PATH or postgresql://"),
        ("sqlite://", "would live in memory"),
        ("sqlite:///:memory:", "would live in memory"),
        ("postgresql://here:port/db", "is no URL that can be read"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_can(url, message):
    with pytest.raises(UserError) as caught:
        Store.open(url)
    assert message in str(caught.value)


def test_a_server_that_is_not_there_is_said_without_the_password():
    pytest.importorskip("psycopg")
    with pytest.raises(UserError) as caught:
        Store.open("postgresql://me:hunter2@127.0.0.1:1/db?sslpassword=hunter3")
    text = str(caught.value)
    assert "postgresql://me:***@127.0.0.1:1/db?sslpassword=***: " in text
    assert "is the server up" in text
    assert "hunter" not in text


def test_without_the_driver_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"pip install 'trimtab\[postgres\]'"):
        Store.open("postgresql://me@127.0.0.1:1/db")


# -- any order of calls ------------------------------------------------------------------------------------------------


class Orders(RuleBasedStateMachine):
    """Against a model that is a dict: status, token's claim and losses of every trial."""

    @initialize(folder=st.builds(lambda: None))
    def begin(self, folder):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(self.folder.name + "/trials.sqlite")
        self.status, self.lost, self.attempts = {}, {}, {}
        self.held, self.dead = {}, []

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    @rule(count=st.integers(1, 4))
    def add(self, count):
        new = [trial for trial in trials(count) if trial.key not in self.status]
        assert self.store.add("s", trials(count)) == len(new)
        for trial in new:
            self.status[trial.key], self.lost[trial.key], self.attempts[trial.key] = "waiting", 0, 0

    @rule()
    def claim(self):
        claim = self.store.claim("s", "w")
        waiting = [key for key, status in self.status.items() if status == "waiting"]
        assert (claim.trial.key if claim else None) == (waiting[0] if waiting else None)
        if claim:
            key = claim.trial.key
            self.attempts[key] += 1
            assert claim.attempt == self.attempts[key]
            self.status[key], self.held[key] = "running", claim

    @precondition(lambda self: self.held)
    @rule(data=st.data(), what=st.sampled_from(["finish", "fail", "release", "lose", "beat"]))
    def hold(self, data, what):
        key = data.draw(st.sampled_from(sorted(self.held)))
        claim = self.held[key]
        if what == "beat":
            assert self.store.beat(claim)
            return
        del self.held[key]
        self.dead.append(claim)
        if what == "release":
            assert self.store.release(claim)
            self.status[key] = "waiting"
        elif what == "lose":
            assert self.store.lose(claim, "gone", at_most_attempts=2)
            self.lost[key] += 1
            self.status[key] = "failed" if self.lost[key] >= 2 else "waiting"
        else:
            status = "finished" if what == "finish" else "failed"
            assert self.store.finish(claim, TrialResult(trial=claim.trial, status=status))
            self.status[key] = status

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def the_dead_write_nothing(self, data):
        claim = data.draw(st.sampled_from(self.dead))
        assert not self.store.beat(claim)
        assert not self.store.release(claim)
        assert not self.store.lose(claim, "gone")

    @rule()
    def reset(self):
        failed = [key for key, status in self.status.items() if status == "failed"]
        assert self.store.reset("s") == len(failed)
        for key in failed:
            self.status[key], self.lost[key] = "waiting", 0

    @invariant()
    def stands_as_it_should(self):
        found = {result.trial.key: (result.status, result.attempts) for result in self.store.results("s")}
        assert found == {key: (status, self.attempts[key]) for key, status in self.status.items()}


Orders.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
TestAnyOrderOfCalls = Orders.TestCase


def test_a_sweep_is_listed_without_torch_and_without_the_drivers_of_servers(tmp_path):
    with Store.open(tmp_path / "trials.sqlite") as store:
        store.add("a", [Trial(target="toy", arm="a", seed=0)])
    code = f"""
import sys
from trimtab.sweep import folder
with folder.Store.open({str(tmp_path / "trials.sqlite")!r}) as store:
    assert len(store.results("a")) == 1
dear = ("torch", "sqlalchemy.dialects.postgresql.asyncpg", "psycopg", "optuna")
print([name for name in dear if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
