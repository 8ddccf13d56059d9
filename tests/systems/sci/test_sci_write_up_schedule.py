"""Rates, their groups, and weights that grow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trimtab_systems.sci.write_up.schedule import Course, Rates, groups, ramp


def test_the_rate_rises_from_a_tenth_and_falls_to_a_hundredth():
    course = Course(steps=1000)
    assert course.factor(0) == pytest.approx(0.1)
    assert course.factor(50) == pytest.approx(0.55)
    assert course.factor(100) == pytest.approx(1.0)
    assert course.factor(550) == pytest.approx(0.505)
    assert course.factor(1000) == pytest.approx(0.01)
    assert course.factor(1500) == pytest.approx(0.01)
    assert Course(steps=1000, constant=True).factor(0) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1), st.integers(0, 500))
def test_the_rate_stays_between_its_end_and_its_peak(steps: int, ratio: float, step: int):
    assert 0.01 - 1e-9 <= Course(steps=steps, warmup_ratio=ratio).factor(step) <= 1 + 1e-9


def test_a_weight_grows_a_little_at_each_update():
    assert [ramp(step, 0.0, 0.3, 3) for step in range(5)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.3])
    assert ramp(0, 0.0, 0.3, 0) == 0.3


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))
        self.temperature = nn.Parameter(torch.ones(()))


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.queries = nn.Parameter(torch.ones(2, 2))
        self.linear = nn.Linear(2, 2)


def test_the_innermost_part_counts_and_small_tensors_are_not_decayed():
    model = nn.Sequential(Outer(), nn.Linear(2, 2), nn.LayerNorm(2))
    outer = model[0]
    assert isinstance(outer, Outer)
    peaks = {"base": 1.0, "outer": 2.0, "inner": 3.0, "slot_queries": 4.0}
    made = groups(model, (("outer", Outer), ("inner", Inner)), [outer.queries], peaks, 0.01)
    where = {id(one): (group["part"], group["weight_decay"]) for group in made for one in group["params"]}
    assert where[id(outer.inner.weight)] == ("inner", 0.01)
    assert where[id(outer.inner.temperature)] == ("inner", 0.0)
    assert where[id(outer.queries)] == ("slot_queries", 0.0)
    assert where[id(outer.linear.weight)] == ("outer", 0.01)
    assert where[id(outer.linear.bias)] == ("outer", 0.0)
    assert where[id(model[1].weight)] == ("base", 0.01)
    assert where[id(model[2].weight)] == ("base", 0.0)
    assert sum(len(group["params"]) for group in made) == len(list(model.parameters()))


def test_what_does_not_learn_is_in_no_group():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    made = groups(model, (), [], {"base": 1.0}, 0.0)
    assert {id(one) for group in made for one in group["params"]} == {id(one) for one in model[1].parameters()}


def test_each_group_keeps_its_share_of_the_rate():
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [first], "peak": 1.0}, {"params": [second], "peak": 0.5}], lr=1.0)
    rates = Rates(optimizer, Course(steps=100))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.05])
    rates.after(9)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1.0, 0.5])


def test_a_jump_is_of_one_update():
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "peak": 1.0}], lr=1.0)
    rates = Rates(optimizer, Course(steps=100, constant=True), {7: 5.0})
    seen = []
    for step in range(9):
        seen.append(optimizer.param_groups[0]["lr"])
        rates.after(step)
    assert seen == [1.0] * 7 + [5.0, 1.0]
