"""The write-up's training: its settings, its presets, and how a training is made of them.

All of it is kept as it was, faults included, so that they can be shown; the repaired training is the recipe of the
system itself. Where a setting has a sound value and the write-up's, its text says which is which.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from trimtab.batches import NumberedBatches
from trimtab.checkpoint import Constructor
from trimtab.errors import ConfigError
from trimtab.milestone import Milestone
from trimtab.patience import Patience
from trimtab.system import Training
from trimtab_systems.ternary.data import COUNT, batches_in_epoch, operations
from trimtab_systems.ternary.losses import NEEDED_NATS
from trimtab_systems.ternary.write_up import base
from trimtab_systems.ternary.write_up.homeostasis import Homeostasis
from trimtab_systems.ternary.write_up.losses import Weights
from trimtab_systems.ternary.write_up.model import Controller, HiddenNorm, Reads, WriteUpModel
from trimtab_systems.ternary.write_up.schedule import Schedule, ScheduleKind
from trimtab_systems.ternary.write_up.task import RadiusLoss, Task, batch_maker

Load = Literal["matched", "mismatched", "none"]

RARE = 5
"""Levels from here on have 81 operations in all; batches of a sound training hold them always."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteUpConfig:
    """The settings of one training of the write-up's network; the defaults are its matched, repaired form."""

    profile: Literal["as_written"] = "as_written"
    """Architecture and losses are the write-up's; the corrected system has a recipe of its own."""

    latent: int = 16
    """Dimensions of a code."""
    width: int = 256
    """First hidden layer of an encoder; the next ones have a half and a quarter."""
    hidden: int = 64
    """Hidden units of the heads. The write-up called it the width of its network."""
    dropout: float = 0.0
    """In the heads. The write-up's checkpoint had 0.1, its models none."""
    curvature: float = 1.0
    """c; the ball has the radius 1 / sqrt(c)."""
    max_radius: float = 0.95
    """The largest radius, in units of the ball if `ball_fraction`."""
    ball_fraction: bool = True
    """`max_radius` is a share of the ball. False as in the write-up: a length, and the curvature enters nothing."""
    reads: Reads = "code"
    """What the decoder reads: the "code" of encoder A, or its "point" in the ball, as later versions did."""
    hidden_norm: HiddenNorm = "none"
    """The last hidden vector of an encoder is standardised over its units, by a "guarded" or a "bare" division."""
    second_encoder: bool = False
    """There is an encoder B with a head; both begin as copies of those of A, and are trained on the radii too."""
    second_encoder_rate: float = 0.1
    """Learning rate of encoder B as a multiple of `lr`."""
    controller: bool = False
    """The loss is weighted by what a small network makes of eight statistics."""
    homeostasis: bool = False
    """Encoders and controller are frozen and freed by the rules of the write-up."""

    load: Load = "matched"
    """"matched": all weights of the checkpoint are loaded. "mismatched", as in the write-up: by name, with what does
    not fit passed over in silence, so that the last layers of the heads stay random. "none": from scratch."""
    checkpoint: str = ""
    """Folder of the checkpoint to start from; empty for one that is made in this process, once, in a few seconds."""
    base_seed: int = 0
    """Seed of the checkpoint that is made in this process."""
    freeze_encoder: bool = True
    """Encoder A does not learn."""
    freeze_decoder: bool = True
    """The decoder does not learn."""

    radius_loss: RadiusLoss = "band"
    """"band": each radius is to lie in the band of its level. "level-mean", as in the write-up: only the means of the
    levels are judged. "none": radii are not trained."""
    radius_weight: float = 1.0
    """Of the band loss, beside nats of reconstruction."""
    hierarchy_weight: float = 5.0
    """Of the distance of the means from their targets, with "level-mean"."""
    richness_weight: float = 2.0
    """Of the variance lost inside the levels, with "level-mean"."""
    separation_weight: float = 3.0
    """Of means in the wrong order, with "level-mean"."""
    heads_reach_encoder: bool = False
    """The loss of the radii trains an encoder that is not frozen as well."""
    beta: float = 0.05
    """Weight of the divergence from the prior, in nats beside nats; at 1 an unused code is the optimum."""
    rare_levels: bool = True
    """Each batch holds the 81 operations of valuation 5 and more. The write-up drew batches at random."""

    epochs: int = 20
    """Passes over all operations; 0 for an evaluation of the start alone."""
    batch: int = 512
    """Operations in a batch, the rare ones not counted."""
    lr: float = 1e-3
    """Learning rate of AdamW."""
    heads_rate: float = 1.0
    """Learning rate of the heads as a multiple of `lr`."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    clip: float = 1.0
    """Largest global gradient norm; larger ones are scaled down to it."""
    schedule: ScheduleKind = "none"
    """Of the learning rate, after each epoch: "cosine" down to a hundredth; "step": halved every 15 epochs; "plateau":
    halved after 5 evaluations without a better hierarchy."""
    rebuild_optimizer_each_epoch: bool = False
    """The optimizer forgets its moments after each epoch, as one does that is made anew; phases 1 and 2 did that."""
    evaluate_every_epochs: int = 1
    """Epochs between two evaluations; 5, 10, 3 and 1 in the phases of the write-up."""
    patience: int = 0
    """Evaluations without a better hierarchy after which the training ends; 0 for never."""
    evaluate_on_samples: bool = False
    """Radii are measured on sampled codes, as in the write-up, so that no evaluation comes out twice; otherwise on
    their means."""
    seeded: bool = True
    """Weights and batches are a function of the seed. The write-up's were of nothing."""

    reaches_coverage: float = 0.99
    """The share of operations that are reconstructed at the end."""
    reaches_balanced_d: float = -0.98
    """The mean order of pairs of levels at the end: the base has -0.99 or less, without rare levels -0.94 to -0.97."""
    reaches: float = -0.74
    """The hierarchy that the training must have at its end. The base, seeds 0, 1 and 3, has -0.78 or less."""

    def __post_init__(self) -> None:
        words: dict[str, Any] = {"load": Load, "radius_loss": RadiusLoss, "schedule": ScheduleKind, "reads": Reads}
        words |= {"hidden_norm": HiddenNorm}
        for name, kind in words.items():
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise ConfigError(f"{name}: expected one of {known}, got {getattr(self, name)!r}")
        counts = ("latent", "width", "hidden", "batch", "evaluate_every_epochs")
        least = {**dict.fromkeys(counts, 1), "epochs": 0, "patience": 0, "lr": 0.0, "beta": 0.0, "weight_decay": 0.0}
        for name, lowest in least.items():
            if not getattr(self, name) >= lowest:
                raise ConfigError(f"{name}: expected at least {lowest:g}, got {getattr(self, name)!r}")
        for name in ("curvature", "max_radius", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected more than 0, got {getattr(self, name)!r}")
        if self.ball_fraction and not self.max_radius < 1:
            raise ConfigError(f"max_radius: expected a share of the ball, less than 1, got {self.max_radius!r}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: expected a share from 0 to below 1, got {self.dropout!r}")
        if self.load == "none" and self.checkpoint:
            raise ConfigError(f"checkpoint: with load='none' nothing is loaded, got {self.checkpoint!r}; leave it out")
        if self.radius_loss == "none" and self.freeze_encoder and self.freeze_decoder:
            raise ConfigError("radius_loss: with 'none' and everything frozen there is nothing to train")


def updates_per_epoch(config: WriteUpConfig) -> int:
    """Return how many batches it takes to meet every operation once."""
    return batches_in_epoch(COUNT, config.batch)


def build(config: WriteUpConfig, seed: int) -> Training:
    """Return a training whose weights and batches are a function of `seed`, unless the settings say otherwise."""
    if not config.seeded:
        seed = int.from_bytes(os.urandom(4), "little")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(config)
        controller = Controller() if config.controller else None
    _start(config, model)
    frozen_encoder, frozen_decoder = config.freeze_encoder and not config.homeostasis, config.freeze_decoder
    model.encoder.requires_grad_(not config.freeze_encoder)
    model.decoder.requires_grad_(not frozen_decoder)
    if config.reads == "code":  # then no loss reaches a direction
        for projection in (model.projection, model.projection_b):
            if projection is not None:
                projection.direction_net.requires_grad_(False)
    task = Task(
        model=model,
        radius_loss=config.radius_loss,
        weights=Weights(
            hierarchy=config.hierarchy_weight, richness=config.richness_weight, separation=config.separation_weight
        ),
        radius_weight=config.radius_weight,
        beta=config.beta,
        reach_encoder=config.heads_reach_encoder,
        frozen_encoder=frozen_encoder,
        frozen_decoder=frozen_decoder,
        sampled=config.evaluate_on_samples,
        controller=controller,
        homeostasis=Homeostasis() if config.homeostasis else None,
    )
    optimizer = torch.optim.AdamW(_groups(config, model, controller), weight_decay=config.weight_decay, fused=True)
    schedule = Schedule(optimizer, config.schedule, config.epochs)
    task.told = schedule.evaluated
    length = updates_per_epoch(config)

    def after(step: int) -> None:
        epochs, rest = divmod(step + 1, length)
        if rest == 0:
            schedule.after(epochs)
            if config.rebuild_optimizer_each_epoch:
                optimizer.state.clear()

    steps = config.epochs * length
    batches = batch_maker(
        size=config.batch,
        always=torch.nonzero(operations().level >= RARE).squeeze(1) if config.rare_levels else torch.arange(0),
        latent=config.latent,
        seed=seed,
    )
    parts: dict[str, Any] = {"schedule": schedule}
    if task.homeostasis is not None:
        parts["homeostasis"] = task.homeostasis
    return Training(
        model=model if controller is None else nn.ModuleDict({"network": model, "controller": controller}),
        optimizers={"main": optimizer},
        batches=NumberedBatches(batches),
        loss=task.loss,
        evaluate=task.evaluate,
        better={"hierarchy": "lower", "balanced_d": "lower", "coverage": "higher", "loss": "lower"},
        steps=steps,
        evaluate_every=config.evaluate_every_epochs * length,
        clip=config.clip,
        schedule=after,
        parts=parts,
        evaluate_first=True,
        early_stop=Patience(metric="validation/hierarchy", better="lower", patience=config.patience)
        if config.patience
        else None,
    )


def _model(config: WriteUpConfig) -> WriteUpModel:
    model = Constructor.of(
        WriteUpModel,
        latent=config.latent,
        width=config.width,
        hidden=config.hidden,
        dropout=config.dropout,
        curvature=config.curvature,
        max_radius=config.max_radius,
        ball_fraction=config.ball_fraction,
        second_encoder=config.second_encoder,
        reads=config.reads,
        hidden_norm=config.hidden_norm,
    ).build()
    assert isinstance(model, WriteUpModel)
    return model


def _start(config: WriteUpConfig, model: WriteUpModel) -> None:
    if config.load == "none":
        return
    path = config.checkpoint or base_checkpoint(config.latent, config.width, config.hidden, config.base_seed)
    (base.load_matched if config.load == "matched" else base.load_mismatched)(model, path)


def _groups(config: WriteUpConfig, model: WriteUpModel, controller: Controller | None) -> list[dict[str, Any]]:
    """Return the groups of the optimizer: heads and controller, what learns of A, encoder B."""
    heads = [*model.projection.parameters()]
    if model.projection_b is not None:
        heads += model.projection_b.parameters()
    if controller is not None:
        heads += controller.parameters()
    first = [*model.encoder.parameters(), *model.decoder.parameters()]
    second = [] if model.encoder_b is None else [*model.encoder_b.parameters()]
    rates = [(heads, config.heads_rate), (first, 1.0), (second, config.second_encoder_rate)]
    may = config.homeostasis  # frozen parts may be freed later
    groups = [{"params": [one for one in some if may or one.requires_grad], "lr": config.lr * k} for some, k in rates]
    return [group for group in groups if group["params"]]


@cache
def base_checkpoint(latent: int, width: int, hidden: int, seed: int) -> Path:
    """Train the checkpoint that others start from, once in a process, and return its folder."""
    config = replace(write_up_base(), latent=latent, width=width, hidden=hidden)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = build(config, seed)
        base.train_plainly(training)
    return base.keep(training, f"{latent}-{width}-{hidden}-{seed}")


def milestones(config: WriteUpConfig) -> tuple[Milestone, ...]:
    """Return what must hold at the end of the training; the last values count, as all of it can be had and lost."""
    asked: tuple[tuple[str, Literal[">=", "<="], float], ...] = (
        ("kl", ">=", NEEDED_NATS),
        ("coverage", ">=", config.reaches_coverage),
        ("hierarchy", "<=", config.reaches),
        ("balanced_d", "<=", config.reaches_balanced_d),
    )
    end = config.epochs * updates_per_epoch(config)
    return tuple(
        Milestone(metric=f"validation/{name}", comparison=sign, value=value, by_step=end, counts="last")
        for name, sign, value in asked
    )


# --- presets --------------------------------------------------------------------------------------


def write_up_base() -> WriteUpConfig:
    """Return the training of the checkpoint: encoder and decoder first of all, heads with a dropout on top."""
    return WriteUpConfig(
        load="none", freeze_encoder=False, freeze_decoder=False, heads_reach_encoder=True, dropout=0.1, beta=0.01,
        radius_weight=0.2, lr=4e-3, heads_rate=4.0, clip=10.0, schedule="cosine", epochs=10,
    )  # fmt: skip


def write_up_matched() -> WriteUpConfig:
    """Return the sound form of the write-up's fine-tuning: everything loaded, single radii judged."""
    return WriteUpConfig()


def as_written() -> WriteUpConfig:
    """Return the fine-tuning as it was: heads half random, level means judged, radii on samples."""
    return WriteUpConfig(
        load="mismatched", radius_loss="level-mean", rare_levels=False, ball_fraction=False, max_radius=0.99,
        evaluate_on_samples=True, lr=3e-4, epochs=60, curvature=2.0,
    )  # fmt: skip


def max_hierarchy() -> WriteUpConfig:
    """Return the write-up's best configuration "for maximum hierarchy"."""
    return replace(as_written(), patience=5, epochs=10)


def stable() -> WriteUpConfig:
    """Return the write-up's best configuration "for stable training"."""
    return replace(as_written(), schedule="cosine")


PRESETS: Mapping[str, Callable[[], WriteUpConfig]] = {
    "as-written": as_written,
    "max-hierarchy": max_hierarchy,
    "stable": stable,
    "write-up-base": write_up_base,
    "write-up-matched": write_up_matched,
}
