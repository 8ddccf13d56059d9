"""The baselines: they learn, answer the same with and without a cache, and see nothing of the test."""

from dataclasses import replace

import pytest
import torch

from trimtab.batches import Batches
from trimtab.errors import ConfigError
from trimtab_systems.sci.baselines.lstm import LstmNetwork
from trimtab_systems.sci.baselines.recipe import PRESETS, FlatConfig, LstmConfig, build, loss
from trimtab_systems.sci.data import CUTOFF, PAD, all_examples, encode, targets
from trimtab_systems.sci.write_up.generate import Generation, generate

TINY = {"width": 16, "dropout": 0.0, "steps": 40, "batch": 16, "examples": 64, "evaluate_examples": 16, "lr": 1e-2}
CONFIGS = {
    "flat": FlatConfig(**TINY, heads=2, encoder_layers=1, decoder_layers=1),
    "lstm": LstmConfig(**TINY),
}


def updated(training, count):
    """Take updates as the loop does; return their losses."""
    losses = []
    for step in range(count):
        value = training.loss(training.model, next(training.batches))
        value.backward()
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.clip)
        for optimizer in training.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        training.schedule(step)
        losses.append(float(value.detach()))
    return losses


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_falls_and_the_seed_decides_everything(name):
    losses = updated(build(CONFIGS[name], 0), 30)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert updated(build(CONFIGS[name], 0), 3) == losses[:3]
    assert updated(build(CONFIGS[name], 1), 3) != losses[:3]


@pytest.mark.parametrize("name", CONFIGS)
def test_an_evaluation_reports_its_metrics_and_leaves_the_model_training(name):
    training = build(CONFIGS[name], 0)
    metrics = training.evaluate()
    assert set(metrics) == set(training.better) == {"exact_match", "token_accuracy", "length_accuracy"}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert training.model.training


def test_the_flat_transformer_has_no_parameter_of_the_structure_stream():
    names = [name for name, _ in build(CONFIGS["flat"], 0).model.named_parameters()]
    assert names
    assert {name.split(".")[0] for name in names} == {"base"}


def test_training_examples_are_those_of_the_split_without_the_validation():
    def labels(**settings):
        batches = build(replace(CONFIGS["lstm"], examples=0, **settings), 0).batches
        assert isinstance(batches, Batches)
        return batches.source[2]

    encoded_BT = labels()
    assert len(encoded_BT) == 16_990 - 1_699
    assert int((encoded_BT != PAD).sum(1).max()) == CUTOFF + 1
    proxy_BT = labels(validation="proxy")
    assert int((proxy_BT != PAD).sum(1).max()) == 15 + 1


def test_a_loss_counts_every_symbol_once_and_no_padding():
    encoded = encode(all_examples()[:40:7])
    inputs_BT, labels_BT = targets(encoded)
    model = LstmNetwork(8, dropout=0.0)
    wider = torch.nn.functional.pad
    value = loss(model, (encoded.words_BN, inputs_BT, labels_BT))
    padded = loss(model, (encoded.words_BN, wider(inputs_BT, (0, 9), value=PAD), wider(labels_BT, (0, 9), value=PAD)))
    assert torch.equal(value, padded)
    _, decoded = model(encoded.words_BN, inputs_BT)
    logs_BT = decoded.logits_BTV.log_softmax(-1).gather(2, labels_BT[..., None])[..., 0]
    there_BT = labels_BT != PAD
    assert int(there_BT.sum()) == int(encoded.lengths_B.sum()) + len(encoded.lengths_B)
    assert torch.allclose(value, -logs_BT[there_BT].mean())


@pytest.mark.parametrize("layers", [1, 2])
def test_the_lstm_says_the_same_one_by_one_and_whatever_stands_beside(layers):
    torch.manual_seed(0)
    model = LstmNetwork(16, layers, dropout=0.3).eval()
    encoded = encode(all_examples()[::1500])
    inputs_BT, _ = targets(encoded)
    with torch.no_grad():
        encoding, whole = model(encoded.words_BN, inputs_BT)
        cache = model.start(encoding, inputs_BT.shape[1])
        rows = torch.tensor([3, 0, 3])
        cache.select(rows)
        for step in range(6):
            one = model.decode(encoding, inputs_BT[rows, step : step + 1], cache)
            assert torch.allclose(one.logits_BTV[:, 0], whole.logits_BTV[rows, step], atol=1e-5)
        words_N = encoded.words_BN[3]
        _, alone = model(words_N[words_N != 0][None], inputs_BT[3:4])
    assert torch.allclose(alone.logits_BTV[0], whole.logits_BTV[3], atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_answers_do_not_depend_on_the_batch(name):
    training = build(CONFIGS[name], 0)
    updated(training, 20)
    words_BN = encode(all_examples()[::2000]).words_BN
    answers = [
        generate(training.model, words_BN, Generation(eos_threshold=None, max_new_tokens=25, batch=batch))
        for batch in (3, 64)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (LstmConfig, {"split": "lenght"}, "Did you mean 'length'"),
        (LstmConfig, {"validation": "test"}, "last measurement"),
        (LstmConfig, {"steps": 0}, "at least 1"),
        (LstmConfig, {"lr": 0.0}, "above 0"),
        (LstmConfig, {"dropout": 1.0}, "shares"),
        (LstmConfig, {"width": 15}, "even width"),
        (LstmConfig, {"layers": 0}, "at least one layer"),
        (FlatConfig, {"heads": 3}, "divisor"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(kind, given, words):
    with pytest.raises(ConfigError, match=words):
        kind(**given)


def test_the_presets_are_the_two_baselines():
    assert {name: type(preset()) for name, preset in PRESETS.items()} == {"flat": FlatConfig, "lstm": LstmConfig}
