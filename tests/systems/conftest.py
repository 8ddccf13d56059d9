"""What the tests of the reference systems share."""

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small are many times slower on two threads when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
