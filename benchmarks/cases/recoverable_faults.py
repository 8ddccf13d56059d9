"""What goes wrong once, or for a while, in trainings that could go on: counted by updates, never by what was restored.

Each function gets a freshly built training and the update at which it happens, and changes the training. An update
that never comes (`NEVER`) gives the same training without the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.cases.case import scale_learning_rate
from benchmarks.cases.special_families import table_elbo
from benchmarks.cases.training import Batch, Milestone, Training, endless, shuffled, zero_grad

NEVER = 10**9
"""An update that never comes."""


# How a fault gets in


def before_update(training: Training, when: Callable[[int], bool], do: Callable[[], None]) -> None:
    """Do something before each update for whose number `when` is true."""
    update = training.update

    def updating(training: Training) -> float:
        if when(training.step):
            do()
        return update(training)

    training.update = updating


def change_batches(training: Training, when: Callable[[int], bool], change: Callable[[Tensor, Tensor], Batch]) -> None:
    """Pass the batches of some updates through `change`; the others are the loader's."""
    healthy = training.batches

    def batches() -> Iterator[Batch]:
        for x, y in healthy:
            yield change(x, y) if when(training.step) else (x, y)

    training.batches = batches()


def change_gradients(training: Training, when: Callable[[int], bool], change: Callable[[Tensor], Tensor]) -> None:
    """Pass the gradients of some updates through `change`."""
    for parameter in training.model.parameters():
        parameter.register_hook(lambda gradient: change(gradient) if when(training.step) else gradient)


def at(onset: int) -> Callable[[int], bool]:
    """One update."""
    return lambda step: step == onset


def during(onset: int, updates: int) -> Callable[[int], bool]:
    """So many updates in a row."""
    return lambda step: onset <= step < onset + updates


# Batches


def bad_batch(training: Training, onset: int) -> None:
    """One batch holds inputs of a thousand times the usual size."""
    change_batches(training, at(onset), lambda x, y: (1e3 * x, y))


def nan_batch(training: Training, onset: int) -> None:
    """One batch holds a NaN; batch normalisation, where there is any, keeps it in its running statistics."""

    def spoil(x: Tensor, y: Tensor) -> Batch:
        x = x.clone()
        x[0, 0] = torch.nan
        return x, y

    change_batches(training, at(onset), spoil)


def data_corrupted(training: Training, onset: int) -> None:
    """Fifteen batches in a row hold noise of fifty times the usual size."""
    generator = training.generator()
    change_batches(training, during(onset, 15), lambda x, y: (50.0 * torch.randn(x.shape, generator=generator), y))


def normaliser_dropped(training: Training, onset: int) -> None:
    """For twenty updates the inputs come unscaled: 255 times too large, or far away from zero."""
    change_batches(training, during(onset, 20), lambda x, y: (100.0 * x + 300.0, y))


# Gradients and loss


def gradient_spike(training: Training, onset: int) -> None:
    """Every gradient of one update is ten thousand times what it should be: Adam remembers the squares."""
    change_gradients(training, at(onset), lambda gradient: 1e4 * gradient)


def nan_gradient(training: Training, onset: int) -> None:
    """One element of one tensor's gradient is NaN at one update."""
    weight = next(p for p in training.model.get_submodule(training.middle).parameters())

    def spoil(gradient: Tensor) -> Tensor:
        if training.step != onset:
            return gradient
        gradient = gradient.clone()
        gradient.view(-1)[0] = torch.nan
        return gradient

    weight.register_hook(spoil)


def log_of_zero(training: Training, onset: int) -> None:
    """One batch's loss takes the logarithm of a probability that has become 0: the loss is infinite."""
    loss = training.loss

    def naive(model: nn.Module, batch: Batch) -> Tensor:
        if training.step != onset:
            return loss(model, batch)
        probabilities = model(batch[0]).softmax(-1).gather(-1, batch[1].unsqueeze(-1)).clone()
        probabilities[0] = 0.0 * probabilities[0]
        infinite: Tensor = -probabilities.log().mean()
        return infinite

    training.loss = naive


def sum_not_mean(training: Training, onset: int) -> None:
    """For twenty updates the loss is the sum over the batch instead of its mean."""
    loss = training.loss

    def summed(model: nn.Module, batch: Batch) -> Tensor:
        wrong = during(onset, 20)(training.step)
        return loss(model, batch) * (len(batch[0]) if wrong else 1)

    training.loss = summed


# Learning rate and loss scale


def rate_burst(training: Training, onset: int) -> None:
    """For ten updates the optimizer is handed thirty times the learning rate, as by a warm-up that starts again."""
    update = training.update

    def updating(training: Training) -> float:
        if not during(onset, 10)(training.step):
            return update(training)
        meant = [group["lr"] for group in training.optimizer.param_groups]
        for group in training.optimizer.param_groups:
            group["lr"] *= 30.0
        try:
            return update(training)
        finally:
            for group, rate in zip(training.optimizer.param_groups, meant, strict=True):
                group["lr"] = rate

    training.update = updating


def rate_stays_high(training: Training, onset: int) -> None:
    """The learning rate is multiplied by thirty, in the optimizer and in its schedules, and nobody sets it back."""
    before_update(training, at(onset), lambda: scale_learning_rate(training, 30.0))


def loss_scale_overflows(training: Training, onset: int) -> None:
    """A fixed loss scale is set to 2 to the power of 40: every gradient overflows and every update is left out."""

    def half_precision_backward(_: nn.Module, __: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.half().float())

    training.model.get_submodule(training.middle).register_forward_hook(half_precision_backward)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    training.parts["scaler"] = scaler

    def update(training: Training) -> float:
        zero_grad(training)
        if training.step == onset:
            scaler.update(2.0**40)
        loss = training.loss(training.model, training.next_batch())
        scaler.scale(loss).backward()
        training.tell()
        scaler.step(training.optimizer)
        scaler.update(scaler.get_scale())
        for scheduler in training.schedulers:
            scheduler.step()
        return loss.item()

    training.update = update


# Weights and what the optimizer remembers


def bit_flip(training: Training, onset: int) -> None:
    """The highest bit of the exponent flips in a few weights of a layer: each becomes huge and negative."""
    weight = next(p for p in training.model.get_submodule(training.middle).parameters())

    @torch.no_grad()
    def flip() -> None:
        weight.view(-1)[:3] = -3e4

    before_update(training, at(onset), flip)


def weights_lost(training: Training, onset: int) -> None:
    """Near the end every weight is drawn again, as by a load that fell back to the initialisation."""

    def draw() -> None:
        with torch.random.fork_rng():
            torch.manual_seed(training.seed + 77)
            for module in training.model.modules():
                draw_again = getattr(module, "reset_parameters", None)
                if draw_again is not None:
                    draw_again()

    before_update(training, at(onset), draw)


def recurrence_explodes(training: Training, onset: int) -> None:
    """The recurrent weights are forty times too large from one update to the next: each state saturates."""
    recurrent = [p for name, p in training.model.named_parameters() if "_hh_" in name]
    assert recurrent

    @torch.no_grad()
    def grow() -> None:
        for weight in recurrent:
            weight.mul_(40.0)

    before_update(training, at(onset), grow)


def optimizer_state_corrupted(training: Training, onset: int) -> None:
    """What the optimizer remembers of the mean gradient is ten thousand times too large, as after a wrong load."""

    def corrupt() -> None:
        for state in training.optimizer.state.values():
            for name in ("exp_avg", "momentum_buffer"):
                if name in state:
                    state[name].mul_(1e4)

    before_update(training, at(onset), corrupt)


# Schedules of a user's own


class Ramp:
    """A quantity that grows from 0 to 1 over so many updates; it can be stored and put back."""

    def __init__(self, updates: int) -> None:
        self.updates, self.count, self.factor = updates, 0, 1.0

    @property
    def value(self) -> float:
        """The quantity now."""
        return self.factor * min(1.0, self.count / self.updates)

    def advance(self) -> None:
        """Count one update."""
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """All there is to store."""
        return {"count": self.count, "factor": self.factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what was stored."""
        self.count, self.factor = state["count"], state["factor"]


def ramp_of(training: Training, onset: int, times: float) -> Ramp:
    """Put a ramp into a training that jumps by a factor at the onset and stays there."""
    ramp = Ramp(100)
    training.parts["ramp"] = ramp

    def jump() -> None:
        ramp.factor *= times

    def count(*_: Any) -> None:
        ramp.advance()

    training.optimizer.register_step_post_hook(count)
    before_update(training, at(onset), jump)
    return ramp


def escalation_jumps(training: Training, onset: int) -> None:
    """The weight of a penalty climbs over a hundred updates; at the onset it is twenty times too large.

    It is the divergence from the prior where there is a code, else the square of the outputs, a tenth of it.
    """
    ramp = ramp_of(training, onset, 20.0)
    if training.target.metric == "error":
        training.loss = lambda model, batch: table_elbo(model(batch[0]), batch[1], ramp.value)
        return

    def penalised(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch[0])
        loss: Tensor = nn.functional.mse_loss(output, batch[1]) + 0.1 * ramp.value * output.square().mean()
        return loss

    training.loss = penalised


def curriculum_jumps(training: Training, onset: int) -> None:
    """Noise on the inputs climbs to a fifth over a hundred updates; at the onset it is sixty times as strong."""
    ramp = ramp_of(training, onset, 60.0)
    generator = training.generator()
    healthy = training.batches
    training.batches = ((x + 0.2 * ramp.value * torch.randn(x.shape, generator=generator), y) for x, y in healthy)


def trained_past_the_peak(training: Training, onset: int) -> None:
    """64 samples, a quarter of them with a random label: the validation loss turns and rises for the rest."""
    assert training.data is not None
    x, y = (part[:64].clone() for part in (training.data.x_train, training.data.y_train))
    generator = training.generator()
    noisy = torch.randperm(64, generator=generator)[:16]
    y[noisy] = training.data.y_train[torch.randint(64, len(training.data.y_train), (16,), generator=generator)]
    training.batches = endless(shuffled(TensorDataset(x, y), 32, training.seed))
    training.target = Milestone(metric="loss", better="lower", value=0.0, step=training.steps - 1)
