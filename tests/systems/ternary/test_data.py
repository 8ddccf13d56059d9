"""The operations are all there, each as deep as its number says, and batches are a function of their number."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_systems.ternary.data import (
    COUNT,
    batch_maker,
    batches_in_epoch,
    digits_of,
    distance,
    number_of,
    operations,
    split,
    valuation,
)

numbers = st.integers(0, COUNT - 1)


def maker(**changes):
    given_numbers = torch.arange(COUNT)
    options = {"size": 512, "always": torch.tensor([0, 243]), "latent": 4, "steps": 100, "seed": 0}
    return batch_maker(given_numbers, **{**options, **changes})


def test_there_are_19683_and_no_two_are_alike():
    data = operations()
    assert data.digits.shape == (19_683, 9)
    assert len(data.digits.unique(dim=0)) == 19_683
    assert torch.equal(number_of(data.digits), torch.arange(COUNT))


@settings(max_examples=25, deadline=None)
@given(numbers)
def test_digits_are_those_of_base_three_least_first(number):
    digits = digits_of(torch.tensor([number]))[0].tolist()
    assert sum(digit * 3**place for place, digit in enumerate(digits)) == number
    assert set(digits) <= {0, 1, 2}


@settings(max_examples=25, deadline=None)
@given(numbers)
def test_the_valuation_is_the_largest_power_of_three_that_divides(number):
    k = int(valuation(digits_of(torch.tensor([number]))))
    assert number % 3**k == 0
    assert k == 9 if number == 0 else number % 3 ** (k + 1) != 0


def test_levels_have_the_sizes_of_the_write_up():
    assert operations().level.bincount().tolist() == [13122, 4374, 1458, 486, 162, 54, 18, 6, 2, 1]


def test_values_and_one_hot_say_what_the_digits_say():
    data = operations()
    assert torch.equal(data.values, data.digits.float() - 1)
    assert torch.equal(data.one_hot.view(COUNT, 9, 3).argmax(-1), data.digits)
    assert torch.equal(data.one_hot.sum(1), torch.full((COUNT,), 9.0))


@settings(max_examples=25, deadline=None)
@given(numbers, numbers, numbers)
def test_the_distance_is_an_ultrametric(a, b, c):
    def apart(x, y):
        return float(distance(torch.tensor([x]), torch.tensor([y])))

    assert apart(a, b) == apart(b, a)
    assert (apart(a, b) == 0) == (a == b)
    assert apart(a, c) <= max(apart(a, b), apart(b, c))


def test_the_distance_of_two_numbers_that_share_two_digits_is_a_ninth():
    assert float(distance(torch.tensor([4]), torch.tensor([4 + 9]))) == pytest.approx(1 / 9)
    assert float(distance(torch.tensor([4]), torch.tensor([5]))) == 1.0


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-4, 1.0), st.integers(0, 5))
def test_a_split_parts_all_operations_the_same_way_each_time(share, seed):
    kept, held = split(share, seed)
    assert len(kept) == max(1, round(share * COUNT))
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(COUNT))
    assert torch.equal(split(share, seed)[0], kept)


def test_another_seed_splits_otherwise():
    assert not torch.equal(split(0.1, 0)[0], split(0.1, 1)[0])


def test_an_epoch_meets_every_operation_once_besides_those_that_are_always_there():
    make = maker()
    length = batches_in_epoch(COUNT, 512)
    assert length == 39
    met = torch.cat([number_of(make(place).digits)[:-2] for place in range(length)])
    assert torch.equal(met.sort().values, torch.arange(COUNT))
    assert not torch.equal(make(0).digits, make(length).digits)


def test_the_same_number_gives_the_same_batch_in_whatever_order_they_are_asked_for():
    one, other = maker(), maker()
    later = [other(number) for number in (41, 3, 41)]
    for batch, again in zip([one(3), one(41)], [later[1], later[2]], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch[:-1], again[:-1], strict=True))
    assert not torch.equal(one(3).noise, maker(seed=1)(3).noise)
    assert not torch.equal(one(3).noise, one(4).noise)


def test_a_batch_says_what_its_rows_are():
    batch = maker()(5)
    assert batch.inputs.shape == (514, 27)
    assert batch.noise.shape == (514, 4)
    assert batch.done == 0.05
    assert torch.equal(batch.level.argmax(1), valuation(batch.digits))
    assert number_of(batch.digits)[-2:].tolist() == [0, 243]
    assert torch.equal(maker(raw_input=True)(5).inputs, batch.digits.float() - 1)
