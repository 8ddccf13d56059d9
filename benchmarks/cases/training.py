"""What a benchmark training is, and the ordinary loop that runs it. Nothing here knows Trimtab."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset, TensorDataset

Better = Literal["higher", "lower"]
"""Which direction of a metric is good."""
Batch = tuple[Tensor, Tensor]
"""Inputs and targets of one update."""
Metrics = dict[str, float]
Evaluated = Callable[[int, Metrics, str], None]
"""Called as (step, metrics, split) after each evaluation."""
Stepped = Callable[[int, float], None]
"""Called as (step, loss) after each update."""

EVALUATE_EVERY = 20
"""Steps between two evaluations. It is part of the delay of every fault that only a metric shows."""


@dataclass(frozen=True, kw_only=True)
class Milestone:
    """What `metric` must have reached by the evaluation at `step` (the index of the last finished update)."""

    metric: str
    better: Better
    value: float
    step: int
    split: str = "validation"

    def met(self, metrics: Metrics) -> bool:
        """Whether these metrics reach the value; NaN never does."""
        measured = metrics[self.metric]
        return measured >= self.value if self.better == "higher" else measured <= self.value


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """A value that `metric` cannot honestly pass, as the user knows from elsewhere; announced at the first step."""

    metric: str
    better: Better
    value: float
    split: str = "validation"


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """What the user says before the update at `step`: something of this kind is intended, for `steps` updates."""

    kind: str
    step: int = 0
    steps: int | None = None
    text: str = ""


class Observer(Protocol):
    """What a training may tell whoever observes it: a Guard has these methods."""

    def note(self, kind: str, *, steps: int | None = None, text: str = "", **facts: float | str) -> None:
        """Announce something that is intended."""

    def record(self, *, split: str | None = None, **metrics: Any) -> None:
        """Hand over numbers of this update."""

    def examine(self, *, kind: Literal["representation", "attention", "latent"], **tensors: Any) -> None:
        """Hand over a representation, an attention or a latent code of this update."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set in memory. Each build owns its tensors, so a fault may change them in place."""

    x_train: Tensor
    y_train: Tensor
    x_validation: Tensor
    y_validation: Tensor

    def dataset(self) -> TensorDataset:
        """The training part as a torch dataset over these same tensors."""
        return TensorDataset(self.x_train, self.y_train)


def zero_grad(training: "Training") -> None:
    """Clear the gradients of every optimizer, as each healthy loop does."""
    for optimizer in training.optimizers.values():
        optimizer.zero_grad()


def ordinary_update(training: "Training") -> float:
    """Clear, forward, backward, clip, step, schedule; returns the loss, averaged over the accumulated batches."""
    training.clear_gradients(training)
    total = 0.0
    for _ in range(training.accumulate):
        loss = training.loss(training.model, training.next_batch()) / training.accumulate
        loss.backward()
        total += loss.item()
    training.tell()
    if training.clip is not None:
        nn.utils.clip_grad_norm_(training.model.parameters(), training.clip)
    for optimizer in training.optimizers.values():
        optimizer.step()
    for scheduler in training.schedulers:
        scheduler.step()
    return total


@dataclass(kw_only=True)
class Training:
    """A training that is ready to run, every piece of it open to a fault.

    `loss` is what the loop differentiates; `evaluate` measures with its own, right formulas and draws nothing random.
    `middle` and `head` name modules with a tensor output: one inside the network, and the last one. What a user would
    tell an observer: `announcements` and `ceilings` at their step, and `told`, called between backward and step.
    `parts` are what a user would name as further state, beside model, optimizers and schedules.
    """

    seed: int
    steps: int
    model: nn.Module
    optimizers: dict[str, Optimizer]
    batches: Iterator[Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    evaluate: Callable[[], Metrics]
    target: Milestone
    middle: str
    head: str
    data: Data | None = None
    milestones: tuple[Milestone, ...] = ()
    schedulers: list[LRScheduler] = field(default_factory=list)
    clip: float | None = None
    accumulate: int = 1
    clear_gradients: Callable[["Training"], None] = zero_grad
    update: Callable[["Training"], float] = ordinary_update
    announcements: tuple[Announcement, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    parts: dict[str, Any] = field(default_factory=dict)
    told: Callable[[Observer], None] | None = None
    observer: Observer | None = None
    step: int = 0
    batch: Batch | None = None

    def tell(self) -> None:
        """Hand over to the observer, if there is one, what the user would hand over at this update."""
        if self.told is not None and self.observer is not None:
            self.told(self.observer)

    def announce(self) -> None:
        """Say what the user would say before this step."""
        if self.observer is None:
            return
        for ceiling in self.ceilings if self.step == 0 else ():
            key = f"{ceiling.split}/{ceiling.metric}"
            self.observer.note("ceiling", text=key, value=ceiling.value, better=ceiling.better)
        for each in self.announcements:
            if each.step == self.step:
                self.observer.note(each.kind, steps=each.steps, text=each.text)

    @property
    def optimizer(self) -> Optimizer:
        """The only optimizer."""
        (optimizer,) = self.optimizers.values()
        return optimizer

    def next_batch(self) -> Batch:
        """Draw a batch, which stays readable as `batch`."""
        self.batch = next(self.batches)
        return self.batch

    def generator(self) -> torch.Generator:
        """A fresh generator for a fault's own draws."""
        return torch.Generator().manual_seed(self.seed + 10_000)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a finished run left: the loss of each update, each evaluation with its step, whether the target was met."""

    losses: list[float]
    evaluations: list[tuple[int, Metrics]]
    reached_target: bool

    @property
    def final(self) -> Metrics:
        """The last evaluation."""
        return self.evaluations[-1][1]


def run(
    training: Training,
    steps: int | None = None,
    on_step: Stepped | None = None,
    on_evaluation: Evaluated | None = None,
    observer: Observer | None = None,
) -> Ran:
    """Run a freshly built training for `steps` updates (default: all of them), evaluating every 20 and at the end.

    An `observer`, such as a Guard, is told what the training's user would tell it.

    Seeds torch's global generator, which dropout and noise draw from: the result depends on the training's seed alone.
    """
    if training.step:
        raise ValueError(f"this training already ran {training.step} steps; build it again")
    steps = training.steps if steps is None else steps
    training.observer = observer
    torch.manual_seed(training.seed)
    losses: list[float] = []
    evaluations: list[tuple[int, Metrics]] = []
    for step in range(steps):
        training.step = step
        training.announce()
        training.model.train()
        losses.append(training.update(training))
        if on_step is not None:
            on_step(step, losses[-1])
        if (step + 1) % EVALUATE_EVERY == 0 or step == steps - 1:
            training.model.eval()
            with torch.no_grad():
                metrics = training.evaluate()
            evaluations.append((step, metrics))
            if on_evaluation is not None:
                on_evaluation(step, metrics, training.target.split)
    return Ran(losses=losses, evaluations=evaluations, reached_target=training.target.met(evaluations[-1][1]))


def shuffled(dataset: Dataset[Any], batch_size: int, seed: int) -> DataLoader[Any]:
    """A shuffling loader with its own generator; the last, smaller batch is dropped."""
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(seed))


def endless(loader: DataLoader[Any]) -> Iterator[Batch]:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader
