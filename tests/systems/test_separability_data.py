"""The streams repeat as they say, batches are a function of their names, and the ceiling is what an oracle reaches."""

import math

import numpy as np
import pytest
import torch

from trimtab_systems.separability.data import PERIODS, bayes, ceiling, draw, posterior


def tokens_of(rows=64, length=64, vocabulary=128, structure="repeating", seed=0, split="train", index=0):
    """Whole rows, (rows, length + 1): the inputs and the last target."""
    batch = draw(
        rows=rows, length=length, vocabulary=vocabulary, structure=structure, seed=seed, split=split, index=index
    )
    return torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)


def smallest_period(stream):
    """The shortest shift under which a stream repeats."""
    return next(shift for shift in range(1, len(stream)) if torch.equal(stream[shift:], stream[:-shift]))


# --- the rows -------------------------------------------------------------------------------------


def test_targets_are_the_inputs_one_place_later():
    batch = draw(rows=4, length=10, vocabulary=50, structure="repeating", seed=0, split="train", index=0)
    assert batch.inputs.shape == batch.targets.shape == (4, 10)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


@pytest.mark.parametrize("length", [31, 64])
def test_both_streams_repeat_with_periods_that_are_uniform_on_2_to_7(length):
    rows = tokens_of(rows=1200, length=length, vocabulary=4096)
    for stream in (0, 1):
        periods = [smallest_period(row[stream::2]) for row in rows]
        counts = np.bincount(periods, minlength=9)
        assert set(np.flatnonzero(counts)) == set(PERIODS)
        expected, spread = 1200 / 6, math.sqrt(1200 * 1 / 6 * 5 / 6)
        assert np.abs(counts[2:8] - expected).max() < 4 * spread


def test_the_two_streams_are_independent():
    rows = tokens_of(rows=2000, length=20, vocabulary=4096)
    periods = np.array([[smallest_period(row[stream::2]) for stream in (0, 1)] for row in rows])
    assert abs(np.corrcoef(periods.T)[0, 1]) < 4 / math.sqrt(len(rows))
    assert (rows[:, 0] == rows[:, 1]).float().mean() < 0.005


def test_the_answer_stands_two_periods_back_and_not_two_places_back():
    batch = draw(rows=512, length=64, vocabulary=4096, structure="repeating", seed=1, split="train", index=0)
    tokens = torch.cat([batch.inputs[:, :1], batch.targets], dim=1)
    for row in tokens[:50]:
        for place in range(20, 65):
            period = smallest_period(row[place % 2 :: 2])
            assert row[place] == row[place - 2 * period]
    assert (tokens[:, 2:] == tokens[:, :-2]).float().mean() < 0.005


def test_tokens_use_the_whole_vocabulary_evenly():
    rows = tokens_of(rows=3000, length=13, vocabulary=8)
    share = torch.bincount(rows.flatten(), minlength=8).double() / rows.numel()
    assert len(share) == 8
    assert (share - 1 / 8).abs().max() < 0.01


def test_random_rows_do_not_repeat():
    rows = tokens_of(rows=64, vocabulary=4096, structure="random")
    for back in range(1, 16):
        assert (rows[:, back:] == rows[:, :-back]).float().mean() < 0.005


# --- batches are functions of their names ---------------------------------------------------------


@pytest.mark.parametrize("structure", ["repeating", "random"])
def test_the_same_name_gives_the_same_batch_whatever_was_drawn_before(structure):
    first = tokens_of(structure=structure, seed=3, index=5)
    torch.manual_seed(99)
    np.random.seed(99)
    tokens_of(structure=structure, seed=3, index=6)
    assert torch.equal(first, tokens_of(structure=structure, seed=3, index=5))


def test_seed_split_and_index_each_name_another_batch():
    names = [(seed, split, index) for seed in (0, 1) for split in ("train", "validation") for index in (0, 1)]
    drawn = {tuple(tokens_of(seed=s, split=p, index=i).flatten().tolist()) for s, p, i in names}
    assert len(drawn) == len(names)


def test_drawing_leaves_the_global_generators_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=True)
    tokens_of()
    assert torch.equal(torch_state, torch.get_rng_state())
    assert repr(numpy_state) == repr(np.random.get_state(legacy=True))


# --- the ceiling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "best"), [(32, 0.75), (48, 5 / 6), (64, 0.875), (127, 119 / 127), (128, 0.9375)])
def test_the_ceiling_is_one_minus_eight_over_the_length(length, best):
    assert ceiling(length) == pytest.approx(best, abs=1e-12) == 1 - 8 / length


def test_the_ceiling_by_place_follows_the_share_of_periods_that_have_come_round():
    by_place = bayes(64, 10**9).accuracy_by_place
    expected = [0, 0, 0, 1 / 6, 1 / 6, 2 / 6, 2 / 6, 3 / 6, 3 / 6, 4 / 6, 4 / 6, 5 / 6, 5 / 6, 1]
    assert by_place[:14] == pytest.approx(expected, abs=1e-6)
    assert by_place[14:] == pytest.approx([1.0] * 50, abs=1e-6)


def test_a_large_vocabulary_has_the_simple_ceiling_and_a_small_one_a_little_more():
    assert bayes(128, 10**9).accuracy == pytest.approx(ceiling(128), abs=1e-6)
    accuracies = [bayes(128, vocabulary).accuracy for vocabulary in (16, 64, 256, 1024)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] == pytest.approx(0.9405, abs=0.001)  # an independent simulation gave 0.9405 and 0.20 nats
    assert bayes(128, 16).loss == pytest.approx(0.20, abs=0.005)


def test_a_vocabulary_of_one_token_is_always_right():
    assert bayes(20, 1).accuracy == pytest.approx(1.0)
    assert bayes(20, 1).loss == pytest.approx(0.0)


def test_nothing_can_be_known_about_random_rows():
    limit = bayes(64, 128, "random")
    assert limit.accuracy == pytest.approx(1 / 128)
    assert limit.loss == pytest.approx(math.log(128))


def oracle(row, vocabulary):
    """What the best predictor scores on one row: its hits (chance where it must guess) and its nats, by place."""
    hits, nats = [], []
    for place in range(1, len(row)):
        likely = posterior(tuple(row[place % 2 : place : 2]), vocabulary)
        best = max(likely, key=lambda token: likely[token])
        hits.append(1 / vocabulary if best == -1 else float(row[place] == best))
        nats.append(-math.log(likely.get(row[place], likely[-1])))
    return hits, nats


@pytest.mark.parametrize("vocabulary", [4, 32])
def test_an_oracle_that_reads_real_rows_scores_the_ceiling(vocabulary):
    rows = tokens_of(rows=400, length=32, vocabulary=vocabulary, seed=7)
    scores = np.array([oracle(row, vocabulary) for row in rows.tolist()])
    limit = bayes(32, vocabulary)
    for measured, exact in zip(scores.mean(axis=2).T, (limit.accuracy, limit.loss), strict=True):
        standard_error = measured.std(ddof=1) / math.sqrt(len(measured))
        assert abs(measured.mean() - exact) < 4 * standard_error


def test_what_the_oracle_expects_is_a_probability_distribution():
    for seen in ((), (3,), (3, 1), (3, 1, 3), (3, 1, 3, 1, 3, 1, 3, 1), (5, 5, 5), (0, 1, 2, 3, 4, 5, 6)):
        likely = posterior(seen, vocabulary=10)
        named = {token: p for token, p in likely.items() if token != -1}
        assert sum(named.values()) + (10 - len(named)) * likely[-1] == pytest.approx(1.0)


def test_copying_from_two_periods_back_is_right_wherever_the_period_has_come_round():
    rows = tokens_of(rows=200, length=64, vocabulary=4096, seed=2)
    hits = np.zeros(64)
    for row in rows:
        periods = [smallest_period(row[stream::2]) for stream in (0, 1)]
        for place in range(1, 65):
            back = place - 2 * periods[place % 2]
            hits[place - 1] += bool(back >= 0 and row[back] == row[place])
    assert hits.mean() / len(rows) == pytest.approx(1 - 8 / 64, abs=0.01)
    assert (hits[13:] == len(rows)).all()
