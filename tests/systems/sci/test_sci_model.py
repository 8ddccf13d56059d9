"""The whole network: token by token as all at once, every parameter learns, and content can be swapped."""

import dataclasses
import sys

import pytest
import torch
from torch.nn import functional

from trimtab.errors import ConfigError, UserError
from trimtab_systems.sci.data import PAD, encode, targets, train_of
from trimtab_systems.sci.write_up.base import OwnBase
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.layers import Dropout, depths
from trimtab_systems.sci.write_up.model import SCITransformer
from trimtab_systems.sci.write_up.t5 import T5Base

SMALL = {"width": 32, "heads": 4, "binding_heads": 4, "slots": 5, "edge_dim": 8, "message_dim": 12}
EXAMPLES = train_of("length")[600:12600:2000]
WORDS_BN = encode(EXAMPLES).words_BN
INPUTS_BT, LABELS_BT = targets(encode(EXAMPLES))

CANNOT_LEARN = {
    "structure.slots.project_query.bias": "with competition a word's scores all move by the same, which a softmax "
    "over the slots takes out"
}


def network(**settings):
    torch.manual_seed(0)
    return SCITransformer(WriteUpConfig(**{**SMALL, **settings}))


def loss_of(model):
    _, decoded = model(WORDS_BN, INPUTS_BT)
    return functional.cross_entropy(decoded.logits_BTV.flatten(0, 1), LABELS_BT.flatten(), ignore_index=PAD)


def check_cache(model, atol=1e-5):
    """One token, then two, then one by one: the same logits as all at once."""
    model.eval()
    with torch.no_grad():
        encoding, whole = model(WORDS_BN, INPUTS_BT)
        cache = model.start(encoding, INPUTS_BT.shape[1])
        parts, at = [], 0
        for new in (1, 2, *[1] * (INPUTS_BT.shape[1] - 3)):
            parts.append(model.decode(encoding, INPUTS_BT[:, at : at + new], cache))
            at += new
    assert cache.length == INPUTS_BT.shape[1]
    logits_BTV = torch.cat([part.logits_BTV for part in parts], dim=1)
    assert torch.allclose(logits_BTV, whole.logits_BTV, atol=atol)
    if whole.stop_BT is not None:
        assert torch.allclose(torch.cat([part.stop_BT for part in parts], dim=1), whole.stop_BT, atol=atol)
    return encoding, whole


@pytest.mark.parametrize(
    "settings",
    [
        {"positions": "rotary"},
        {"positions": "alibi", "inject_at": "both"},
        {"positions": "relative_bias", "broadcast": "learned", "injection": "gated_add"},
        {"positions": "learned", "broadcast": "uniform", "injection": "replace"},
        {"randomised_positions": True, "tied_output": True, "stop_head": True},
        {"sci": False},
    ],
    ids=str,
)
def test_tokens_one_by_one_get_the_logits_of_all_at_once(settings):
    check_cache(network(**settings))


def test_rows_of_a_cache_can_leave_and_double():
    model = network().eval()
    rows = torch.tensor([4, 1, 1])
    with torch.no_grad():
        encoding = model.encode(WORDS_BN)
        cache = model.start(encoding, 8)
        model.decode(encoding, INPUTS_BT[:, :3], cache)
        cache.select(rows)
        late = model.decode(encoding, INPUTS_BT[rows, 3:4], cache).logits_BTV
        whole = model.decode(encoding.select(rows), INPUTS_BT[rows, :4]).logits_BTV
    assert torch.allclose(late, whole[:, 3:], atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"slot_attention": "plain", "aggregation": "attention", "content_context": "none", "broadcast": "learned"},
        {
            "inject_at": "both",
            "use_shared_embeddings": False,
            "num_projection_layers": 2,
            "injection": "gated_add",
            "tied_output": True,
        },
        {"positions": "relative_bias", "orthogonality": "none", "content_gate": True},
        {"sci": False, "positions": "learned"},
    ],
    ids=str,
)
def test_the_task_reaches_every_parameter_but_those_that_cannot_matter(settings):
    model = network(dropout=0.0, **settings)
    loss_of(model).backward()
    largest = {name: 0.0 if one.grad is None else one.grad.abs().max().item() for name, one in model.named_parameters()}
    dead = {name for name, gradient in largest.items() if gradient < 1e-8}
    assert dead == (set(CANNOT_LEARN) & set(largest) if settings.get("slot_attention") != "plain" else set())


def test_the_settings_take_parameters_out_of_training():
    model = network(freeze_embeddings=True, learned_temperature=False, use_shared_embeddings=False)
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    temperatures = {f"structure.abstraction.{index}.raw_temperature" for index in (0, 1)}
    assert still == {"base.words.weight", "content_words.weight"} | temperatures


def test_a_flat_network_has_no_structure_and_says_so():
    model = network(sci=False)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"base"}
    encoding = model.encode(WORDS_BN)
    assert encoding.slots_BKD.shape == (6, 0, 32)
    assert encoding.edges_BKK.shape == (6, 0, 0)
    assert not encoding.scores_BN.any()
    with pytest.raises(UserError, match="no structure stream"):
        model.bind(encoding)


def test_padding_changes_nothing():
    model = network().eval()
    short = WORDS_BN[(WORDS_BN != 0).sum(1) == (WORDS_BN != 0).sum(1).min()][:1]
    length = int((short != 0).sum())
    whole, cut = model.encode(short), model.encode(short[:, :length])
    assert length < short.shape[1]
    for name in ("slots_BKD", "slots_bound_BKD"):
        assert torch.allclose(getattr(whole, name), getattr(cut, name), atol=1e-5)
    assert torch.allclose(whole.memory_BND[:, :length], cut.memory_BND, atol=1e-5)


def swapped_commands():
    """Return two encodings' words: of one template, with other action words."""
    walks = [one for one in train_of("length") if one.words[0] == "walk" and "walk" not in one.words[1:]][:40:10]
    runs = [one._replace(words=("run", *one.words[1:])) for one in walks]
    return encode(walks).words_BN, encode(runs).words_BN


@pytest.mark.parametrize("settings", [{}, {"inject_at": "both"}, {"orthogonality": "penalty"}], ids=str)
def test_a_swap_takes_content_from_the_other_and_keeps_structure(settings):
    model = network(**settings).eval()
    one, other = (model.encode(words_BN) for words_BN in swapped_commands())
    swapped, same = model.swap(one, other), model.swap(one, one)
    assert torch.allclose(same.slots_bound_BKD, one.slots_bound_BKD, atol=1e-5)
    assert torch.equal(swapped.slots_BKD, one.slots_BKD)
    assert torch.equal(swapped.edges_BKK, one.edges_BKK)
    assert (swapped.slots_bound_BKD - one.slots_bound_BKD).abs().max() > 1e-4
    assert torch.equal(swapped.memory_BND, one.memory_BND) == ("inject_at" not in settings)
    assert torch.equal(model.swap(one, other, strength=0.0).slots_bound_BKD, one.slots_bound_BKD)
    if model.content.projecting:
        cosine = functional.normalize(swapped.content_BND, dim=-1) @ functional.normalize(one.slots_BKD, dim=-1).mT
        assert cosine.abs().max() < 1e-5


def test_a_swap_needs_as_many_words():
    model = network()
    encoding = model.encode(WORDS_BN)
    with pytest.raises(UserError, match="number of words"):
        model.swap(encoding, model.encode(WORDS_BN.flip(0)))


def test_a_gradient_flows_through_a_swap_into_both_commands():
    model = network(dropout=0.0)
    one, other = (model.encode(words_BN) for words_BN in swapped_commands())
    for encoding in (one, other):
        encoding.slots_BKD.retain_grad()
        encoding.content_BND.retain_grad()
    model.decode(model.swap(one, other), INPUTS_BT[:4]).logits_BTV.square().sum().backward()
    assert one.slots_BKD.grad.any()
    assert other.content_BND.grad.any()


def test_an_intervention_of_the_settings_has_their_strength():
    only, values = torch.ones(5, dtype=torch.bool), torch.zeros(6, 5, 32)
    assert network().intervention(only, values).strength == 1.0
    soft = network(intervention="soft_intervention", intervention_strength=0.3)
    assert soft.intervention(only, values).strength == 0.3
    held = soft.eval().encode(WORDS_BN, intervention=network().intervention(only, values))
    assert not held.slots_bound_BKD.any()


def test_layers_are_computed_again_where_asked():
    gradients = []
    for again in (False, True):
        model = network(gradient_checkpointing=again, position_noise=0.0)
        torch.manual_seed(1)
        loss_of(model).backward()
        gradients.append(torch.cat([one.grad.flatten() for one in model.parameters()]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_dropout_drops_its_share_and_keeps_the_mean():
    drop, x = Dropout(0.25), torch.ones(100_001)
    dropped = drop(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert drop.eval()(x) is x


@pytest.mark.parametrize(
    ("layers", "after"), [(2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 3)), (6, (2, 3, 5)), (12, (3, 6, 9))]
)
def test_fractions_of_depth_are_rounded_up_to_layers(layers, after):
    assert depths((0.25, 0.5, 0.75), layers) == after


AS_WRITTEN = {
    "profile": "as_written",
    "width": 768,
    "heads": 8,
    "binding_heads": 8,
    "mlp_ratio": 4,
    "slots": 8,
    "edge_dim": 64,
    "message_dim": 768,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "temperature_form": "clamp",
    "abstraction_norm": "after",
}


def test_the_write_up_in_full_can_be_built():
    with torch.device("meta"):
        model = SCITransformer(WriteUpConfig(**AS_WRITTEN))
    assert model.base.decoder_positions.frequency_R.shape == (32,)  # 64 of the 96 dimensions of a head
    assert model.readers["decoder"].layers == (3, 6, 9)
    assert model.structure.slots.query_KD.shape == (8, 768)


@pytest.mark.slow  # 190 million parameters
def test_the_write_up_in_full_takes_a_step():
    torch.manual_seed(0)
    model = SCITransformer(WriteUpConfig(**AS_WRITTEN))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    first = loss_of(model)
    first.backward()
    optimizer.step()
    assert loss_of(model.eval()) < first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positions": "rotery"}, "positions: expected one of rotary.*Did you mean 'rotary'"),
        ({"heads": 5}, "heads: expected a divisor of width 32"),
        ({"binding_heads": 5}, "binding_heads: expected a divisor"),
        ({"width": 36, "heads": 4}, "width per head: .* even number"),
        ({"width": 4, "heads": 2}, "width: 5 slots span all 4 dimensions"),
        ({"temperature": 0.5}, "temperature: expected one between 0.5 and 2.0"),
        ({"temperature_form": "clamp"}, "profile='as_written'"),
        ({"abstraction_norm": "after"}, "profile='as_written'"),
        ({"projection_dim": 16}, "num_projection_layers=2"),
        ({"injection_fractions": (0.0,)}, "injection_fractions: expected depths"),
        ({"base": "t5"}, "set positions='relative_bias'"),
        ({"t5_folder": "x"}, "set base='t5'"),
        ({"dropout": 1.0}, "dropout: expected a share"),
        ({"intervention_strength": 2.0}, "intervention_strength: expected a number from 0 to 1"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        WriteUpConfig(**{**SMALL, **settings})


T5 = {"base": "t5", "positions": "relative_bias", "inject_at": "both"}


def test_without_transformers_a_t5_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"trimtab\[transformers\]"):
        network(**T5)


@pytest.mark.slow  # the import of transformers alone takes seconds
def test_a_t5_stands_under_the_structure_stream_like_the_own_base():
    pytest.importorskip("transformers")
    model = network(dropout=0.0, **T5)
    assert isinstance(model.base, T5Base)
    loss_of(model).backward()
    assert {name for name, one in model.named_parameters() if one.grad is None} == set()
    _, whole = check_cache(model)
    assert not any(module._forward_hooks for module in model.modules())
    flat = network(dropout=0.0, **{**T5, "sci": False}).eval()
    flat.base.load_state_dict(model.base.state_dict())
    assert (flat(WORDS_BN, INPUTS_BT)[1].logits_BTV - whole.logits_BTV).abs().max() > 1e-3
    model.readers = torch.nn.ModuleDict()
    assert torch.allclose(model(WORDS_BN, INPUTS_BT)[1].logits_BTV, flat(WORDS_BN, INPUTS_BT)[1].logits_BTV, atol=1e-5)


@pytest.mark.slow  # as above
def test_a_t5_comes_from_its_folder_and_must_fit(tmp_path):
    library = pytest.importorskip("transformers")
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
    theirs = library.T5Model(library.T5Config(vocab_size=50, **shape))
    theirs.save_pretrained(tmp_path)
    model = network(**T5, t5_folder=str(tmp_path))
    own = model.base.decoder.block[1].layer[0].SelfAttention.q.weight
    assert torch.equal(own, theirs.decoder.block[1].layer[0].SelfAttention.q.weight)
    with pytest.raises(ConfigError, match="set width=32"):
        network(**{**T5, "width": 64}, t5_folder=str(tmp_path))
    with pytest.raises(ConfigError, match="set decoder_layers=3"):
        network(**T5, decoder_layers=2, t5_folder=str(tmp_path))
    with pytest.raises(ConfigError, match="save_pretrained wrote"):
        network(**T5, t5_folder=str(tmp_path / "nothing"))


def test_the_default_is_the_write_up_from_scratch():
    config = WriteUpConfig()
    assert (config.width, config.slots, config.injection_scale, config.binding_iterations) == (128, 8, 0.5, 3)
    assert isinstance(SCITransformer(dataclasses.replace(config, width=32, binding_heads=4)).base, OwnBase)
