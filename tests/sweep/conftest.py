"""A PostgreSQL server for the tests that want one, started once."""

import pytest

from benchmarks.postgres_server import binaries, postgres_server


@pytest.fixture(scope="session")
def postgres():
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql); nothing was tested with a server")
    with postgres_server() as server:
        yield server
