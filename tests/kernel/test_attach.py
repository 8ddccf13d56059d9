"""The four points: told in order, restored on exit, and never in the way of the user's loop."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_  # imported before anything is attached, as scripts do

from trimtab import attach
from trimtab.errors import TrainingStopped


class Recorder:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.errors: list[str] = []

    def backward_begins(self, roots):
        self.told.append("backward")

    def backward_ended(self):
        self.told.append("backward ended")

    def clipping(self, parameters):
        self.told.append(f"clip {len(list(parameters))}")

    def unscaled(self, optimizer):
        self.told.append("unscaled")

    def step_begins(self, optimizer, closure):
        self.told.append("step with closure" if closure else "step")

    def step_ended(self, optimizer):
        self.told.append("step ended")

    def step_skipped(self, optimizer):
        self.told.append("skipped")

    def weights_loaded(self, module, missing, unexpected, changed):
        self.told.append(f"loaded {len(missing)} {len(unexpected)}")

    def broke(self, where, error):
        self.errors.append(f"{where}: {error}")


def small():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_an_ordinary_step_is_told_in_order():
    model, optimizer = small()
    with attach.attached(listener := Recorder()):
        model(torch.ones(3, 4)).sum().backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert listener.told == ["backward", "backward ended", "clip 2", "step", "step ended"]


@pytest.mark.parametrize("how", ["attribute", "value"])
def test_every_way_of_clipping_is_seen(how):
    model, _ = small()
    model(torch.ones(3, 4)).sum().backward()
    with attach.attached(listener := Recorder()):
        if how == "attribute":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        else:
            torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)
    assert listener.told == ["clip 2"]


def test_clipping_does_what_it_does_without_us():
    model, _ = small()
    model(torch.ones(3, 4)).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    with attach.attached(Recorder()):
        seen = torch.nn.utils.clip_grad_norm_((p for p in model.parameters()), 0.5)
    after = [p.grad.clone() for p in model.parameters()]
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        parameter.grad = gradient.clone()
    bare = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    assert torch.equal(seen, bare)
    assert all(torch.equal(a, p.grad) for a, p in zip(after, model.parameters(), strict=True))


def test_an_empty_generator_still_warns_as_torch_does():
    with attach.attached(Recorder()), pytest.warns(UserWarning, match="empty generator"):
        clip_grad_norm_((p for p in ()), 1.0)


def test_a_closure_is_announced_and_its_backwards_are_seen_inside_the_step():
    model, _ = small()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(3, 4)).pow(2).sum()
        loss.backward()
        return loss

    with attach.attached(listener := Recorder()):
        optimizer.step(closure)
    assert listener.told[0] == "step with closure"
    assert listener.told[-1] == "step ended"
    assert "backward" in listener.told


def test_a_backward_inside_a_backward_is_told_once():
    from torch.utils.checkpoint import checkpoint

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    x = torch.ones(3, 4, requires_grad=True)
    with attach.attached(listener := Recorder()):
        checkpoint(model, x, use_reentrant=True).sum().backward()
    assert listener.told == ["backward", "backward ended"]


def test_an_optimizer_that_wraps_another_steps_once():
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, inner):
            self.inner = inner
            super().__init__(inner.param_groups[0]["params"], {})

        def step(self, closure=None):
            return self.inner.step()

    model, inner = small()
    outer = Wrapper(inner)
    model(torch.ones(3, 4)).sum().backward()
    with attach.attached(listener := Recorder()):
        outer.step()
    assert listener.told == ["step", "step ended"]


def test_a_scaler_that_skips_is_seen_and_its_scaled_loss_remembers_the_loss():
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with attach.attached(listener := Recorder()):
        loss = (model(torch.full((3, 4), float("inf"))) * 0).sum()
        scaled = scaler.scale(loss)
        assert scaled is not loss
        scaled.backward()
        scaler.step(optimizer)
        scaler.update()
    assert listener.told == ["backward", "backward ended", "unscaled", "skipped"]


def test_loading_weights_tells_what_did_not_fit():
    model, _ = small()
    weights = {**model.state_dict(), "extra": torch.zeros(1)}
    del weights["bias"]
    with attach.attached(listener := Recorder()):
        model.load_state_dict(weights, strict=False)
    assert listener.told == ["loaded 1 1"]


def test_everything_is_restored_when_the_last_listener_leaves():
    originals = (torch.autograd.backward, torch.nn.utils.clip_grad_value_, nn.Module.load_state_dict)
    scale = torch.amp.GradScaler.scale
    first, second = Recorder(), Recorder()
    attach.attach(first)
    attach.attach(second)
    attach.detach(first)
    assert torch.autograd.backward is not originals[0]
    attach.detach(second)
    assert (torch.autograd.backward, torch.nn.utils.clip_grad_value_, nn.Module.load_state_dict) == originals
    assert torch.amp.GradScaler.scale is scale


def test_a_listener_that_raises_is_told_and_left_alone_and_the_step_happens():
    class Broken(Recorder):
        def step_begins(self, optimizer, closure):
            raise RuntimeError("planted")

    model, optimizer = small()
    before = model.weight.detach().clone()
    with attach.attached(listener := Broken()):
        for _ in range(2):
            model(torch.ones(3, 4)).sum().backward()
            optimizer.step()
    assert listener.errors == ["step_begins: planted"]
    assert listener.told == ["backward", "backward ended"]
    assert not torch.equal(before, model.weight)


def test_a_stop_reaches_the_loop_before_the_update():
    class Stops(Recorder):
        def step_begins(self, optimizer, closure):
            raise TrainingStopped("enough")

    model, optimizer = small()
    model(torch.ones(3, 4)).sum().backward()
    before = model.weight.detach().clone()
    with attach.attached(Stops()), pytest.raises(TrainingStopped, match="enough"):
        optimizer.step()
    assert torch.equal(before, model.weight)


def test_a_step_that_raises_does_not_hide_the_next_one():
    class Fragile(torch.optim.SGD):
        fail = True

        def step(self, closure=None):
            if self.fail:
                raise ValueError("no")
            return super().step(closure)

    model, _ = small()
    optimizer = Fragile(model.parameters(), lr=0.1)
    with attach.attached(listener := Recorder()):
        model(torch.ones(3, 4)).sum().backward()
        with pytest.raises(ValueError, match="no"):
            optimizer.step()
        optimizer.fail = False
        optimizer.step()
    assert listener.told.count("step") == 2
    assert listener.told[-1] == "step ended"


def test_a_forked_process_inherits_no_listener():
    model, optimizer = small()
    with attach.attached(listener := Recorder()):
        pid = os.fork()
        if pid == 0:
            os._exit(len(attach._listeners))
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        model(torch.ones(3, 4)).sum().backward()
        optimizer.step()
    assert listener.told[0] == "backward"
