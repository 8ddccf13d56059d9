"""First injections into the model: depth, dead and saturated units, attention, codes, twins (numbers: anchors 3.4)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.cases.case import (
    DIVERGED,
    MILESTONE,
    STANDING_STILL,
    WIRING,
    FaultCase,
    optimizer_made_anew,
    replace_criterion,
)
from benchmarks.cases.families import Vae, negative_elbo
from benchmarks.cases.special_families import table_elbo, twin_loss
from benchmarks.cases.training import Training


def linears(model: nn.Module) -> list[nn.Linear]:
    """The linear layers, in order."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def fourteen_sigmoid_layers(training: Training, onset: int) -> None:
    """11. Fourteen layers of sigmoids in a row, where the network had one or two layers."""
    torch.manual_seed(training.seed)
    path = "body" if hasattr(training.model, "body") else training.middle
    first = linears(training.model.get_submodule(path))[0]
    layers: list[nn.Module] = [nn.Linear(first.in_features, first.out_features), nn.Sigmoid()]
    for _ in range(13):
        layers += [nn.Linear(first.out_features, first.out_features), nn.Sigmoid()]
    training.model.set_submodule(path, nn.Sequential(*layers))
    training.middle = f"{path}.2"
    optimizer_made_anew(training)


def biases_minus_ten(training: Training, onset: int) -> None:
    """12. Each bias before a rectifier starts at -10."""
    with torch.no_grad():
        for name, parameter in training.model.named_parameters():
            if name.endswith("bias") and not name.startswith(("head", "decoder", "qkv", "out", "norm", "gru")):
                parameter.fill_(-10.0)


def rate_burst(training: Training, onset: int) -> None:
    """12. For two steps the learning rate is 100 times too high; what was pushed below zero stays there."""
    update = training.update

    def burst(training: Training) -> float:
        factor = 100.0 if onset <= training.step < onset + 2 else 1.0
        for group in training.optimizer.param_groups:
            group["lr"] *= factor
        loss = update(training)
        for group in training.optimizer.param_groups:
            group["lr"] /= factor
        return loss

    training.update = burst


def wide_tanh(training: Training, onset: int) -> None:
    """Rectifiers become tanh, and the weights before them start 40 times too large: every unit is at -1 or 1."""
    for name, module in list(training.model.named_modules()):
        if isinstance(module, nn.ReLU):
            training.model.set_submodule(name, nn.Tanh())
    before = [m for name, m in training.model.named_modules() if isinstance(m, nn.Linear) and "body" in name]
    with torch.no_grad():
        for module in before or linears(training.model)[:1]:
            module.weight.mul_(40.0)


def weak_prior(model_loss: Callable[..., Tensor], beta: float, training: Training) -> None:
    """Weigh the divergence with `beta`."""
    replace_criterion(training, partial(model_loss, beta=beta))


def divergence_too_heavy(training: Training, onset: int) -> None:
    """29. The divergence from the prior weighs 30 times too much."""
    assert isinstance(training.model, Vae)
    images = training.head == "decoder.2" and training.model.encoder[0].in_features == 64
    weak_prior(negative_elbo if images else table_elbo, 30.0, training)


def gradient_not_stopped(training: Training, onset: int) -> None:
    """30. The other view's representation is not held still: the twins agree on one point for all inputs."""
    loss = training.loss
    assert isinstance(loss, partial)
    training.loss = partial(twin_loss, **{**loss.keywords, "stop": False})


def queries_and_keys_too_large(training: Training, onset: int) -> None:
    """31. Queries and keys are both 20 times too large, their products 400 times."""
    with torch.no_grad():
        for module in training.model.modules():
            projection = getattr(module, "qkv", None)
            if isinstance(projection, nn.Linear):
                width = projection.out_features // 3
                projection.weight[: 2 * width] *= 20.0


# fmt: off
MODEL_FAULTS: tuple[FaultCase, ...] = (
    FaultCase(
        name="fourteen-sigmoid-layers", inject=fourteen_sigmoid_layers, families=("mlp", "regression", "rnn"),
        delay_budget=WIRING, right_codes=("gradient-vanishing",),
        also_true=("representation-collapsed", "saturated-units", *STANDING_STILL),
        right_causes=("gradients-vanish-with-depth",),
    ),
    FaultCase(
        name="biases-minus-ten", inject=biases_minus_ten, families=("mlp", "cnn", "rnn", "regression"),
        delay_budget=WIRING, right_codes=("dead-units",),
        also_true=(
            "parameters-never-changed", "gradient-vanishing", "representation-collapsed", "graph-detached",
            "precision-underflow", *STANDING_STILL,
        ),
        right_causes=("units-died",),
    ),
    FaultCase(
        name="rate-burst", inject=rate_burst, families=("mlp", "rnn"), onset=60,
        delay_budget=60, right_codes=("dead-units", "gradient-exploding", "update-too-large"),
        also_true=(
            "loss-not-finite", "gradient-not-finite", "loss-spike", "loss-diverging", "moments-poisoned",
            "metric-dropped", "representation-collapsed", "gradient-vanishing", "parameters-never-changed",
            "norm-growing", *STANDING_STILL,
        ),
        right_causes=("units-died", "learning-rate-too-high"),
    ),
    FaultCase(
        name="wide-tanh", inject=wide_tanh, families=("mlp", "regression"), delay_budget=WIRING,
        right_codes=("saturated-units",), also_true=(*DIVERGED, "gradient-vanishing", *STANDING_STILL),
        right_causes=("activations-saturate", "initial-weights-too-large"),
    ),
    FaultCase(
        name="divergence-too-heavy", inject=divergence_too_heavy, families=("vae", "table-vae"),
        delay_budget=MILESTONE, right_codes=("latent-unused",),
        also_true=("representation-collapsed", *STANDING_STILL), right_causes=("kl-weight-too-strong",),
    ),
    FaultCase(
        name="gradient-not-stopped", inject=gradient_not_stopped, families=("twins", "table-twins"),
        delay_budget=MILESTONE, right_codes=("representation-collapsed",),
        also_true=("better-than-possible", "weight-decay-dominates"),
        right_causes=("missing-stop-gradient",),
    ),
    FaultCase(
        name="queries-and-keys-x20", inject=queries_and_keys_too_large, families=("gpt", "attender"),
        delay_budget=60, right_codes=("attention-saturated", "attention-logits-growing"),
        also_true=(*DIVERGED, "gradient-vanishing", "loss-not-moving", "loss-at-chance"),
        right_causes=("attention-logits-too-large",),
    ),
)
"""Faults of the model, each in the families that it harms."""
