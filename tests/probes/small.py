"""Small trainings, healthy and broken, for the tests of the probes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from trimtab.batches import Batches
from trimtab.probes import Subject
from trimtab.system import Training


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the small trainings."""

    family: Literal["dense", "convolution", "recurrent", "autoencoder"] = "dense"
    """What the model is."""
    hidden: int = 8
    """Hidden units."""
    lr: float = 0.05
    """Learning rate."""
    momentum: float = 0.5
    """Of SGD."""
    steps: int = 24
    """Updates."""
    warmup: int = 4
    """Updates over which the learning rate rises."""
    decay_from: float = 0.8
    """Share of the updates after which the learning rate is halved."""
    evaluate_every: int = 8
    """Updates between evaluations."""
    clip: float = 5.0
    """Largest gradient norm; never reached."""


def model_of(config: Config) -> nn.Module:
    """Return a model from (B, 1, 6) to (B, 3), or to (B, 6) for the autoencoder."""
    width = config.hidden
    if config.family == "convolution":
        return nn.Sequential(
            nn.Conv1d(1, width, 3), nn.BatchNorm1d(width), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 3)
        )
    if config.family == "recurrent":
        return Recurrent(width)
    if config.family == "autoencoder":
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))
        decoder = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 6))
        return nn.Sequential(encoder, decoder)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


class Recurrent(nn.Module):
    """A recurrent layer over six places, and a linear one on its last state."""

    def __init__(self, width: int):
        super().__init__()
        self.cell = nn.GRU(1, width, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, 3) for (B, 1, 6)."""
        scores: torch.Tensor = self.head(self.cell(x.transpose(1, 2))[0][:, -1])
        return scores


def data(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 64 inputs (64, 1, 6) and their classes (64,)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 1, 6, generator=generator)
    return x, x[:, 0].reshape(64, 3, 2).sum(-1).argmax(-1)


def build(config: Config, seed: int, change: Callable[[nn.Module], Any] = lambda model: None) -> Training:
    """Return a training; `change` is called with the model before its optimizer is made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_of(config)
        change(model)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=config.lr, momentum=config.momentum)
    held_out = data(1000)

    def schedule(step: int) -> None:
        late = 0.5 if step + 1 >= config.decay_from * config.steps else 1.0
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min((step + 1) / max(config.warmup, 1), 1.0) * late

    def evaluate() -> dict[str, float]:
        model.eval()
        with torch.no_grad():
            value = loss_of(model, held_out).item()
        model.train()
        return {"loss": value}

    schedule(-1)
    return Training(
        model=model, optimizers={"main": optimizer}, batches=Batches(data(seed), 16, seed), loss=loss_of,
        evaluate=evaluate, better={"loss": "lower"}, steps=config.steps, evaluate_every=config.evaluate_every,
        clip=config.clip, schedule=schedule,
    )  # fmt: skip


def loss_of(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return cross-entropy, or the squared error of the reconstruction where the model gives six numbers."""
    x, y = batch
    out = model(x)
    return F.mse_loss(out, x[:, 0]) if out.shape[1] == 6 else F.cross_entropy(out, y)


FAMILIES = ("dense", "convolution", "recurrent", "autoencoder")


def subject(
    make: Callable[[Any, int], Training] = build, family: Any = "dense", seed: int = 0, **settings: Any
) -> Subject:
    """Return what is probed: a small training, or what `make` makes of the settings."""
    return Subject(name=f"small-{family}", make=make, config=Config(family=family, **settings), seed=seed)


def freeze(*modules: nn.Module) -> None:
    """Freeze these modules."""
    for one in modules:
        one.requires_grad_(False)


def parts(model: nn.Module) -> list[nn.Module]:
    """Return the modules of a model that have parameters of their own, in order."""
    return [one for one in model.modules() if next(one.parameters(recurse=False), None) is not None]


def counting() -> Iterator[int]:
    """Return a counter that all copies share: what a hidden state outside `build` is like."""
    return itertools.count(1)
