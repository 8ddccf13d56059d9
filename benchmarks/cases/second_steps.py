"""Second injections that spoil the update or the model, in families that nothing is tuned on."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases.case import (
    BLOWN_UP,
    DIVERGED,
    MILESTONE,
    NOT_LEARNING,
    STANDING_STILL,
    WIRING,
    FaultCase,
    optimizer_made_anew,
    replace_criterion,
)
from benchmarks.cases.families import divergence
from benchmarks.cases.special_families import Bootstrap
from benchmarks.cases.training import Batch, Training, endless, shuffled, zero_grad


def rate_given_as_exponent(training: Training, onset: int) -> None:
    """The rate was meant as 1e-3 and was read as 1e-9."""
    for group in training.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1e-9
    training.schedulers.clear()


def one_sample_an_update(training: Training, onset: int) -> None:
    """The batch size fell to 1, and somebody scaled the rate up by 20 instead of down."""
    assert training.data is not None
    for group in training.optimizer.param_groups:
        group["lr"] *= 20.0
    training.schedulers.clear()
    training.batches = endless(shuffled(training.data.dataset(), 1, training.seed))


def backward_factor_left_on(training: Training, onset: int) -> None:
    """A factor of 10,000 from a test stays in the backward of the output for a single update."""

    def change(_: nn.Module, __: Any, output: Tensor) -> None:
        if output.requires_grad and training.step == onset:
            output.register_hook(lambda gradient: gradient * 1e4)

    training.model.get_submodule(training.head).register_forward_hook(change)


def decay_of_three(training: Training, onset: int) -> None:
    """The weight decay got the value of another setting: 3."""
    for group in training.optimizer.param_groups:
        group["weight_decay"] = 3.0


def half_precision_without_scaling(training: Training, onset: int) -> None:
    """The loss is divided by the number of samples seen so far, and the gradient leaves the head in half precision."""
    loss = training.loss
    training.loss = lambda model, batch: loss(model, batch) * 1e-7

    def change(_: nn.Module, __: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.half().float())

    training.model.get_submodule(training.head).register_forward_hook(change)


def scale_hardly_backs_off(training: Training, onset: int) -> None:
    """From the onset on the loss scale doubles after each good step; an overflow takes 0.1 % off."""

    def half_precision_backward(_: nn.Module, __: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.half().float())

    training.model.get_submodule(training.head).register_forward_hook(half_precision_backward)
    before = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1000)
    after = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1, backoff_factor=0.999)

    def update(training: Training) -> float:
        scaler = before if training.step < onset else after
        zero_grad(training)
        loss = training.loss(training.model, training.next_batch())
        scaler.scale(loss).backward()
        scaler.step(training.optimizer)
        scaler.update()
        return loss.item()

    training.update = update


def divided_by_the_first_part(training: Training, onset: int) -> None:
    """From the onset on four parts make a batch; their sums are divided by the number of rows of the first part."""
    loss = training.loss

    def update(training: Training) -> float:
        zero_grad(training)
        parts = [training.next_batch() for _ in range(4 if training.step >= onset else 1)]
        rows = len(parts[0][0])
        total = torch.stack([loss(training.model, part) * len(part[0]) for part in parts]).sum() / rows
        total.backward()
        training.optimizer.step()
        for scheduler in training.schedulers:
            scheduler.step()
        return total.item()

    training.update = update


def values_clipped_to_nothing(training: Training, onset: int) -> None:
    """Each parameter's gradient is clipped by itself, to a norm of a millionth."""
    optimizer = training.optimizer
    step = optimizer.step

    def clipped(*args: Any, **options: Any) -> Any:
        for parameter in training.model.parameters():
            nn.utils.clip_grad_norm_([parameter], 1e-6)
        return step(*args, **options)

    optimizer.step = clipped  # type: ignore[method-assign]


class Generated(nn.Module):
    """A linear map whose weight is a frozen one plus what a small network makes of a learned code."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.code = nn.Parameter(torch.ones(8) / 8)
        self.generator = nn.Linear(8, base.weight.numel(), bias=False)
        nn.init.normal_(self.generator.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the changed map."""
        return F.linear(x, self.base.weight + self.generator(self.code).view_as(self.base.weight), self.base.bias)


def generated_weights_run_away(training: Training, onset: int) -> None:
    """A hyper-network gives the head's weights; its output has a factor of 40 and no decay holds it."""
    old = training.model.get_submodule(training.head)
    assert isinstance(old, nn.Linear)
    torch.manual_seed(training.seed)
    made = Generated(old)
    training.model.set_submodule(training.head, made)
    (group,) = training.optimizer.param_groups
    inside = {id(p) for p in old.parameters()}
    group["params"] = [p for p in group["params"] if id(p) not in inside]
    fast = {**group, "params": [made.code, made.generator.weight], "lr": 100 * group["lr"], "weight_decay": 0.0}
    training.optimizer.add_param_group(fast)
    training.schedulers.clear()


def deep_narrowing_tanh(training: Training, onset: int) -> None:
    """Fifteen layers whose weights are drawn with a fifth of the usual deviation: each divides the gradient by five."""
    torch.manual_seed(training.seed)
    path = "blocks" if hasattr(training.model, "blocks") else "body.2"
    width = next(m for m in training.model.get_submodule(path).modules() if isinstance(m, nn.Linear)).in_features
    layers: list[nn.Module] = []
    for _ in range(15):
        linear = nn.Linear(width, width)
        nn.init.normal_(linear.weight, std=0.2 / width**0.5)
        layers += [linear, nn.Tanh()]
    training.model.set_submodule(path, nn.Sequential(*layers))
    training.middle = f"{path}.4"
    optimizer_made_anew(training)


def threshold_before_rectifiers(training: Training, onset: int) -> None:
    """20 is subtracted in front of each rectifier, as a threshold that was meant for other units."""
    for module in training.model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0] - 20.0,))


def steep_squashing(training: Training, onset: int) -> None:
    """What goes into the tanh is 300 times too large."""
    mix = training.model.get_submodule("mix")
    assert isinstance(mix, nn.Linear)
    with torch.no_grad():
        mix.weight.mul_(300.0)


def sigmoids_without_normalisation(training: Training, onset: int) -> None:
    """Each branch squashes with a sigmoid, and its first layer is 60 times too large."""
    for name, module in list(training.model.named_modules()):
        if isinstance(module, nn.GELU):
            training.model.set_submodule(name, nn.Sigmoid())
        if isinstance(module, nn.Linear) and name.endswith("branch.1"):
            with torch.no_grad():
                module.weight.mul_(60.0)


def projections_too_large(training: Training, onset: int) -> None:
    """The joint projection of queries and keys was drawn 25 times too large."""
    with torch.no_grad():
        for module in training.model.modules():
            if isinstance(module, nn.MultiheadAttention):
                assert module.in_proj_weight is not None
                module.in_proj_weight[: 2 * module.embed_dim] *= 25.0


def follows_at_once(training: Training, onset: int) -> None:
    """The targets come from the encoder itself, with its gradient; copy and predictor were taken out as needless."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, Bootstrap)
        one, two = (batch[0] + 0.2 * torch.randn_like(batch[0]) for _ in range(2))
        distance = F.normalize(model(one)) - F.normalize(model(two))
        return distance.square().sum(1).mean()

    training.loss = loss


def pixels_averaged_codes_summed(training: Training, onset: int) -> None:
    """The reconstruction is averaged over pixels while the divergence is summed over the code."""

    def criterion(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        logits, mean, log_variance = output
        return F.binary_cross_entropy_with_logits(logits, x) + divergence(mean, log_variance) / len(x)

    replace_criterion(training, criterion)


# fmt: off
SECOND_STEP_INJECTIONS: tuple[FaultCase, ...] = (
    FaultCase(
        name="rate-given-as-exponent", inject=rate_given_as_exponent, delay_budget=MILESTONE,
        families=("tabular", "tagger", "denoiser", "wine"), right_codes=("update-too-small", "loss-not-moving"),
        also_true=("parameters-never-changed", *NOT_LEARNING), right_causes=("learning-rate-too-low",),
    ),
    FaultCase(
        name="one-sample-an-update", inject=one_sample_an_update, families=("tabular", "wine", "denoiser"),
        delay_budget=MILESTONE,
        right_codes=("oscillating", "update-too-large", "loss-diverging", "never-better-than-start", *DIVERGED),
        also_true=("loss-spike", "loss-not-moving", "loss-at-chance", "dead-units", "metric-dropped"),
        right_causes=("learning-rate-too-noisy", "learning-rate-too-high"),
    ),
    FaultCase(
        name="backward-factor-left-on", inject=backward_factor_left_on, families=("tagger", "denoiser", "encoder"),
        onset=60, delay_budget=WIRING, right_codes=("moments-poisoned",),
        also_true=("gradient-exploding", "update-too-small", "loss-not-moving", "loss-spike"),
        right_causes=("optimizer-state-poisoned",),
    ),
    FaultCase(
        name="decay-of-three", inject=decay_of_three, families=("tabular", "tagger", "encoder", "denoiser"),
        delay_budget=MILESTONE, right_codes=("weight-decay-dominates",),
        also_true=(
            "gradient-vanishing", "dead-units", "representation-collapsed", "attention-uniform", "loss-diverging",
            *STANDING_STILL,
        ),
        right_causes=("weight-decay-too-strong",),
    ),
    FaultCase(
        name="half-precision-without-scaling", inject=half_precision_without_scaling,
        families=("denoiser", "encoder", "tagger"), delay_budget=WIRING, right_codes=("precision-underflow",),
        also_true=(
            "gradient-vanishing", "parameters-never-changed", "loss-far-from-chance", "loss-scale-changed",
            *STANDING_STILL,
        ),
        right_causes=("gradients-underflow-in-half-precision",),
    ),
    FaultCase(
        name="scale-hardly-backs-off", inject=scale_hardly_backs_off, families=("tabular", "tagger", "denoiser"),
        onset=60, delay_budget=MILESTONE, wiring=True, right_codes=("scaler-skips-too-often",),
        also_true=("gradient-not-finite", *STANDING_STILL), right_causes=("loss-scale-schedule-wrong",),
    ),
    FaultCase(
        name="divided-by-the-first-part", inject=divided_by_the_first_part,
        families=("tabular", "denoiser"), onset=100, delay_budget=WIRING, wiring=True,
        right_codes=("loss-scale-changed",),
        also_true=("loss-spike", "loss-diverging", "gradient-exploding", "update-too-large", "oscillating"),
        right_causes=("accumulation-not-averaged", "loss-reduction-wrong"),
    ),
    FaultCase(
        # The others have an adaptive optimizer, which divides the factor out again.
        name="parameters-clipped-to-nothing", inject=values_clipped_to_nothing, families=("tabular",),
        delay_budget=MILESTONE, right_codes=("clipping-starves",),
        also_true=("clipping-always-active", *STANDING_STILL), right_causes=("clipping-threshold-too-low",),
    ),
    FaultCase(
        name="generated-weights-run-away", inject=generated_weights_run_away,
        families=("tabular", "tagger"), delay_budget=MILESTONE,
        right_codes=("norm-growing", "update-too-large"),
        also_true=(*DIVERGED, *BLOWN_UP[:5], "loss-diverging", "dead-units"), right_causes=("adapter-norm-runs-away",),
    ),
    FaultCase(
        name="deep-narrowing-tanh", inject=deep_narrowing_tanh, families=("tabular", "wine"), delay_budget=WIRING,
        right_codes=("gradient-vanishing",), also_true=("representation-collapsed", *STANDING_STILL),
        right_causes=("gradients-vanish-with-depth",),
    ),
    FaultCase(
        name="threshold-before-rectifiers", inject=threshold_before_rectifiers, families=("wine", "bootstrap"),
        delay_budget=WIRING, right_codes=("dead-units",),
        also_true=(
            "parameters-never-changed", "gradient-vanishing", "representation-collapsed", "graph-detached",
            "precision-underflow", *STANDING_STILL,
        ),
        right_causes=("units-died",),
    ),
    FaultCase(
        name="steep-squashing", inject=steep_squashing, families=("tagger",), delay_budget=WIRING,
        right_codes=("saturated-units",), also_true=(*DIVERGED, "gradient-vanishing", *STANDING_STILL),
        right_causes=("activations-saturate", "initial-weights-too-large"),
    ),
    FaultCase(
        name="sigmoids-without-normalisation", inject=sigmoids_without_normalisation, families=("tabular",),
        delay_budget=WIRING, wiring=True, right_codes=("saturated-units",),
        also_true=(*DIVERGED, "gradient-vanishing", *STANDING_STILL),
        right_causes=("activations-saturate", "initial-weights-too-large"),
    ),
    FaultCase(
        name="projections-too-large", inject=projections_too_large, families=("encoder",), delay_budget=60,
        right_codes=("attention-saturated", "attention-logits-growing"),
        also_true=(*DIVERGED, "gradient-vanishing", "loss-not-moving", "loss-at-chance"),
        right_causes=("attention-logits-too-large",),
    ),
    FaultCase(
        name="follows-at-once", inject=follows_at_once, families=("bootstrap",), delay_budget=MILESTONE,
        right_codes=("representation-collapsed",),
        also_true=("better-than-possible", "parameters-never-changed", "graph-detached"),
        right_causes=("missing-stop-gradient",),
    ),
    FaultCase(
        name="pixels-averaged-codes-summed", inject=pixels_averaged_codes_summed, families=("convolutional-vae",),
        delay_budget=MILESTONE, right_codes=("latent-unused",),
        also_true=("representation-collapsed", *STANDING_STILL), right_causes=("kl-weight-too-strong",),
    ),
)
"""Second injections into update and model."""
