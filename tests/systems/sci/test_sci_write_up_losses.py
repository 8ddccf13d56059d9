"""The terms of the write-up's loss, next to slow and obvious forms of them."""

import math

import pytest
import torch
import torch.nn.functional as F

from trimtab_systems.sci.data import EOS, FIRST_ACTION, PAD
from trimtab_systems.sci.write_up.losses import (
    Heads,
    binding_entropy_loss,
    contrastive_loss,
    edge_sparsity_loss,
    entropy,
    eos_position_loss,
    length_loss,
    orthogonality_loss,
    own_ends,
    slot_diversity_loss,
    slot_shares,
    task_loss,
)

A = FIRST_ACTION
LABELS = torch.tensor([[A, A + 1, EOS, PAD], [A, EOS, PAD, PAD]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def logits() -> torch.Tensor:
    return torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()


def surprises(given: torch.Tensor) -> tuple[list[float], list[float]]:
    """Return -log p of every action and of every EOS, one by one."""
    actions, ends = [], []
    for row in range(2):
        for place in range(4):
            label = int(LABELS[row, place])
            if label != PAD:
                value = -float(given.detach()[row, place].log_softmax(-1)[label])
                (ends if label == EOS else actions).append(value)
    return actions, ends


def test_reweighted_eos_counts_so_many_times_in_a_weighted_mean():
    given = logits().detach()
    found = task_loss(given, LABELS, None, "reweight", 2.0)
    actions, ends = surprises(given)
    assert float(found.optimised) == pytest.approx((sum(actions) + 2 * sum(ends)) / (len(actions) + 2 * len(ends)))
    assert float(found.task) == pytest.approx(sum(actions + ends) / 5)
    assert float(found.eos) == pytest.approx(sum(ends) / 2)
    assert not task_loss(logits(), LABELS, None, "reweight", 2.0).task.requires_grad


def test_with_a_weight_of_nothing_eos_is_not_trained():
    given = logits()
    task_loss(given, LABELS, None, "reweight", 0.0).optimised.backward()
    ends = LABELS == EOS
    assert given.grad is not None
    assert given.grad[ends].abs().sum() == 0
    assert given.grad[LABELS >= A].abs().sum() > 0


def test_added_eos_has_the_share_in_the_gradient_that_its_text_says():
    actions, labels = 12, torch.full((1, 13), A)
    labels[0, -1] = EOS
    shares = []
    for mode, weight in (("additive", 2.0), ("reweight", 1.0)):
        given = torch.zeros(1, 13, 9, requires_grad=True)
        task_loss(given, labels, None, mode, weight).optimised.backward()
        assert given.grad is not None
        shares.append(float(given.grad[0, -1].norm() / given.grad[0, 0].norm()))
    assert shares[1] == pytest.approx(1.0)
    assert shares[0] == pytest.approx(1 + 2 * (actions + 1))


def test_a_stop_head_is_asked_at_each_place_that_is_not_padding():
    given, stop = logits().detach(), torch.tensor([[0.5, -1.0, 2.0, 9.0], [1.0, 3.0, 9.0, 9.0]])
    found = task_loss(given, LABELS, stop, "bce", 2.0)
    wanted = [(0.5, 0), (-1.0, 0), (2.0, 1), (1.0, 0), (3.0, 1)]
    binary = sum(math.log1p(math.exp(-value if ends else value)) for value, ends in wanted) / 5
    assert float(found.optimised) == pytest.approx(float(found.task) + 2 * binary, rel=1e-5)


def test_a_decoder_that_ends_too_early_is_fed_its_own_end_from_there_on():
    given = torch.zeros(2, 4, 9)
    given[0, 1, EOS] = given[0, 2, EOS] = given[1, 1, EOS] = 5.0
    inputs = torch.tensor([[1, A, A + 1, PAD], [1, A, PAD, PAD]])
    assert own_ends(given, inputs, LABELS).tolist() == [[1, A, EOS, EOS], [1, A, PAD, PAD]]


def test_the_contrast_is_the_mean_over_pairs_of_one_template():
    generator = torch.Generator().manual_seed(1)
    unit = F.normalize(torch.randn(5, 3, generator=generator), dim=-1)
    templates = [0, 1, 0, 2, 0]
    terms = []
    for i in range(5):
        others = [math.exp(float(unit[i] @ unit[k]) / 0.1) for k in range(5) if k != i]
        terms += [
            -math.log(math.exp(float(unit[i] @ unit[j]) / 0.1) / sum(others))
            for j in range(5)
            if j != i and templates[i] == templates[j]
        ]
    found = contrastive_loss(unit, torch.tensor(templates), 0.1)
    assert len(terms) == 6
    assert float(found) == pytest.approx(sum(terms) / 6, rel=1e-5)


def test_a_batch_without_a_pair_has_no_contrast_and_still_a_graph():
    unit = F.normalize(torch.randn(3, 4), dim=-1).requires_grad_()
    found = contrastive_loss(unit, torch.tensor([0, 1, 2]), 0.1)
    found.backward()
    assert found.item() == 0
    assert unit.grad is not None
    assert unit.grad.abs().sum() == 0


def test_orthogonality_is_the_mean_over_slots_and_words_that_are_there():
    slots = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]).repeat(2, 1, 1)
    content = torch.tensor([[[3.0, 0.0]] * 3, [[0.0, 1.0], [1.0, 1.0], [5.0, 5.0]]])
    cosines = [1, 0] * 3 + [0, 1, 0.5, 0.5]
    assert float(orthogonality_loss(slots, content, MASK)) == pytest.approx(sum(cosines) / len(cosines))


def test_length_is_compared_in_logarithms():
    assert float(length_loss(torch.tensor([math.log(8.0)]), torch.tensor([7]))) == pytest.approx(0, abs=1e-12)
    assert float(length_loss(torch.tensor([math.log(8.0) + 3]), torch.tensor([7]))) == pytest.approx(2.5)


def test_the_pointer_shall_find_the_place_of_eos():
    pointer = torch.tensor([[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]])
    wanted = -(pointer.log_softmax(1)[0, 2] + pointer.log_softmax(1)[1, 1]) / 2
    assert float(eos_position_loss(pointer, LABELS)) == pytest.approx(float(wanted))


def test_slots_that_are_alike_or_have_no_word_are_told_apart_from_those_that_share():
    orthogonal = torch.eye(3).expand(2, 3, 3)
    shared = torch.full((2, 3, 3), 1 / 3)
    assert float(slot_diversity_loss(orthogonal, shared, MASK, 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(slot_diversity_loss(torch.ones(2, 3, 3), shared, MASK, 1.0)) == pytest.approx(1, abs=1e-6)
    greedy = torch.zeros(2, 3, 3)
    greedy[:, 0] = 1.0
    assert float(slot_diversity_loss(orthogonal, greedy, MASK, 1.0)) == pytest.approx(1, abs=1e-5)


def test_shares_leave_padding_out():
    attention = torch.zeros(2, 2, 3)
    attention[:, 0, 0] = attention[:, 1, 1:] = 1.0
    assert slot_shares(attention, MASK).tolist() == pytest.approx([2 / 5, 3 / 5])


def test_edges_of_a_slot_to_itself_do_not_count():
    edges = torch.zeros(1, 3, 3)
    edges[0, 0, 1] = edges[0, 1, 2] = edges[0, 2, 0] = 1.0
    assert float(edge_sparsity_loss(edges, 0.5)) == pytest.approx(0, abs=1e-12)
    assert float(edge_sparsity_loss(edges + torch.eye(3), 0.5)) == pytest.approx(0, abs=1e-12)
    assert float(edge_sparsity_loss(torch.zeros(1, 3, 3), 0.5)) == pytest.approx(0.25)


def test_the_written_cap_on_binding_entropy_never_acts_and_the_floor_does():
    even = torch.full((1, 4, 9), 1 / 9)
    all_words = torch.ones(1, 9, dtype=torch.bool)
    assert float(entropy(even).mean()) == pytest.approx(math.log(9), rel=1e-4)
    assert float(binding_entropy_loss(even, all_words, "as_written", 1.0, 3.0)) == 0
    gathered = torch.full((1, 4, 9), 1e-9)
    gathered[0, 0] = 1 / 9
    assert float(binding_entropy_loss(gathered, all_words, "least", 1.0, 3.0)) == pytest.approx(1.0, abs=1e-3)
    assert float(binding_entropy_loss(even, all_words, "least", 1.0, 1.5)) == pytest.approx(math.log(9) - 1.5, rel=1e-3)


def test_two_slots_that_change_places_are_another_structure():
    heads = Heads(4, 2)
    slots = torch.randn(1, 2, 4)
    assert not torch.allclose(heads.structure(slots), heads.structure(slots.flip(1)))
    assert heads.structure(slots).norm().item() == pytest.approx(1.0, rel=1e-5)
    assert Heads(4, 0).contrast is None
