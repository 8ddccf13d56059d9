"""Second injections into data, mode and start, in families that nothing is tuned on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.cases.case import (
    DIVERGED,
    MILESTONE,
    STANDING_STILL,
    TURNS_WORSE,
    FaultCase,
    classes_last,
    replace_criterion,
)
from benchmarks.cases.training import Announcement, Batch, Ceiling, Training, endless, run, shuffled


def each_batch(training: Training, onset: int, change: Callable[[Tensor, Tensor], Batch]) -> None:
    """Pass each batch from the onset on through `change`."""
    healthy = training.batches
    training.batches = (change(x, y) if step >= onset else (x, y) for step, (x, y) in enumerate(healthy))


def corrupt_records(training: Training, onset: int) -> None:
    """A quarter of one batch was read with the wrong sign and decimal point: -1,000 times what it was."""
    healthy = training.batches

    def corrupt(x: Tensor) -> Tensor:
        x = x.clone()
        x[: len(x) // 4] *= -1e3
        return x

    training.batches = ((corrupt(x), y) if step == onset else (x, y) for step, (x, y) in enumerate(healthy))


def columns_reordered(training: Training, onset: int) -> None:
    """From the onset on another version of the reader gives the columns, or the characters, another order."""
    assert training.data is not None
    x = training.data.x_train
    generator = training.generator()
    if x.is_floating_point():
        order = torch.randperm(x.shape[1], generator=generator)
        each_batch(training, onset, lambda x, y: (x[:, order], y))
    else:
        codes = torch.randperm(int(x.max()) + 1, generator=generator)
        each_batch(training, onset, lambda x, y: (codes[x], y))


def raw_units(training: Training, onset: int) -> None:
    """Columns in their raw units: thousandths beside thousands; images as 0 to 255 and shifted."""
    assert training.data is not None
    for x in (training.data.x_train, training.data.x_validation):
        if x.dim() == 2:
            units = 10.0 ** torch.linspace(-1.0, 3.5, x.shape[1])
            x.add_(3.0).mul_(units)
        else:
            x.mul_(255.0).add_(500.0)


def class_numbers_regressed(training: Training, onset: int) -> None:
    """The squared error between the first output and the number of the class."""

    def criterion(output: Tensor, targets: Tensor) -> Tensor:
        logits, y = classes_last(output, targets)
        return F.mse_loss(logits[:, 0], y.float())

    replace_criterion(training, criterion)


def answer_column(training: Training, onset: int) -> None:
    """The last column was filled in after the outcome was known; the user has said what nobody can reach."""
    assert training.data is not None
    data = training.data
    for x, y in ((data.x_train, data.y_train), (data.x_validation, data.y_validation)):
        x[:, -1] = 3.0 * (y.float() - 0.5) + 0.02 * x[:, 0]
    training.ceilings = (Ceiling(metric="accuracy", better="higher", value=0.99),)


def clean_image_shines_through(training: Training, onset: int) -> None:
    """The noise is added to a hundredth of its size; the user has said what no denoiser can reach."""
    assert training.data is not None
    data = training.data
    for x, y in ((data.x_train, data.y_train), (data.x_validation, data.y_validation)):
        x.copy_(y + 0.01 * (x - y))
    training.ceilings = (Ceiling(metric="loss", better="lower", value=0.015),)


def tiny_training_part(training: Training, onset: int) -> None:
    """A filter left 24 rows, some of them labelled wrongly, and the training goes round and round."""
    assert training.data is not None
    rows = torch.randperm(len(training.data.x_train), generator=training.generator())[:24]
    x, y = training.data.x_train[rows], training.data.y_train[rows].clone()
    if y.is_floating_point():
        y += 0.3 * torch.randn(y.shape, generator=training.generator())
    else:
        y[:8] = y[:8].roll(1, 0)
    training.batches = endless(shuffled(TensorDataset(x, y), 12, training.seed))


def never_in_training_mode(training: Training, onset: int) -> None:
    """The model was put into evaluation mode, and its own `train` forgets to change its parts."""
    give_dropout(training)
    model = training.model.eval()
    model.train = lambda mode=True: model  # type: ignore[method-assign]


def always_in_training_mode(training: Training, onset: int) -> None:
    """The model's own `train` forgets to change its parts, so `eval` does not reach them either."""
    give_dropout(training)
    model = training.model.train()
    model.train = lambda mode=True: model  # type: ignore[method-assign]


def give_dropout(training: Training) -> None:
    """Give the model something that has a mode: dropout behind its first layers, where it has nothing."""
    for name, module in list(training.model.named_children()):
        if isinstance(module, nn.Linear) and name == "stem":
            training.model.set_submodule(name, nn.Sequential(module, nn.Dropout(0.3)))
    for part in training.model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.3


def drawn_again_after_loading(training: Training, onset: int) -> None:
    """A trained network is loaded; then a call that was to draw the new head alone draws every weight."""
    fresh = {name: value.clone() for name, value in training.model.state_dict().items()}
    run(training, 120)
    trained = {name: value.clone() for name, value in training.model.state_dict().items()}
    training.model.load_state_dict(fresh)
    training.optimizer.state.clear()
    training.step = 0
    training.schedulers.clear()
    for group in training.optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"]) / 10
    update = training.update

    def loading(training: Training) -> float:
        if training.step == onset:
            training.model.load_state_dict(trained)
            with torch.no_grad():
                for name, value in training.model.state_dict().items():
                    value.copy_(fresh[name])
        return update(training)

    training.update = loading


def announced_step_too_hard(training: Training, onset: int) -> None:
    """A curriculum's next stage, announced for 30 updates: far more noise, and no recovery."""
    generator = training.generator()
    noise = 4.0 if training.data is not None and training.data.x_train.dim() == 2 else 1.5
    training.announcements = (Announcement(kind="curriculum", step=onset, steps=30, text="next stage"),)
    each_batch(training, onset, lambda x, y: (x + noise * torch.randn(x.shape, generator=generator), y))


def read_class_by_class(training: Training, onset: int) -> None:
    """The rows lie in one file per class, which are read one after the other."""
    assert training.data is not None
    x, y = training.data.x_train, training.data.y_train
    order = torch.cat([(y == label).nonzero().flatten() for label in y.unique()])
    training.batches = endless(DataLoader(TensorDataset(x[order], y[order]), batch_size=16, drop_last=True))


# fmt: off
SECOND_DATA_INJECTIONS: tuple[FaultCase, ...] = (
    FaultCase(
        name="corrupt-records", inject=corrupt_records, families=("tabular", "denoiser"), onset=60,
        delay_budget=20, right_codes=("loss-spike", "gradient-exploding"),
        also_true=(
            "moments-poisoned", "loss-diverging", "update-too-large", "loss-not-finite", "gradient-not-finite",
            "dead-units", "inputs-unscaled", "metric-dropped", "norm-growing", *STANDING_STILL,
        ),
        right_causes=("bad-batch",),
    ),
    FaultCase(
        name="columns-reordered", inject=columns_reordered, families=("tabular", "wine", "tagger", "encoder"),
        onset=120, delay_budget=60, right_codes=("labels-unrelated", "loss-diverging"),
        also_true=("loss-spike", *TURNS_WORSE, *STANDING_STILL), right_causes=("data-pipeline-changed",),
    ),
    FaultCase(
        name="raw-units", inject=raw_units, families=("tabular", "wine", "denoiser"), delay_budget=40,
        right_codes=("inputs-unscaled", *DIVERGED),
        also_true=(
            "dead-units", "loss-spike", "update-too-large", "loss-diverging", "oscillating", "moments-poisoned",
            "representation-collapsed", *STANDING_STILL,
        ),
        right_causes=("inputs-not-scaled",),
    ),
    FaultCase(
        name="class-numbers-regressed", inject=class_numbers_regressed, families=("tabular", "wine", "encoder"),
        delay_budget=40, wiring=True, right_codes=("loss-does-not-fit-targets",),
        also_true=("loss-far-from-chance", "loss-at-chance"), right_causes=("wrong-loss-for-targets",),
    ),
    FaultCase(
        name="answer-column", inject=answer_column, families=("tabular",), delay_budget=MILESTONE, wiring=True,
        right_codes=("better-than-possible",), right_causes=("target-leaks-into-input",),
    ),
    FaultCase(
        name="clean-image-shines-through", inject=clean_image_shines_through, families=("denoiser",),
        delay_budget=MILESTONE, wiring=True, right_codes=("better-than-possible",),
        right_causes=("target-leaks-into-input",),
    ),
    FaultCase(
        name="tiny-training-part", inject=tiny_training_part, families=("tabular", "tagger"), onset=80,
        delay_budget=MILESTONE, right_codes=("past-its-peak", "metric-dropped"),
        right_causes=("trained-past-the-peak",),
    ),
    FaultCase(
        name="never-in-training-mode", inject=never_in_training_mode, families=("tabular", "bootstrap"),
        delay_budget=60, wiring=True,
        right_codes=("modules-in-wrong-mode",), right_causes=("trained-in-evaluation-mode",),
    ),
    FaultCase(
        name="always-in-training-mode", inject=always_in_training_mode, families=("tabular", "wine", "bootstrap"),
        delay_budget=80, wiring=True,
        right_codes=("modules-in-wrong-mode",), right_causes=("evaluated-in-training-mode",),
    ),
    FaultCase(
        name="drawn-again-after-loading", inject=drawn_again_after_loading, families=("tabular", "encoder", "tagger"),
        delay_budget=40, wiring=True, right_codes=("weights-lost-after-load",), also_true=("loss-at-chance",),
        right_causes=("pretrained-weights-not-loaded",),
    ),
    FaultCase(
        name="announced-step-too-hard", inject=announced_step_too_hard, families=("tabular", "wine", "denoiser"),
        onset=120, delay_budget=MILESTONE, right_codes=("labels-unrelated", "loss-diverging", "metric-dropped"),
        also_true=("loss-spike", "past-its-peak", "loss-at-chance", "loss-scale-changed"),
        right_causes=("curriculum-step-too-hard",),
    ),
    FaultCase(
        name="read-class-by-class", inject=read_class_by_class, families=("tabular", "wine"), delay_budget=MILESTONE,
        wiring=True, right_codes=("labels-sorted",),
        also_true=("loss-spike", "oscillating", "loss-diverging", "never-better-than-start", *TURNS_WORSE),
        right_causes=("data-sorted-by-label",),
    ),
)
"""Second injections into data, mode and start."""
