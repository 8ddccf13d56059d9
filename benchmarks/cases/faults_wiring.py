"""First injections of wrong numbers and wrong wiring."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader

from benchmarks.cases.case import (
    AT_ONCE,
    BLOWN_UP,
    CLASSIFIERS,
    DIVERGED,
    DIVERGING,
    EVERY,
    MILESTONE,
    NOT_FINITE,
    NOT_LEARNING,
    STANDING_STILL,
    TURNS_WORSE,
    WIRING,
    FaultCase,
    change_output,
    classes_last,
    head_of,
    replace_criterion,
    scale_learning_rate,
)
from benchmarks.cases.training import Batch, Training, endless


def learning_rate_too_high(training: Training, onset: int) -> None:
    """300 times the learning rate."""
    scale_learning_rate(training, 300.0)


class _NanBackward(torch.autograd.Function):
    """The identity, whose backward returns one NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        gradient.view(-1)[0] = torch.nan
        return gradient


def nan_in_backward(training: Training, onset: int) -> None:
    """The backward of the middle module yields NaN at one step."""

    def change(output: Tensor) -> Tensor:
        return _NanBackward.apply(output) if training.step == onset else output  # type: ignore[no-untyped-call]

    change_output(training, training.middle, change)


def log_of_zero(training: Training, onset: int) -> None:
    """A hand-written cross-entropy takes the logarithm of a probability that is masked to 0 at one step."""

    def negative_log_likelihood(output: Tensor, targets: Tensor) -> Tensor:
        logits, y = classes_last(output, targets)
        mask = torch.ones_like(y, dtype=logits.dtype)
        mask[0] = float(training.step != onset)
        return -(logits.softmax(-1).gather(1, y.unsqueeze(1)).squeeze(1) * mask).log().mean()

    replace_criterion(training, negative_log_likelihood)


def logged_loss_is_nan(training: Training, onset: int) -> None:
    """From the onset on a NaN constant is added to the loss: the gradients stay right, the number is wrong."""
    loss = training.loss
    training.loss = lambda model, batch: loss(model, batch) + (torch.nan if training.step >= onset else 0.0)


def initial_weights_too_large(training: Training, onset: int) -> None:
    """12 times the initial weights."""
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.mul_(12.0)


def missing_zero_grad(training: Training, onset: int) -> None:
    """Nobody clears the gradients."""
    training.clear_gradients = lambda _: None


def head_replaced_after_optimizer(training: Training, onset: int) -> None:
    """The head is made anew after the optimizer was built, so the optimizer holds the old one."""
    old = head_of(training)
    assert isinstance(old, nn.Linear)
    torch.manual_seed(training.seed + 1)
    training.model.set_submodule(training.head, nn.Linear(old.in_features, old.out_features, old.bias is not None))


def graph_detached(training: Training, onset: int) -> None:
    """The graph is cut behind the middle module."""
    change_output(training, training.middle, Tensor.detach)


def group_with_rate_zero(training: Training, onset: int) -> None:
    """Two parameter groups, and the rate of the first, all but the head, was left at 0."""
    head = {id(p) for p in head_of(training).parameters()}
    (group,) = training.optimizer.param_groups
    in_head = [p for p in group["params"] if id(p) in head]
    group["params"] = [p for p in group["params"] if id(p) not in head]
    training.optimizer.add_param_group({**group, "params": in_head})
    group["lr"] = group["initial_lr"] = 0.0
    for scheduler in training.schedulers:
        scheduler.base_lrs = [0.0, *scheduler.base_lrs]
        if hasattr(scheduler, "lr_lambdas"):
            scheduler.lr_lambdas = scheduler.lr_lambdas * 2


def optimizer_holds_the_frozen_part(training: Training, onset: int) -> None:
    """All but the head is frozen, and an inverted filter hands just the frozen part to the optimizer."""
    head = {id(p) for p in head_of(training).parameters()}
    (group,) = training.optimizer.param_groups
    group["params"] = [p for p in group["params"] if id(p) not in head]
    for parameter in group["params"]:
        parameter.requires_grad_(False)


def update_dropped(training: Training, onset: int) -> None:
    """The optimizer loses the update of one weight, as kernels for non-contiguous tensors did."""
    weight = next(training.model.get_submodule(training.middle).parameters())
    kept = weight.detach().clone()

    def restore(*_: object) -> None:
        weight.data.copy_(kept)

    training.optimizer.register_step_post_hook(restore)


def schedule_ends_early(training: Training, onset: int) -> None:
    """The schedule was given the wrong horizon: the learning rate is 0 from the onset on."""
    for group in training.optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    training.schedulers[:] = [PolynomialLR(training.optimizer, total_iters=onset)]


def softmax_before_cross_entropy(training: Training, onset: int) -> None:
    """The loss applies softmax to the logits before the cross-entropy, which applies it again."""

    def criterion(output: Tensor, targets: Tensor) -> Tensor:
        logits, y = classes_last(output, targets)
        return F.cross_entropy(logits.softmax(-1), y)

    replace_criterion(training, criterion)


def loader_restarted_each_step(training: Training, onset: int) -> None:
    """`next(iter(loader))` at each step, without shuffling: always the first batch."""
    assert training.data is not None
    loader = DataLoader(training.data.dataset(), batch_size=len(next(training.batches)[0]))

    def batches() -> Iterator[Batch]:
        while True:
            yield next(endless(loader))

    training.batches = batches()


def loader_stuck(training: Training, onset: int) -> None:
    """From the onset on the loader returns the same batch."""
    healthy = training.batches

    def batches() -> Iterator[Batch]:
        for _ in range(onset):
            yield next(healthy)
        batch = next(healthy)
        while True:
            yield batch

    training.batches = batches()


def non_finite_input(training: Training, onset: int, value: float) -> None:
    """One number of one batch is not finite."""
    healthy = training.batches

    def batches() -> Iterator[Batch]:
        for step, (x, y) in enumerate(healthy):
            if step == onset:
                x = x.clone()
                x.view(-1)[len(x) // 2] = value
            yield x, y

    training.batches = batches()


def loss_summed(training: Training, onset: int) -> None:
    """The loss is summed over the batch, where the learning rate is meant for a mean."""

    def criterion(output: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return F.mse_loss(output, targets, reduction="sum")
        logits, y = classes_last(output, targets)
        return F.cross_entropy(logits, y, reduction="sum")

    replace_criterion(training, criterion)


def labels_permuted(training: Training, onset: int) -> None:
    """The training labels are in a random order, so there is nothing to learn that holds on the validation part."""
    assert training.data is not None
    y = training.data.y_train
    y.copy_(y[torch.randperm(len(y), generator=training.generator())])


def too_little_training(training: Training, onset: int) -> None:
    """1/50 of the learning rate: the training improves, and will not arrive in time."""
    scale_learning_rate(training, 1 / 50)


# fmt: off
WIRING_FAULTS: tuple[FaultCase, ...] = (
    FaultCase(
        name="learning-rate-x300", inject=learning_rate_too_high, families=EVERY, delay_budget=DIVERGING,
        right_codes=(*DIVERGED, "update-too-large", "loss-diverging"), also_true=BLOWN_UP,
        right_causes=("learning-rate-too-high",),
    ),
    FaultCase(
        name="weights-x12", inject=initial_weights_too_large, families=EVERY, delay_budget=WIRING,
        right_codes=DIVERGED, also_true=(*BLOWN_UP, "update-too-large", "loss-diverging"),
        right_causes=("initial-weights-too-large",),
    ),
    FaultCase(
        # Only SGD without clipping is harmed: Adam divides the factor out again.
        name="loss-summed", inject=loss_summed, families=("cnn", "regression"), delay_budget=WIRING,
        right_codes=DIVERGED, also_true=(*BLOWN_UP, "update-too-large", "loss-diverging"),
        right_causes=("loss-reduction-wrong",),
    ),
    FaultCase(
        name="nan-in-backward", inject=nan_in_backward, families=EVERY, onset=40, delay_budget=AT_ONCE,
        right_codes=("gradient-not-finite",), also_true=("loss-not-finite",),
        right_causes=("backward-fault-in-one-module",),
    ),
    FaultCase(
        name="log-of-zero", inject=log_of_zero, families=CLASSIFIERS, onset=40, delay_budget=AT_ONCE,
        right_codes=NOT_FINITE, right_causes=("numerical-fault-in-loss",),
    ),
    FaultCase(
        name="logged-loss-nan", inject=logged_loss_is_nan, families=EVERY, onset=40, delay_budget=AT_ONCE, wiring=True,
        right_codes=("logged-loss-not-finite", "loss-not-finite"), right_causes=("only-the-logged-loss-is-broken",),
    ),
    FaultCase(
        name="infinite-input", inject=partial(non_finite_input, value=torch.inf), families=("mlp", "vae"),
        onset=40, delay_budget=AT_ONCE, right_codes=NOT_FINITE, right_causes=("non-finite-input",),
    ),
    FaultCase(
        name="nan-input", inject=partial(non_finite_input, value=torch.nan), families=("cnn", "regression"),
        onset=40, delay_budget=AT_ONCE, right_codes=NOT_FINITE, right_causes=("non-finite-input",),
    ),
    FaultCase(
        name="missing-zero-grad", inject=missing_zero_grad, families=EVERY, delay_budget=WIRING, wiring=True,
        right_codes=("gradients-accumulate",),
        also_true=(*DIVERGED, *BLOWN_UP, "update-too-large", "loss-diverging"), right_causes=("missing-zero-grad",),
    ),
    FaultCase(
        name="head-replaced", inject=head_replaced_after_optimizer, families=EVERY, delay_budget=WIRING, wiring=True,
        right_codes=("parameters-outside-optimizer", "parameters-never-changed"), also_true=STANDING_STILL,
        right_causes=("optimizer-does-not-hold-parameters",),
    ),
    FaultCase(
        name="graph-detached", inject=graph_detached, families=EVERY, delay_budget=WIRING, wiring=True,
        right_codes=("parameters-never-changed", "graph-detached"), also_true=STANDING_STILL,
        right_causes=("graph-cut-by-detach",),
    ),
    FaultCase(
        name="group-rate-zero", inject=group_with_rate_zero, families=EVERY, delay_budget=WIRING, wiring=True,
        right_codes=("parameters-never-changed", "learning-rate-zero"), also_true=STANDING_STILL,
        right_causes=("frozen-by-mistake",),
    ),
    FaultCase(
        name="optimizer-on-frozen-part", inject=optimizer_holds_the_frozen_part, families=EVERY, delay_budget=WIRING,
        wiring=True, right_codes=("parameters-outside-optimizer", "parameters-never-changed"), also_true=STANDING_STILL,
        right_causes=("frozen-by-mistake", "optimizer-does-not-hold-parameters"),
    ),
    FaultCase(
        name="update-dropped", inject=update_dropped, families=EVERY, delay_budget=WIRING, wiring=True,
        right_codes=("parameters-never-changed",), right_causes=("frozen-by-mistake",),
    ),
    FaultCase(
        name="schedule-ends-early", inject=schedule_ends_early, families=EVERY, onset=60, delay_budget=WIRING,
        wiring=True, right_codes=("learning-rate-zero",), also_true=STANDING_STILL,
        right_causes=("learning-rate-schedule-ended",),
    ),
    FaultCase(
        # The recurrent family learns as well with it.
        name="double-softmax", inject=softmax_before_cross_entropy, families=("mlp", "cnn", "gpt"),
        delay_budget=WIRING, wiring=True,
        right_codes=("double-softmax",), also_true=STANDING_STILL, right_causes=("softmax-before-cross-entropy",),
    ),
    FaultCase(
        # The auto-encoder learns as well from one batch of 64 images.
        name="loader-restarted", inject=loader_restarted_each_step, families=(*CLASSIFIERS, "regression"),
        delay_budget=WIRING, wiring=True,
        right_codes=("same-batch-repeated",), also_true=TURNS_WORSE, right_causes=("loader-repeats-one-batch",),
    ),
    FaultCase(
        name="loader-stuck", inject=loader_stuck, families=(*CLASSIFIERS, "regression"), onset=100,
        delay_budget=WIRING, wiring=True,
        right_codes=("same-batch-repeated",), also_true=TURNS_WORSE, right_causes=("loader-repeats-one-batch",),
    ),
    FaultCase(
        name="labels-permuted", inject=labels_permuted, families=(*CLASSIFIERS, "regression"), delay_budget=MILESTONE,
        declares_milestone=True, right_codes=("milestone-missed", *NOT_LEARNING),
        also_true=(*TURNS_WORSE, "loss-not-moving"), right_causes=("data-has-no-signal",),
    ),
    FaultCase(
        # The convolutional network is so quick that some seeds arrive all the same.
        name="too-little-training", inject=too_little_training, families=("mlp", "gpt", "vae", "rnn", "regression"),
        delay_budget=MILESTONE, declares_milestone=True,
        right_codes=("milestone-missed", "metric-stuck-below-target"),
        also_true=("update-too-small", "loss-not-moving", "loss-at-chance"),
        right_causes=("training-too-short", "learning-rate-too-low"),
    ),
)
"""The faults, each in the families that it harms."""
