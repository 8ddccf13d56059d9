"""Bounds on the gradient: fixed or the run's own, for all tensors together or for each."""

from __future__ import annotations

import math

import pytest
import torch

from tests.actions.kit import found, past_of, training
from trimtab.actions import Clip
from trimtab.errors import UserError

TWENTY = [1.0 + step / 100 for step in range(20)]


def done(action, one, finding=None, **live):
    outcome = action.apply(one.live(**live), finding or found(since=30))
    assert outcome.result == "done", outcome.because
    return outcome


def clipped(one, norm):
    """The norm with which an update is taken whose gradient had this norm."""
    one.gradient(norm)
    one.levers.begin(one.optimizer, "main", one.live())
    taken = one.norm()
    one.levers.end(one.optimizer)
    return taken


def test_a_long_gradient_is_shortened_and_a_short_one_is_left_alone():
    one = training("SGD")
    one.gradient(10.0)
    direction = [parameter.grad / 10.0 for parameter in one.model.parameters()]
    done(Clip(max_norm=2.0, steps=2), one)
    one.levers.begin(one.optimizer, "main", one.live())
    assert one.norm() == pytest.approx(2.0, rel=1e-6)
    for parameter, unit in zip(one.model.parameters(), direction, strict=True):
        torch.testing.assert_close(parameter.grad, 2.0 * unit)
    one.levers.end(one.optimizer)
    assert clipped(one, 1.5) == pytest.approx(1.5)
    assert clipped(one, 3.0) == pytest.approx(2.0)
    assert clipped(one, 3.0) == pytest.approx(3.0)
    assert one.levers._effects == []


def test_it_is_what_torch_does():
    one = training("SGD")
    one.gradient(7.0)
    done(Clip(max_norm=0.3), one)
    one.levers.begin(one.optimizer, "main", one.live())
    ours = [parameter.grad.clone() for parameter in one.model.parameters()]
    one.gradient(7.0)
    torch.nn.utils.clip_grad_norm_(one.model.parameters(), 0.3)
    for parameter, mine in zip(one.model.parameters(), ours, strict=True):
        torch.testing.assert_close(parameter.grad, mine, rtol=1e-5, atol=1e-8)


def test_without_a_bound_it_is_a_quantile_of_the_norms_before_the_finding():
    one = training("SGD", past=past_of([*TWENTY, 500.0, math.inf, 900.0]))
    one.gradient(100.0)
    outcome = done(Clip(times=2.0), one, found(since=20))
    assert "2 x the 0.9 quantile of 20 norms before" in outcome.because
    assert clipped(one, 100.0) == pytest.approx(2.0 * TWENTY[17], rel=1e-5)


def test_with_too_few_norms_before_the_finding_there_is_no_bound_of_its_own():
    one = training("SGD", past=past_of([*TWENTY[:12], math.nan, *TWENTY[12:]]))
    one.gradient(100.0)
    outcome = Clip().apply(one.live(), found(since=16))
    assert outcome.result == "declined"
    assert "only 15 finite gradient norms are known from before step 16, of 16" in outcome.because


def test_each_tensor_has_its_own_bound():
    vectors = [[0.1, 0.2, 0.3, 0.0]] * 20
    one = training("SGD", past=past_of(vectors=vectors))
    one.gradient(100.0)
    last = float(list(one.model.parameters())[3].grad.norm())
    done(Clip(per="tensor", quantile=0.5), one)
    one.levers.begin(one.optimizer, "main", one.live())
    norms = [float(parameter.grad.norm()) for parameter in one.model.parameters()]
    assert norms == pytest.approx([0.1, 0.2, 0.3, last], rel=1e-5)  # of a norm of zero nothing follows


def test_the_norm_that_was_measured_is_used_unless_the_loop_has_clipped_since():
    one = training("SGD")
    one.gradient(10.0)
    measured = torch.full((4,), 50.0)  # norm 100
    done(Clip(max_norm=2.0), one, gradient_norms=measured)
    one.levers.begin(one.optimizer, "main", one.live(gradient_norms=measured))
    assert one.norm() == pytest.approx(0.2, rel=1e-5)
    one.levers.end(one.optimizer)
    one.gradient(10.0)
    one.levers.begin(one.optimizer, "main", one.live(gradient_norms=measured, clipped=True))
    assert one.norm() == pytest.approx(2.0, rel=1e-5)


def test_gradients_that_a_fused_optimizer_unscales_itself_are_measured_without_the_scale():
    one = training("SGD")
    one.gradient(1024.0 * 4.0)
    one.optimizer.grad_scale = torch.tensor(1024.0)
    done(Clip(max_norm=2.0), one)
    one.levers.begin(one.optimizer, "main", one.live())
    assert one.norm() == pytest.approx(1024.0 * 2.0, rel=1e-5)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_not_for_clipping(broken):
    one = training("SGD")
    one.gradient(1.0)
    next(one.model.parameters()).grad[0, 0] = broken
    outcome = Clip(max_norm=1.0).apply(one.live(), found())
    assert outcome.result == "declined"
    assert "SkipStep" in outcome.because
    one.gradient(1.0)
    done(Clip(max_norm=0.5), one)
    next(one.model.parameters()).grad[0, 0] = broken
    before = [parameter.grad.clone() for parameter in one.model.parameters()]
    one.levers.begin(one.optimizer, "main", one.live())
    for parameter, gradient in zip(one.model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, equal_nan=True, rtol=0, atol=0)


def test_a_missing_gradient_counts_nothing():
    one = training("SGD")
    one.gradient(1.0)
    next(one.model.parameters()).grad = None
    done(Clip(max_norm=0.1), one)
    one.levers.begin(one.optimizer, "main", one.live())
    assert one.norm() == pytest.approx(0.1, rel=1e-5)


def test_inside_a_closure_there_is_nothing_to_shorten_yet():
    one = training("SGD")
    assert Clip(max_norm=1.0).apply(one.live(closure=True), found()).result == "declined"


@pytest.mark.parametrize(
    "wrong", [{"max_norm": 0.0}, {"per": "layer"}, {"quantile": 0.0}, {"quantile": 1.5}, {"times": 0.0}, {"steps": -1}]
)
def test_a_setting_out_of_range_is_an_error(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Clip(**wrong)
