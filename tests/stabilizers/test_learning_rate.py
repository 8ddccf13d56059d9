"""Base x product of named factors: the same rates as torch's own schedulers, one writer, a state that comes back."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as theirs

from trimtab.errors import UserError
from trimtab.stabilizers.learning_rate import LearningRate, cosine, in_epochs, plateau, restarts, step, warm_up


def optimizer(*rates, kind=torch.optim.SGD, **more):
    return kind([{"params": [nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates or (0.1,)], **more)


def rates_of(writer, opt, steps):
    rates = []
    for _ in range(steps):
        rates.append([float(group["lr"]) for group in opt.param_groups])
        opt.step()
        writer.step()
    return rates


# -- torch's schedulers, over whole courses and for two groups -------------------------------------------------------

SAME = {
    "warm-up": (lambda o: theirs.LinearLR(o, start_factor=0.1, total_iters=7), {"w": warm_up(7, start=0.1)}),
    "cosine": (lambda o: theirs.CosineAnnealingLR(o, T_max=40), {"c": cosine(40, minimum=0.0)}),
    "step": (lambda o: theirs.StepLR(o, step_size=6, gamma=0.3), {"s": step(6, gamma=0.3)}),
    "restarts": (lambda o: theirs.CosineAnnealingWarmRestarts(o, T_0=8), {"r": restarts(8)}),
    "longer restarts": (lambda o: theirs.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2), {"r": restarts(5, times=2)}),
    "constant": (lambda o: theirs.ConstantLR(o, factor=0.5, total_iters=100), {"backoff": 0.5}),
    "product": (
        lambda o: theirs.ChainedScheduler(
            [theirs.LinearLR(o, start_factor=0.2, total_iters=9), theirs.StepLR(o, step_size=11, gamma=0.5)]
        ),
        {"w": warm_up(9, start=0.2), "s": step(11, gamma=0.5)},
    ),
    "sequence": (
        lambda o: theirs.SequentialLR(
            o,
            [theirs.LinearLR(o, start_factor=0.1, total_iters=5), theirs.CosineAnnealingLR(o, T_max=35)],
            milestones=[5],
        ),
        {"w": warm_up(5, start=0.1), "c": cosine(35, minimum=0.0, begin=5)},
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # torch's own SequentialLR says so
@pytest.mark.parametrize("name", SAME)
def test_it_gives_the_rates_of_torch(name):
    make, factors = SAME[name]
    one, other = optimizer(0.1, 0.003), optimizer(0.1, 0.003)
    expected = rates_of(make(one), one, 40)
    assert rates_of(LearningRate(other, **factors), other, 40) == [pytest.approx(r, rel=1e-12) for r in expected]


def test_it_gives_the_very_bits_of_lambda_lr():
    one, other = optimizer(0.1, 0.003), optimizer(0.1, 0.003)
    course = cosine(33, minimum=0.1)
    expected = rates_of(theirs.LambdaLR(one, course.at), one, 50)
    assert rates_of(LearningRate(other, decay=course), other, 50) == expected


@pytest.mark.parametrize(("better", "mode"), [("lower", "min"), ("higher", "max")])
@pytest.mark.parametrize("cooldown", [0, 3])
def test_a_plateau_falls_when_torch_s_does(better, mode, cooldown):
    generator = torch.Generator().manual_seed(0)
    values = (1.0 + 1.0 / torch.arange(1, 81) + 0.05 * torch.rand(80, generator=generator)).tolist()
    one, other = optimizer(0.1, 0.003), optimizer(0.1, 0.003)
    torch_s = theirs.ReduceLROnPlateau(one, mode, factor=0.5, patience=4, threshold=1e-3, cooldown=cooldown, eps=0.0)
    rate = LearningRate(
        other, p=plateau("loss", better=better, patience=4, gamma=0.5, threshold=1e-3, cooldown=cooldown)
    )
    for value in values:
        torch_s.step(value)
        rate.take("loss", value)
        assert [g["lr"] for g in other.param_groups] == [pytest.approx(g["lr"], rel=1e-12) for g in one.param_groups]
    assert other.param_groups[0]["lr"] < 0.05


def test_a_plateau_counts_a_value_that_is_no_number_as_no_better_one():
    rate = LearningRate(optimizer(), p=plateau("loss", patience=1, gamma=0.5, minimum=0.25))
    for value in (1.0, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan):
        rate.take("loss", value)
    assert rate.rates == (0.1 * 0.25,)  # and no lower than the minimum


def test_two_schedules_of_one_plateau_share_nothing():
    shared = plateau("loss", patience=0, gamma=0.5)
    one, other = LearningRate(optimizer(), p=shared), LearningRate(optimizer(), p=shared)
    for value in (1.0, 2.0):
        one.take("loss", value)
    assert (one.rates, other.rates) == ((0.05,), (0.1,))


# -- courses ---------------------------------------------------------------------------------------------------------


def test_warm_up_then_cosine_as_in_the_write_up():
    """`sci.md` 1.9: a start factor of 0.1, half a cosine, a minimum of 0.01 of the peak."""
    opt = optimizer(1.0)
    rates = [
        r for (r,) in rates_of(LearningRate(opt, w=warm_up(10, start=0.1), c=cosine(90, 0.01, begin=10)), opt, 120)
    ]
    for t, rate in enumerate(rates[:101]):
        expected = 0.1 + 0.9 * t / 10 if t < 10 else 0.01 + 0.99 * (1 + math.cos(math.pi * (t - 10) / 90)) / 2
        assert rate == pytest.approx(expected, rel=1e-12)
    assert rates[100:] == [pytest.approx(0.01)] * 20  # where torch's own would rise again


def test_a_factor_may_count_epochs():
    opt = optimizer(1.0)
    rates = rates_of(LearningRate(opt, s=in_epochs(step(2, gamma=0.5), updates=3)), opt, 13)
    assert rates == [[1.0]] * 6 + [[0.5]] * 6 + [[0.25]]


def test_multipliers_are_kept_for_each_group():
    opt = optimizer(0.1, 0.1)
    rate = LearningRate(opt, base=0.2, multipliers=[1.0, 0.5], s=step(1, gamma=0.5))
    assert rate.rates == (0.2, 0.1)
    rate.step()
    rate.set_multiplier(1, 0.1)
    assert rate.rates == pytest.approx((0.1, 0.01))


def test_a_constant_factor_acts_at_once_and_can_be_taken_back():
    opt = optimizer(0.1)
    rate = LearningRate(opt, decay=cosine(10))
    rate.set_factor("backoff", 0.5)
    assert opt.param_groups[0]["lr"] == 0.05
    assert rate.factors == {"decay": 1.0, "backoff": 0.5}
    rate.set_factor("backoff", 1.0)
    assert opt.param_groups[0]["lr"] == 0.1


def test_a_group_that_is_added_later_follows():
    opt = optimizer(0.1)
    rate = LearningRate(opt, s=step(1, gamma=0.5))
    opt.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.01})
    rate.step()
    assert rate.rates == (0.05, 0.005)


def test_a_rate_that_is_a_tensor_stays_one():
    opt = torch.optim.Adam([nn.Parameter(torch.ones(2))], lr=torch.tensor(0.1))
    kept = opt.param_groups[0]["lr"]
    rate = LearningRate(opt, s=step(2, gamma=0.3))
    for _ in range(5):
        opt.step()
        rate.step()
    assert opt.param_groups[0]["lr"] is kept
    assert kept.item() == pytest.approx(0.1 * 0.09, rel=1e-6)


# -- one writer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", [lambda r: r.step(), lambda r: r.set_factor("b", 0.5), lambda r: r.set_multiplier(0, 0.5)]
)
def test_a_rate_that_somebody_else_wrote_is_an_error(call):
    opt = optimizer(0.1)
    rate = LearningRate(opt, decay=cosine(10))
    opt.param_groups[0]["lr"] = 0.3

    def then_step():
        call(rate)
        rate.step()

    with pytest.raises(UserError, match=r"group 0 is 0\.3 where 0\.1 was written.*set_factor"):
        then_step()
    assert opt.param_groups[0]["lr"] == 0.3


def test_a_second_scheduler_is_noticed():
    opt = optimizer(0.1)
    rate, other = LearningRate(opt, decay=cosine(10)), theirs.StepLR(opt, 1, gamma=0.5)

    class Both:
        def step(self):
            other.step()
            rate.step()

    with pytest.raises(UserError, match="somebody else"):
        rates_of(Both(), opt, 2)


def test_or_it_is_written_again_with_a_warning(caplog):
    opt = optimizer(0.1)
    rate = LearningRate(opt, on_foreign="assert again", s=step(5))
    opt.param_groups[0]["lr"] = 0.3
    rate.step()
    assert opt.param_groups[0]["lr"] == 0.1
    assert "written again" in caplog.text


def test_a_change_for_one_update_is_not_foreign():
    opt = optimizer(0.1)
    rate = LearningRate(opt, s=step(100))
    for _ in range(3):
        lowered = opt.param_groups[0]["lr"]
        opt.param_groups[0]["lr"] = lowered * 0.1
        opt.step()
        opt.param_groups[0]["lr"] = lowered
        rate.step()


# -- memory ------------------------------------------------------------------------------------------------------------


def full(opt):
    return LearningRate(
        opt, multipliers=[1.0, 0.3], w=warm_up(5), c=cosine(30, begin=5), r=restarts(7, 2),
        p=plateau("loss", patience=2, gamma=0.7), backoff=1.0,
    )  # fmt: skip


def moved(rate, first, last):
    rates = []
    for index in range(first, last):
        rate.take("loss", abs(math.sin(index)))
        if index == 11:
            rate.set_factor("backoff", 0.5)
        rate.step()
        rates.append(rate.rates)
    return rates


@pytest.mark.parametrize("cut", [0, 1, 10, 12, 39])
def test_its_state_goes_through_json_and_back_bit_for_bit(cut):
    whole = moved(full(optimizer(0.1, 0.02)), 0, 40)
    first = full(optimizer(0.1, 0.02))
    begun = moved(first, 0, cut)
    stored = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second = full(optimizer(0.5, 0.5))  # the bases come from the state
    second.load_state_dict(stored)
    assert second.rates == first.rates
    assert begun + moved(second, cut, 40) == whole


def test_a_state_of_other_groups_or_factors_is_refused():
    state = full(optimizer(0.1, 0.02)).state_dict()
    with pytest.raises(UserError, match="2 groups and the factors"):
        LearningRate(optimizer(0.1), w=warm_up(5)).load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: warm_up(0), "steps=0; expected 1 or more"),
        (lambda: warm_up(5, start=1.5), "between 0 and 1"),
        (lambda: cosine(5, begin=-1), "begin=-1"),
        (lambda: step(5, gamma=math.nan), "finite"),
        (lambda: restarts(5, times=0), "times=0"),
        (lambda: plateau("loss", better="smaller"), "'higher' or 'lower'"),
        (lambda: plateau("loss", patience=-1), "0 or more"),
        (lambda: in_epochs(plateau("loss"), 5), "hand it over as it is"),
        (lambda: LearningRate(optimizer(), base=-1.0), "base=-1.0"),
        (lambda: LearningRate(optimizer(), multipliers=[1, 2]), "2 multipliers for 1 groups"),
        (lambda: LearningRate(optimizer(), on_foreign="cry"), "'raise' or 'assert again'"),
        (lambda: LearningRate(optimizer(), c=cosine(5)).set_factor("c", 0.5), "follows a course"),
        (lambda: LearningRate(optimizer()).set_factor("b", math.inf), "finite"),
        (lambda: LearningRate(optimizer(), p=plateau("loss")).take("lass", 1.0), "Did you mean 'loss'"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(make, says):
    with pytest.raises(UserError, match=says):
        make()
