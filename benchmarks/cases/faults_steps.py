"""First injections that spoil the update: learning rate, clipping, optimizer state, precision, decay (numbers: 3.4)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases.case import (
    DIVERGED,
    MILESTONE,
    NOT_LEARNING,
    STANDING_STILL,
    WIRING,
    FaultCase,
    head_of,
    scale_learning_rate,
)
from benchmarks.cases.training import Training, endless, shuffled, zero_grad


def each_parameter(training: Training, change: Callable[[Tensor], Tensor]) -> None:
    """Pass the gradient of each parameter through `change`."""
    for parameter in training.model.parameters():
        parameter.register_hook(change)


def gradient_spike(training: Training, onset: int) -> None:
    """3. At one step every gradient is 1,000 times what it should be."""
    each_parameter(training, lambda g: g * 1e3 if training.step == onset else g)


def loss_scale_only_grows(training: Training, onset: int) -> None:
    """8. From the onset on the loss scale doubles at each step, also after an overflow."""

    def half_precision_backward(_: nn.Module, __: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.half().float())

    training.model.get_submodule(training.middle).register_forward_hook(half_precision_backward)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1000)

    def update(training: Training) -> float:
        zero_grad(training)
        loss = training.loss(training.model, training.next_batch())
        scaler.scale(loss).backward()
        training.tell()
        scaler.step(training.optimizer)
        scale = scaler.get_scale()
        scaler.update(min(2.0 * scale, 2.0**100) if training.step >= onset else None)
        for scheduler in training.schedulers:
            scheduler.step()
        return loss.item()

    training.update = update


def gradients_underflow(training: Training, onset: int) -> None:
    """9. Gradients pass through half precision at a millionth of their size, where most of them are 0."""
    each_parameter(training, lambda g: (g * 1e-6).half().float() * 1e6)


def rate_and_noise_too_high(training: Training, onset: int) -> None:
    """13. Ten times the learning rate, and two samples an update."""
    assert training.data is not None
    scale_learning_rate(training, 10.0)
    training.batches = endless(shuffled(training.data.dataset(), 2, training.seed))


def learning_rate_too_low(training: Training, onset: int) -> None:
    """14. A millionth of the learning rate."""
    scale_learning_rate(training, 1e-6)


def accumulation_summed(training: Training, onset: int) -> None:
    """17. From the onset on each update adds the losses of four batches up and nobody divides."""
    loss = training.loss

    def update(training: Training) -> float:
        zero_grad(training)
        batches = 4 if training.step >= onset else 1
        total = sum((loss(training.model, training.next_batch()) for _ in range(batches)), torch.zeros(()))
        total.backward()
        training.tell()
        training.optimizer.step()
        for scheduler in training.schedulers:
            scheduler.step()
        return total.item()

    training.update = update


def clipping_too_tight(training: Training, onset: int) -> None:
    """18. The gradient is clipped to a norm of 0.00001."""
    training.clip = 1e-5


def decay_too_strong(training: Training, onset: int) -> None:
    """43. A weight decay of 1, or 100 times what was meant."""
    for group in training.optimizer.param_groups:
        group["weight_decay"] = max(1.0, 100 * group["weight_decay"])


def state_never_advances(training: Training, onset: int) -> None:
    """pytorch-115607. A compiled optimizer replays the step it saw without gradients: nothing is updated any more."""
    kept: list[Tensor] = []

    def remember(*_: object) -> None:
        kept[:] = [p.detach().clone() for p in training.model.parameters()]

    def restore(*_: object) -> None:
        if training.step >= onset:
            with torch.no_grad():
                for parameter, value in zip(training.model.parameters(), kept, strict=True):
                    parameter.copy_(value)

    training.optimizer.register_step_pre_hook(remember)
    training.optimizer.register_step_post_hook(restore)


class Adapted(nn.Module):
    """A frozen linear map plus a low-rank one whose second factor starts at zero."""

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features, generator=generator) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        return self.base(x) + F.linear(F.linear(x, self.down), self.up)  # type: ignore[no-any-return]


def adapter_runs_away(training: Training, onset: int) -> None:
    """The head gets a low-rank adapter with a rate of its own, 300 times too high, that only grows."""
    old = head_of(training)
    assert isinstance(old, nn.Linear)
    adapted = Adapted(old, 4, training.generator())
    training.model.set_submodule(training.head, adapted)
    (group,) = training.optimizer.param_groups
    inside = {id(p) for p in old.parameters()}
    group["params"] = [p for p in group["params"] if id(p) not in inside]
    training.optimizer.add_param_group(
        {**group, "params": [adapted.down, adapted.up], "lr": 300 * group["lr"], "weight_decay": 0.0}
    )
    training.schedulers.clear()


# fmt: off
STEP_FAULTS: tuple[FaultCase, ...] = (
    FaultCase(
        # The others clip. What Adam remembers of the squares lasts for a thousand steps.
        name="gradient-spike", inject=gradient_spike, families=("mlp", "vae", "table-vae", "attender"), onset=60,
        delay_budget=WIRING, right_codes=("moments-poisoned",),
        also_true=("gradient-exploding", "update-too-small", "loss-not-moving", "loss-spike"),
        right_causes=("optimizer-state-poisoned",),
    ),
    FaultCase(
        name="loss-scale-only-grows", inject=loss_scale_only_grows, families=("mlp", "cnn", "rnn"), onset=60,
        delay_budget=MILESTONE, wiring=True, right_codes=("scaler-skips-too-often",),
        also_true=("gradient-not-finite", *STANDING_STILL), right_causes=("loss-scale-schedule-wrong",),
    ),
    FaultCase(
        name="gradients-underflow", inject=gradients_underflow, families=("mlp", "cnn", "gpt", "rnn"),
        delay_budget=WIRING, right_codes=("precision-underflow",),
        also_true=("gradient-vanishing", "parameters-never-changed", *STANDING_STILL),
        right_causes=("gradients-underflow-in-half-precision",),
    ),
    FaultCase(
        name="rate-x10-batch-of-two", inject=rate_and_noise_too_high, families=("mlp", "cnn", "regression"),
        delay_budget=MILESTONE,
        right_codes=("oscillating", "update-too-large", "loss-diverging", "never-better-than-start", *DIVERGED),
        also_true=("loss-spike", "loss-not-moving", "loss-at-chance", "dead-units"),
        right_causes=("learning-rate-too-noisy", "learning-rate-too-high"),
    ),
    FaultCase(
        name="learning-rate-millionth", inject=learning_rate_too_low, delay_budget=MILESTONE,
        families=("mlp", "cnn", "gpt", "vae", "rnn", "regression"),
        right_codes=("update-too-small", "loss-not-moving"),
        also_true=("parameters-never-changed", *NOT_LEARNING), right_causes=("learning-rate-too-low",),
    ),
    FaultCase(
        # The network with batch normalisation learns as well with the longer steps, and Adam divides the factor out.
        name="accumulation-summed", inject=accumulation_summed, families=("mlp", "cnn", "vae", "regression"),
        onset=100, delay_budget=WIRING, wiring=True, right_codes=("loss-scale-changed",),
        also_true=("loss-spike", "loss-diverging", "gradient-exploding", "update-too-large", "oscillating"),
        right_causes=("accumulation-not-averaged", "loss-reduction-wrong"),
    ),
    FaultCase(
        # Adam divides the factor out again.
        name="clipped-to-nothing", inject=clipping_too_tight, families=("cnn", "regression"), delay_budget=MILESTONE,
        right_codes=("clipping-starves",), also_true=("clipping-always-active", *STANDING_STILL),
        right_causes=("clipping-threshold-too-low",),
    ),
    FaultCase(
        name="weight-decay-of-one", inject=decay_too_strong, families=("mlp", "cnn", "gpt", "regression"),
        delay_budget=MILESTONE, right_codes=("weight-decay-dominates",),
        also_true=(
            "gradient-vanishing", "dead-units", "representation-collapsed", "attention-uniform", "loss-diverging",
            *STANDING_STILL,
        ),
        right_causes=("weight-decay-too-strong",),
    ),
    FaultCase(
        name="updates-stop-midway", inject=state_never_advances, families=("mlp", "vae", "gpt"), onset=40,
        delay_budget=MILESTONE, wiring=True,
        right_codes=("update-too-small", "parameters-never-changed", "loss-not-moving"),
        also_true=("loss-at-chance",), right_causes=("frozen-by-mistake",),
    ),
    FaultCase(
        name="adapter-runs-away", inject=adapter_runs_away, families=("mlp", "cnn", "rnn"),
        delay_budget=MILESTONE, right_codes=("norm-growing", "update-too-large"),
        also_true=(*DIVERGED, "loss-spike", "oscillating", "loss-diverging", "dead-units", *STANDING_STILL),
        right_causes=("adapter-norm-runs-away",),
    ),
)
"""Faults of the update, each in the families that it harms."""
