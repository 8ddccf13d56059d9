"""The table of faults from which a training can be brought back while it runs, and what its final metric is worth.

The share of a run: (metric - chance) / (clean metric - chance), never below 0. Clean is the same training, same seed,
in which the fault never comes; chance is what the best constant answer gets on the validation part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from benchmarks.cases import recoverable_faults as faults
from benchmarks.cases.case import ALL_FAMILIES
from benchmarks.cases.recoverable_faults import NEVER
from benchmarks.cases.training import Data, Metrics, Training

RECOVERED = 0.95
"""A fault is recovered when in each of its families the median share over seeds is at least this."""
HARMFUL = 0.9
"""A fault stands in the table when on the tuning seeds the median share of an unaided run is below this."""


@dataclass(frozen=True, kw_only=True)
class Recoverable:
    """One fault that comes once or for a while, in at least two families.

    `own_machinery`: the fault brings a scaler or a schedule along, so that its clean run is not the family's. `peaks`:
    there is no clean run; what counts is the best metric of the unaided one. `patience`, in evaluations, is what the
    user has declared for the metric of the training's target.
    """

    name: str
    inject: Callable[[Training, int], None]
    onset: int
    families: tuple[str, ...]
    own_machinery: bool = False
    peaks: bool = False
    patience: int | None = None

    def build(self, family: str, seed: int, *, clean: bool = False) -> Training:
        """Return the family's training with the fault, or with all but the fault."""
        training = ALL_FAMILIES[family].build(seed)
        if self.own_machinery or not clean:
            self.inject(training, NEVER if clean else self.onset)
        return training


def chance(training: Training) -> float:
    """Return what the best constant answer gets in the metric of the training's target."""
    data = training.data
    assert data is not None
    metric = training.target.metric
    if metric == "accuracy":
        return float((data.y_validation == data.y_train.flatten().mode().values).float().mean())
    if not data.y_train.is_floating_point():
        return _entropy(data)
    if metric == "loss" and data.y_train.shape[1:] == data.x_train.shape[1:]:
        mean = data.y_train.mean(0).clamp(1e-4, 1 - 1e-4).expand_as(data.y_validation)
        return F.binary_cross_entropy(mean, data.y_validation, reduction="sum").item() / len(mean)
    return F.mse_loss(data.y_train.mean(0).expand_as(data.y_validation), data.y_validation).item()


def _entropy(data: Data) -> float:
    frequencies = torch.bincount(data.y_train.flatten()).double() / data.y_train.numel()
    return -frequencies[data.y_validation.flatten()].clamp_min(1e-9).log().mean().item()


def share(metric: float, clean: float, chance: float) -> float:
    """Return how much of the clean run's gain over chance is there; 0 for a metric that is not finite."""
    value = (metric - chance) / (clean - chance)
    return max(0.0, value) if math.isfinite(value) else 0.0


def best(evaluations: list[tuple[int, Metrics]], training: Training) -> float:
    """Return the best value that the target's metric had."""
    values = [metrics[training.target.metric] for _, metrics in evaluations]
    finite = [value for value in values if math.isfinite(value)]
    return (max if training.target.better == "higher" else min)(finite)


# fmt: off
RECOVERABLE: tuple[Recoverable, ...] = (
    Recoverable(name="bad-batch", inject=faults.bad_batch, onset=40, families=("table-vae", "regression")),
    Recoverable(name="nan-batch", inject=faults.nan_batch, onset=120, families=("cnn", "tabular")),
    Recoverable(name="data-corrupted", inject=faults.data_corrupted, onset=150, families=("table-vae", "regression")),
    Recoverable(
        name="normaliser-dropped", inject=faults.normaliser_dropped, onset=200, families=("tabular", "table-vae")
    ),
    Recoverable(name="gradient-spike", inject=faults.gradient_spike, onset=40, families=("mlp", "table-vae")),
    Recoverable(name="nan-gradient", inject=faults.nan_gradient, onset=120, families=("cnn", "tabular")),
    Recoverable(name="log-of-zero", inject=faults.log_of_zero, onset=120, families=("mlp", "wine")),
    Recoverable(name="rate-burst", inject=faults.rate_burst, onset=200, families=("table-vae", "mlp")),
    Recoverable(
        name="rate-stays-high", inject=faults.rate_stays_high, onset=150, families=("regression", "table-vae")
    ),
    Recoverable(
        name="loss-scale-overflows", inject=faults.loss_scale_overflows, onset=45, families=("mlp", "table-vae"),
        own_machinery=True,
    ),
    Recoverable(name="bit-flip", inject=faults.bit_flip, onset=200, families=("tabular", "table-vae")),
    Recoverable(name="weights-lost", inject=faults.weights_lost, onset=335, families=("mlp", "cnn")),
    Recoverable(name="recurrence-explodes", inject=faults.recurrence_explodes, onset=200, families=("rnn", "tagger")),
    Recoverable(
        name="optimizer-state-corrupted", inject=faults.optimizer_state_corrupted, onset=200,
        families=("mlp", "regression"),
    ),
    Recoverable(
        name="escalation-jumps", inject=faults.escalation_jumps, onset=200, families=("regression", "table-vae"),
        own_machinery=True,
    ),
    Recoverable(
        name="curriculum-jumps", inject=faults.curriculum_jumps, onset=200, families=("mlp", "regression"),
        own_machinery=True,
    ),
    Recoverable(
        name="trained-past-the-peak", inject=faults.trained_past_the_peak, onset=0, families=("tabular", "regression"),
        peaks=True, patience=4,
    ),
)
# fmt: on
"""The faults; strengths and onsets were chosen on the tuning seeds, so that an unaided run does not come back."""
