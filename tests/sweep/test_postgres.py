"""Two processes share one study, in a file and on a real PostgreSQL server; one is killed, and the server goes away."""

import signal
import subprocess
import sys
import textwrap
import threading
import uuid

import pytest

from trimtab.sweep.store import Store
from trimtab.trial import Trial, TrialResult

WORKER = """
    import sys, time
    from trimtab.sweep.store import Store
    from trimtab.trial import TrialResult
    url, sweep, name, seconds = sys.argv[1:]
    with Store.open(url) as store:
        print("open", flush=True)
        while True:
            claim = store.claim(sweep, name)
            if claim is None:
                store.free_stale(sweep, 1.0)
                if all(one.status == "finished" for one in store.results(sweep)):
                    break
                time.sleep(0.05)
                continue
            print("began", claim.trial.key, flush=True)
            until = time.monotonic() + float(seconds)
            held = True
            while held and time.monotonic() < until:
                time.sleep(0.05)
                held = store.beat(claim)
            if held and store.finish(claim, TrialResult(trial=claim.trial, status="finished", run=name)):
                print("finished", claim.trial.key, flush=True)
"""


def worker(url, sweep, name, seconds):
    words = [sys.executable, "-c", textwrap.dedent(WORKER), url, sweep, name, str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    return process


def planned(url, count):
    sweep = uuid.uuid4().hex
    trials = [Trial(target="toy", arm="a", seed=seed) for seed in range(count)]
    with Store.open(url) as store:
        assert store.add(sweep, trials) == count
    return sweep, [trial.key for trial in trials]


@pytest.mark.parametrize("where", ["file", "server"])
def test_the_trials_of_a_killed_worker_are_run_by_the_other_none_lost_none_doubled(where, tmp_path, request):
    url = str(tmp_path / "trials.sqlite") if where == "file" else request.getfixturevalue("postgres").url
    sweep, keys = planned(url, 20)
    one, two = worker(url, sweep, "one", 0.5), worker(url, sweep, "two", 0.1)
    said = []
    while len(said) < 5:
        said.append(one.stdout.readline().split())
    assert said[-1][0] == "began"  # in the middle of its third trial
    one.send_signal(signal.SIGKILL)
    said += [line.split() for line in one.stdout.read().splitlines()]
    said_by_two = [line.split() for line in two.communicate(timeout=120)[0].splitlines()]
    one.wait()
    one.stdout.close()
    assert (one.returncode, two.returncode) == (-signal.SIGKILL, 0)
    finished = [key for what, key in [*said, *said_by_two] if what == "finished"]
    assert sorted(finished) == sorted(keys)
    torn = said[-1][1]
    assert ["began", torn] in said_by_two
    with Store.open(url) as store:
        results = {result.trial.key: result for result in store.results(sweep)}
    assert {result.status for result in results.values()} == {"finished"}
    assert (results[torn].attempts, results[torn].run) == (2, "two")
    assert sum(result.attempts for result in results.values()) == len(keys) + 1


def test_a_server_that_restarts_is_waited_for(postgres):
    sweep, keys = planned(postgres.url, 2)
    with Store.open(postgres.url) as store:
        claim = store.claim(sweep, "one")
        postgres.stop()
        back = threading.Timer(0.5, postgres.start)
        back.start()
        assert store.beat(claim)
        back.join()
        assert store.finish(claim, TrialResult(trial=claim.trial, status="finished"))
        assert [result.status for result in store.results(sweep)] == ["finished", "waiting"]
        assert store.claim(sweep, "one").trial.key == keys[1]


def test_many_that_begin_at_once_make_the_tables_once(postgres):
    errors = []
    url = postgres.url.replace("/postgres?", "/template1?")  # a database without our tables

    def begin():
        try:
            with Store.open(url) as store:
                store.add("s", [Trial(target="toy", arm="a", seed=seed) for seed in range(5)])
        except Exception as error:  # noqa: BLE001 - a thread's error is told by the test
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Store.open(url) as store:
        assert len(store.results("s")) == 5
