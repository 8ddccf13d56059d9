"""Every test on one thread, its processes too: small tensors on busy cores are slower on two."""

import logging
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("COLUMNS", None)  # the width of whoever runs the tests; what is printed into a pipe has its own

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def log_as_before():
    """Benchmarks silence Trimtab's log in their processes; no test may leave it silent for the next."""
    log = logging.getLogger("trimtab")
    level, disabled = log.level, logging.root.manager.disable
    yield
    log.setLevel(level)
    logging.disable(disabled)
