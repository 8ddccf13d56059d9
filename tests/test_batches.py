"""Batches: every example once an epoch, and a position that can be stored and found again."""

import json

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from trimtab.batches import Batches, NumberedBatches
from trimtab.errors import UserError


def taken(batches, count):
    return [next(batches).tolist() for _ in range(count)]


def test_each_epoch_meets_every_example_once_in_an_order_of_its_own():
    batches = Batches(10, 4, seed=3)
    epochs = [[index for batch in taken(batches, 3) for index in batch] for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert (batches.epoch, batches.position) == (3, 0)


def test_the_order_is_a_function_of_the_seed():
    assert taken(Batches(50, 8, seed=1), 20) == taken(Batches(50, 8, seed=1), 20) != taken(Batches(50, 8, seed=2), 20)


def test_it_draws_nothing_from_the_generators_of_the_training():
    before = torch.get_rng_state()
    batches = Batches(TensorDataset(torch.arange(20)), 4)
    for _ in range(7):
        next(batches)
    loader = batches.loader(batches.source)
    next(loader)
    loader.close()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("steps", [0, 1, 6, 7, 23])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_stored_position_is_found_again(steps, drop_last):
    first, second = (Batches(27, 4, seed=5, drop_last=drop_last) for _ in range(2))
    taken(first, steps)
    state = json.loads(json.dumps(first.state_dict()))
    taken(second, 2)
    second.load_state_dict(state)
    assert taken(second, 15) == taken(first, 15)


def test_the_last_small_batch_of_an_epoch_comes_unless_dropped():
    assert [len(batch) for batch in taken(Batches(10, 4), 3)] == [4, 4, 2]
    assert [len(batch) for batch in taken(Batches(10, 4, drop_last=True), 3)] == [4, 4, 4]


def test_without_shuffling_the_order_is_that_of_the_source():
    assert taken(Batches(5, 2, shuffle=False), 4) == [[0, 1], [2, 3], [4], [0, 1]]


def test_tensors_data_sets_and_collate():
    x, y = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    xs, ys = next(Batches((x, y), 4, seed=1))
    assert torch.equal(xs, x[ys])
    assert torch.equal(next(Batches(y, 4, seed=1)), ys)
    from_set = next(Batches(TensorDataset(x, y), 4, seed=1))
    assert torch.equal(from_set[0], xs)
    assert next(Batches(TensorDataset(x, y), 4, seed=1, collate=len)) == 4


def test_a_number_of_examples_serves_as_batch_sampler():
    y = torch.arange(10)
    sampler = Batches(10, 4, seed=1)
    loader = iter(DataLoader(TensorDataset(y), batch_sampler=sampler))
    met = [next(loader)[0].tolist() for _ in range(4)]
    assert met == taken(Batches(10, 4, seed=1), 4)
    assert (sampler.epoch, sampler.position) == (1, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_fetches_ahead_counts_what_the_loop_was_given(workers):
    data = TensorDataset(torch.arange(10))
    batches = Batches(10, 4, seed=1)
    loader = batches.loader(data, num_workers=workers)
    met = [next(loader)[0].tolist() for _ in range(4)]
    assert (batches.epoch, batches.position) == (1, 1)
    state = batches.state_dict()
    met += [next(loader)[0].tolist() for _ in range(3)]
    assert met == taken(Batches(10, 4, seed=1), 7)
    batches.load_state_dict(state)  # the training went back: what was fetched ahead is thrown away
    assert [next(loader)[0].tolist() for _ in range(3)] == met[4:]
    loader.close()


def test_numbered_batches_go_on_where_they_were():
    batches = NumberedBatches(lambda number: number * number)
    assert [next(batches) for _ in range(4)] == [0, 1, 4, 9]
    other = NumberedBatches(lambda number: number * number)
    other.load_state_dict(json.loads(json.dumps(batches.state_dict())))
    assert next(other) == 16


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Batches(0, 4), "0 examples give no batch of 4"),
        (lambda: Batches(3, 4, drop_last=True), "3 examples give no batch of 4; use drop_last=False"),
        (lambda: Batches(3, 0), "expected batch_size >= 1"),
        (lambda: Batches((torch.zeros(3), torch.zeros(4)), 2), "with the same number of rows"),
        (lambda: Batches((torch.zeros(3), [1, 2, 3]), 2), "a list is among them"),
        (lambda: Batches((torch.tensor(1.0),), 2), "with one row for each example"),
        (lambda: Batches(10, 2.5), "whole numbers batch_size and seed, got 2.5 and 0"),
        (lambda: Batches(iter([1]), 2), "a list_iterator has no length"),
        (lambda: next(Batches(4, 2).loader([1, 2, 3])), "the data set has 3 examples"),
        (
            lambda: Batches(10, 4).load_state_dict(Batches(10, 5, seed=2).state_dict()),
            "another order: batch_size was 5 and is 4; seed was 2 and is 0",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(make, said):
    with pytest.raises(UserError) as caught:
        make()
    assert said in str(caught.value)
