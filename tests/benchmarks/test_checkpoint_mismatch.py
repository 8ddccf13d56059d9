"""The bench of the checkpoint bug: its metric has its bound, its result what was promised."""

import math

import pytest
import torch

from benchmarks import checkpoint_mismatch
from benchmarks.stored import load


def test_the_valuation_is_how_often_three_divides_a_number():
    digits, valuation = checkpoint_mismatch.strings()
    assert digits.shape == (19_683, 9)
    assert [valuation[number].item() for number in (0, 1, 3, 9, 18, 3**8)] == [9, 0, 1, 2, 2, 8]


def test_the_best_hierarchy_without_ties_is_minus_the_root_of_nine_thirteenths():
    _, valuation = checkpoint_mismatch.strings()
    radius = -valuation + torch.linspace(0, 0.5, len(valuation), dtype=torch.float64)
    ranks = torch.tensor(checkpoint_mismatch._ranks(radius.numpy()))
    found = torch.corrcoef(torch.stack([torch.tensor(checkpoint_mismatch._ranks(valuation.numpy())), ranks]))[0, 1]
    assert found.item() == pytest.approx(-math.sqrt(9 / 13), abs=1e-5)


def test_what_was_measured():
    figures = load("checkpoint_mismatch")["figures"]
    assert figures["refused"] == figures["refused_of"]
    assert figures["renames_named"] == 8
    assert figures["bit_identical"] == 1
    assert figures["plain_spread"] > 0.2
    assert figures["spread_after_rename"] < 1e-9
