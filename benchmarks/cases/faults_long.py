"""Faults that only a long run shows, by its clock and its memory.

They are no part of the detection figures, for what else the machine does at the time decides them. The gallery shows
them, and recorded runs hold them.
"""

from typing import Any

from torch import Tensor, nn

from benchmarks.cases.case import FaultCase
from benchmarks.cases.training import Batch, Training

LONG = 660
"""Steps of such a run: the rules ask for more than 500."""


def hook_at_each_step(training: Training, onset: int) -> None:
    """Each update registers one more hook, which looks at the output of a module; nobody takes them away."""
    training.steps = LONG
    loss = training.loss

    def look(_: nn.Module, __: Any, output: Tensor) -> None:
        output.std().item()

    def with_one_more(model: nn.Module, batch: Batch) -> Tensor:
        training.model.get_submodule(training.middle).register_forward_hook(look)
        return loss(model, batch)

    training.loss = with_one_more


def outputs_kept(training: Training, onset: int) -> None:
    """The output of a module is kept at each step, with its graph, for a plot that is drawn at the end."""
    training.steps = LONG
    kept: list[Tensor] = []

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        kept.append(output.sin())

    training.model.get_submodule(training.middle).register_forward_hook(keep)


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
)
"""Faults of long runs."""
