"""One thread for every test and every process that a test starts: small tensors on busy cores are slower on two."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
