"""Every test on one thread, its processes too: small tensors on busy cores are slower on two."""

import logging
import os
import signal
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("COLUMNS", None)  # the width of whoever runs the tests; what is printed into a pipe has its own

import pytest
import torch

# A shell that starts the tests in the background has SIGINT ignored, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)

LEAN = Path(__file__).parent / "lean"
"""A sitecustomize that saves two seconds of each process that makes an optimizer."""


@pytest.fixture(scope="session", autouse=True)
def processes_that_import_less():
    """Every process that a test starts finds `tests/lean`; `make demo` alone is tried as it is."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(LEAN), *([before] if before else [])])
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(autouse=True)
def log_as_before():
    """Benchmarks silence Trimtab's log in their processes; no test may leave it silent for the next."""
    log = logging.getLogger("trimtab")
    level, disabled = log.level, logging.root.manager.disable
    yield
    log.setLevel(level)
    logging.disable(disabled)
