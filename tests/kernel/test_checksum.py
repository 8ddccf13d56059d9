"""Whether a load changed the weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from trimtab import Guard
from trimtab.checksum import SAMPLE, changed, checksums


def test_a_change_of_any_kind_is_seen_and_nothing_else():
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 1))
    before = checksums(model)
    assert changed(before, checksums(model)) == 0
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight.flip(0))
        model[2].bias.fill_(math.nan)
    assert changed(before, checksums(model)) == 2
    again = checksums(model)
    assert changed(again, checksums(model)) == 0


def test_of_a_large_tensor_a_sample_is_read_and_what_has_no_numbers_is_passed_over():
    model = nn.Module()
    model.big = nn.Parameter(torch.zeros(3 * SAMPLE))
    model.complex = nn.Parameter(torch.zeros(4, dtype=torch.complex64))
    model.empty = nn.Parameter(torch.zeros(0))
    model.nowhere = nn.Parameter(torch.zeros(4, device="meta"))
    before = checksums(model)
    with torch.no_grad():
        model.big.add_(0.5)
        model.complex.add_(1j)
    assert changed(before, checksums(model)) == 2


def test_the_note_about_a_load_says_how_many_tensors_changed(tmp_path):
    model, other = nn.Linear(4, 2), nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Guard(tmp_path / "run", model, optimizer) as guard:
        model.load_state_dict(other.state_dict())
        model.load_state_dict(other.state_dict())
        model.load_state_dict({f"module.{k}": v for k, v in other.state_dict().items()}, strict=False)
    notes = [note.facts for note in guard.history.notes if note.kind == "weights-loaded"]
    assert [note["changed"] for note in notes] == [2.0, 0.0, 0.0]
    assert [note["missing"] for note in notes] == [0.0, 0.0, 2.0]
