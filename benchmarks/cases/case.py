"""What a case of the table of faults is, the delay budgets, and small changes that several faults share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from benchmarks.cases.families import FAMILIES
from benchmarks.cases.special_families import SPECIAL_FAMILIES, UNSEEN_SPECIAL_FAMILIES
from benchmarks.cases.training import EVALUATE_EVERY, Milestone, Training
from benchmarks.cases.unseen_families import UNSEEN_FAMILIES

ALL_FAMILIES = FAMILIES | SPECIAL_FAMILIES | UNSEEN_FAMILIES | UNSEEN_SPECIAL_FAMILIES

AT_ONCE = 5
"""Delay budget, in steps, of a number that stops being finite."""
WIRING = 40
"""Delay budget of what the wiring or the first losses already show."""
DIVERGING = 60
"""Delay budget of a training that blows up."""
MILESTONE = 100 + EVALUATE_EVERY
"""Delay budget of a milestone at step 100: it cannot be missed earlier, and the next evaluation must show it."""
NOT_FINITE = ("loss-not-finite", "gradient-not-finite")
DIVERGED = ("gradient-exploding", *NOT_FINITE, "loss-far-from-chance")
"""A training that blows up shows the first of these that its loss and optimizer let through; each is true of it."""
BLOWN_UP = (
    "loss-spike", "oscillating", "never-better-than-start", "loss-at-chance", "loss-not-moving", "moments-poisoned",
    "dead-units", "saturated-units", "attention-saturated", "attention-logits-growing", "representation-collapsed",
    "norm-growing", "gradient-vanishing", "metric-dropped", "metric-stuck-below-target", "latent-unused",
    "clipping-always-active",
)  # fmt: skip
"""What a training that has blown up also shows: consequences, no catch."""
NOT_LEARNING = ("loss-at-chance", "never-better-than-start", "metric-stuck-below-target")
"""What a training that gets nowhere also shows: consequences, no catch."""
STANDING_STILL = ("update-too-small", "loss-not-moving", *NOT_LEARNING)
"""What a training whose weights hardly move also shows."""
TURNS_WORSE = ("past-its-peak", "metric-dropped")
"""What is true of any training whose validation metric falls."""
CLASSIFIERS = ("mlp", "cnn", "gpt", "rnn")
EVERY = ("mlp", "cnn", "gpt", "vae", "rnn", "regression")


@dataclass(frozen=True, kw_only=True)
class FaultCase:
    """One fault and what a good judgement of it is.

    `inject` gets a freshly built training and the onset, and changes the training. A code of `also_true` is no catch,
    and no wrong finding either: it names a consequence. With `declares_milestone` the user has announced the family's
    milestone. `wiring` says that the setup is wrong whether or not a metric suffers.
    """

    name: str
    inject: Callable[[Training, int], None]
    right_codes: tuple[str, ...]
    right_causes: tuple[str, ...]
    families: tuple[str, ...]
    delay_budget: int
    onset: int = 0
    also_true: tuple[str, ...] = ()
    declares_milestone: bool = False
    wiring: bool = False

    @property
    def last_step(self) -> int:
        """The last step at which an opened event still counts as a catch."""
        return self.onset + self.delay_budget

    def milestones(self, family: str) -> tuple[Milestone, ...]:
        """What the user of this family has declared."""
        return (ALL_FAMILIES[family].milestone,) if self.declares_milestone else ()

    def build(self, family: str, seed: int) -> Training:
        """The family's training with the fault in it."""
        training = ALL_FAMILIES[family].build(seed)
        training.milestones = self.milestones(family)
        self.inject(training, self.onset)
        return training


def head_of(training: Training) -> nn.Module:
    """The module that makes the output."""
    return training.model.get_submodule(training.head)


def scale_learning_rate(training: Training, factor: float) -> None:
    """Multiply the learning rate everywhere, the schedules' memory of it included."""
    for group in training.optimizer.param_groups:
        group["lr"] *= factor
        if "initial_lr" in group:
            group["initial_lr"] *= factor
    for scheduler in training.schedulers:
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]


def replace_criterion(training: Training, criterion: Callable[[Any, Tensor], Tensor]) -> None:
    """Let the loss be `criterion(output, targets)`."""
    training.loss = lambda model, batch: criterion(model(batch[0]), batch[1])


def change_output(training: Training, module: str, change: Callable[[Tensor], Tensor]) -> None:
    """Pass the output of a module through `change` in training mode."""
    training.model.get_submodule(module).register_forward_hook(
        lambda owner, _, output: change(output) if owner.training else None
    )


def classes_last(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and targets with one row per classified thing."""
    return logits.reshape(-1, logits.shape[-1]), y.reshape(-1)


def freeze(model: nn.Module) -> None:
    """Ask for no gradient of any parameter."""
    model.requires_grad_(False)


def optimizer_made_anew(training: Training) -> None:
    """After the model was rebuilt: the same optimizer over the parameters that now exist, without schedule."""
    old = training.optimizer
    training.optimizers = {"main": type(old)(training.model.parameters(), **old.defaults)}
    training.schedulers.clear()
