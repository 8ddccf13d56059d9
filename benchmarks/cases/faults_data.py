"""First injections that spoil what the model is shown, how, or what it starts from (numbers: anchors 3.4)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases.case import (
    DIVERGED,
    MILESTONE,
    STANDING_STILL,
    TURNS_WORSE,
    WIRING,
    FaultCase,
    classes_last,
    freeze,
    replace_criterion,
)
from benchmarks.cases.training import Batch, Ceiling, Metrics, Training, endless, run, shuffled


def change_batches(training: Training, change: Callable[[int, Tensor, Tensor], Batch]) -> None:
    """Pass each batch, with its number, through `change`."""
    healthy = training.batches
    training.batches = (change(number, x, y) for number, (x, y) in enumerate(healthy))


def single_bad_batch(training: Training, onset: int) -> None:
    """2. The inputs of one batch are 1,000 times too large."""
    change_batches(training, lambda number, x, y: (x * 1e3 if number == onset else x, y))


def labels_shuffled_midway(training: Training, onset: int) -> None:
    """4. From the onset on the labels of each batch are in a random order."""
    generator = training.generator()

    def change(number: int, x: Tensor, y: Tensor) -> Batch:
        if number < onset:
            return x, y
        return x, y.flatten()[torch.randperm(y.numel(), generator=generator)].view_as(y)

    change_batches(training, change)


def with_dropout(training: Training) -> None:
    """Give a network with inactive dropout an active one, as a mode fault needs something that has a mode."""
    for module in training.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.4


def trained_in_evaluation_mode(training: Training, onset: int) -> None:
    """22. Somebody calls `model.eval()` before each update: dropout is off, batch statistics are never gathered."""
    with_dropout(training)
    loss = training.loss

    def in_evaluation_mode(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model.eval(), batch)

    training.loss = in_evaluation_mode


def evaluated_in_training_mode(training: Training, onset: int) -> None:
    """22, transformers-33844. Dropout and batch normalisation stay in training mode while evaluating."""
    with_dropout(training)
    evaluate = training.evaluate

    def in_training_mode() -> Metrics:
        training.model.train()
        return evaluate()

    training.evaluate = in_training_mode


def squared_error_on_classes(training: Training, onset: int) -> None:
    """24. The squared error between logits and one-hot labels."""

    def criterion(output: Tensor, targets: Tensor) -> Tensor:
        logits, y = classes_last(output, targets)
        return F.mse_loss(logits, F.one_hot(y, logits.shape[-1]).float())

    replace_criterion(training, criterion)


def binary_loss_on_classes(training: Training, onset: int) -> None:
    """24. A binary cross-entropy per class, on one-hot labels of which exactly one is on."""

    def criterion(output: Tensor, targets: Tensor) -> Tensor:
        logits, y = classes_last(output, targets)
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(y, logits.shape[-1]).float())

    replace_criterion(training, criterion)


def inputs_unscaled(training: Training, onset: int) -> None:
    """25. Nobody standardises: every input is multiplied by 300 and shifted by 1,000."""
    assert training.data is not None
    for x in (training.data.x_train, training.data.x_validation):
        x.mul_(300.0).add_(1000.0)


def target_in_the_input(training: Training, onset: int) -> None:
    """27. The first columns of the input are the target; the user has said what nobody can reach."""
    assert training.data is not None
    data = training.data
    for x, y in ((data.x_train, data.y_train), (data.x_validation, data.y_validation)):
        codes = y if y.is_floating_point() else 2.0 * F.one_hot(y, int(data.y_train.max()) + 1)
        x[:, : codes.shape[1]] = codes
    metric = training.target.metric
    ceiling = 0.995 if metric == "accuracy" else 0.3
    training.ceilings = (Ceiling(metric=metric, better=training.target.better, value=ceiling),)


def prefixed_state_loaded(training: Training, onset: int) -> None:
    """33. A trained network is fine-tuned, but each key has the prefix `module.`, and nobody is told: not strict."""
    trained = {name: value.clone() for name, value in training.model.state_dict().items()}
    fresh = {name: value.clone() for name, value in trained.items()}
    run(training, 120)
    trained = {f"module.{name}": value.clone() for name, value in training.model.state_dict().items()}
    training.model.load_state_dict(fresh)
    training.optimizer.state.clear()
    training.step = 0
    for group in training.optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"]) / 10
    training.schedulers.clear()
    update = training.update

    def loading(training: Training) -> float:
        if training.step == onset:
            training.model.load_state_dict(trained, strict=False)
        return update(training)

    training.update = loading


def few_noisy_samples(training: Training, onset: int) -> None:
    """40. Sixty-four samples, a quarter of them with a random label, over and over."""
    assert training.data is not None
    x, y = (part[:64].clone() for part in (training.data.x_train, training.data.y_train))
    generator = training.generator()
    noisy = torch.randperm(64, generator=generator)[:16]
    y[noisy] = training.data.y_train[torch.randint(64, len(training.data.y_train), (16,), generator=generator)]
    training.batches = endless(shuffled(torch.utils.data.TensorDataset(x, y), 32, training.seed))


def jump_in_difficulty(training: Training, onset: int) -> None:
    """42. From the onset on the task is five times harder: far more noise, or sequences five times as long."""
    generator = training.generator()

    def change(number: int, x: Tensor, y: Tensor) -> Batch:
        if number < onset:
            return x, y
        if x.is_floating_point():
            return x + 1.5 * torch.randn(x.shape, generator=generator), y
        longer = torch.randint(4, (len(x), 45), generator=generator)
        return longer, F.one_hot(longer, 4).sum(1).argmax(1)

    change_batches(training, change)


def labels_sorted(training: Training, onset: int) -> None:
    """44. The training part is sorted by label, and the loader does not shuffle."""
    assert training.data is not None
    x, y = training.data.x_train, training.data.y_train
    order = y.argsort(stable=True)
    size = len(next(training.batches)[0])

    def batches() -> Iterator[Batch]:
        while True:
            yield from ((x[rows], y[rows]) for rows in order.split(size) if len(rows) == size)

    training.batches = batches()


def only_frozen_parts_held(training: Training, onset: int) -> None:
    """pytorch-forum-84911. All but the normalisations is frozen, and the optimizer holds the frozen head alone."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
    freeze(training.model)
    for module in training.model.modules():
        if isinstance(module, norms):
            module.requires_grad_(True)
    (group,) = training.optimizer.param_groups
    head = {id(p) for p in training.model.get_submodule(training.head).parameters()}
    group["params"] = [p for p in group["params"] if id(p) in head]


# fmt: off
DATA_FAULTS: tuple[FaultCase, ...] = (
    FaultCase(
        name="single-bad-batch", inject=single_bad_batch, families=("mlp", "vae", "regression", "table-vae"),
        onset=60, delay_budget=20, right_codes=("loss-spike", "gradient-exploding"),
        also_true=(
            "moments-poisoned", "loss-diverging", "update-too-large", "loss-not-finite", "gradient-not-finite",
            "dead-units", "inputs-unscaled", "metric-dropped", "norm-growing", *STANDING_STILL,
        ),
        right_causes=("bad-batch",),
    ),
    FaultCase(
        name="labels-shuffled-midway", inject=labels_shuffled_midway, families=("mlp", "cnn", "gpt", "rnn"),
        onset=120, delay_budget=60, right_codes=("labels-unrelated", "loss-diverging"),
        also_true=("loss-spike", *TURNS_WORSE, *STANDING_STILL), right_causes=("data-pipeline-changed",),
    ),
    FaultCase(
        name="trained-in-evaluation-mode", inject=trained_in_evaluation_mode, families=("mlp", "cnn", "regression"),
        delay_budget=60, wiring=True,
        right_codes=("modules-in-wrong-mode",), right_causes=("trained-in-evaluation-mode",),
    ),
    FaultCase(
        name="evaluated-in-training-mode", inject=evaluated_in_training_mode,
        families=("mlp", "cnn", "regression", "twins"), delay_budget=80, wiring=True,
        right_codes=("modules-in-wrong-mode",), right_causes=("evaluated-in-training-mode",),
    ),
    FaultCase(
        name="squared-error-on-classes", inject=squared_error_on_classes, families=("mlp", "cnn", "rnn", "gpt"),
        delay_budget=WIRING, wiring=True, right_codes=("loss-does-not-fit-targets",),
        also_true=("loss-far-from-chance", "loss-at-chance"), right_causes=("wrong-loss-for-targets",),
    ),
    FaultCase(
        name="binary-loss-on-classes", inject=binary_loss_on_classes, families=("mlp", "cnn", "rnn", "gpt"),
        delay_budget=WIRING, wiring=True, right_codes=("loss-does-not-fit-targets",),
        also_true=("loss-far-from-chance", "loss-at-chance"), right_causes=("wrong-loss-for-targets",),
    ),
    FaultCase(
        name="inputs-unscaled", inject=inputs_unscaled, families=("mlp", "regression"), delay_budget=WIRING,
        right_codes=("inputs-unscaled", *DIVERGED),
        also_true=(
            "dead-units", "loss-spike", "update-too-large", "loss-diverging", "oscillating", "moments-poisoned",
            "representation-collapsed", *STANDING_STILL,
        ),
        right_causes=("inputs-not-scaled",),
    ),
    FaultCase(
        name="target-in-the-input", inject=target_in_the_input, families=("mlp", "cnn", "regression"),
        delay_budget=MILESTONE, wiring=True, right_codes=("better-than-possible",),
        right_causes=("target-leaks-into-input",),
    ),
    FaultCase(
        name="prefixed-state-loaded", inject=prefixed_state_loaded, families=("mlp", "cnn", "attender"),
        delay_budget=WIRING, wiring=True, right_codes=("weights-lost-after-load",), also_true=("loss-at-chance",),
        right_causes=("pretrained-weights-not-loaded",),
    ),
    FaultCase(
        # The onset is where the validation loss of every seed has turned.
        name="few-noisy-samples", inject=few_noisy_samples, families=("mlp", "regression", "cnn"), onset=60,
        delay_budget=MILESTONE, right_codes=("past-its-peak", "metric-dropped"),
        also_true=("never-better-than-start",), right_causes=("trained-past-the-peak",),
    ),
    FaultCase(
        name="jump-in-difficulty", inject=jump_in_difficulty, families=("mlp", "cnn", "rnn"), onset=120,
        delay_budget=MILESTONE, right_codes=("labels-unrelated", "loss-diverging", "metric-dropped"),
        also_true=("loss-spike", "past-its-peak", "loss-at-chance", "loss-scale-changed"),
        right_causes=("curriculum-step-too-hard", "data-pipeline-changed"),
    ),
    FaultCase(
        name="labels-sorted", inject=labels_sorted, families=("mlp", "cnn", "rnn"), delay_budget=MILESTONE,
        wiring=True, right_codes=("labels-sorted",),
        also_true=("loss-spike", "oscillating", "loss-diverging", "never-better-than-start", *TURNS_WORSE),
        right_causes=("data-sorted-by-label",),
    ),
    FaultCase(
        name="only-frozen-parts-held", inject=only_frozen_parts_held, families=("cnn", "gpt", "attender"),
        delay_budget=WIRING, wiring=True, right_codes=("parameters-outside-optimizer", "parameters-never-changed"),
        also_true=STANDING_STILL, right_causes=("frozen-by-mistake", "optimizer-does-not-hold-parameters"),
    ),
)
"""Faults of data, mode and start, each in the families that it harms."""
