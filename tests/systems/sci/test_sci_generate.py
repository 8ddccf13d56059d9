"""Generation: each key does what it says or is refused, and batching, leaving and caching change no answer."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trimtab.errors import ConfigError, UserError
from trimtab_systems.sci.data import EOS, FIRST_ACTION, OUTPUT, all_examples, encode_words
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.generate import LONGEST_OUTPUT, Generation, generate
from trimtab_systems.sci.write_up.model import SCITransformer
from trimtab_systems.sci.write_up.t5_decoder import T5Decoder

COMMANDS = encode_words([example.words for example in all_examples()[::701]])


class Table(nn.Module):
    """A decoder whose logits are a fixed function of the command's first word and of all symbols so far."""

    def __init__(self, seed=0, stop=False, scale=2.0):
        super().__init__()
        self.logits_PV = scale * torch.randn(509, len(OUTPUT), generator=torch.Generator().manual_seed(seed))
        self.stop, self.rows_seen = stop, []

    def encode(self, words_BN):
        return words_BN[:, 0]

    def start(self, encoding, longest):
        cache = SimpleNamespace(state_B=encoding.clone(), longest=longest)

        def select(rows):
            cache.state_B = cache.state_B[rows]

        cache.select = select
        return cache

    def decode(self, encoding, inputs_BT, cache=None):
        assert inputs_BT.shape == (len(cache.state_B), 1)
        self.rows_seen.append(len(inputs_BT))
        cache.state_B = (31 * cache.state_B + 7 * inputs_BT[:, 0] + 1) % 509
        logits_BTV = self.logits_PV[cache.state_B][:, None]
        return SimpleNamespace(logits_BTV=logits_BTV, stop_BT=logits_BTV[..., 0] if self.stop else None)


def logs_along(table, first_word, symbols):
    """Return the log-probabilities of EOS and the actions at each place before and behind these symbols."""
    state, rows = torch.tensor(first_word), []
    for symbol in (1, *symbols):
        state = (31 * state + 7 * symbol + 1) % 509
        rows.append(table.logits_PV[state, EOS:].log_softmax(-1))
    return torch.stack(rows)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(4)
    config = WriteUpConfig(width=16, heads=2, binding_heads=2, slots=4, edge_dim=4, dropout=0.5, tied_output=False)
    model = SCITransformer(config)
    with torch.no_grad():  # so that symbols differ, and answers end at different places
        for layer in model.base.decoder_layers:
            for linear in (layer.attention.qkv, layer.attention.out, layer.cross.query, layer.cross.out):
                linear.weight.mul_(4)
        model.base.output.weight.normal_(0, 1)
    return model.train()


def slowly(model, words_BN, limit):
    """Write each answer alone, without a cache, from the whole beginning each time."""
    answers = []
    for words_N in words_BN:
        inputs, encoding = [1], model.encode(words_N[words_N != 0][None])
        while len(inputs) <= limit and inputs[-1] != EOS:
            logits_V = model.decode(encoding, torch.tensor([inputs])).logits_BTV[0, -1]
            inputs.append(int(logits_V[EOS:].argmax()) + EOS)
        answers.append(tuple(one - FIRST_ACTION for one in inputs[1:] if one != EOS))
    return answers


def test_cache_batches_and_rows_that_leave_change_no_answer_of_the_network(network):
    words_BN = COMMANDS[::3]
    with torch.no_grad():
        network.eval()
        expected = slowly(network, words_BN, 12)
        network.train()
    assert len({len(answer) for answer in expected}) > 2, "answers should end at different places"
    for batch in (3, 64):
        options = Generation(eos_threshold=None, max_new_tokens=12, batch=batch)
        assert generate(network, words_BN, options) == expected
    assert network.training, "the mode is put back"


def test_rows_that_have_ended_leave_the_batch():
    table = Table()
    generate(table, COMMANDS, Generation(eos_threshold=None, max_new_tokens=40))
    assert table.rows_seen[0] == len(COMMANDS)
    assert table.rows_seen[-1] < len(COMMANDS) // 2
    assert sorted(table.rows_seen, reverse=True) == table.rows_seen


def test_greedy_takes_the_likeliest_symbol_and_stops_at_the_first_end():
    table = Table()
    for words_N, answer in zip(COMMANDS, generate(table, COMMANDS, Generation(eos_threshold=None)), strict=True):
        symbols = [action + FIRST_ACTION for action in answer]
        chosen = [symbol - EOS for symbol in symbols] + [0] * (len(symbols) < 64)
        assert logs_along(table, int(words_N[0]), symbols).argmax(-1)[: len(chosen)].tolist() == chosen


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9])
def test_an_answer_ends_exactly_where_its_end_is_surer_than_the_threshold(stop, threshold):
    table = Table(seed=1, stop=stop)
    answers = generate(table, COMMANDS, Generation(eos_threshold=threshold, max_new_tokens=10))
    for words_N, answer in zip(COMMANDS, answers, strict=True):
        state = words_N[0]
        for place, symbol in enumerate([1, *(action + FIRST_ACTION for action in answer)]):
            state = (31 * state + 7 * symbol + 1) % 509
            logits_V = table.logits_PV[state]
            sure = logits_V[0].sigmoid() if stop else logits_V[EOS:].softmax(-1)[0]
            if place < 10:
                assert (sure > threshold) == (place == len(answer))


def test_without_enforced_end_every_answer_has_all_symbols():
    assert {len(answer) for answer in generate(Table(), COMMANDS, Generation(enforce_eos=False, max_new_tokens=9))} == {
        9
    }
    beams = Generation(enforce_eos=False, max_new_tokens=9, num_beams=2)
    assert {len(answer) for answer in generate(Table(), COMMANDS, beams)} == {9}


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 2.0])
def test_enough_beams_find_the_best_answer_of_all(penalty):
    limit, table = 3, Table(seed=2, scale=1.0)
    options = Generation(num_beams=6**limit, length_penalty=penalty, eos_threshold=None, max_new_tokens=limit, batch=2)
    words_BN = COMMANDS[[0, 12, 25]]
    for words_N, answer in zip(words_BN, generate(table, words_BN, options), strict=True):
        scores = {}
        for count in range(limit):
            for actions in itertools.product(range(6), repeat=count):
                logs_TV = logs_along(table, int(words_N[0]), [action + FIRST_ACTION for action in actions])
                picked = [logs_TV[place, action + 1] for place, action in enumerate(actions)] + [logs_TV[count, 0]]
                scores[actions] = float(sum(picked)) / (count + 1) ** penalty
        assert math.isclose(scores[answer], max(scores.values()), rel_tol=1e-5)


def test_beams_find_nothing_less_likely_than_greedy_and_sometimes_more(network):
    greedy = generate(network, COMMANDS, Generation(eos_threshold=None, max_new_tokens=12))
    options = Generation(num_beams=4, length_penalty=0.0, eos_threshold=None, max_new_tokens=12)
    beams = generate(network, COMMANDS, options)

    def log_of(words_N, answer):
        symbols = [action + FIRST_ACTION for action in answer] + [EOS]
        with torch.no_grad():
            inputs = torch.tensor([[1, *symbols[:-1]]])
            logits_TV = network.decode(network.encode(words_N[words_N != 0][None]), inputs).logits_BTV[0]
        logs_TV = logits_TV[:, EOS:].log_softmax(-1)
        return float(sum(logs_TV[place, symbol - EOS] for place, symbol in enumerate(symbols)))

    network.eval()
    ended = [row for row, (one, two) in enumerate(zip(greedy, beams, strict=True)) if max(len(one), len(two)) < 12]
    gains = [log_of(COMMANDS[row], beams[row]) - log_of(COMMANDS[row], greedy[row]) for row in ended]
    network.train()
    assert len(gains) > 5
    assert max(gains) > 0.01
    assert sum(gain < -1e-4 for gain in gains) <= 1  # a beam that greedy follows may be crowded out


def test_draws_are_a_function_of_the_seed_and_follow_the_probabilities():
    table = Table(seed=4)
    words_BN = COMMANDS[:1].expand(4000, -1)
    options = Generation(do_sample=True, eos_threshold=None, max_new_tokens=1, batch=4000, temperature=2.0)
    first = generate(table, words_BN, options)
    assert first == generate(table, words_BN, options)
    state = (31 * COMMANDS[0, 0] + 7 + 1) % 509
    expected_V = (table.logits_PV[state, EOS:] / 2).softmax(-1)
    drawn = torch.tensor([answer[0] + 1 if answer else 0 for answer in first]).bincount(minlength=7) / 4000
    assert torch.allclose(drawn, expected_V, atol=0.04)


def test_a_repetition_penalty_lowers_what_was_written():
    def repeats(penalty):
        options = Generation(repetition_penalty=penalty, enforce_eos=False, max_new_tokens=6)
        answers = generate(Table(), COMMANDS, options)
        return sum(len(answer) - len(set(answer)) for answer in answers)

    assert repeats(3.0) < repeats(1.0) < repeats(0.3)


def test_the_buffer_counts_from_the_longest_answer_of_the_grammar():
    assert max(len(example.actions) for example in all_examples()) == LONGEST_OUTPUT
    assert Generation(max_length_buffer=10, max_new_tokens=300).limit == 58
    assert Generation(max_length_buffer=10, max_new_tokens=20).limit == 20


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_length_buffer": 10, "expected_length": "learned"}, "18 %"),
        ({"max_length_buffer": 10, "expected_length": "train"}, "18 %"),
        ({"max_length_buffer": 0}, "at least 1"),
        ({"expected_length": "test"}, "grammar, learned, train"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"num_beams": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"repetition_penalty": 0.0}, "above 0"),
        ({"eos_threshold": 1.0}, "below 1"),
        ({"do_sample": True, "num_beams": 2}, "num_beams=1 or do_sample=False"),
        ({"temperature": 0.7}, "do_sample=True"),
        ({"length_penalty": 2.0}, "num_beams"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(given, words):
    with pytest.raises(ConfigError, match=words):
        Generation(**given)


def test_what_are_no_commands_is_refused():
    with pytest.raises(UserError, match="command 1 has no word"):
        generate(Table(), torch.tensor([[1, 2], [0, 0]]))
    with pytest.raises(UserError, match=r"\(B, N\)"):
        generate(Table(), torch.tensor([1, 2]))
    assert generate(Table(), COMMANDS[:0]) == []


# --- a T5: slow because the import of transformers takes seconds ----------------------------------


@pytest.fixture(scope="module")
def t5():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(1)
    config = transformers.T5Config(
        vocab_size=23, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=4, dropout_rate=0.1,
        pad_token_id=0, eos_token_id=16, decoder_start_token_id=15, relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "attention" in name.lower():
                parameter.mul_(3)
    return model


@pytest.mark.slow
def test_the_t5_decoder_has_the_logits_of_the_t5(t5):
    decoder = T5Decoder(t5, range(14), range(14, 23), limit=20)
    inputs_BT = torch.randint(1, 9, (len(COMMANDS), 14), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_BTV = t5(
            input_ids=COMMANDS, attention_mask=(COMMANDS != 0).long(), decoder_input_ids=inputs_BT + 14
        ).logits[..., 14:]
        encoding = decoder.encode(COMMANDS)
        cache = decoder.start(encoding, 20)
        rows = torch.arange(len(COMMANDS))
        for step in range(14):
            if step == 7:
                rows = torch.tensor([5, 2, 2, 20])
                cache.select(rows)
            logits_BTV = decoder.decode(encoding, inputs_BT[rows, step : step + 1], cache).logits_BTV
            assert torch.allclose(logits_BTV[:, 0], expected_BTV[rows, step], atol=1e-4), step


@pytest.mark.slow
def test_the_t5_decoder_answers_as_the_t5_generates(t5):
    words_BN = COMMANDS[(COMMANDS != 0).sum(1) > 6]
    decoder = T5Decoder(t5, range(14), range(14, 23), limit=12)
    options = Generation(eos_threshold=None, max_new_tokens=12, batch=4)
    barred = list(range(16))  # padding, words and BOS, which `generate` never writes
    with torch.no_grad():
        written_BT = t5.generate(
            words_BN, attention_mask=(words_BN != 0).long(), max_new_tokens=12, do_sample=False, suppress_tokens=barred
        )
    expected = [tuple(number - 17 for number in numbers if number > 16) for numbers in written_BT.tolist()]
    answers = generate(decoder, words_BN, options)
    assert answers == expected
    assert len(set(answers)) > 3


@pytest.mark.slow
def test_the_t5_decoder_refuses_what_it_cannot_do(t5):
    with pytest.raises(ConfigError, match="14 words and 9 symbols, got 3 and 9"):
        T5Decoder(t5, range(3), range(14, 23))
    decoder = T5Decoder(t5, range(14), range(14, 23), limit=5)
    with pytest.raises(ConfigError, match="made for 5 symbols, asked for 64"):
        generate(decoder, COMMANDS)
    with pytest.raises(ConfigError, match="one symbol at a time"):
        decoder.decode(decoder.encode(COMMANDS), torch.ones(len(COMMANDS), 1, dtype=torch.long))
    t5.config.dense_act_fn = "gelu"
    with pytest.raises(ConfigError, match="relu"):
        T5Decoder(t5, range(14), range(14, 23))
    t5.config.dense_act_fn = "relu"
