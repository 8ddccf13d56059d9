"""Scores start neutral and can learn, slots share out the words, and the graph moves what its edges let pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.structure import (
    AbstractionLayer,
    EdgePredictor,
    Messages,
    SlotAttention,
    SlotGraph,
    StructuralEncoder,
)

SMALL = {"width": 32, "heads": 4, "binding_heads": 4, "slots": 5, "edge_dim": 8, "message_dim": 12, "dropout": 0.0}
MASK = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])


def config(**settings):
    return WriteUpConfig(**{**SMALL, **settings})


def words(seed=0):
    return torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("aggregation", ["weighted_mean", "mean", "max", "attention"])
def test_every_score_starts_near_one_half_and_padding_has_none(aggregation):
    out_BND, score_BN, feature_BNF = AbstractionLayer(config(aggregation=aggregation))(words(), MASK)
    assert (score_BN[MASK] - 0.5).abs().max() < 0.1
    assert feature_BNF.shape == (2, 6, 8)
    for each in (out_BND, score_BN, feature_BNF):
        assert not each[~MASK].any()


def test_aggregations_are_what_they_are_called():
    made = {}
    for aggregation in ("weighted_mean", "mean", "max"):
        torch.manual_seed(1)
        _, made[aggregation], feature_BNF = AbstractionLayer(config(aggregation=aggregation))(words(), MASK)
    assert torch.allclose(made["mean"], feature_BNF.mean(-1))
    assert torch.allclose(made["max"], feature_BNF.amax(-1))
    assert torch.allclose(made["weighted_mean"], made["mean"], atol=1e-6)  # equal weights at the start
    layer = AbstractionLayer(config())
    layer.weight_F.data[3] = 50.0
    _, score_BN, feature_BNF = layer(words(), MASK)
    assert torch.allclose(score_BN, feature_BNF[..., 3])


@settings(max_examples=25, deadline=None)
@given(raw=st.floats(-12, 12))
def test_the_temperature_stays_in_its_bounds_and_always_learns(raw):
    layer = AbstractionLayer(config())
    layer.raw_temperature.data.fill_(raw)
    layer.temperature().backward()
    assert 0.5 <= layer.temperature() <= 2.0
    assert layer.raw_temperature.grad > 0


def test_a_clamped_temperature_dies_at_its_bound():
    layer = AbstractionLayer(config(temperature_form="clamp", profile="as_written"))
    assert layer.temperature() == 1.0
    layer.raw_temperature.data.fill_(0.4)
    layer.temperature().backward()
    assert layer.temperature() == 0.5
    assert layer.raw_temperature.grad == 0


def test_the_temperature_starts_where_it_is_told_to_and_can_be_frozen():
    layer = AbstractionLayer(config(temperature=1.7, learned_temperature=False))
    assert layer.temperature().item() == pytest.approx(1.7)
    assert not layer.raw_temperature.requires_grad


@pytest.mark.parametrize(("norm", "reached"), [("before", True), ("after", False)])
def test_a_score_has_an_effect_unless_it_is_normalised_away(norm, reached):
    layer = AbstractionLayer(config(abstraction_norm=norm, profile="as_written"))
    out_BND, _, _ = layer(words(), MASK)
    (out_BND * words(1)).sum().backward()
    effect = layer.detect[-1].bias.grad.abs().max() / layer.norm.weight.grad.abs().max()
    assert (effect > 1e-3) == reached


def test_competing_slots_share_out_each_word():
    slot_BKD, attention_BKN = SlotAttention(config())(words(), MASK)
    assert slot_BKD.shape == (2, 5, 32)
    assert torch.allclose(attention_BKN.sum(1), MASK.float(), atol=1e-5)


def test_plain_slots_each_look_for_themselves():
    _, attention_BKN = SlotAttention(config(slot_attention="plain"))(words(), MASK)
    assert torch.allclose(attention_BKN.sum(-1), torch.ones(2, 5), atol=1e-5)
    assert not attention_BKN[1, :, 4:].any()


@pytest.mark.parametrize("mode", ["competition", "plain"])
def test_padding_does_not_change_a_slot(mode):
    attention = SlotAttention(config(slot_attention=mode))
    x_BND = words()
    short_BKD, _ = attention(x_BND[1:, :4], MASK[1:, :4])
    assert torch.allclose(attention(x_BND, MASK)[0][1:], short_BKD, atol=1e-5)


def test_slots_start_small_and_those_that_start_alike_stay_alike():
    assert SlotAttention(config()).query_KD.abs().max() < 0.02
    assert SlotAttention(config(slot_scale=1.0)).query_KD.abs().max() > 0.1
    slot_BKD, _ = SlotAttention(config(slot_init="equal"))(words(), MASK)
    assert torch.equal(slot_BKD, slot_BKD[:, :1].expand_as(slot_BKD))


def test_no_slot_influences_itself():
    edge_BIJ, vector_BIJE = EdgePredictor(config())(torch.randn(2, 5, 32))
    assert vector_BIJE.shape == (2, 5, 5, 8)
    self_edges = torch.eye(5, dtype=torch.bool).expand(2, 5, 5)
    assert not edge_BIJ[self_edges].any()
    assert ((edge_BIJ[~self_edges] > 0) & (edge_BIJ[~self_edges] < 1)).all()
    assert not torch.allclose(edge_BIJ, edge_BIJ.transpose(1, 2))


def test_messages_are_the_weighted_mean_of_one_layered_network_over_the_ends_and_the_edge():
    messages = Messages(config())
    slot_BKD, edge_BIJ, vector_BIJE = torch.randn(2, 5, 32), torch.rand(2, 5, 5), torch.randn(2, 5, 5, 8)
    edge_BIJ[0, 2] = 0.0
    expected_BKD = torch.zeros(2, 5, 32)
    weight_at, weight_of = messages.ends.weight.chunk(2)
    bias_at, bias_of = messages.ends.bias.chunk(2)
    read = torch.cat((weight_at, weight_of, messages.along.weight), dim=1)
    for b in range(2):
        for i in range(5):
            for j in range(5):
                given_X = torch.cat((slot_BKD[b, i], slot_BKD[b, j], vector_BIJE[b, i, j]))
                said_D = messages.out(functional.gelu(read @ given_X + bias_at + bias_of))
                expected_BKD[b, i] += edge_BIJ[b, i, j] * said_D / (edge_BIJ[b, i].sum() + 1e-6)
    got_BKD = messages(slot_BKD, edge_BIJ, messages.part_of_edges(vector_BIJE))
    assert torch.allclose(got_BKD, expected_BKD, atol=1e-5)
    assert not got_BKD[0, 2].any()


@pytest.mark.parametrize(("residual", "factor"), [(True, 2.25), (False, 0.25)])
def test_the_graph_adds_to_a_slot_where_it_is_residual(residual, factor):
    graph = SlotGraph(config(gnn_residual=residual, gnn_norm=False))
    for parameter in graph.parameters():
        parameter.data.zero_()  # then a GRU cell halves its state
    slot_BKD = torch.randn(2, 5, 32)
    assert torch.allclose(graph(slot_BKD, torch.rand(2, 5, 5), torch.randn(2, 5, 5, 8)), factor * slot_BKD)


def test_the_graph_ends_with_a_norm_and_moves_along_edges_alone():
    graph, slot_BKD, vector_BIJE = SlotGraph(config()), torch.randn(2, 5, 32), torch.randn(2, 5, 5, 8)
    edge_BIJ = torch.zeros(2, 5, 5)
    edge_BIJ[:, 0, 1] = 1.0
    first_BKD = graph(slot_BKD, edge_BIJ, vector_BIJE)
    assert first_BKD.mean(-1).abs().max() < 1e-5
    slot_BKD[:, 1] += 1.0 + torch.arange(32)
    changed_BK = (graph(slot_BKD, edge_BIJ, vector_BIJE) - first_BKD).abs().amax(-1) > 1e-6
    assert changed_BK.tolist() == [[True, True, False, False, False]] * 2


@pytest.mark.parametrize(("depths", "count"), [((0.25, 0.5, 0.75), 2), ((0.5,), 1), ((1.0,), 1)])
def test_abstraction_sits_at_its_depths(depths, count):
    encoder = StructuralEncoder(config(abstraction_at=depths))
    assert len(encoder.abstraction) == count
    structure = encoder(words(), MASK)
    assert structure.slots_BKD.shape == structure.found_BKD.shape == (2, 5, 32)
    assert structure.scores_BN.shape == (2, 6)
    assert structure.vectors_BKKE.shape == (2, 5, 5, 8)
