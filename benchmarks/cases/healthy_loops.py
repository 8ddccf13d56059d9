"""Healthy trainings whose schedule, loop or optimizer is out of the ordinary (H numbers: the anchors' list)."""

import itertools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR

from benchmarks.cases import data as data_sets
from benchmarks.cases.families import Cnn, Mlp, classification, cnn, mlp, regression, training_on
from benchmarks.cases.training import Batch, Milestone, Training, endless, ordinary_update, run, shuffled, zero_grad


def digits_mlp(seed: int, model: nn.Module, optimizer: torch.optim.Optimizer, accuracy: float = 0.9) -> Training:
    """Digits with any network of the MLP's layout."""
    return training_on(
        data_sets.digits(seed), model, optimizer, F.cross_entropy, classification,
        seed=seed, batch_size=64, target=("accuracy", "higher", accuracy), middle="body.2",
    )  # fmt: skip


def seeded_mlp(seed: int, dropout: float = 0.0) -> Mlp:
    """The digits network with weights from this seed."""
    torch.manual_seed(seed)
    return Mlp(64, 64, 10, dropout)


def lasting(training: Training, steps: int) -> Training:
    """The same training over more steps."""
    training.steps = steps
    target = training.target
    training.target = Milestone(metric=target.metric, better=target.better, value=target.value, step=steps - 1)
    return training


def warm_up_bump(seed: int) -> Training:
    """H1. The rate starts at exactly 0 and climbs so high that the loss rises for a while, then decays."""
    model = seeded_mlp(seed)
    optimizer = SGD(model.parameters(), lr=0.3, momentum=0.9)
    training = digits_mlp(seed, model, optimizer)
    training.schedulers.append(LambdaLR(optimizer, lambda step: min(step / 100, max(0.0, 1 - (step - 100) / 260))))
    return training


def cosine_restarts(seed: int) -> Training:
    """H2. The rate falls to 0 and jumps back, after 60 and 180 steps."""
    torch.manual_seed(seed)
    model = Cnn()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    training = training_on(
        data_sets.digits(seed), model, optimizer, F.cross_entropy, classification,
        seed=seed, batch_size=32, target=("accuracy", "higher", 0.95), middle="body.4",
    )  # fmt: skip
    training.schedulers.append(CosineAnnealingWarmRestarts(optimizer, T_0=60, T_mult=2))
    return training


def batch_of_two(seed: int) -> Training:
    """H5. Two samples an update."""
    model = seeded_mlp(seed)
    training = digits_mlp(seed, model, Adam(model.parameters(), lr=1e-3), accuracy=0.8)
    assert training.data is not None
    training.batches = endless(shuffled(training.data.dataset(), 2, seed))
    return lasting(training, 900)


def strong_dropout(seed: int) -> Training:
    """H9. Dropout of 0.6."""
    model = seeded_mlp(seed, dropout=0.6)
    return digits_mlp(seed, model, Adam(model.parameters(), lr=2e-3))


def loss_scale_search(seed: int) -> Training:
    """H11. A gradient scaler starts too high: the first steps overflow and are skipped, and one now and then later."""
    model = seeded_mlp(seed)
    training = digits_mlp(seed, model, Adam(model.parameters(), lr=2e-3))

    def half_precision_backward(body: nn.Module, _: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.half().float())

    model.body.register_forward_hook(half_precision_backward)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=60)

    def update(training: Training) -> float:
        zero_grad(training)
        loss = training.loss(training.model, training.next_batch())
        scaler.scale(loss).backward()
        scaler.step(training.optimizer)
        scaler.update()
        return loss.item()

    training.update = update
    return training


def loss_near_zero(seed: int) -> Training:
    """H12. A noise-free linear target: the loss falls by 14 orders of magnitude, to rounding errors, and flickers."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1500, 8, generator=generator)
    y = x @ torch.randn(8, 1, generator=generator)
    model = nn.Sequential(OrderedDict(body=nn.Linear(8, 16), head=nn.Linear(16, 1)))
    return training_on(
        data_sets.split(x, y, seed, validation=300), model, Adam(model.parameters(), lr=1e-2), F.mse_loss,
        lambda prediction, y: {"loss": F.mse_loss(prediction, y).item()},
        seed=seed, batch_size=64, target=("loss", "lower", 1e-5), middle="body",
    )  # fmt: skip


def frozen_backbone(seed: int, hand_over_all: bool) -> Training:
    """H13. A body trained on digits is frozen by `requires_grad_(False)`; a new head learns odd against even.

    With `hand_over_all` the optimizer gets all parameters, the frozen ones too, as many scripts do.
    """
    pretrained = mlp(seed)
    run(pretrained, 200)
    torch.manual_seed(seed)
    model = Mlp(64, 64, 2)
    body = {name: value for name, value in pretrained.model.state_dict().items() if name.startswith("body")}
    model.load_state_dict(body, strict=False)
    model.body.requires_grad_(False)
    held = [p for p in model.parameters() if hand_over_all or p.requires_grad]
    training = digits_mlp(seed, model, Adam(held, lr=1e-2), accuracy=0.8)
    assert training.data is not None
    training.data.y_train.remainder_(2)
    training.data.y_validation.remainder_(2)
    return training


def accumulation(seed: int) -> Training:
    """H15. Four small batches an update."""
    training = cnn(seed)
    assert training.data is not None
    training.batches = endless(shuffled(training.data.dataset(), 8, seed))
    training.accumulate = 4
    return training


def two_optimizers(seed: int) -> Training:
    """H15. The head steps after each batch; the body, with its own optimizer, gathers gradients over four."""
    model = seeded_mlp(seed)
    training = digits_mlp(seed, model, Adam(model.parameters(), lr=2e-3))
    body, head = Adam(model.body.parameters(), lr=4e-3), SGD(model.head.parameters(), lr=0.1, momentum=0.9)
    training.optimizers = {"body": body, "head": head}

    def update(training: Training) -> float:
        loss = training.loss(training.model, training.next_batch())
        loss.backward()
        head.step()
        head.zero_grad()
        if training.step % 4 == 3:
            body.step()
            body.zero_grad()
        return loss.item()

    training.update = update
    return training


def fine_tuning(seed: int) -> Training:
    """H16. A trained network goes on at 1/1000 of its learning rate."""
    trained = mlp(seed)
    run(trained)
    model = seeded_mlp(seed)
    model.load_state_dict(trained.model.state_dict())
    return digits_mlp(seed, model, Adam(model.parameters(), lr=2e-6))


def full_batch(seed: int) -> Training:
    """Gradient descent: every update sees the same, whole training part."""
    model = seeded_mlp(seed)
    training = digits_mlp(seed, model, SGD(model.parameters(), lr=0.1, momentum=0.9))
    assert training.data is not None
    training.batches = itertools.repeat((training.data.x_train, training.data.y_train))
    return training


def lbfgs(seed: int) -> Training:
    """L-BFGS with a closure on a logistic regression, the whole training part at once."""
    torch.manual_seed(seed)
    model = nn.Sequential(OrderedDict(head=nn.Linear(64, 10)))
    optimizer = LBFGS(model.parameters(), lr=0.05, max_iter=2)
    training = training_on(
        data_sets.digits(seed), model, optimizer, F.cross_entropy, classification,
        seed=seed, batch_size=64, target=("accuracy", "higher", 0.9), middle="head",
    )  # fmt: skip
    assert training.data is not None
    training.batches = itertools.repeat((training.data.x_train, training.data.y_train))
    likelihood = training.loss

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return likelihood(model, batch) + 1e-4 * sum(p.square().sum() for p in model.parameters())

    def update(training: Training) -> float:
        batch = training.next_batch()

        def closure() -> float:
            optimizer.zero_grad()
            loss = training.loss(training.model, batch)
            loss.backward()
            return loss.item()

        return float(optimizer.step(closure))

    training.loss, training.update = loss, update
    return training


def always_clipped(seed: int) -> Training:
    """Clipping so tight that each update is clipped, with a rate to match: descent along the normalised gradient."""
    model = seeded_mlp(seed)
    training = digits_mlp(seed, model, SGD(model.parameters(), lr=1.0, momentum=0.9))
    training.clip = 0.03
    return training


def cleared_in_place_after_step(seed: int) -> Training:
    """Gradients are cleared after the step, to zeros that stay allocated."""
    training = regression(seed)

    def update(training: Training) -> float:
        loss = ordinary_update(training)
        training.optimizer.zero_grad(set_to_none=False)
        return loss

    training.clear_gradients, training.update = lambda _: None, update
    return training


def log_softmax_twice(seed: int) -> Training:
    """The log-softmax is applied before the cross-entropy too, which changes nothing: it is its own fixed point."""
    training = mlp(seed)
    training.loss = lambda model, batch: F.cross_entropy(model(batch[0]).log_softmax(-1), batch[1])
    return training
