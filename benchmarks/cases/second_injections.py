"""For each cause a second injection, written independently of the first, in families that nothing is tuned on.

Written and committed before any weight of a hypothesis was chosen. Same dataclass and meaning as in `faults.py`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader, Sampler

from benchmarks.cases.case import (
    AT_ONCE,
    BLOWN_UP,
    DIVERGED,
    DIVERGING,
    MILESTONE,
    NOT_FINITE,
    NOT_LEARNING,
    STANDING_STILL,
    TURNS_WORSE,
    WIRING,
    FaultCase,
)
from benchmarks.cases.second_data import SECOND_DATA_INJECTIONS
from benchmarks.cases.second_steps import SECOND_STEP_INJECTIONS
from benchmarks.cases.training import Batch, Training, endless


def peak_rate_in_wrong_unit(training: Training, onset: int) -> None:
    """A one-cycle schedule whose peak was read in units of 1/1000: it climbs to 10 where 0.01 was meant."""
    training.schedulers[:] = [OneCycleLR(training.optimizer, max_lr=10.0, total_steps=training.steps + 1)]


def unit_normal_weights(training: Training, onset: int) -> None:
    """Every matrix is drawn from a normal distribution whose deviation, 1, nobody scaled by the width."""
    generator = training.generator()
    with torch.no_grad():
        for parameter in training.model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(generator=generator)


def clearing_waits_for_a_count(training: Training, onset: int) -> None:
    """Gradients are cleared at every fourth micro-batch, by a counter that starts anew with each update."""

    def clear(training: Training) -> None:
        for micro_batch, optimizer in enumerate(training.optimizers.values()):
            if (micro_batch + 1) % 4 == 0:
                optimizer.zero_grad()

    training.clear_gradients = clear


def parameters_made_anew(training: Training, onset: int) -> None:
    """A conversion to double and back wraps each tensor in a new Parameter; the optimizer holds the old ones."""
    for module in list(training.model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach().double().float()))


def head_built_at_first_forward(training: Training, onset: int) -> None:
    """The model builds its head when it first sees a batch, which is after the optimizer was built."""
    built = False

    def build(model: nn.Module, _: Any) -> None:
        nonlocal built
        if not built:
            built = True
            old = model.get_submodule(training.head)
            assert isinstance(old, nn.Linear)
            model.set_submodule(training.head, nn.Linear(old.in_features, old.out_features))

    training.model.register_forward_pre_hook(build)


def no_grad_block(training: Training, onset: int) -> None:
    """The middle module still runs under `torch.no_grad()`, as it did when it was a feature extractor."""
    module = training.model.get_submodule(training.middle)
    module.forward = torch.no_grad()(module.forward)


def gradients_masked(training: Training, onset: int) -> None:
    """Hooks that zero the gradients of all but the head, left over from a staged fine-tuning."""
    head = {id(p) for p in training.model.get_submodule(training.head).parameters()}
    for parameter in training.model.parameters():
        if id(parameter) not in head:
            parameter.register_hook(torch.zeros_like)


def decay_factor_zero(training: Training, onset: int) -> None:
    """A step schedule that was to divide the rate by 10 multiplies it by 0."""
    training.schedulers[:] = [StepLR(training.optimizer, step_size=onset, gamma=0.0)]


def softmax_in_the_model(training: Training, onset: int) -> None:
    """The model ends with a softmax layer, and its outputs go to the cross-entropy as if they were logits."""
    head = training.model.get_submodule(training.head)
    training.model.set_submodule(training.head, nn.Sequential(head, nn.Softmax(dim=-1)))


class _ReseededSampler(Sampler[int]):
    """One random batch an epoch, always the same one, for the generator is seeded anew each time."""

    def __init__(self, size: int, batch_size: int) -> None:
        self.size, self.batch_size = size, batch_size

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(0))
        return iter(order[: self.batch_size].tolist())

    def __len__(self) -> int:
        return self.batch_size


def sampler_reseeded(training: Training, onset: int) -> None:
    """The sampler seeds its generator at the start of each epoch, and an epoch is one batch."""
    assert training.data is not None
    dataset, batch_size = training.data.dataset(), 16
    training.batches = endless(DataLoader(dataset, batch_size, sampler=_ReseededSampler(len(dataset), batch_size)))


def root_of_zero_distance(training: Training, onset: int) -> None:
    """A term pushes neighbours in the batch apart; at one step two are equal, and the root has no slope at 0."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        if training.step == onset:
            x = torch.cat([x[:1], x[:1], x[2:]])
        logits: Tensor = model(x)
        distance = (logits[1:] - logits[:-1]).square().sum(1).sqrt().mean()
        return F.cross_entropy(logits, y) - 0.01 * distance

    training.loss = loss


def error_over_deviation(training: Training, onset: int) -> None:
    """Each image's error is divided by the deviation of its clean image; at one step an image is blank."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        if training.step == onset:
            y = torch.cat([torch.zeros_like(y[:1]), y[1:]])
        error = (model(x) - y).square().flatten(1).mean(1)
        return torch.mean(error / y.flatten(1).std(1))

    training.loss = loss


def constant_column_standardised(training: Training, onset: int) -> None:
    """The loader standardises each batch by itself; in one batch a column is constant, and 0 / 0 is NaN."""
    healthy = training.batches

    def batches() -> Iterator[Batch]:
        for step, (x, y) in enumerate(healthy):
            if step == onset:
                x = x.clone()
                x[:, 3] = 1.0
            yield (x - x.mean(0)) / x.std(0), y

    training.batches = batches()


def blank_image_rescaled(training: Training, onset: int) -> None:
    """The loader divides each image by its brightest pixel; one image of one batch is blank."""
    healthy = training.batches

    def batches() -> Iterator[Batch]:
        for step, (x, y) in enumerate(healthy):
            if step == onset:
                x = torch.cat([x[:-1], torch.zeros_like(x[-1:])])
            yield x / x.amax((1, 2, 3), keepdim=True), y

    training.batches = batches()


def half_precision_overflow(training: Training, onset: int) -> None:
    """At one step the gradient of one weight passes through half precision, scaled, and overflows there."""
    weight = next(training.model.get_submodule(training.middle).parameters())
    scale = 1e12
    weight.register_hook(lambda g: (g * scale).half().float() / scale if training.step == onset else g)


def switched_off_term_is_nan(training: Training, onset: int) -> None:
    """From the onset on a constant term of weight 0 is minus infinity: their product, NaN, joins the loss."""
    loss = training.loss

    def with_term(model: nn.Module, batch: Batch) -> Tensor:
        coverage = torch.tensor(1.0 if training.step < onset else 0.0)
        return loss(model, batch) + 0.0 * coverage.log()

    training.loss = with_term


def loss_added_up_sample_by_sample(training: Training, onset: int) -> None:
    """A loop over the batch adds the losses up and nobody divides."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        total = torch.zeros(())
        for logits, y in zip(model(batch[0]), batch[1], strict=True):
            total = total - logits.log_softmax(-1)[y]
        return total

    training.loss = loss


def rows_off_by_one(training: Training, onset: int) -> None:
    """After the shuffle the inputs are joined to the targets with a shift of one row."""
    assert training.data is not None
    training.data.x_train.copy_(training.data.x_train.roll(1, 0))


def endless_warm_up(training: Training, onset: int) -> None:
    """The warm-up was meant in samples and is counted in updates: it takes far longer than the training."""
    training.schedulers[:] = [LambdaLR(training.optimizer, lambda step: min(1.0, (step + 1) / 10_000))]


# fmt: off
WIRING_INJECTIONS: tuple[FaultCase, ...] = (
    FaultCase(
        name="peak-rate-in-wrong-unit", inject=peak_rate_in_wrong_unit, families=("tabular", "tagger", "denoiser"),
        delay_budget=DIVERGING, right_codes=(*DIVERGED, "update-too-large", "loss-diverging"), also_true=BLOWN_UP,
        right_causes=("learning-rate-too-high",),
    ),
    FaultCase(
        name="unit-normal-weights", inject=unit_normal_weights, families=("tabular", "tagger", "denoiser"),
        delay_budget=WIRING, right_codes=DIVERGED, also_true=(*BLOWN_UP, "update-too-large", "loss-diverging"),
        right_causes=("initial-weights-too-large",),
    ),
    FaultCase(
        name="clearing-waits-for-a-count", inject=clearing_waits_for_a_count,
        families=("tabular", "tagger", "denoiser"), delay_budget=WIRING, wiring=True,
        right_codes=("gradients-accumulate",), also_true=(*DIVERGED, *BLOWN_UP, "update-too-large", "loss-diverging"),
        right_causes=("missing-zero-grad",),
    ),
    FaultCase(
        name="parameters-made-anew", inject=parameters_made_anew, families=("tabular", "denoiser"),
        delay_budget=WIRING, wiring=True, right_codes=("parameters-outside-optimizer", "parameters-never-changed"),
        also_true=STANDING_STILL, right_causes=("optimizer-does-not-hold-parameters",),
    ),
    FaultCase(
        name="head-built-at-first-forward", inject=head_built_at_first_forward, families=("tabular", "tagger"),
        delay_budget=WIRING, wiring=True, right_codes=("parameters-outside-optimizer", "parameters-never-changed"),
        also_true=STANDING_STILL, right_causes=("optimizer-does-not-hold-parameters",),
    ),
    FaultCase(
        name="no-grad-block", inject=no_grad_block, families=("tabular", "tagger", "denoiser"), delay_budget=WIRING,
        wiring=True, right_codes=("parameters-never-changed", "graph-detached"), also_true=STANDING_STILL,
        right_causes=("graph-cut-by-detach",),
    ),
    FaultCase(
        # Not the tagger: its weight decay moves the parameters all the same.
        name="gradients-masked", inject=gradients_masked, families=("tabular", "denoiser"), delay_budget=WIRING,
        wiring=True, right_codes=("parameters-never-changed",), also_true=STANDING_STILL,
        right_causes=("frozen-by-mistake",),
    ),
    FaultCase(
        name="decay-factor-zero", inject=decay_factor_zero, families=("tabular", "tagger", "denoiser"), onset=50,
        delay_budget=WIRING, wiring=True,
        right_codes=("learning-rate-zero",), also_true=STANDING_STILL, right_causes=("learning-rate-schedule-ended",),
    ),
    FaultCase(
        name="softmax-in-the-model", inject=softmax_in_the_model, families=("tabular", "tagger"), delay_budget=WIRING,
        wiring=True, right_codes=("double-softmax",), also_true=STANDING_STILL,
        right_causes=("softmax-before-cross-entropy",),
    ),
    FaultCase(
        name="sampler-reseeded", inject=sampler_reseeded, families=("tabular", "tagger", "denoiser"),
        delay_budget=WIRING, wiring=True,
        right_codes=("same-batch-repeated",), also_true=TURNS_WORSE, right_causes=("loader-repeats-one-batch",),
    ),
    FaultCase(
        name="root-of-zero-distance", inject=root_of_zero_distance, families=("tabular",), onset=30,
        delay_budget=AT_ONCE, right_codes=NOT_FINITE, right_causes=("numerical-fault-in-loss",),
    ),
    FaultCase(
        name="error-over-deviation", inject=error_over_deviation, families=("denoiser",), onset=30,
        delay_budget=AT_ONCE, right_codes=NOT_FINITE, right_causes=("numerical-fault-in-loss",),
    ),
    FaultCase(
        name="constant-column-standardised", inject=constant_column_standardised, families=("tabular",), onset=30,
        delay_budget=AT_ONCE, right_codes=NOT_FINITE, right_causes=("non-finite-input",),
    ),
    FaultCase(
        name="blank-image-rescaled", inject=blank_image_rescaled, families=("denoiser",), onset=30,
        delay_budget=AT_ONCE, right_codes=NOT_FINITE, right_causes=("non-finite-input",),
    ),
    FaultCase(
        name="half-precision-overflow", inject=half_precision_overflow, families=("tabular", "tagger", "denoiser"),
        onset=30, delay_budget=AT_ONCE, right_codes=("gradient-not-finite",), also_true=("loss-not-finite",),
        right_causes=("backward-fault-in-one-module",),
    ),
    FaultCase(
        name="switched-off-term-nan", inject=switched_off_term_is_nan, families=("tabular", "tagger", "denoiser"),
        onset=30, delay_budget=AT_ONCE, wiring=True,
        right_codes=("logged-loss-not-finite", "loss-not-finite"), right_causes=("only-the-logged-loss-is-broken",),
    ),
    FaultCase(
        name="loss-added-up", inject=loss_added_up_sample_by_sample, families=("tabular",), delay_budget=WIRING,
        right_codes=DIVERGED, also_true=(*BLOWN_UP, "update-too-large", "loss-diverging"),
        right_causes=("loss-reduction-wrong",),
    ),
    FaultCase(
        name="rows-off-by-one", inject=rows_off_by_one, families=("tabular", "tagger"), delay_budget=MILESTONE,
        declares_milestone=True, right_codes=("milestone-missed", *NOT_LEARNING),
        also_true=(*TURNS_WORSE, "loss-not-moving"),
        right_causes=("data-has-no-signal",),
    ),
    FaultCase(
        # The table is so easy that some seeds arrive all the same.
        name="endless-warm-up", inject=endless_warm_up, families=("tagger", "denoiser"), delay_budget=MILESTONE,
        declares_milestone=True, right_codes=("milestone-missed", "metric-stuck-below-target"),
        also_true=("update-too-small", "loss-not-moving", "loss-at-chance"),
        right_causes=("training-too-short", "learning-rate-too-low"),
    ),
)
"""Second injections of wrong numbers and wrong wiring."""

SECOND_INJECTIONS: tuple[FaultCase, ...] = (*WIRING_INJECTIONS, *SECOND_STEP_INJECTIONS, *SECOND_DATA_INJECTIONS)
"""The second injections, each in the unseen families that it harms."""
