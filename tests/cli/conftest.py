"""A folder of three runs that the tests of the command line read and do not change."""

import pytest

from tests.report.recorded import broken, record, training


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A clean run, one with a warning at most, and a broken one, the last."""
    root = tmp_path_factory.mktemp("runs")
    runs = {
        "clean": record(root, training(60), name="clean"),
        "unfinished": record(root, list(training(40, rate=3e-3)), name="unfinished", ended=None),
    }
    return root, {**runs, "broken": broken(root, name="broken")}


@pytest.fixture
def runs(recorded, monkeypatch):
    """The runs by name; their folder is the folder of runs."""
    monkeypatch.setenv("TRIMTAB_RUNS", str(recorded[0]))
    return recorded[1]
