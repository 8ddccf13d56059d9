"""How the stream model is trained: the settings, the presets and the System."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from trimtab.batches import NumberedBatches
from trimtab.errors import ConfigError
from trimtab.milestone import Milestone
from trimtab.system import System, Training
from trimtab_systems.separability.data import Batch, Split, Structure, bayes, draw
from trimtab_systems.separability.faults import FAULTS
from trimtab_systems.separability.losses import accuracy_by_place, next_token_loss
from trimtab_systems.separability.model import StreamModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one training; the defaults are the reference run."""

    structure: Structure = "repeating"
    """"repeating": both streams repeat their patterns. "random": every token is drawn afresh, nothing can be learnt."""
    vocabulary: int = 128
    """Number of different tokens."""
    length: int = 64
    """Tokens that the model sees in a row, and targets that it predicts."""

    width: int = 40
    """Size of the hidden vectors; a multiple of `heads`."""
    heads: int = 4
    """Attention heads per block."""
    blocks: int = 1
    """Blocks of attention and two linear layers."""
    taps: int = 3
    """Places that the causal convolution on the embeddings reads; without them (0) one block stops at 0.60."""

    steps: int = 800
    """Updates."""
    batch: int = 32
    """Rows in a batch."""
    lr: float = 3e-3
    """Learning rate of Adam after the warm-up."""
    beta2: float = 0.99
    """Adam's decay of the squared gradients; 0.99 because the runs are short."""
    warmup: int = 50
    """Updates over which the learning rate rises in a straight line."""
    clip: float = 1.0
    """Largest global gradient norm; larger ones are scaled down to it."""

    evaluate_every: int = 100
    """Updates between two evaluations."""
    validation_rows: int = 256
    """Held-out rows; the same ones at each evaluation."""

    learns_by: int = 200
    """Update by which the validation loss must be at most `learns` x ln(vocabulary), the loss of a blind guess."""
    learns: float = 0.9
    """See `learns_by`. Healthy seeds 100-104 are at 0.70 or below by then (tiny: 0.77), random tokens at 1.00."""
    reaches_by: int = 800
    """Update by which the validation accuracy must be at least `reaches` x the ceiling."""
    reaches: float = 0.93
    """See `reaches_by`. Healthy seeds 100-104 reach 0.966 or more by then (tiny: 0.91)."""

    def __post_init__(self) -> None:
        if self.structure not in get_args(Structure):
            raise ConfigError(f"structure: expected one of {', '.join(get_args(Structure))}, got {self.structure!r}")
        if self.width % self.heads:
            raise ConfigError(f"width: expected a multiple of heads={self.heads}, got {self.width}")
        least = {"vocabulary": 2, "warmup": 0, "taps": 0, "clip": 1e-12, "lr": 0}
        counts = ("length", "width", "heads", "blocks", "steps", "batch", "evaluate_every", "validation_rows")
        for name, lowest in {**dict.fromkeys(counts, 1), **least}.items():
            if not getattr(self, name) >= lowest:
                raise ConfigError(f"{name}: expected at least {lowest:g}, got {getattr(self, name)!r}")


def tiny() -> Config:
    """Return the settings of a run that takes about two seconds on one core."""
    return Config(
        vocabulary=32,
        length=32,
        width=32,
        steps=200,
        lr=1e-2,
        warmup=20,
        evaluate_every=40,
        learns_by=80,
        reaches_by=200,
        reaches=0.85,
    )


def reference() -> Config:
    """Return the settings of the published run, about 15 seconds on one core."""
    return Config()


def milestones(config: Config) -> tuple[Milestone, ...]:
    """Return the staged checks: the model learns something, then comes near the best that is possible.

    Both are measured against repeating streams whatever `structure` says, so that random tokens miss them.
    """
    chance, best = math.log(config.vocabulary), bayes(config.length, config.vocabulary)
    return (
        Milestone(metric="validation/loss", comparison="<=", value=config.learns * chance, by_step=config.learns_by),
        Milestone(
            metric="validation/accuracy",
            comparison=">=",
            value=config.reaches * best.accuracy,
            by_step=config.reaches_by,
        ),
    )


def build(config: Config, seed: int) -> Training:
    """Return a training whose weights and batches are a function of `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = StreamModel(
            vocabulary=config.vocabulary,
            length=config.length,
            width=config.width,
            heads=config.heads,
            blocks=config.blocks,
            taps=config.taps,
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.9, config.beta2))

    def schedule(update: int) -> None:
        if update < config.warmup:
            for group in optimizer.param_groups:
                group["lr"] = config.lr * (update + 1) / config.warmup

    held_out = _rows(config, seed, "validation", 0, config.validation_rows)

    def evaluate() -> Mapping[str, float]:
        model.eval()
        with torch.no_grad():
            logits_BTV = model(held_out.inputs)
        model.train()
        return {
            "accuracy": accuracy_by_place(logits_BTV, held_out.targets).mean().item(),
            "loss": next_token_loss(logits_BTV, held_out.targets).item(),
        }

    schedule(0)
    return Training(
        model=model,
        optimizers={"main": optimizer},
        batches=NumberedBatches(lambda index: _rows(config, seed, "train", index, config.batch)),
        loss=_loss,
        evaluate=evaluate,
        better={"accuracy": "higher", "loss": "lower"},
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        clip=config.clip,
        schedule=lambda step: schedule(step + 1),
    )


def _loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    return next_token_loss(model(batch.inputs), batch.targets)


def _rows(config: Config, seed: int, split: Split, index: int, rows: int) -> Batch:
    return draw(
        rows=rows,
        length=config.length,
        vocabulary=config.vocabulary,
        structure=config.structure,
        seed=seed,
        split=split,
        index=index,
    )


SYSTEM = System(
    name="separability",
    summary="two repeating streams, interleaved: a small attention model must tell them apart",
    presets={"tiny": tiny, "reference": reference},
    build=build,
    faults=FAULTS,
    milestones=milestones,
)
