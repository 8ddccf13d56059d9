"""Trials on a Ray cluster of two nodes, on this machine: the same results as here, and nothing lost with a node."""

import dataclasses
import os
import sys
import time

import pytest

from tests.sweep.test_engine import gone, pid_of, result_of, sleeper, toy, wait
from trimtab.errors import UserError
from trimtab.sweep.engine import LocalEngine
from trimtab.sweep.plan import Arm, Phase, Plan
from trimtab.sweep.sweep import Sweep

# Ray warns about its own future, and its clients leave sockets and log files to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray"),
]


NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of one node; a test adds another."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'trimtab[ray]')")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_trial_whose_node_dies_is_lost_and_one_that_is_stopped_ends(cluster, tmp_path):
    from trimtab.integrations.ray import RayEngine

    node = cluster.add_node(**NODE)
    with RayEngine(cluster.address) as engine:
        assert engine.slots == 2
        handles = [engine.start(sleeper(tmp_path, name)) for name in ("one", "two")]
        pids = [pid_of(tmp_path, name) for name in ("one", "two")]
        cluster.remove_node(node, allow_graceful=False)
        until = time.monotonic() + 60.0
        while not (ended := [one for handle in handles if (one := handle.poll()) is not None]):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert [(one.lost, one.result) for one in ended] == [(True, None)]
        left = handles[0] if handles[1].poll() is not None else handles[1]
        assert gone(pids[1 - handles.index(left)])
        left.stop()
        stopped = wait(left)
        assert (stopped.lost, stopped.error) == (False, "interrupted")
        assert gone(pids[handles.index(left)])


@pytest.mark.slow
def test_a_trial_is_the_same_as_here(cluster, tmp_path):
    from trimtab.integrations.ray import RayEngine

    with RayEngine(cluster.address, slots=1) as engine:
        assert engine.slots == 1
        there = result_of(engine, toy(tmp_path / "there", 3, lr=0.3))
    with LocalEngine(1, fresh=False) as local:
        here = result_of(local, toy(tmp_path / "here", 3, lr=0.3))
    own = {"run": "", "cpu_seconds": 0.0, "wall_seconds": 0.0, "train_cpu_seconds": 0.0, "code": ""}
    assert dataclasses.replace(there, **own) == dataclasses.replace(here, **own)
    names = [sorted(path.name for path in (tmp_path / where / "sweep").iterdir()) for where in ("there", "here")]
    assert [name for name in names[1] if name != "server.txt"] == names[0]
    assert there.run.split("-")[2:-1] == here.run.split("-")[2:-1]


@pytest.mark.slow
def test_a_sweep_on_two_nodes_of_which_one_dies_loses_nothing_and_is_the_same_as_here(cluster, tmp_path):
    from trimtab.integrations.ray import RayEngine

    plan = Plan(
        target="tests.sweep.toy:SYSTEM",
        phases=(Phase(arms=(Arm(name="a", settings={"lr": 0.3}), Arm(name="b", settings={"lr": 0.5}))),),
        defaults={"steps": 40},
        metric="distance",
        seeds=(0, 1, 2),
    )
    node = cluster.add_node(**NODE)
    killed = []

    class Watcher:
        def phase(self, *args): ...
        def began(self, *args): ...
        def moved(self, *args): ...

        def ended(self, result):
            if not killed:
                killed.append(result)
                cluster.remove_node(node, allow_graceful=False)

    with RayEngine(cluster.address) as engine:
        there = Sweep(plan, root=tmp_path / "there", engine=engine, progress=Watcher()).run()
    here = Sweep(plan, root=tmp_path / "here", workers=2).run()
    assert killed
    assert [one.status for one in there] == ["finished"] * 6
    assert max(one.attempts for one in there) > 1
    same = ["trial", "points", "others", "evaluations_again", "losses_hash", "checkpoint_hash", "config_hash"]
    for one, other in zip(there, here, strict=True):
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    from trimtab.integrations.ray import RayEngine

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'trimtab\[ray\]'"):
        RayEngine()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_number_of_slots_that_means_nothing_is_refused():
    from trimtab.integrations.ray import RayEngine

    with pytest.raises(UserError, match="1 or more, got 0"):
        RayEngine(slots=0)
