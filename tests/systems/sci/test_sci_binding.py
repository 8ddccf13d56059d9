"""Content keeps beside structure, an intervention sets and cuts, and the slots are read as the settings say."""

import math

import pytest
import torch
from torch.nn import functional

from trimtab.errors import UserError
from trimtab_systems.sci.write_up.binding import Binding, Intervention, Reader
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.content import ContentEncoder, beside
from trimtab_systems.sci.write_up.structure import StructuralEncoder

SMALL = {"width": 32, "heads": 4, "binding_heads": 4, "slots": 5, "edge_dim": 8, "message_dim": 12, "dropout": 0.0}
MASK = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])


def config(**settings):
    return WriteUpConfig(**{**SMALL, "position_noise": 0.0, **settings})


def made(**settings):
    """Return a binding, the structure of two commands and their content."""
    torch.manual_seed(0)
    chosen = config(**settings)
    x_BND = torch.randn(2, 6, 32)
    return Binding(chosen), StructuralEncoder(chosen)(x_BND, MASK), torch.randn(2, 6, 32)


def cosines(content_BND, slot_BKD):
    content_BND, slot_BKD = functional.normalize(content_BND, dim=-1), functional.normalize(slot_BKD, dim=-1)
    return (content_BND @ slot_BKD.transpose(1, 2)).abs()


def test_projected_content_is_orthogonal_to_every_slot_in_any_order():
    content_BND, slot_BKD = torch.randn(3, 7, 32), torch.randn(3, 5, 32)
    left_BND = beside(content_BND, slot_BKD)
    assert cosines(left_BND, slot_BKD).max() < 1e-5
    assert left_BND.norm() > 0.8 * content_BND.norm()
    assert torch.allclose(left_BND, beside(content_BND, slot_BKD.flip(1)), atol=1e-5)


def test_no_gradient_reaches_the_slots_through_the_projection():
    content_BND, slot_BKD = torch.randn(3, 7, 32, requires_grad=True), torch.randn(3, 5, 32, requires_grad=True)
    beside(content_BND, slot_BKD).square().sum().backward()
    assert content_BND.grad.any()
    assert slot_BKD.grad is None


@pytest.mark.parametrize(
    ("settings", "apart"),
    [({}, True), ({"num_projection_layers": 2, "projection_dim": 24}, True), ({"orthogonality": "penalty"}, False)],
)
def test_content_keeps_apart_where_it_is_projected(settings, apart):
    encoder, slot_BKD = ContentEncoder(config(**settings)), torch.randn(2, 5, 32)
    content_BND = encoder(torch.randn(2, 6, 32), MASK, torch.zeros(2, 6), slot_BKD)
    assert (cosines(content_BND[:1], slot_BKD[:1]).max() < 1e-5) == apart
    assert not content_BND[~MASK].any()


def test_a_word_without_context_has_the_same_content_everywhere():
    word_D = torch.randn(32)
    for context, same in (("none", True), ("attention", False)):
        encoder = ContentEncoder(config(content_context=context, orthogonality="none"))
        x_BND = torch.randn(2, 6, 32)
        x_BND[0, 1] = x_BND[1, 3] = word_D
        content_BND = encoder(x_BND, MASK, torch.zeros(2, 6), torch.randn(2, 5, 32))
        assert torch.allclose(content_BND[0, 1], content_BND[1, 3], atol=1e-6) == same


def test_a_gate_lets_content_in_by_what_is_not_structure():
    score_BN = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]] * 2)
    for gated, same in ((True, True), (False, False)):
        encoder = ContentEncoder(config(content_gate=gated, content_context="none", orthogonality="none"))
        one, other = (encoder(torch.randn(2, 6, 32), MASK, score_BN, torch.randn(2, 5, 32)) for _ in range(2))
        assert torch.allclose(one[:, 0], other[:, 0]) == same
        assert not torch.allclose(one[:, 1], other[:, 1])


def test_slots_read_words_alone_and_their_rows_sum_to_one():
    binding, structure, content_BND = made()
    bound = binding(structure, content_BND, MASK)
    assert bound.slots_BKD.shape == (2, 5, 32)
    assert torch.allclose(bound.attention_BKN.sum(-1), torch.ones(2, 5), atol=1e-5)
    assert not bound.attention_BKN[1, :, 4:].any()


def test_a_slot_that_is_set_keeps_its_value_and_listens_to_nobody_but_is_heard():
    binding, structure, content_BND = made()
    only = torch.tensor([True, False, False, False, False])
    value_BKD = torch.randn(2, 5, 32)
    set_to = binding(structure, content_BND, MASK, Intervention(only, value_BKD)).slots_BKD
    assert torch.equal(set_to[:, 0], value_BKD[:, 0])
    other = binding(structure, torch.randn(2, 6, 32), MASK, Intervention(only, value_BKD)).slots_BKD
    assert torch.equal(other[:, 0], value_BKD[:, 0])
    heard = binding(structure, content_BND, MASK, Intervention(only, value_BKD + torch.randn(32))).slots_BKD
    assert not torch.allclose(heard[:, 1:], set_to[:, 1:], atol=1e-3)
    alone = structure._replace(edges_BKK=torch.zeros_like(structure.edges_BKK))
    unheard = [
        binding(alone, content_BND, MASK, Intervention(only, value_BKD + shift)).slots_BKD for shift in (0.0, 1.0)
    ]
    assert torch.equal(unheard[0][:, 1:], unheard[1][:, 1:])


def test_an_intervention_cuts_what_flows_in_and_leaves_what_flows_out():
    edge_BKK = torch.rand(2, 5, 5)
    cut_BKK = Intervention(torch.tensor([False, True, False, False, False]), torch.zeros(2, 5, 32)).on_edges(edge_BKK)
    assert not cut_BKK[:, 1].any()
    kept = [0, 2, 3, 4]
    assert torch.equal(cut_BKK[:, kept], edge_BKK[:, kept])


def test_strength_goes_from_nothing_to_do():
    binding, structure, content_BND = made()
    chosen, value_BKD = torch.rand(2, 5) > 0.5, torch.randn(2, 5, 32)
    by_strength = [
        binding(structure, content_BND, MASK, Intervention(chosen, value_BKD, strength)).slots_BKD
        for strength in (0.0, 0.5, 1.0)
    ]
    assert torch.equal(by_strength[0], binding(structure, content_BND, MASK).slots_BKD)
    assert torch.equal(by_strength[2][chosen], value_BKD[chosen])
    away = [(slot_BKD - value_BKD)[chosen].norm() for slot_BKD in by_strength]
    assert away[0] > away[1] > away[2] == 0


@pytest.mark.parametrize(
    ("slots", "strength", "message"),
    [
        (torch.ones(5, dtype=torch.bool), 1.5, "strength: expected a number from 0"),
        (torch.ones(5), 1.0, "slots_BK: expected a boolean mask"),
        (torch.ones(4, dtype=torch.bool), 1.0, r"slots_BK: .* \(B, 5\)"),
    ],
)
def test_an_impossible_intervention_says_what_is_wrong(slots, strength, message):
    with pytest.raises(UserError, match=message):
        Intervention(slots, torch.zeros(2, 5, 32), strength)


def test_surely_bound_slots_hear_nobody_in_evaluation_alone():
    binding, structure, content_BND = made(bound_above=0.0)
    training = binding(structure, content_BND, MASK).slots_BKD
    binding.eval()
    alone = structure._replace(edges_BKK=torch.zeros_like(structure.edges_BKK))
    sure = binding(structure, content_BND, MASK).slots_BKD
    assert not torch.allclose(sure, training, atol=1e-3)
    assert torch.equal(sure, binding(alone, content_BND, MASK).slots_BKD)  # every slot is surer than 0


def test_more_rounds_bind_further():
    after = []
    for rounds in (1, 2, 3):
        binding, structure, content_BND = made(binding_iterations=rounds)
        after.append(binding(structure, content_BND, MASK).slots_BKD)
    assert not torch.allclose(after[0], after[1], atol=1e-3)
    assert not torch.allclose(after[1], after[2], atol=1e-3)


@pytest.mark.parametrize("broadcast", ["attention_weighted", "uniform", "learned"])
@pytest.mark.parametrize("injection", ["residual_add", "gated_add", "replace"])
def test_what_is_read_has_the_shape_of_the_states_and_only_our_layers_read(broadcast, injection):
    reader = Reader(config(broadcast=broadcast, injection=injection), (1, 3))
    x_BTD, readable = torch.randn(2, 7, 32), reader.open(torch.randn(2, 5, 32))
    assert reader.inject(2, x_BTD, readable) is x_BTD
    for number in (1, 3):
        assert reader.inject(number, x_BTD, readable).shape == x_BTD.shape
        assert not torch.allclose(reader.inject(number, x_BTD, readable), x_BTD, atol=1e-3)


def test_reading_by_attention_is_what_the_write_up_says():
    reader = Reader(config(), (2,))
    x_BTD, slot_BKD = torch.randn(2, 7, 32), torch.randn(2, 5, 32)
    key_D, value_D = reader.key_value.weight.chunk(2)
    weight_BTK = (reader.query(x_BTD) @ (slot_BKD @ key_D.T).transpose(1, 2) / math.sqrt(32)).softmax(-1)
    read_BTD = weight_BTK @ (slot_BKD @ value_D.T)
    expected_BTD = x_BTD + 0.5 * reader.project[0](read_BTD)
    assert torch.allclose(reader.inject(2, x_BTD, reader.open(slot_BKD)), expected_BTD, atol=1e-5)


def test_a_uniform_broadcast_tells_every_place_the_same():
    reader = Reader(config(broadcast="uniform", injection="replace", injection_scale=1.0), (1,))
    slot_BKD = torch.randn(2, 5, 32)
    read_BTD = reader.inject(1, torch.randn(2, 7, 32), reader.open(slot_BKD))
    assert torch.allclose(read_BTD, reader.project[0](slot_BKD.mean(1, keepdim=True)).expand(2, 7, 32), atol=1e-6)


def test_nothing_is_added_at_scale_zero():
    reader, x_BTD = Reader(config(injection_scale=0.0), (1,)), torch.randn(2, 7, 32)
    assert torch.equal(reader.inject(1, x_BTD, reader.open(torch.randn(2, 5, 32))), x_BTD)
