import copy
import json
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.checkpoint.kit import Places, Small, Training, same
from trimtab.checkpoint import TrainingState, resume, save
from trimtab.checkpoint.moments import home
from trimtab.checkpoint.rotation import not_finite
from trimtab.errors import UserError

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam-amsgrad": lambda p: torch.optim.Adam(p, amsgrad=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, fused=True),
    "adam-capturable-lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-2)),
    "rprop": torch.optim.Rprop,
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "adadelta": torch.optim.Adadelta,
    "radam": torch.optim.RAdam,
    "nadam": torch.optim.NAdam,
    "asgd": torch.optim.ASGD,
    "adamax": torch.optim.Adamax,
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("first", [0, 3])
def test_going_back_gives_the_same_training_again(name, first):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 2))
    optimizer = OPTIMIZERS[name](model.parameters())
    state = TrainingState({"model": model}, {"main": optimizer})

    def steps(count):
        for _ in range(count):
            x = torch.randn(5, 3)

            def loss(x=x):
                optimizer.zero_grad()
                value = model(x).square().mean()
                value.backward()
                return value

            optimizer.step(loss)
        return {key: value.clone() for key, value in state.capture().tensors.items()}

    steps(first)
    before = list(model.parameters())
    then = state.capture()
    once = steps(4)
    restored = state.restore(then)
    assert same(state.capture().tensors, then.tensors)
    assert same(steps(4), once)
    assert restored.restored == ("model", "main", "random")
    assert not restored.left
    assert all(one is other for one, other in zip(before, model.parameters(), strict=True))


def test_everything_goes_back_and_the_training_repeats_itself():
    training = Training().steps(7)
    then = training.state.capture()
    json.dumps(then.plain, allow_nan=False)
    once = training.steps(9).weights()
    restored = training.state.restore(then)
    assert set(restored.restored) == {"model", "critic", "main", *training.parts, "random"}
    assert same(training.steps(9).weights(), once)


def test_without_the_data_positions_and_random_numbers_go_on():
    training = Training().steps(3)
    then = training.state.capture()
    training.steps(4)
    numbers = (torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist())
    restored = training.state.restore(then, data=False)
    assert set(restored.left) == {"generator", "numpy", "python", "places", "random"}
    assert training.parts["places"].position == 7
    assert torch.equal(numbers[0], torch.get_rng_state())
    assert numbers[1] == random.getstate()
    assert numbers[2] == np.random.get_state(legacy=False)["state"]["key"].tolist()


def test_an_older_capture_is_written_over_where_it_fits():
    training = Training()
    first = training.state.capture()
    held = {key: tensor.data_ptr() for key, tensor in first.tensors.items()}
    second = training.steps(2).state.capture(into=first)
    assert same(second.tensors, training.weights())
    model = [key for key in held if key.startswith("model/")]
    assert all(second.tensors[key].data_ptr() == held[key] for key in model)


def test_groups_get_back_their_settings_and_new_keys_stay():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW([{"params": [model.weight], "lr": 1.0}, {"params": [model.bias]}], lr=0.5)
    state = TrainingState({"m": model}, {"main": optimizer})
    then = state.capture()
    optimizer.param_groups[0].update(lr=9.0, betas=(0.1, 0.2), initial_lr=1.0)
    state.restore(then)
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert optimizer.param_groups[0]["initial_lr"] == 1.0
    assert optimizer.param_groups[1]["lr"] == 0.5


class Refuses(Places):
    def load_state_dict(self, state):
        raise RuntimeError("no room")


class Average:
    """An average of weights as many are written: it keeps the tensors that it is given, and writes to them."""

    def __init__(self):
        self.shadow = torch.zeros(3)

    def state_dict(self):
        return {"shadow": self.shadow}

    def load_state_dict(self, state):
        self.shadow = state["shadow"]


def test_a_part_that_keeps_what_it_is_given_does_not_spoil_the_capture():
    average = Average()
    state = TrainingState({}, {}, {"average": average})
    then = state.capture()
    for _ in range(2):
        state.restore(then)
        assert average.shadow.sum() == 0
        average.shadow += 1


def test_a_part_that_refuses_leaves_everything_as_it_was():
    training = Training()
    training.state.parts["refuses"] = Refuses()
    then = training.state.capture()
    now = training.steps(5).weights()
    with pytest.raises(UserError, match=r"'refuses'.*no room.*nothing was changed"):
        training.state.restore(then)
    assert same(training.weights(), now)


@pytest.mark.parametrize("odd", [iter([1]), "text", object()])
def test_a_part_without_a_state_is_left_and_named(odd):
    state = TrainingState({"m": nn.Linear(1, 1)}, {}, {"odd": odd, "places": Places()})
    then = state.capture()
    assert "odd" in then.left_out
    restored = state.restore(then)
    assert "state_dict" in restored.left["odd"]
    assert "places" in restored.restored


def test_a_part_whose_state_cannot_be_stored_is_left_and_named():
    class Odd(Places):
        def state_dict(self):
            return {"f": [lambda: 0]}

    state = TrainingState({}, {}, {"odd": Odd()})
    assert "part/odd/f/0" in state.capture().left_out["odd"]


def test_a_model_that_changed_is_refused_before_anything_is_written():
    model = Small()
    state = TrainingState({"m": model})
    then = state.capture()
    model.more = nn.Linear(1, 1)
    kept = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=r"new: \['model/m/more"):
        state.restore(then)
    assert same(kept, model.state_dict())


def test_an_optimizer_with_other_groups_is_refused():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    state = TrainingState({"m": model}, {"main": optimizer})
    then = state.capture()
    optimizer.add_param_group({"params": [model.bias]})
    with pytest.raises(UserError, match="2 groups"):
        state.restore(then)


def test_a_graph_that_was_made_before_can_still_be_used():
    model = nn.Linear(3, 3)
    state = TrainingState({"m": model})
    then = state.capture()
    loss = (model(torch.ones(1, 3)) @ model.weight).sum()
    state.restore(then)
    loss.backward()


def test_modules_with_a_state_of_their_own_get_it_back():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    model = nn.Sequential(Counts())
    state = TrainingState({"m": model})
    then = state.capture()
    model[0].count = 5
    state.restore(then)
    assert model[0].count == 0


def test_capturing_changes_nothing_and_draws_nothing():
    one, other = Training(1), Training(1)
    one.steps(3)
    alone = one.steps(5).weights()
    Training(1)  # seeds the generators again
    other = Training(1)
    other.steps(3)
    other.state.capture()
    for _ in range(5):
        other.steps(1)
        other.state.capture()
    assert same(other.weights(), alone)


def test_an_optimizer_that_keeps_its_own_state_is_asked_for_it():
    class Counting(torch.optim.SGD):
        calls = 0

        def step(self, closure=None):
            self.calls += 1
            return super().step(closure)

        def state_dict(self):
            return {**super().state_dict(), "calls": self.calls}

        def load_state_dict(self, state):
            self.calls = state["calls"]
            super().load_state_dict({key: value for key, value in state.items() if key != "calls"})

    model = nn.Linear(2, 2)
    optimizer = Counting(model.parameters(), lr=0.1, momentum=0.9)
    state = TrainingState({"m": model}, {"main": optimizer})

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        return {key: value.clone() for key, value in state.capture().tensors.items()}

    steps(2)
    then = state.capture()
    once = steps(3)
    state.restore(then)
    assert optimizer.calls == 2
    assert same(steps(3), once)


def test_ties_and_expanded_buffers():
    model = Small(tied=True)
    model.register_buffer("wide", torch.ones(1).expand(4))
    state = TrainingState({"m": model})
    then = state.capture()
    with torch.no_grad():
        model.first.weight.zero_()
    state.restore(then)
    assert model.again.weight is model.first.weight
    assert model.first.weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("key", "shape", "group", "device"),
    [
        ("step", (), {}, "cpu"),
        ("step", (), {"capturable": True}, "meta"),
        ("step", (), {"fused": True, "capturable": False}, "meta"),
        ("exp_avg", (3,), {}, "meta"),
        ("step_size", (), {}, "meta"),
    ],
)
def test_state_from_a_file_goes_where_the_optimizer_wants_it(key, shape, group, device):
    parameter = torch.empty(3, device="meta")  # stands for an accelerator
    assert home(key, torch.zeros(shape), parameter, group).type == device


@pytest.mark.parametrize("own_state_dict", [False, True])
def test_a_parameter_that_is_in_no_model_goes_back_with_its_optimizer(tmp_path, own_state_dict):
    class Own(torch.optim.Adam):
        def state_dict(self):
            return super().state_dict()

    def training():
        model, temperature = nn.Linear(2, 2), nn.Parameter(torch.zeros(()))
        kind = Own if own_state_dict else torch.optim.Adam
        optimizer = kind([*model.parameters(), temperature], lr=0.1)
        return TrainingState({"model": model}, {"main": optimizer}), temperature

    def steps(state):
        (optimizer,) = state.optimizers.values()
        for _ in range(3):
            optimizer.zero_grad()
            (state.models["model"](torch.ones(2)) * temperature.exp()).square().sum().backward()
            optimizer.step()
        return {key: value.clone() for key, value in state.capture().tensors.items()}

    state, temperature = training()
    steps(state)
    then, value = state.capture(), temperature.item()
    path = save(tmp_path / "a", state)
    once = steps(state)
    state.restore(then)
    assert temperature.item() == value != 0.0
    assert same(steps(state), once)
    other, temperature = training()
    resume(path, other)
    assert temperature.item() == value
    assert same(steps(other), once)
    with torch.no_grad():
        temperature.fill_(math.nan)
    assert "a parameter of optimizer 'main' is not finite" in not_finite(other)


def test_a_history_of_lbfgs_is_not_the_memory_of_a_snapshot():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    state = TrainingState({"model": model}, {"main": optimizer})
    x = torch.randn(5, 3)

    def loss():
        optimizer.zero_grad()
        value = (model(x) - 1).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    then = state.capture()
    state.restore(then)
    kept = [one.clone() for one in optimizer.state_dict()["state"][0]["old_dirs"]]
    for tensor in then.tensors.values():  # a snapshot that is dropped is written over
        if tensor.is_floating_point():
            tensor.fill_(7.0)
    assert all(map(torch.equal, kept, optimizer.state_dict()["state"][0]["old_dirs"]))
