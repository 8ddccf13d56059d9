"""The sensors of data, modes and resources beside slow, obvious twins, on small real models."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from trimtab.live import Live, Root
from trimtab.sensors import BatchStatistics, EvaluatedInTraining, GraphCensus, ModuleModes, Resources
from trimtab.sensors.batch_statistics import in_memory_order


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def at_root(loss, **facts):
    return Live(stream="", step=0, update=0, roots=(Root(value=loss.detach(), node=loss.grad_fn),), **facts)


def numbers(reading):
    return {name: float(value) for name, value in reading.items()}


LINEAR = nn.Linear(6, 5)
CONVOLUTION = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
MODELS = [(LINEAR, (6,)), (CONVOLUTION, (2, 4, 4))]


# --- batches --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(min_value=-100, max_value=4), min_size=1, max_size=30), st.sampled_from([0, 1]))
def test_labels_are_counted_as_by_hand(labels, which):
    model, shape = MODELS[which]
    labels = [label if label >= 0 else -100 for label in labels]
    kept = [label for label in labels if label >= 0]
    if not kept:
        return
    scores = model(torch.randn(len(labels), *shape))
    seen = numbers(BatchStatistics().read(at_root(F.cross_entropy(scores, torch.tensor(labels)))))
    shares = [kept.count(label) / len(kept) for label in sorted(set(kept))]
    assert seen["label_entropy"] == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-5)
    assert seen["label_classes"] == len(shares)
    assert seen["label_mean"] == pytest.approx(statistics.fmean(kept), abs=1e-5)
    assert seen["target_spread"] == pytest.approx(statistics.pstdev(kept), abs=1e-3)
    assert seen["target_count"] == len(labels)


@pytest.mark.parametrize(("model", "shape"), MODELS)
def test_inputs_and_targets_of_a_regression_are_as_by_hand(model, shape):
    x, y = 3.0 * torch.randn(9, *shape) + 2.0, torch.randn(9, 5) - 1.0
    seen = numbers(BatchStatistics().read(at_root(F.mse_loss(model(x), y))))
    given_, wanted = x.reshape(-1).tolist(), y.reshape(-1).tolist()
    assert seen["input_mean"] == pytest.approx(statistics.fmean(given_), rel=1e-5)
    assert seen["input_std"] == pytest.approx(statistics.pstdev(given_), rel=1e-5)
    assert seen["input_largest"] == pytest.approx(max(map(abs, given_)))
    assert seen["target_mean"] == pytest.approx(statistics.fmean(wanted), rel=1e-5)
    assert seen["target_spread"] == pytest.approx(statistics.pstdev(wanted), rel=1e-5)
    assert "label_entropy" not in seen


def test_a_class_to_be_ignored_is_left_out_whatever_its_number():
    scores, labels = LINEAR(torch.randn(6, 6)), torch.tensor([0, 0, 0, 1, 2, 2])
    seen = numbers(BatchStatistics().read(at_root(F.cross_entropy(scores, labels, ignore_index=0))))
    assert seen["label_classes"] == 2
    assert seen["label_mean"] == pytest.approx(5 / 3)


def test_images_in_channels_last_order_are_not_copied():
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    flat = in_memory_order(images)
    assert flat.data_ptr() == images.data_ptr()
    assert sorted(flat.tolist()) == sorted(images.flatten().tolist())
    assert in_memory_order(images[:, :, :, 0].expand(2, 4, 3, 8)).numel() == 192
    assert in_memory_order(torch.tensor(1.0)).shape == (1,)


def test_a_large_input_is_sampled_evenly_and_looked_at_seldom_later():
    x = torch.randn(300, 64) * torch.linspace(1, 5, 300).unsqueeze(1)
    loss = F.cross_entropy(nn.Linear(64, 5)(x), torch.randint(0, 5, (300,)))
    memory = {}
    seen = [BatchStatistics().read(at_root(loss, memory=memory)) for _ in range(48)]
    assert float(seen[0]["input_std"]) == pytest.approx(float(x.std()), rel=0.1)
    assert [i for i, reading in enumerate(seen) if "input_std" in reading] == [*range(32), 32, 36, 40, 44]
    assert all("label_mean" in reading for reading in seen)


def test_a_binary_loss_with_one_output_has_a_share_of_ones():
    y = torch.tensor([1.0, 0.0, 1.0, 1.0])
    seen = numbers(
        BatchStatistics().read(at_root(F.binary_cross_entropy_with_logits(LINEAR(torch.randn(4, 6))[:, 0], y)))
    )
    assert seen["label_mean"] == 0.75
    assert seen["target_spread"] == pytest.approx(math.sqrt(0.75 * 0.25))


# --- the graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "shape"), MODELS)
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_chance_level_of_a_squared_error_is_that_of_the_best_constant(model, shape, factor):
    x, y = torch.randn(40, *shape), torch.randn(40, 5) * torch.tensor([1.0, 2.0, 3.0, 0.1, 5.0]) + 7.0
    seen = numbers(GraphCensus().read(at_root(factor * F.mse_loss(model(x), y))))
    columns = [statistics.variance(y[:, i].tolist()) for i in range(5)]
    assert seen["chance_level"] == pytest.approx(factor * statistics.fmean(columns), rel=1e-5)
    rms = math.sqrt(statistics.fmean([v * v for v in model(x).reshape(-1).tolist()]))
    assert seen["prediction_rms"] == pytest.approx(rms, rel=1e-5)


@pytest.mark.parametrize(
    ("targets", "flag"),
    [
        (F.one_hot(torch.arange(10) % 5, 5).float(), "one_hot_under_squared"),
        (torch.rand(10, 5), None),
        (F.one_hot(torch.arange(10) % 5, 5).float() * 0.9, None),
    ],
)
def test_what_the_targets_of_a_squared_error_look_like(targets, flag):
    seen = numbers(GraphCensus().read(at_root(F.mse_loss(LINEAR(torch.randn(10, 6)), targets))))
    flags = [name for name in ("one_hot_under_squared", "codes_under_squared", "targets_broadcast") if seen[name]]
    assert flags == ([flag] if flag else [])


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_codes_and_shapes_that_spread():
    prediction, codes = LINEAR(torch.randn(10, 6))[:, :1], torch.arange(10).float() % 4
    seen = numbers(GraphCensus().read(at_root(F.mse_loss(prediction.squeeze(1), codes))))
    assert (seen["codes_under_squared"], seen["targets_broadcast"]) == (1.0, 0.0)
    seen = numbers(GraphCensus().read(at_root(F.mse_loss(prediction, codes))))
    assert seen["targets_broadcast"] == 1.0
    assert "chance_level" not in seen


def test_targets_that_are_all_alike_have_no_chance_level():
    assert "chance_level" not in GraphCensus().read(at_root(F.mse_loss(LINEAR(torch.randn(10, 6)), torch.ones(10, 5))))


# --- modes ----------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.norm, self.linear, self.drop = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Dropout(dropout)


def modes(*models, held=None):
    parameters = [p for model in models for p in model.parameters()]
    held = frozenset(map(id, parameters if held is None else held))
    return ModuleModes().read(Live(stream="main", step=0, update=0, models=models, held=held)).get("modules_training")


def test_each_module_that_depends_on_the_mode_is_listed():
    model = nn.Sequential(Block(0.1), Block(0.0), nn.GRU(4, 4, num_layers=2, dropout=0.3))
    assert modes(model) == {"(model)": 1.0, "0.norm": 1.0, "0.drop": 1.0, "1.norm": 1.0, "2": 1.0}
    model[0].eval()
    assert modes(model) == {"(model)": 1.0, "0.norm": 0.0, "0.drop": 0.0, "1.norm": 1.0, "2": 1.0}


def test_parts_that_nothing_trains_are_left_out():
    model = nn.Sequential(Block(0.1), Block(0.1))
    model[0].requires_grad_(False)
    assert list(modes(model)) == ["(model)", "1.norm", "1.drop"]
    assert list(modes(model, held=model[1].linear.parameters())) == ["(model)", "1.drop"]
    assert modes(nn.Linear(2, 2)) is None


def test_many_siblings_without_parameters_ask_their_parent_once():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.drops = nn.Linear(4, 4), nn.ModuleList(nn.Dropout(0.1) for _ in range(50))
            self.asked = 0

        def parameters(self, recurse=True):
            self.asked += 1
            return super().parameters(recurse)

    model = Counting()
    assert len(modes(model, held=list(model.parameters()))) == 51
    assert model.asked <= 3


def test_two_models_are_told_apart():
    assert list(modes(Block(0.1), Block(0.0))) == ["0.(model)", "0.norm", "0.drop", "1.(model)", "1.norm"]


def test_the_share_of_evaluations_in_training_mode():
    live = Live(stream="main", step=0, update=0, evaluations=(4, 3))
    assert EvaluatedInTraining().read(live) == {"evaluation_calls": 4.0, "evaluated_in_training": 0.75}
    assert EvaluatedInTraining().read(Live(stream="main", step=0, update=0)) == {"evaluation_calls": 0.0}


# --- resources ------------------------------------------------------------------------------------


def test_seconds_are_divided_by_the_updates_between_two_rows():
    times = iter([10.0, 12.0, 20.0])
    sensor, memory = Resources(clock=lambda: next(times)), {}
    seen = [sensor.read(Live(stream="main", step=step, update=step, memory=memory)) for step in (0, 1, 9)]
    assert [reading.get("step_seconds") for reading in seen] == [None, 2.0, 1.0]


def test_memory_follows_what_is_allocated():
    """In a process of its own: a long-lived one may have freed room to give, and then does not grow."""
    program = """
        import torch
        from trimtab.live import Live
        from trimtab.sensors.resources import Resources
        sensor, live = Resources(), Live(stream="main", step=0, update=0)
        before = sensor.read(live)["memory_bytes"]
        held = torch.ones(30_000_000)
        print(sensor.read(live)["memory_bytes"] - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(120e6, rel=0.2)
