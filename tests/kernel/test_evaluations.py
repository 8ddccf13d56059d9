"""Passes without gradients: counted where they are, and nothing of the counting stays with the model."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any, cast

import pytest
import torch
from torch import nn

from trimtab import Guard
from trimtab.attach import attached
from trimtab.evaluations import Evaluations, _Silent

from .test_measure import Watched


def model_of():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 1))


@pytest.fixture
def watched():
    model, evaluations = model_of(), Evaluations()
    evaluations.watch([model])
    yield model, evaluations
    evaluations.close()
    assert not model._forward_pre_hooks


def test_passes_without_gradients_are_counted_by_the_mode_of_what_depends_on_it(watched):
    model, evaluations = watched
    x = torch.randn(5, 4)
    model(x)
    with torch.no_grad():
        model(x)
        model.eval()
        model(x)
        model(x)
        model.train()
        for part in (model[1], model[3]):
            part.eval()
        model(x)
    with torch.inference_mode():
        model(x)
    assert evaluations.take() == (5, 1)
    assert evaluations.take() == (0, 0)


def test_a_model_without_dropout_or_batch_norm_is_the_same_in_both_modes():
    model, evaluations = nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.0)), Evaluations()
    evaluations.watch([model])
    with torch.no_grad():
        model(torch.randn(5, 4))
    assert evaluations.take() == (1, 0)


def test_copies_and_pickles_do_not_count_and_need_nothing_of_ours(watched):
    model, evaluations = watched
    x = torch.randn(5, 4)
    other = copy.deepcopy(model)
    written = pickle.dumps(model)
    assert b"trimtab" not in written
    assert b"trimtab" not in pickle.dumps(other)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = [other, pickle.loads(written), torch.load(buffer, weights_only=False)]
    with torch.no_grad():
        expected = model.eval()(x)
        for one in loaded:
            assert torch.equal(one.eval()(x), expected)
    assert evaluations.take() == (1, 0)
    assert all(isinstance(hook, _Silent) for hook in other._forward_pre_hooks.values())


@pytest.mark.filterwarnings("ignore")
def test_a_watched_model_can_be_scripted_traced_and_compiled():
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(5, 4)
    with attached(Watched(models=[model], optimizers={"main": optimizer})):
        for _ in range(2):
            model(x).mean().backward()
            optimizer.step()
        assert model._forward_pre_hooks
        with torch.no_grad():
            expected = model.eval()(x)
            assert torch.allclose(torch.jit.script(model)(x), expected)
            assert torch.allclose(torch.jit.trace(model, (x,))(x), expected)
            assert torch.allclose(torch.compile(model, backend="eager", fullgraph=True)(x), expected)
        assert model._forward_pre_hooks


def times_three(x: torch.Tensor) -> torch.Tensor:
    return x * 3.0


@pytest.mark.filterwarnings("ignore")
def test_what_is_scripted_still_finds_the_names_around_it():
    tripled = times_three  # a name of this frame; the function itself lives on: torch remembers functions by their id

    class Scaled:
        def __init__(self, factor: float):
            self.factor = factor

        def of(self, x: torch.Tensor) -> torch.Tensor:
            return tripled(x) * self.factor

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return tripled(x)

    with attached(Watched(models=[], optimizers={})):
        torch.jit.script(Scaled)
        assert torch.jit.script(scaled)(torch.ones(1)) == 3.0


def test_the_count_of_a_training_is_handed_to_full_rows(tmp_path):
    seen = []

    class Look:
        name, points, tier, axes, sparse, copies_weights = "look", ("before",), "norms", {}, (), False

        def read(self, live):
            seen.append(live.evaluations)
            return {}

    model, look = model_of(), cast(Any, Look())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Guard(tmp_path / "run", model, optimizer, sensors=[look], overhead=None):
        for step in range(4):
            model.train()
            model(torch.randn(8, 4)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 2:
                model.eval()
            with torch.no_grad():
                model(torch.randn(8, 4))
                model(torch.randn(8, 4))
    assert seen == [(0, 0), (2, 2), (2, 0), (2, 2)]
    assert not model._forward_pre_hooks
