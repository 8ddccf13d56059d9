"""Faults that count in no figure: those of long runs, and those that a single rule is about.

What the clock and the memory of a long run show, the machine decides too. The others are made for one rule each. The
gallery shows them, and recorded runs hold them.
"""

import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from benchmarks.cases.case import FaultCase, head_of
from benchmarks.cases.training import Batch, Training

LONG = 660
"""Steps of such a run: the rules ask for more than 500."""


def hook_at_each_step(training: Training, onset: int) -> None:
    """Each update registers four more hooks, which look at the output of a module; nobody takes them away."""
    training.steps = LONG
    loss = training.loss

    def look(_: nn.Module, __: Any, output: Tensor) -> None:
        output.std().item()

    def with_one_more(model: nn.Module, batch: Batch) -> Tensor:
        for _ in range(4):
            training.model.get_submodule(training.middle).register_forward_hook(look)
        return loss(model, batch)

    training.loss = with_one_more


def outputs_kept(training: Training, onset: int) -> None:
    """The output of a module is kept at each step, with its graph, for a plot that is drawn at the end."""
    training.steps = LONG
    kept: list[Tensor] = []

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        kept.extend((output.sin(), output.cos()))

    training.model.get_submodule(training.middle).register_forward_hook(keep)


def projections(training: Training) -> list[nn.Linear]:
    """The layers that make queries, keys and values at once."""
    found = [getattr(module, "qkv", None) for module in training.model.modules()]
    return [one for one in found if isinstance(one, nn.Linear)]


def decay_with_wrong_sign(training: Training, onset: int) -> None:
    """The weight decay of queries and keys has the wrong sign: they grow by one part in a hundred at each update."""

    def grow(*_: object) -> None:
        with torch.no_grad():
            for projection in projections(training):
                projection.weight[: 2 * projection.out_features // 3] *= 1.01

    training.optimizer.register_step_post_hook(grow)


def queries_switched_off(training: Training, onset: int) -> None:
    """From the onset on a mask meant for another module sets all queries to zero."""

    def without_queries(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        width = output.shape[-1] // 3
        mask = torch.ones_like(output)
        mask[..., :width] = float(training.step < onset)
        return output * mask

    for projection in projections(training):
        projection.register_forward_hook(without_queries)


def signs_alone(training: Training, onset: int) -> None:
    """Steps of one length along the sign of the gradient, on the same 512 rows: each overshoots, the next returns."""
    training.optimizers = {"main": Adam(training.model.parameters(), lr=0.1, betas=(0.0, 0.0))}
    training.schedulers.clear()
    assert training.data is not None
    training.batches = itertools.repeat((training.data.x_train[:512], training.data.y_train[:512]))


def one_unit_left(training: Training, onset: int) -> None:
    """All but one unit of the middle layer are masked: the network is too narrow for its milestone at the end."""
    training.steps = LONG
    training.milestones = (replace(training.target, step=LONG - 1),)

    def mask(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        kept = torch.zeros_like(output)
        kept[:, 0] = 1.0
        return output * kept

    training.model.get_submodule(training.middle).register_forward_hook(mask)


def labels_of_other_rows(training: Training, onset: int) -> None:
    """Each batch pairs its inputs with the labels of other rows: there is nothing to learn beyond how often each is."""
    training.steps = LONG
    generator, healthy = training.generator(), training.batches
    training.batches = ((x, y[torch.randperm(len(y), generator=generator)]) for x, y in healthy)
    for group in training.optimizer.param_groups:
        group["lr"] /= 4


def frozen_before_it_learned(training: Training, onset: int) -> None:
    """The head is frozen at its random start; what comes before it has to learn around it."""
    head_of(training).requires_grad_(False)


def optimizer_made_anew_each_time(training: Training, onset: int) -> None:
    """The optimizer forgets everything after every 25 updates, as one that is built inside the loop over epochs."""

    def forget(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if training.step % 25 == 24:
            optimizer.state.clear()

    training.optimizer.register_step_post_hook(forget)


# fmt: off
LONG_FAULTS: tuple[FaultCase, ...] = (
    FaultCase(
        name="hook-at-each-step", inject=hook_at_each_step, families=("gpt",), delay_budget=LONG, wiring=True,
        right_codes=("step-slowing",), right_causes=("graph-kept-across-steps",),
    ),
    FaultCase(
        name="outputs-kept", inject=outputs_kept, families=("gpt",), delay_budget=LONG, wiring=True,
        right_codes=("memory-growing",), also_true=("step-slowing",), right_causes=("graph-kept-across-steps",),
    ),
    FaultCase(
        name="decay-with-wrong-sign", inject=decay_with_wrong_sign, families=("gpt",), delay_budget=LONG, wiring=True,
        right_codes=("attention-logits-growing", "attention-saturated"), also_true=("norm-growing",),
        right_causes=("attention-logits-too-large",),
    ),
    FaultCase(
        name="queries-switched-off", inject=queries_switched_off, families=("gpt",), onset=160, delay_budget=200,
        wiring=True, right_codes=("attention-uniform",), right_causes=("attention-logits-too-large",),
    ),
    FaultCase(
        name="signs-alone", inject=signs_alone, families=("regression",), delay_budget=LONG,
        right_codes=("oscillating",), also_true=("update-too-large", "same-batch-repeated"),
        right_causes=("learning-rate-too-high",),
    ),
    FaultCase(
        name="one-unit-left", inject=one_unit_left, families=("mlp",), delay_budget=LONG,
        right_codes=("metric-stuck-below-target", "milestone-missed"), right_causes=("data-has-no-signal",),
    ),
    FaultCase(
        name="labels-of-other-rows", inject=labels_of_other_rows, families=("mlp",), delay_budget=LONG,
        right_codes=("loss-at-chance",), also_true=("loss-not-moving",), right_causes=("data-has-no-signal",),
    ),
    FaultCase(
        name="frozen-before-it-learned", inject=frozen_before_it_learned, families=("mlp", "cnn"), delay_budget=40,
        wiring=True, right_codes=("random-and-frozen",), right_causes=("frozen-by-mistake",),
    ),
    FaultCase(
        name="optimizer-made-anew-each-time", inject=optimizer_made_anew_each_time, families=("mlp", "gpt"),
        delay_budget=140, wiring=True, right_codes=("optimizer-state-reset",),
        right_causes=("optimizer-rebuilt-each-epoch",),
    ),
)
"""Faults that count in no figure."""
